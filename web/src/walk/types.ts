/** Plain data of the walk: what `python -m microgpt.lessons` writes, and what its instruments answer.

    An instrument is one call of the bridge, `instrument(name, arguments)`. The build asks it natively and stores
    the answer beside the chapter, so that a figure is drawn before Python is there, or without scripts; when Python
    is ready the same call, with other arguments, answers in the reader's browser. A figure is a function of such an
    answer and computes nothing of the model. */

import type { Num, Rows } from "../types";

// ---- Lessons ----

/** One token of a line of the file: its text, how it is set, and the name it brushes with, if any. */
export interface CodeToken { text: string; kind: "" | "keyword" | "comment" | "string" | "number" | "defined"; brush: string | null }

/** A value that prose, code and pictures name alike: hovering it in one lights it in the others. */
export interface Brush { name: string; concept: string | null }

export interface Lessons {
  /** The file, line by line; the first entry is line 1. Blank lines have no tokens. */
  code: CodeToken[][];
  /** What each section of the file is called, with its lines. */
  sections: { name: string; title: string; first: number; last: number }[];
  chapters: Chapter[];
  glossary: { id: string; term: string; html: string }[];
  references: { id: string; authors: string; year: string; title: string; venue: string; html: string }[];
  /** The page on how the explainer was made. */
  made: { title: string; html: string };
  /** When and by which Python the numbers were computed. */
  python: string; date: string;
}

export interface Chapter {
  /** "attention", also the page's name: walk/attention.html */
  slug: string; number: number; title: string;
  /** The lead: what the reader will be able to do. HTML. */
  lead: string;
  minutes: number;
  steps: Step[];
}

export interface Step {
  /** "drag-a-score"; unique in its chapter, and the fragment of its address. */
  id: string; title: string; blocks: Block[];
  /** Lines of the file that this step explains, ascending. */
  lines: number[];
}

export type Block =
  | { kind: "prose"; html: string }
  /** Lines of the file, shown as code. */
  | { kind: "lines"; scope: string; lines: number[] }
  /** `answer` is the instrument's, for `args`; null for a figure that needs none. `alt` carries the picture's facts. */
  | { kind: "figure"; figure: string; id: string; args: Record<string, unknown>; options: Record<string, string>; answer: unknown; caption: string }
  | Prediction
  | Exercise;

export interface Prediction {
  kind: "predict"; id: string;
  how: "choice" | "number" | "line" | "curve";
  question: string;
  /** choice: what can be chosen, HTML. */
  options: string[];
  /** choice: the index of what is true. number: the value. line: line numbers of the file, any of them is right.
      curve: the true curve, as points of x and y. */
  truth: number | number[] | [number, number][];
  /** number: the slider's ends and step. curve: the axes. */
  range: { low: number; high: number; step: number; unit: string } | null;
  axes: { x: string; y: string; low: number; high: number } | null;
  /** What is shown with the truth. HTML. */
  then: string;
}

export interface Exercise {
  kind: "exercise"; id: string;
  how: "edit" | "line" | "mend";
  /** HTML. */
  task: string;
  hints: string[];
  /** line: the right lines. */
  truth: number[];
  /** The program it starts from: the file, or for "mend" the file with a bug planted in it. Null: the file. */
  start: string | null;
  /** Line at which the reader begins, and the lines that may be looked at first. */
  focus: number[];
  /** A unified diff from the start to one solution. */
  solution: string;
  /** What is shown when it is done. HTML. */
  then: string;
}

/** What a check of an exercise found; all `ok` means that it is done. */
export interface Checked { done: boolean; results: { ok: boolean; message: string; line: number | null }[] }

// ---- Answers of the instruments, by name. `model` is "first" (weights before training) or "trained". ----

/** tokens(text): what the file's vocabulary and encode make of it. `strange`: the first character it does not know. */
export interface TokensAnswer { text: string; tokens: string[]; ids: number[]; vocab: string[]; strange: string | null }

/** matrix(text, model, value): one named value of a run. `value` is "attention.weights", "attention.weights 2" for
    the second call, "gpt.x 3" for the third assignment, or the path of a weight such as "wte". */
export interface MatrixAnswer {
  text: string; model: string; value: string;
  name: string; function: string; line: number; code: string;
  shape: [number, number]; rows: Rows; grad: Rows | null;
  rowLabels: string[] | null; columnLabels: string[] | null;
  /** The dimensions in words: ["tokens", "channels"]. */
  dimensions: [string, string];
  /** Its place in the whole recording, so that the walk through the cells can start there. */
  tensor: number | null;
}

