// What the page and its worker say to each other: plain data, both ways.

/** Where Python's files are, and how many bytes each has when unpacked by the browser. */
export interface PythonFiles {
  /** Folder of the files, absolute, with a closing slash. */
  folder: string;
  /** File name -> size in bytes. */
  sizes: Record<string, number>;
  /** What Pyodide was built for, as its lock file says. */
  platform: Record<string, string>;
  /** Of the microgpt package, which is not installed in the page as pip would. */
  version: string;
}

export type Phase = "download" | "python" | "import";

/** How far the start of Python has come. `loaded` and `total` are bytes, counted as they arrive. */
export interface Progress {
  phase: Phase;
  loaded: number;
  total: number;
}

/**
 * Why something did not work, in a sentence for the reader.
 * syntax, run, user: from Python (see bridge.py); stopped: the reader pressed Stop, or reset the engine;
 * start: Python itself is not there; broken: the interpreter cannot go on and is being replaced.
 */
export interface Failure {
  message: string;
  line: number | null;
  kind: "syntax" | "run" | "user" | "stopped" | "start" | "broken";
}

/** New losses of a running training. A number that is not finite arrives as "nan", "inf" or "-inf". */
export interface Advance {
  step: number;
  steps: number;
  losses: (number | string)[];
  done: boolean;
}

/** One report of the training loop; `running` is false in the last one, `error` says why it ended early. */
export type TrainEvent =
  | (Advance & { running: boolean; error?: undefined })
  | { running: false; error: Failure };

export type ToWorker =
  | { boot: PythonFiles }
  | { id: number; call: string; args: Record<string, unknown>; parcel?: ArrayBuffer };

export type FromWorker =
  | { id: number; ok: unknown; parcel?: ArrayBuffer }
  | { id: number; error: Failure }
  | ({ event: "progress" } & Progress)
  | { event: "ready"; boot: unknown }
  | { event: "failed"; error: Failure }
  | { event: "print"; text: string }
  | ({ event: "train" } & TrainEvent);
