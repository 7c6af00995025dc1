/** Plain data that Python's bridge sends to the page. The views know nothing else. */

/** A number, or "nan", "inf", "-inf" where JSON has no word for it. */
export type Num = number | "nan" | "inf" | "-inf";
export type Rows = Num[][];

export interface Section { name: string; title: string; first: number; last: number }
export interface Func { name: string; first: number; last: number; section: string }
/** A numeric default in a signature of the file; turning a knob edits that place. */
export interface Knob { name: string; function: string; value: number; line: number }
export interface Problem { line: number; column: number; message: string }
export interface Dataset { name: string; title: string; description: string; example: string; separator: string | null }

export interface Boot {
  python: string; version: string; source: string;
  sections: Section[]; functions: Func[]; knobs: Knob[]; datasets: Dataset[];
}

/** What the program says about an edited source: nothing has been run yet. */
export interface Check {
  problems: Problem[]; sections: Section[]; functions: Func[]; knobs: Knob[];
  /** [first line, lines removed, lines added] against the original, 1-based. */
  edits: [number, number, string[]][];
  diff: string;
}

/** A node of the run's graph of tensors, in the order of creation. */
export interface Tensor {
  id: number; shape: [number, number]; data: Rows; grad: Rows | null;
  /** The operation itself, and the one that was written: a subtraction is a "+" and a "*" via "-". */
  op: string; via: string; parents: number[];
  /** Line and function of the file, outside the autograd section, that made it. */
  line: number; function: string; call: number | null;
  /** The name it was assigned to, if any; the path of a weight ("blocks.0.heads.1.wq"), if it is one. */
  name: string | null; weight: string | null;
}
export interface Call { id: number; function: string; parent: number | null; line: number; label: string }
/** One assignment, in the order of execution. */
export interface Value {
  i: number; line: number; call: number; function: string; name: string;
  kind: "tensor" | "matrix" | "number" | "text" | "list" | "none";
  tensor: number | null; shape: [number, number] | null;
  /** For a matrix: rows. For a number, a text or a short list: itself. For a tensor: null, see `tensor`. */
  data: Rows | Num | string | Num[] | string[] | null;
}
export interface Xray {
  doc: string; tokens: string[]; ids: number[]; vocab: string[];
  loss: Num | null; step: number;
  tensors: Tensor[]; calls: Call[]; values: Value[];
  error: Failure | null;
}
export interface Failure { message: string; line: number | null; kind: "syntax" | "run" | "user" }

export interface RunInfo {
  parameters: number; train_docs: number; held_out_docs: number; vocab: string[];
  step: number; steps: number; batch: number; lr: number | null;
  /** ln(V): the loss of a guess among all tokens. */
  baseline: number; data: string; seed: number;
  /** The most tokens that the model reads at once; null where an edited source has no such limit. */
  context: number | null;
}
export interface Advance { step: number; steps: number; losses: Num[]; done: boolean }
export interface Measure { step: number; held_out: Num }
/** `known`: which texts are in the data; null while nobody has looked. */
export interface Samples { step: number; texts: string[]; known: boolean[] | null }
/** The running model, looked at through one text. */
export interface Peek {
  step: number; tokens: string[];
  attention: { layer: number; head: number; weights: Rows }[];
  embeddings: { name: string; labels: string[]; rows: Rows }[];
  /** The token embeddings in the plane of their largest spread; `explained` are shares of the spread. */
  projection: { name: string; labels: string[]; points: [Num, Num][]; explained: [Num, Num] } | null;
}
export interface SampleStep { text: string; char: string | null; probs: Num[] | null; vocab: string[]; done: boolean }

/** What the build recorded by running the file: the page plays it before Python is there. */
export interface Recording {
  python: string; date: string; boot: Boot; check: Check; xray: Xray;
  run: RunInfo; losses: { step: number; loss: Num }[]; held_out: Measure[]; samples: Samples[]; peeks: Peek[];
  sampling: SampleStep[];
}
