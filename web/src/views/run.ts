/** One recorded run, read once: names, dimensions, children, order. Facts only; no mathematics. */

import { concept, tokenName, type Concept } from "../format";
import type { Num, Tensor, Value, Xray } from "../types";

/** What a dimension counts; "" where its size does not say. */
export type Dimension = "T" | "V" | "C" | "D" | "4C" | "P" | "1" | "";

const WORDS: Readonly<Record<Dimension, string>> = {
  T: "tokens", V: "vocabulary", C: "channels", D: "channels of a head",
  "4C": "hidden channels", P: "positions", "1": "one", "": "",
};

/** One row or column of that dimension, as the readout names it. */
export const ONE: Readonly<Record<Dimension, string>> = {
  T: "token", V: "token", C: "channel", D: "channel", "4C": "channel", P: "position", "1": "", "": "",
};

export type Dimensions = [Dimension, Dimension];

export interface Run {
  xray: Xray;
  /** By tensor id: the tensors made from it. */
  children: number[][];
  /** By tensor id: the name it was assigned to, the path's last word for a weight, or null. */
  names: (string | null)[];
  /** By tensor id: the assignments (not the parameters) that hold it, as indices of `values`. */
  assigned: number[][];
  /** By value: it was handed in as a parameter. */
  given: boolean[];
  dimensions: Dimensions[];
  sizes: Map<Dimension, number>;
  /** The longest chain of additions to one name: the residual stream, in order; empty where there is none. */
  stream: number[];
  inStream: Set<number>;
  /** Tensors with a nan in them, and the first of them. */
  nan: Set<number>;
  firstNan: number | null;
  /** Calls that made a tensor, themselves or further down. */
  busy: Set<number>;
  /** The values a reader wants first, as indices of `values`. */
  main: number[];
}

const known = new WeakMap<Xray, Run>();

export function read(xray: Xray): Run {
  const before = known.get(xray);
  if (before) return before;
  const busy = busyCalls(xray);
  const given = parameters(xray);
  const assigned: number[][] = xray.tensors.map(() => []);
  for (const value of xray.values)
    if (value.tensor !== null && !given[value.i] && value.name !== "return") assigned[value.tensor]?.push(value.i);
  const names = tensorNames(xray, given);
  const children: number[][] = xray.tensors.map(() => []);
  for (const tensor of xray.tensors)
    for (const parent of new Set(tensor.parents)) children[parent]?.push(tensor.id);
  const sizes = dimensionSizes(xray);
  const stream = residualStream(xray, names);
  const nan = new Set(xray.tensors.filter((t) => t.data.some((row) => row.includes("nan"))).map((t) => t.id));
  const run: Run = {
    xray, children, names, assigned, given, sizes, stream, nan, busy,
    dimensions: tensorDimensions(xray, sizes),
    inStream: new Set(stream),
    firstNan: nan.size ? Math.min(...nan) : null,
    main: mainValues(xray, given, busy),
  };
  known.set(xray, run);
  return run;
}

// ---- Names ----

/** A call's first values, all from the line of its `def`, are what it was given. */
function parameters(xray: Xray): boolean[] {
  const first = new Map<number, number>();
  const open = new Set<number>();
  return xray.values.map((value) => {
    if (!first.has(value.call)) {
      first.set(value.call, value.line);
      open.add(value.call);
    }
    const made = value.tensor === null ? null : xray.tensors[value.tensor]?.call;
    const own = made !== null && made !== undefined && within(xray, made, value.call);
    if (value.line !== first.get(value.call) || value.name === "return" || own) open.delete(value.call);
    return open.has(value.call);
  });
}

/** Whether call `inner` is `outer` or was made inside it. */
export function within(xray: Xray, inner: number | null, outer: number): boolean {
  for (let call = inner; call !== null && call !== undefined; call = xray.calls[call]?.parent ?? null)
    if (call === outer) return true;
  return false;
}

function tensorNames(xray: Xray, given: boolean[]): (string | null)[] {
  const names: (string | null)[] = xray.tensors.map((t) => (t.weight ? (t.name ?? t.weight) : t.name));
  // A result that was never assigned may still be known by the name of the parameter it was handed to,
  // unless the caller means something else by that name.
  const meant = new Map<string, Set<number | null>>();
  for (const value of xray.values) {
    const key = `${value.call} ${value.name}`;
    meant.set(key, (meant.get(key) ?? new Set()).add(value.tensor));
  }
  for (const value of xray.values) {
    if (!given[value.i] || value.tensor === null || names[value.tensor] !== null) continue;
    const caller = xray.calls[value.call]?.parent;
    const others = meant.get(`${caller ?? ""} ${value.name}`);
    if (!others || (others.size === 1 && others.has(value.tensor))) names[value.tensor] = value.name;
  }
  return names;
}

