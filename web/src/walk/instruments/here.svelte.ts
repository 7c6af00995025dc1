/** A training that runs in the reader's browser: its losses as they come, and a look at the model now and then. */

import type { Engine, TrainEvent } from "../../engine/client";
import { Kernel } from "../../kernel/client";
import type { Boot, Measure, Num, Peek, RunInfo, Samples } from "../../types";
import { finite } from "../../views/wording";
import type { TrainingAnswer } from "../types";
import type { Live } from "./props";

/** A moment of this training, and the tokens whose attention it shows: the text may have changed since. */
type Moment = TrainingAnswer["moments"][number] & { tokens: string[] };

const LOOKS = [0, 1, 10, 30, 60, 100, 150, 200, 300]; // steps at which the model is looked at; then every 100th
const MEASURED = 50; // held-out documents, the same as in the recording
const REDRAW = 150; // ms between two redrawings of the curve

export class Here {
  /** recorded: nothing has been trained here. waiting: Python is not there yet. */
  status = $state<"recorded" | "waiting" | "running" | "paused" | "stopped" | "done" | "failed">("recorded");
  losses = $state.raw<(number | null)[]>([]);
  moments = $state.raw<Moment[]>([]);
  steps = $state(0);
  problem = $state<string | null>(null);

  readonly #live: () => Live | null;
  readonly #text: () => string;
  readonly #other: () => string;
  #seed: number | null = null;
  #all: (number | null)[] = [];
  #drawn = 0;
  #looking = false;
  #quick = false; // by the kernel
  #kernel: Kernel | null = null; // while it trains
  #again = false; // asked to look while a look was under way
  #off: (() => void)[] = [];
  #run = 0; // which training an answer belongs to

