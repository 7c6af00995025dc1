// The engine and the kernel without the views, for the browser tests. Built only by `vite build --mode test`.

import { EditorView } from "@codemirror/view";
import { Kernel, type Report } from "../kernel/client";
import { Engine } from "./client";

declare global {
  interface Window {
    engine: Engine;
    kernel: Kernel;
    /** Packs a run and trains it to its end; what came of it, put together, and the time of each part in ms. */
    trainNow: (args: Record<string, unknown> | null) => Promise<unknown>;
    seen: { name: string; at: number; value: unknown }[];
  }
}

const engine = new Engine();
window.engine = engine;
window.seen = [];
for (const name of ["status", "progress", "ready", "train", "print", "restarted"] as const)
  engine.on(name, (value) => {
    window.seen.push({ name, at: performance.now(), value });
    document.querySelector("#status")!.textContent = engine.status;
  });
new EditorView({ doc: "x = 1", parent: document.body }); // its styles must pass the policy
if (location.hash !== "#wait") engine.start();

const kernel = new Kernel();
window.kernel = kernel;
let heard: (report: Report | { message: string }) => void = () => undefined;
kernel.on("report", (report) => heard(report));
kernel.on("refused", (why) => heard(why));
kernel.on("failed", (message) => heard({ message }));

window.trainNow = async (args) => {
  const begun = performance.now();
  const answer = args === null ? null : await engine.exchange<{ refused: string | null }>("pack", args);
  const pack = answer === null ? null : answer.parcel;
  if (pack === undefined) return { refused: answer?.ok.refused };
  const packed = performance.now();
  const reports: Report[] = [];
  const problem = await new Promise<string | null>((resolve) => {
    heard = (heard) => {
      if ("message" in heard) return resolve(heard.message);
      reports.push(heard);
      if (heard.done) resolve(null);
    };
    kernel.start();
    if (kernel.status === "failed") resolve("failed");
    else kernel.train(pack);
  });
  const end = performance.now();
  if (problem !== null) return { problem };
  const last = reports.at(-1)!;
  return {
    losses: reports.flatMap((r) => [...r.losses].map((x) => (Number.isFinite(x) ? x : String(x)))),
    heldOut: reports.flatMap((r) => r.heldOut),
    samples: reports.flatMap((r) => r.samples), steps: last.step, run: last.run, diverged: last.diverged && { ...last.diverged, loss: String(last.diverged.loss) },
    snapshots: reports.flatMap((r) => r.snapshots.map((s) => s.step)),
    trained: last.trained && [...last.trained].slice(0, 8), seconds: last.seconds, packing: packed - begun, training: end - packed,
    reports: reports.length,
  };
};