/** What a tensor is called in a picture: its name, its number, or its operation. */
export function title(run: Run, id: number): string {
  const tensor = run.xray.tensors[id];
  if (!tensor) return "";
  return run.names[id] ?? (isNumber(tensor) ? plainNumber(tensor) : word(run, id));
}

export function isNumber(tensor: Tensor): boolean {
  return tensor.op === "number" && tensor.shape[0] === 1 && tensor.shape[1] === 1;
}

function plainNumber(tensor: Tensor): string {
  const x = tensor.data[0]?.[0] ?? "nan";
  return typeof x === "string" ? x : String(Number(x.toPrecision(6))).replace("-", "−");
}

/** The concept of a tensor: of its name, or of the weight it is. */
export function conceptOf(run: Run, id: number): Concept | null {
  return concept(run.names[id]);
}

/**
 * The concept of a value. A name stands for it where tensors are made; elsewhere (Adam also has a `v`) only
 * a gradient is still a gradient.
 */
export function hueOf(value: Value): Concept | null {
  const hue = concept(value.name);
  return value.tensor !== null || hue === "gradient" ? hue : null;
}

/**
 * An operation as the program writes it. The file makes "a - b" and "a / b" of two operations each; where
 * the first of them is in the graph the pair is one word, and where b is a plain number it is what ran.
 */
export function word(run: Run, id: number): string {
  const tensor = run.xray.tensors[id] as Made | undefined;
  if (!tensor) return "";
  const via = tensor.via ?? tensor.op;
  if (via !== tensor.op && tensor.parents.some((p, i) => hiddenStep(run, tensor, p, i) !== null)) return via;
  return tensor.op === "[]" ? "rows" : tensor.op;
}

type Made = Tensor & { via?: string };

/** What stands before the step that a subtraction or division hides, or null where it hides none. */
function hiddenStep(run: Run, tensor: Made, parent: number, index: number): number | null {
  const via = tensor.via ?? tensor.op;
  const step = run.xray.tensors[parent] as Made | undefined;
  if (via === tensor.op || index === 0 || !step) return null;
  const hidden = step.via === via && step.op !== via && step.line === tensor.line && run.names[parent] === null;
  return hidden ? (step.parents[0] ?? null) : null;
}

/** An operation in a sentence; unknown ones, of an edited program, speak for themselves. */
export function explain(op: string): string {
  const sentences: Record<string, string> = {
    "@": "Each cell is one row of the first times one column of the second, cell by cell, summed.",
    "+": "Cell by cell: the sum of the two.",
    "-": "Cell by cell: the difference of the two.",
    "*": "Cell by cell: the product of the two.",
    "/": "Cell by cell: the first divided by the second.",
    "**": "Cell by cell: raised to a power.",
    exp: "Cell by cell: e to the power of the cell.",
    log: "Cell by cell: the natural logarithm.",
    relu: "Cell by cell: what is below 0 becomes 0.",
    sum: "Each row is added up.",
    amax: "The largest number of each row; no gradient flows through it.",
    transpose: "Rows become columns.",
    triu: "Only the upper triangle is kept, the rest becomes 0.",
    new_full: "The same number in every cell.",
    rows: "Rows picked out by their number.",
    weight: "A weight matrix: training changes it.",
    data: "Data, not computed: nothing flows back from here.",
    number: "A number written in the program.",
  };
  return sentences[op] ?? `The result of ${op}.`;
}

// ---- Formulas ----

/** How a tensor was made, in the words of the program: "q @ k.transpose() * 0.5". Stops at names. */
export function formula(run: Run, id: number, depth = 4): string {
  return made(run, id, depth, run.xray.tensors[id]?.call ?? null, true).text;
}

/** What a tensor is called where another call uses it: its name, the call that returned it, or its formula. */
export function phrase(run: Run, id: number, user: number): string {
  return made(run, id, 4, run.xray.tensors[user]?.call ?? null).text;
}