  /** `other` is looked at where the reader's text cannot be read. */
  constructor(live: () => Live | null, text: () => string, other: () => string) {
    this.#live = live;
    this.#text = text;
    this.#other = other;
    $effect(() => {
      if (this.status !== "waiting" || this.#live()?.status !== "ready") return;
      if (this.#quick) void this.atOnce(this.#seed);
      else void this.start(this.#seed);
    });
    $effect(() => () => this.leave());
  }

  get #engine(): Engine | null { return this.#live()?.engine ?? null; }

  /** Whether the page can train with the kernel. */
  readonly carriesKernel = Kernel.carried;

  /** Python, if it is there; otherwise it is awaited, and the training begins by itself then. */
  #ready(seed: number | null, quick: boolean): Engine | null {
    this.#seed = seed;
    this.#quick = quick;
    this.problem = null;
    const live = this.#live();
    const engine = this.#engine;
    if (live?.status === "ready" && engine) return engine;
    if (live?.status === "recorded") live.start();
    if (live?.status === "loading") this.status = "waiting";
    else this.#fail(live?.status === "failed" ? "Python could not be started here, so nothing can be trained." : "This page has no Python to train with.");
    return null;
  }

  /** The whole training by the kernel, and then a look at the model at each moment that was kept of it. */
  async atOnce(seed: number | null): Promise<void> {
    const engine = this.#ready(seed, true);
    if (!engine) return;
    this.#forget();
    const run = this.#run;
    this.status = "running";
    const kernel = (this.#kernel = new Kernel(new URL("../", document.baseURI)));
    try {
      const asked = { source: (engine.boot as Boot).source, data: "names", ...(seed === null ? {} : { seed }) };
      const { ok, parcel } = await engine.exchange<{ refused: string | null }>("pack", asked);
      if (!parcel) throw new Error(ok.refused ?? "This training could not be prepared.");
      const reports = await kernel.whole(parcel, (report) => {
        this.#all.push(...report.losses);
        this.steps = report.run.steps;
        this.#draw();
      });
      const last = reports.at(-1);
      if (last?.diverged) throw new Error(`The loss became no number at step ${last.step + 1}.`);
      if (!last?.trained || run !== this.#run || this.status !== "running") return;
      const losses = reports.flatMap((report) => [...report.losses]);
      await engine.call("take", { ...asked, seed: last.run.seed, step: last.step, losses }, last.trained.buffer);
      const { documents } = await engine.call<{ documents: string[] }>("documents", { data: "names" });
      const known = new Set(documents);
      for (const { step, weights } of reports.flatMap((report) => report.snapshots)) {
        const { peek, doc } = await this.#peek(engine, step, weights.buffer);
        if (run !== this.#run || this.status !== "running") return;
        const held = reports.flatMap((report) => report.heldOut).find((h) => h.step === step)?.losses[0];
        const texts = reports.flatMap((report) => report.samples).find((s) => s.step === step)?.texts ?? [];
        if (typeof held === "number") this.#keep(peek, doc, held, texts.map((text) => ({ text, known: known.has(text) })));
      }
      this.status = "done";
    } catch (error) {
      if (run === this.#run && this.status === "running") this.#fail(error instanceof Error ? error.message : String(error));
    } finally {
      kernel.close();
      if (this.#kernel === kernel) this.#kernel = null;
    }
  }

  /** A new training from the file's first weights; with its own seed when none is given. */
  async start(seed: number | null): Promise<void> {
    const engine = this.#ready(seed, false);
    if (!engine) return;
    this.#forget();
    const run = this.#run;
    this.status = "running";
    this.#off = [
      engine.on("train", (event) => this.#hear(event)),
      engine.on("restarted", (reason) => {
        if (this.status !== "running") return;
        if (reason.kind === "stopped") this.status = "stopped";
        else this.#fail(reason.message);
      }),
    ];
    try {
      const info = await engine.call<RunInfo>("start", { source: (engine.boot as Boot).source, data: "names", ...(seed === null ? {} : { seed }) });
      if (run !== this.#run) return;
      this.steps = info.steps;
      await this.#look();
      if (run === this.#run && this.status === "running") await engine.train();
    } catch (error) {
      if (run === this.#run && this.status === "running") this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  async pause(): Promise<void> {
    if (this.#kernel) return this.stop();
    this.status = "paused";
    await this.#engine?.pause();
    this.#draw();
    await this.#look();
  }

  async resume(): Promise<void> {
    this.status = "running";
    try {
      await this.#engine?.train();
    } catch (error) {
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  async stop(): Promise<void> {
    this.status = "stopped";
    if (this.#kernel) return this.#kernel.close();
    const replaced = (await this.#engine?.stop()) ?? false;
    this.#draw();
    if (!replaced) await this.#look();
    this.#deafen();
  }

  /** Back to the recorded run; what was trained here is forgotten. */
  leave(): void {
    if (this.status === "running") void this.#engine?.pause();
    this.#kernel?.close();
    this.#forget();
    this.status = "recorded";
    this.problem = null;
  }

  #forget(): void {
    this.#run += 1;
    this.#deafen();
    this.#all = [];
    this.losses = [];
    this.moments = [];
  }

  #deafen(): void {
    for (const off of this.#off) off();
    this.#off = [];
  }

  #fail(message: string): void {
    this.status = "failed";
    this.problem = message;
    this.#draw();
    this.#deafen();
  }

  #hear(event: TrainEvent): void {
    if (event.error) return this.#fail(event.error.message);
    this.#all.push(...event.losses.map((x) => finite(x as Num)));
    this.steps = event.steps;
    const now = performance.now();
    if (now - this.#drawn > REDRAW || event.done || !event.running) this.#draw();
    if (event.done) {
      this.status = "done";
      void this.#look().then(() => this.#deafen());
    } else {
      const last = this.moments.at(-1)?.step ?? -1;
      const next = LOOKS.find((s) => s > last) ?? (Math.floor(last / 100) + 1) * 100;
      if (event.step >= next && !this.#looking) void this.#look();
    }
  }

  #draw(): void {
    this.#drawn = performance.now();
    this.losses = [...this.#all];
  }

  /** A look at the model, as it is or as it was with these weights; through the other text where this one cannot be read. */
  async #peek(engine: Engine, step?: number, weights?: ArrayBuffer): Promise<{ peek: Peek; doc: string }> {
    const look = (doc: string): Promise<Peek> => engine.call<Peek>("peek", { doc, ...(weights ? { step } : {}) }, weights?.slice(0));
    const doc = this.#text();
    try {
      return { peek: await look(doc), doc };
    } catch {
      return { peek: await look(this.#other()), doc: this.#other() };
    }
  }

  #keep(peek: Peek, doc: string, heldOut: number, samples: Moment["samples"]): void {
    const number = (x: Num): number => finite(x) ?? 0;
    this.moments = [...this.moments, {
      step: peek.step, heldOut, tokens: ["\n", ...doc], samples,
      attention: peek.attention,
      labels: peek.projection?.labels ?? [],
      points: (peek.projection?.points ?? []).map(([x, y]): [number, number] => [number(x), number(y)]),
      wte: peek.embeddings.find((e) => e.name === "wte")?.rows ?? [],
    }];
  }

  /** Held-out loss, samples and attention of the model as it is; one look at a time. */
  async #look(): Promise<void> {
    const engine = this.#engine;
    if (this.#looking) this.#again = true;
    if (!engine || this.#looking) return;
    this.#looking = true;
    const run = this.#run;
    const training = engine.training;
    try {
      if (training) await engine.pause(); // so that all that is told of a step is of that step
      const { peek, doc } = await this.#peek(engine);
      const samples = await engine.call<Samples>("samples", { n: 6, seed: peek.step });
      const measure = await engine.call<Measure>("measure", { limit: MEASURED });
      const held = finite(measure.held_out);
      if (run === this.#run && held !== null && peek.step !== this.moments.at(-1)?.step)
        this.#keep(peek, doc, held, samples.texts.map((text, i) => ({ text, known: samples.known?.[i] ?? false })));
    } catch {
      // A look that fails leaves a gap; what ends the training is told by the training itself.
    }
    this.#looking = false;
    if (training && run === this.#run && this.status === "running") {
      engine.train().catch((error: unknown) => this.#fail(error instanceof Error ? error.message : String(error)));
    }
    if (this.#again) {
      this.#again = false;
      await this.#look();
    }
  }
}
