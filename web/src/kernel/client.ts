/** The page's side of the kernel: one worker, the newest run, and a Stop that works. */

import type { FromKernel, Report, ToKernel } from "./protocol";

export type { HeldOut, Report, Snapshot, Written } from "./protocol";

/** Put in by the build: the kernel's file and the pack of the original file, beside the page; null without a compiler. */
declare const __KERNEL__: { file: string; first: string } | null;

const PATIENCE = 1_500; // ms that Stop waits for a worker before it ends it

export interface KernelEvents {
  /** It trains from now on; comes again when it had to be started anew. */
  ready: undefined;
  /** It cannot be used here, in a sentence. */
  failed: string;
  report: Report;
  /** This run cannot be trained, in a sentence. */
  refused: { id: number; message: string };
  /** It was ended for good. */
  closed: undefined;
  /** The pack that should have come with the page did not. */
  missing: { id: number };
}

export class Kernel {
  /** The run that was asked for last. */
  id = 0;
  status: "idle" | "loading" | "ready" | "failed" = "idle";
  busy = false;
  readonly #beside: string | URL;
  #worker: Worker | null = null;
  #waiting: { train: ArrayBuffer | null } | null = null;
  #deaf: ReturnType<typeof setTimeout> | undefined;
  #listeners = new Map<string, Set<(value: never) => void>>();

  /** `beside`: the address of the folder in which the workbench's page lies. */
  constructor(beside: string | URL = document.baseURI) {
    this.#beside = beside;
  }

  /** Whether the page carries a kernel. */
  static get carried(): boolean {
    return __KERNEL__ !== null;
  }

  /** Listens to an event; the result ends the listening. */
  on<Name extends keyof KernelEvents>(name: Name, listener: (value: KernelEvents[Name]) => void): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(listener));
    return () => void set.delete(listener);
  }

  start(): void {
    if (this.#worker || __KERNEL__ === null) return;
    this.status = "loading";
    try {
      this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "kernel" });
    } catch {
      return this.#fail("This browser cannot run the fast engine: it has no module workers.");
    }
    this.#worker.onmessage = ({ data }: MessageEvent<FromKernel>) => this.#hear(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail("The fast engine could not be started; Python does the training.");
    };
    const [kernel, first] = [__KERNEL__.file, __KERNEL__.first].map((name) => new URL(name, this.#beside).href);
    this.#send({ kernel: kernel!, first: first! });
  }

  /** Trains a pack to its end: all reports of it, or none when this was closed. Rejects when it cannot be trained. */
  async whole(pack: ArrayBuffer, each: (report: Report) => void = () => {}): Promise<Report[]> {
    const reports: Report[] = [];
    const off: (() => void)[] = [];
    try {
      return await new Promise((resolve, reject) => {
        off.push(
          this.on("report", (report) => {
            reports.push(report);
            each(report);
            if (report.done) resolve(reports);
          }),
          this.on("refused", ({ message }) => reject(new Error(message))),
          this.on("failed", (message) => reject(new Error(message))),
          this.on("closed", () => resolve([])),
        );
        this.start();
        this.train(pack);
      });
    } finally {
      for (const end of off) end();
    }
  }

  /** Trains a pack, or with null the one that came with the page, in place of whatever is trained; its number. */
  train(pack: ArrayBuffer | null): number {
    this.id += 1;
    this.busy = true;
    this.#waiting = { train: pack };
    if (this.status === "ready") this.#begin();
    return this.id;
  }

  #begin(): void {
    if (!this.#waiting) return;
    const { train } = this.#waiting;
    this.#waiting = null;
    this.#send({ train, id: this.id }, train ? [train] : []);
  }

  /** Ends the run, which is reported as far as it came; a worker that does not answer is ended, and another started. */
  stop(): void {
    this.#waiting = null;
    if (!this.busy || !this.#worker) return;
    this.busy = false;
    this.#send({ stop: true });
    clearTimeout(this.#deaf);
    this.#deaf = setTimeout(() => {
      this.#worker?.terminate();
      this.#worker = null;
      this.start();
    }, PATIENCE);
  }

  /** No run is reported any more, until the next one. */
  forget(): void {
    this.id += 1;
  }

  close(): void {
    clearTimeout(this.#deaf);
    this.#worker?.terminate();
    this.#worker = null;
    this.status = "idle";
    this.#tell("closed", undefined);
  }

  #send(message: ToKernel, give: Transferable[] = []): void {
    this.#worker?.postMessage(message, give);
  }

  #fail(message: string): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#waiting = null;
    this.busy = false;
    this.status = "failed";
    this.#tell("failed", message);
  }

  #hear(message: FromKernel): void {
    clearTimeout(this.#deaf);
    switch (message.event) {
      case "ready":
        this.status = "ready";
        this.#tell("ready", undefined);
        return this.#begin();
      case "failed":
        return this.#fail(message.message);
      case "stopped":
        return;
      case "refused":
      case "missing":
        if (message.id !== this.id) return;
        this.busy = false;
        if (message.event === "missing") return this.#tell("missing", message);
        return this.#tell("refused", message);
      case "report":
        if (message.id !== this.id) return;
        if (message.done) this.busy = false;
        return this.#tell("report", message);
    }
  }

  #tell<Name extends keyof KernelEvents>(name: Name, value: KernelEvents[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) listener(value as never);
  }
}
