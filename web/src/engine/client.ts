// The page's side of the engine: one worker with Python in it, calls that wait for it, and a Stop that works.

import type { Failure, FromWorker, Progress, PythonFiles, ToWorker, TrainEvent } from "./protocol";

export type { Advance, Failure, Phase, Progress, TrainEvent } from "./protocol";

/** idle: not started. loading: see `progress`. busy: a call or a training is running. failed: see `failure`. */
export type Status = "idle" | "loading" | "ready" | "busy" | "failed";

/** What an engine tells its listeners, by event name. */
export interface EngineEvents {
  /** The status or the failure changed. */
  status: Status;
  /** Python has come further in starting. */
  progress: Progress;
  /** Python answers now; the value is the answer of `boot`. Comes again after a restart. */
  ready: unknown;
  /** The training went on, ended, or failed. */
  train: TrainEvent;
  /** The reader's program printed these lines. */
  print: string;
  /** The worker was replaced: its run and its session are gone, and the page starts them anew. */
  restarted: Failure;
}

/** A refused call: the sentence, the line of the file if there is one, and the kind. */
export class EngineError extends Error {
  readonly line: number | null;
  readonly kind: Failure["kind"];
  constructor({ message, line, kind }: Failure) {
    super(message);
    this.name = "EngineError";
    this.line = line;
    this.kind = kind;
  }
}

interface Waiting {
  call: string;
  args: Record<string, unknown>;
  parcel: ArrayBuffer | undefined;
  resolve: (value: { ok: unknown; parcel?: ArrayBuffer }) => void;
  reject: (error: EngineError) => void;
}

/** Put in by the build; the folder is relative to the workbench's page. */
declare const __PYTHON__: PythonFiles;

const PATIENCE_MS = 1200; // how long Stop waits for a worker before it ends it
const STOPPED: Failure = { message: "Stopped.", line: null, kind: "stopped" };

export class Engine {
  status: Status = "idle";
  progress: Progress | null = null;
  failure: Failure | null = null;
  /** The answer of the last `boot`. */
  boot: unknown = null;
  /** True while the training loop runs. */
  training = false;

  readonly #beside: string | URL;
  #worker: Worker | null = null;
  #waiting = new Map<number, Waiting>();
  #queue: Waiting[] = [];
  #next = 1;
  #stopping: Promise<boolean> | null = null;
  #listeners = new Map<string, Set<(value: never) => void>>();

  /** `beside`: the address of the folder in which the workbench's page lies. */
  constructor(beside: string | URL = document.baseURI) {
    this.#beside = beside;
  }