/** expression(text, values): an expression of the file's Tensor over 1 x 1 matrices, forward and backward. Nodes in
    order of creation; `backward` lists them in the order in which gradients arrive, newest first: at each entry
    the node hands `gives` to its parents. */
export interface ExpressionAnswer {
  text: string; values: Record<string, number>;
  nodes: { id: number; name: string | null; op: string; parents: number[]; value: Num; grad: Num | null; depth: number }[];
  backward: { node: number; gives: { parent: number; slope: Num; amount: Num; total: Num }[] }[];
  error: string | null;
}

/** neighbours(table): how alike the rows of wte or wpe are (cosine), before and after training. */
export interface NeighboursAnswer {
  table: "wte" | "wpe"; labels: string[];
  first: Rows; trained: Rows;
  /** The rows in the plane of their largest spread, after training, and the shares of the spread along it. */
  points: [number, number][]; explained: [number, number];
}

/** attention(text, model): scores before and weights after the softmax, of every head. */
export interface AttentionAnswer {
  text: string; model: string; tokens: string[];
  heads: { layer: number; head: number; scores: Rows; weights: Rows }[];
}

/** softmax(scores): the file's own softmax over one row of scores. */
export interface SoftmaxAnswer { scores: number[]; shifted: number[]; exps: number[]; weights: number[] }

/** stream(text, model): the residual stream of every token, stage by stage, and what the model would say if it ended
    there (the file's norm, lm_head and softmax applied to that stage). Stages: "token", "+ position", "+ head 1", …,
    "+ feed-forward". `size` is the root mean square of the row, `added` that of what this stage added. */
export interface StreamAnswer {
  text: string; model: string; tokens: string[]; vocab: string[];
  stages: { label: string; line: number; x: Rows; size: number[]; added: number[]; probs: Rows }[];
}

/** surprise(text, model): what the model made of each next token. `choices` is e to the surprise. */
export interface SurpriseAnswer {
  text: string; model: string; vocab: string[];
  places: { after: string; next: string; probs: number[]; prob: number; surprise: number; choices: number }[];
  loss: number; choices: number; baseline: number;
}

/** backward(text, model): the tensors of one step in the order in which their gradient is complete, with it. */
export interface BackwardAnswer {
  text: string; model: string; loss: number;
  order: { tensor: number; name: string; function: string; line: number; op: string; shape: [number, number]; rows: Rows; grad: Rows; size: number }[];
}

/** nudge(text, model, weight, row, column, by): the gradient by backward, and the loss really recomputed. */
export interface NudgeAnswer {
  text: string; model: string; weight: string; row: number; column: number; by: number;
  /** Names and shapes of every weight matrix, to choose from. */
  weights: { name: string; shape: [number, number] }[];
  value: number; loss: number; up: number; down: number; gradient: number; measured: number; relative: number;
}

/** moments(weight, row, column, steps): one weight through the first steps of training. */
export interface MomentsAnswer {
  weight: string; row: number; column: number; weights: { name: string; shape: [number, number] }[];
  steps: { step: number; doc: string; loss: number; gradient: number; m: number; v: number; move: number; value: number }[];
}

/** training(): the recorded run: its losses, and at some steps held-out loss, samples, attention on the text. */
export interface TrainingAnswer {
  text: string; tokens: string[]; losses: number[]; baseline: number; steps: number;
  moments: {
    step: number; heldOut: number; samples: { text: string; known: boolean }[];
    attention: { layer: number; head: number; weights: Rows }[];
    /** Token embeddings in the plane of their largest spread. */
    labels: string[]; points: [number, number][];
    /** Weights of this step that a figure looks at. */
    wte: Rows;
  }[];
}

/** temperatures(temperatures, n, seed): n samples at each temperature, and how many of them are in the training data. */
export interface TemperaturesAnswer {
  n: number; trainDocs: number;
  /** `read`: those among the names that training has come to so far. */
  rows: { temperature: number; known: number; read: number; distinct: number; heldOut: number; examples: { text: string; known: boolean }[] }[];
}

/** writing(prefix, temperature, seed): one text token by token; `cooled` are the probabilities that were drawn from. */
export interface WritingAnswer {
  prefix: string; temperature: number; seed: number; vocab: string[];
  steps: { text: string; char: string; probs: number[]; plain: number[] }[];
  known: boolean;
}

/** scale(): sizes of this model and of published ones, with parameters counted by one formula. */
export interface ScaleAnswer {
  models: { name: string; year: string; reference: string; n_layer: number; n_head: number; n_embd: number; block_size: number; vocab_size: number; parameters: number; computed: boolean }[];
}