const BINDING: Readonly<Record<string, number>> = { "+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 3 };
const TIGHT = 9;

function made(run: Run, id: number, left: number, call: number | null, top = false): { text: string; binding: number } {
  const tensor = run.xray.tensors[id];
  if (!tensor) return { text: "…", binding: TIGHT };
  const [a, b] = operands(run, id);
  if (a === undefined || (!top && run.names[id] !== null)) return { text: title(run, id), binding: TIGHT };
  if (!top && call !== null && tensor.call !== null && !within(run.xray, call, tensor.call)) {
    const inner = path(run.xray, tensor.call).find((c) => !within(run.xray, call, c));
    return { text: `${run.xray.calls[inner ?? tensor.call]?.function ?? ""}(…)`, binding: TIGHT };
  }
  if (left === 0) return { text: "…", binding: TIGHT };
  const op = word(run, id);
  const binding = BINDING[op] ?? TIGHT;
  const of = (p: number, least: number): string => {
    const part = made(run, p, left - 1, call);
    return part.binding < least ? `(${part.text})` : part.text;
  };
  if (binding < 3 && b !== undefined) return { text: `${of(a, binding)} ${op} ${of(b, binding + 1)}`, binding };
  if (op === "**") return { text: `${of(a, TIGHT)} ** …`, binding };
  if (op === "rows") return { text: `${of(a, TIGHT)}[…]`, binding: TIGHT };
  return { text: `${of(a, TIGHT)}.${op}()`, binding: TIGHT };
}

/**
 * The operands as the reader sees them. A subtraction and a division are written in the file with two
 * operations each; the first of the two is stepped over, so that "a - b" has the operands a and b.
 */
export function operands(run: Run, id: number): number[] {
  const tensor = run.xray.tensors[id] as Made | undefined;
  if (!tensor) return [];
  return tensor.parents.map((p, index) => hiddenStep(run, tensor, p, index) ?? p);
}

// ---- Dimensions ----

function dimensionSizes(xray: Xray): Map<Dimension, number> {
  const sizes = new Map<Dimension, number>();
  const weight = (last: string): Tensor | undefined =>
    xray.tensors.find((t) => t.weight === last || t.weight?.endsWith(`.${last}`));
  if (xray.tokens.length) sizes.set("T", xray.tokens.length);
  if (xray.vocab.length) sizes.set("V", xray.vocab.length);
  const channels = weight("wte")?.shape[1];
  if (channels) {
    sizes.set("C", channels).set("4C", 4 * channels);
    const head = (weight("wq") ?? weight("wv"))?.shape[1];
    if (head && head !== channels) sizes.set("D", head);
  }
  return sizes;
}

/** The only dimension of that size among some, or "". */
function only(sizes: Map<Dimension, number>, size: number, among: readonly Dimension[]): Dimension {
  if (size === 1) return "1";
  const fitting = among.filter((d) => sizes.get(d) === size);
  return fitting.length === 1 ? (fitting[0] ?? "") : "";
}

const ALL = ["T", "V", "C", "D", "4C"] as const;

/** Dimensions follow the operations from the weights on, so that equal sizes need not be confused. */
function tensorDimensions(xray: Xray, sizes: Map<Dimension, number>): Dimensions[] {
  const found: Dimensions[] = [];
  for (const { id, shape, weight, op, parents } of xray.tensors) {
    const from = parents.map((p) => found[p]).filter((d): d is Dimensions => d !== undefined);
    const of = (axis: 0 | 1, wish: Dimension | undefined): Dimension => {
      const size = shape[axis];
      if (size === 1 && wish !== "T") return "1";
      if (wish && (sizes.get(wish) === size || wish === "P")) return wish;
      return only(sizes, size, weight ? ["V", "C", "D", "4C"] : ALL);
    };
    const [a, b] = from;
    if (weight) found[id] = [weight === "wpe" ? "P" : of(0, undefined), weight === "wpe" ? of(1, "C") : of(1, undefined)];
    else if (op === "@" && a && b) found[id] = [of(0, a[0]), of(1, b[1])];
    else if (op === "transpose" && a) found[id] = [of(0, a[1]), of(1, a[0])];
    else if (op === "[]" && a) found[id] = [of(0, "T"), of(1, a[1])];
    else {
      const along = (axis: 0 | 1): Dimension => {
        const same = parents.find((p) => xray.tensors[p]?.shape[axis] === shape[axis] && found[p]?.[axis]);
        return of(axis, same === undefined ? undefined : found[same]?.[axis]);
      };
      found[id] = [along(0), along(1)];
    }
  }
  return found;
}

/** The dimensions of a matrix that is no tensor, by its size alone. */
export function dimensionsOf(run: Run, value: Value): Dimensions {
  if (value.tensor !== null) return run.dimensions[value.tensor] ?? ["", ""];
  const [rows, columns] = value.shape ?? [0, 0];
  return [only(run.sizes, rows, ALL), only(run.sizes, columns, ALL)];
}

/** "5 × 16 · tokens × channels". */
export function sizeText(shape: readonly [number, number] | null, [rows, columns]: Dimensions): string {
  if (!shape) return "";
  const numbers = `${shape[0]} × ${shape[1]}`;
  if (shape[0] === 1 && shape[1] === 1) return "one number";
  return WORDS[rows] && WORDS[columns] ? `${numbers} · ${WORDS[rows]} × ${WORDS[columns]}` : numbers;
}

/** What stands beside the rows or above the columns: tokens where the dimension counts them. */
export function labels(run: Run, dimension: Dimension): string[] | null {
  if (dimension === "T" || (dimension === "1" && run.sizes.get("T") === 1)) return run.xray.tokens;
  return dimension === "V" ? run.xray.vocab : null;
}

// ---- The residual stream ----

function residualStream(xray: Xray, names: (string | null)[]): number[] {
  const length = new Map<number, number>();
  const before = new Map<number, number>();
  let end: number | null = null;
  for (const tensor of xray.tensors) {
    const name = names[tensor.id];
    if (tensor.op !== "+" || (tensor as { via?: string }).via === "-" || !name || tensor.weight) continue;
    let best = 1;
    for (const parent of tensor.parents) {
      const chain = length.get(parent);
      const parentTensor = xray.tensors[parent];
      const fits = parentTensor && names[parent] === name && String(parentTensor.shape) === String(tensor.shape);
      if (chain && fits && chain + 1 > best) {
        best = chain + 1;
        before.set(tensor.id, parent);
      }
    }
    length.set(tensor.id, best);
    if (best > (end === null ? 2 : (length.get(end) ?? 0))) end = tensor.id;
  }
  const chain: number[] = [];
  for (let id = end; id !== null; id = before.get(id) ?? null) chain.unshift(id);
  return chain;
}

// ---- Order ----

function busyCalls(xray: Xray): Set<number> {
  const busy = new Set<number>();
  for (const tensor of xray.tensors)
    for (let call = tensor.call; call !== null && call !== undefined && !busy.has(call); call = xray.calls[call]?.parent ?? null)
      busy.add(call);
  return busy;
}

const NUMBERS = new Set<Value["kind"]>(["tensor", "matrix", "number", "list"]);

function sameThing(a: Value, b: Value): boolean {
  if (a.tensor !== null || b.tensor !== null) return a.tensor === b.tensor;
  return a.kind === b.kind && JSON.stringify(a.data) === JSON.stringify(b.data);
}

/**
 * Without what repeats: parameters (known from the caller), what is returned and at once given a name,
 * the second and later times of a loop that makes no tensor (Adam's rows), and bookkeeping without numbers.
 */
function mainValues(xray: Xray, given: boolean[], busy: Set<number>): number[] {
  const firstOf = new Map<string, number>();
  const skipped = new Set<number>();
  for (const call of xray.calls) {
    const outer = call.parent !== null && skipped.has(call.parent);
    const key = `${call.parent} ${call.line} ${call.function}`;
    const again = firstOf.has(key);
    if (!again) firstOf.set(key, call.id);
    if (outer || (again && !busy.has(call.id))) skipped.add(call.id);
  }
  const useful = new Set<number>();
  for (const value of xray.values)
    if (!given[value.i] && (value.kind === "number" || value.kind === "list" || value.kind === "matrix")) useful.add(value.call);
  const kept: number[] = [];
  const seen = new Set<string>();
  const lastValue = xray.values.length - 1;
  for (const value of xray.values) {
    const last = value.i === lastValue && xray.error !== null;
    if (last) {
      kept.push(value.i);
      continue;
    }
    if (given[value.i] || skipped.has(value.call) || !NUMBERS.has(value.kind)) continue;
    if (value.tensor === null) {
      const key = `${value.call} ${value.line} ${value.name}`;
      if (seen.has(key) || (!busy.has(value.call) && !useful.has(value.call))) continue;
      seen.add(key);
    } else if (!busy.has(value.call) || xray.tensors[value.tensor]?.weight) continue;
    if (value.name === "return") {
      let next = value.i + 1;
      while (next <= lastValue && given[next]) next++;
      const after = xray.values[next];
      const outer = xray.calls[value.call]?.parent;
      if (after && after.call === outer && sameThing(value, after)) continue;
    }
    kept.push(value.i);
  }
  return kept.length ? kept : xray.values.map((v) => v.i);
}

/** The calls from the outermost to this one. */
export function path(xray: Xray, call: number | null): number[] {
  const calls: number[] = [];
  for (let c = call; c !== null && c !== undefined; c = xray.calls[c]?.parent ?? null) calls.unshift(c);
  return calls;
}

/** The rows that a value holds, if it is a tensor or a matrix. */
export function rowsOf(xray: Xray, value: Value): Num[][] | null {
  if (value.tensor !== null) return xray.tensors[value.tensor]?.data ?? null;
  return value.kind === "matrix" ? (value.data as Num[][]) : null;
}

export function tokenReadout(text: string): string {
  return text === "\n" ? tokenName(text) : `‘${tokenName(text)}’`;
}