  /** Listens to an event; the result ends the listening. */
  on<Name extends keyof EngineEvents>(
    name: Name,
    listener: (value: EngineEvents[Name]) => void,
  ): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(listener));
    return () => void set.delete(listener);
  }

  /** Starts Python in the background. Does nothing while it is starting or there; tries again after a failure. */
  start(): void {
    if (this.#worker) return;
    this.failure = null;
    this.#setStatus("loading");
    let worker: Worker;
    try {
      worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    } catch {
      return this.#fail("This browser cannot run Python in the page: it has no module workers.");
    }
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#hear(data);
    worker.onerror = (event) => {
      event.preventDefault();
      if (this.status === "loading")
        this.#fail("Python could not be loaded. Check the connection, then try again.");
      else this.#restart({ message: "Python stopped working.", line: null, kind: "broken" });
    };
    const files: PythonFiles = {
      ...__PYTHON__,
      folder: new URL(__PYTHON__.folder, this.#beside).href,
    };
    this.#send({ boot: files });
  }

  /** Asks the bridge. Waits until Python is there; rejects with an EngineError. `parcel`: bytes that go with it. */
  async call<Answer = unknown>(name: string, args: Record<string, unknown> = {}, parcel?: ArrayBuffer): Promise<Answer> {
    return (await this.exchange<Answer>(name, args, parcel)).ok;
  }

  /** The same, for a call whose answer comes with bytes. */
  exchange<Answer = unknown>(
    name: string,
    args: Record<string, unknown> = {},
    parcel?: ArrayBuffer,
  ): Promise<{ ok: Answer; parcel?: ArrayBuffer }> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { call: name, args, parcel, resolve: resolve as Waiting["resolve"], reject };
      if (this.status === "failed") reject(new EngineError(this.failure!));
      else if (this.status === "idle" || this.status === "loading") this.#queue.push(waiting);
      else this.#ask(waiting);
    });
  }

  /** Starts the training loop of the current run; `train` events follow. */
  async train(): Promise<void> {
    this.training = true;
    this.#settle();
    try {
      await this.call("train");
    } catch (error) {
      this.training = false;
      this.#settle();
      throw error;
    }
  }

  /** Halts the training loop after the step in hand. */
  async pause(): Promise<void> {
    if (this.status === "idle" || this.status === "loading" || this.status === "failed") return;
    await this.call("pause");
    this.training = false;
    this.#settle();
  }

  /**
   * Stops whatever runs. A worker that stays deaf is ended and replaced, and `restarted` is told;
   * calls that were waiting are rejected as "stopped". Resolves to whether it came to that.
   */
  stop(patience = PATIENCE_MS): Promise<boolean> {
    this.#stopping ??= this.#stop(patience).finally(() => (this.#stopping = null));
    return this.#stopping;
  }

  /** Ends the worker for good. */
  close(): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#drop(STOPPED);
    this.#setStatus("idle");
  }

  async #stop(patience: number): Promise<boolean> {
    this.#reject(this.#queue.splice(0), STOPPED);
    if (this.status !== "ready" && this.status !== "busy") return false;
    const deaf = new Promise<boolean>((resolve) => setTimeout(resolve, patience, true));
    const heard = this.pause().then(
      () => false,
      () => false,
    );
    if (!(await Promise.race([heard, deaf]))) return false;
    this.#restart(STOPPED);
    return true;
  }

  #restart(reason: Failure): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#drop(reason);
    this.start();
    this.#tell("restarted", reason);
  }

  #fail(message: string): void {
    this.failure = { message, line: null, kind: "start" };
    this.#worker?.terminate();
    this.#worker = null;
    this.#drop(this.failure);
    this.#setStatus("failed");
  }

  #drop(reason: Failure): void {
    this.training = false;
    const waiting = [...this.#waiting.values(), ...this.#queue.splice(0)];
    this.#waiting.clear();
    this.#reject(waiting, reason);
  }

  #reject(waiting: Waiting[], reason: Failure): void {
    for (const { reject } of waiting) reject(new EngineError(reason));
  }

  #ask(waiting: Waiting): void {
    const id = this.#next++;
    this.#waiting.set(id, waiting);
    this.#settle();
    const { call, args, parcel } = waiting;
    if (parcel) this.#send({ id, call, args, parcel }, [parcel]);
    else this.#send({ id, call, args });
  }

  #send(message: ToWorker, give: Transferable[] = []): void {
    this.#worker!.postMessage(message, give);
  }

  #hear(message: FromWorker): void {
    if ("id" in message) {
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if ("ok" in message) waiting?.resolve(message);
      else {
        waiting?.reject(new EngineError(message.error));
        if (message.error.kind === "broken") return this.#restart(message.error);
      }
      return this.#settle();
    }
    switch (message.event) {
      case "progress":
        this.progress = message;
        return this.#tell("progress", message);
      case "ready":
        this.boot = message.boot;
        this.#setStatus("ready");
        for (const waiting of this.#queue.splice(0)) this.#ask(waiting);
        return this.#tell("ready", message.boot);
      case "failed":
        return this.#fail(message.error.message);
      case "print":
        return this.#tell("print", message.text);
      case "train":
        this.training = message.running;
        this.#tell("train", message);
        if (message.error?.kind === "broken") return this.#restart(message.error);
        return this.#settle();
    }
  }

  #settle(): void {
    if (this.status === "ready" || this.status === "busy")
      this.#setStatus(this.training || this.#waiting.size ? "busy" : "ready");
  }

  #setStatus(status: Status): void {
    if (status === this.status) return;
    this.status = status;
    this.#tell("status", status);
  }

  #tell<Name extends keyof EngineEvents>(name: Name, value: EngineEvents[Name]): void {
    for (const listener of this.#listeners.get(name) ?? []) listener(value as never);
  }
}
