/** The way through a recorded run, from the whole model to one multiplication. What a cell was made from and where
    its gradient came from are told in the recorded numbers; nothing of the model is computed here again. */

import { cell as brief } from "../../format";
import type { Num, Tensor } from "../../types";
import { arithmetic } from "../../views/arithmetic";
import { isNumber, operands, path, phrase, title, word, type Run } from "../../views/run";
import { shortPath } from "./outline";

export type Cell = [number, number];

export type Place =
  | { at: "model" }
  | { at: "call"; call: number }
  | { at: "value"; tensor: number }
  | { at: "cell"; tensor: number; cell: Cell }
  /** One of the products that a cell of a matrix product adds up. */
  | { at: "product"; tensor: number; cell: Cell; k: number };

/** A number of the run that can be opened. */
export interface Spot { tensor: number; cell: Cell; value: Num; name: string }

export function same(a: Place, b: Place): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

export function spot(run: Run, tensor: number, cell: Cell, gradient = false): Spot {
  const record = run.xray.tensors[tensor];
  const rows = gradient ? record?.grad : record?.data;
  return { tensor, cell, value: rows?.[cell[0]]?.[cell[1]] ?? "nan", name: told(run, tensor) };
}

/** What a tensor is called: its name, its path if it is a weight, or the operation that made it. */
export function nameOf(run: Run, tensor: number): string {
  const record = run.xray.tensors[tensor];
  return record?.weight ? shortPath(record.weight) : title(run, tensor);
}

/** The same with what it was made from, where it has no name of its own. */
export function told(run: Run, tensor: number): string {
  const record = run.xray.tensors[tensor];
  if (!record || record.weight || run.names[tensor] || isNumber(record)) return nameOf(run, tensor);
  return phrase(run, tensor, run.children[tensor]?.[0] ?? tensor);
}

// ---- Where a place stands ----

export interface Crumb { place: Place; label: string }

export function crumbs(run: Run, place: Place): Crumb[] {
  const trail: Crumb[] = [{ place: { at: "model" }, label: "the whole model" }];
  if (place.at === "model") return trail;
  const tensor = place.at === "call" ? null : (run.xray.tensors[place.tensor] ?? null);
  const call = place.at === "call" ? place.call : (tensor?.call ?? null);
  path(run.xray, call).forEach((c) => {
    const record = run.xray.calls[c];
    if (record && record.parent !== null) trail.push({ place: { at: "call", call: c }, label: record.label });
  });
  if (place.at === "call" || !tensor) return trail;
  trail.push({ place: { at: "value", tensor: tensor.id }, label: told(run, tensor.id) });
  if (place.at === "value") return trail;
  const [row, column] = place.cell;
  trail.push({ place: { at: "cell", tensor: tensor.id, cell: place.cell }, label: `row ${row}, column ${column}` });
  if (place.at === "product") trail.push({ place, label: `product ${place.k}` });
  return trail;
}

// ---- Forward: what a cell was made from ----

export interface Forward {
  /** "@": products to add. "sum": terms to add. "two": a and b with the sign between. "one": a function of one cell.
      "from": the same number from another place. "none": not made from cells that can be opened. */
  kind: "@" | "sum" | "two" | "one" | "from" | "none";
  sign: string;
  terms: { k: number; parts: Spot[] }[];
  note: string;
}

function broadcast(tensor: Tensor, [row, column]: Cell): Cell {
  return [tensor.shape[0] === 1 ? 0 : row, tensor.shape[1] === 1 ? 0 : column];
}

export function forward(run: Run, id: number, cell: Cell): Forward {
  const tensor = run.xray.tensors[id];
  const [a, b] = operands(run, id).map((p) => run.xray.tensors[p]);
  const nothing: Forward = { kind: "none", sign: "", terms: [], note: "" };
  if (!tensor) return nothing;
  const sign = word(run, id);
  if (!a) return { ...nothing, sign, note: origin(run, tensor) };
  const [row, column] = cell;
  if (sign === "@" && b) {
    const terms = Array.from({ length: a.shape[1] }, (_, k) => ({ k, parts: [spot(run, a.id, [row, k]), spot(run, b.id, [k, column])] }));
    return { kind: "@", sign, terms, note: `Row ${row} of ${told(run, a.id)} times column ${column} of ${told(run, b.id)}, cell by cell, and then the sum.` };
  }
  if (sign === "sum") {
    const terms = Array.from({ length: a.shape[1] }, (_, k) => ({ k, parts: [spot(run, a.id, [row, k])] }));
    return { kind: "sum", sign, terms, note: `All ${a.shape[1]} of row ${row} of ${told(run, a.id)}, added up.` };
  }
  if (sign === "transpose") return { kind: "from", sign, terms: [{ k: 0, parts: [spot(run, a.id, [column, row])] }], note: "Rows became columns; the number is the same." };
  if (sign === "rows") {
    const from = rowBefore(run, tensor, row);
    if (from === null) return { ...nothing, sign, note: arithmetic(run, id, cell).left };
    return { kind: "from", sign, terms: [{ k: 0, parts: [spot(run, a.id, [from, column])] }], note: `Row ${from} of ${told(run, a.id)}, picked out; the number is the same.` };
  }
  if (sign === "triu") return { kind: "from", sign, terms: [{ k: 0, parts: [spot(run, a.id, cell)] }], note: "Kept above the diagonal, 0 below it." };
  const parts = [spot(run, a.id, broadcast(a, cell)), ...(b ? [spot(run, b.id, broadcast(b, cell))] : [])];
  const power = sign === "**" ? powerOf(run, tensor) : null;
  return { kind: b ? "two" : "one", sign: power === null ? sign : `** ${power}`, terms: [{ k: 0, parts }], note: "" };
}

function origin(run: Run, tensor: Tensor): string {
  if (tensor.weight) return "A weight. It was drawn at random once, and training has changed it ever since.";
  const op = word(run, tensor.id);
  if (op === "amax") return "The largest number of the row. No gradient flows through it.";
  if (op === "new_full") return "Filled with one number.";
  if (op === "data") return "Made from the text itself: 1 where the next token is, 0 elsewhere.";
  return "A number that is written in the program.";
}

/** The row of the table that a picked row came from, found by its numbers. */
function rowBefore(run: Run, picked: Tensor, row: number): number | null {
  const table = run.xray.tensors[picked.parents[0] ?? -1];
  const wanted = JSON.stringify(picked.data[row]);
  const found = table?.data.findIndex((line) => JSON.stringify(line) === wanted) ?? -1;
  return found < 0 ? null : found;
}

let source: string[] = [];

/** The program, so that a power can be read where it is written. */
export function usesSource(lines: string[]): void {
  source = lines;
}

function powerOf(_run: Run, tensor: Tensor): string | null {
  if (tensor.via === "/") return "−1";
  const found = [...(source[tensor.line - 1] ?? "").matchAll(/\*\*\s*(-?[\d.]+)/g)];
  return found.length === 1 ? (found[0]?.[1] ?? "").replace("-", "−") : null;
}

// ---- Backward: where a cell's gradient came from ----

/** One cell that was made from this one, and what it hands back: its gradient times a slope. */
export interface Handed {
  child: number; cell: Cell;
  gradient: Num;
  /** A recorded number, a sum in words, or null where the slope was not recorded. */
  slope: Spot | string | null;
}

export interface Backward { child: number; from: Handed[] }

/** By cell made from it; empty for the loss itself, and for what nothing flows back to. */
export function backward(run: Run, id: number, [row, column]: Cell): Backward[] {
  const tensor = run.xray.tensors[id];
  if (!tensor?.grad) return [];
  const found: Backward[] = [];
  for (const c of run.children[id] ?? []) {
    const child = run.xray.tensors[c];
    if (!child?.grad) continue;
    const from: Handed[] = [];
    child.parents.forEach((p, i) => {
      if (p === id) from.push(...handed(run, child, i, [row, column]));
    });
    if (from.length) found.push({ child: c, from });
  }
  return found;
}

function handed(run: Run, child: Tensor, index: number, [row, column]: Cell): Handed[] {
  const parent = run.xray.tensors[child.parents[index] ?? -1];
  const other = run.xray.tensors[child.parents[1 - index] ?? -1];
  if (!parent) return [];
  const one = (cell: Cell, slope: Handed["slope"]): Handed => ({ child: child.id, cell, gradient: spot(run, child.id, cell, true).value, slope });
  if (child.op === "@" && other) {
    if (index === 0) return Array.from({ length: child.shape[1] }, (_, c) => one([row, c], spot(run, other.id, [column, c])));
    return Array.from({ length: child.shape[0] }, (_, r) => one([r, column], spot(run, other.id, [r, row])));
  }
  if (child.op === "sum") return [one([row, 0], "1")];
  if (child.op === "transpose") return [one([column, row], "1")];
  if (child.op === "[]") {
    const line = JSON.stringify(parent.data[row]);
    return child.data.flatMap((picked, r) => (JSON.stringify(picked) === line ? [one([r, column], "1")] : []));
  }
  if (child.op === "triu") return column > row ? [one([row, column], "1")] : [];
  // Cell by cell; a single row or column was repeated to fill the shape, and gets something back from each.
  const along = (axis: 0 | 1, at: number): number[] =>
    parent.shape[axis] === 1 && child.shape[axis] > 1 ? Array.from({ length: child.shape[axis] }, (_, i) => i) : [at];
  return along(0, row).flatMap((r) => along(1, column).map((c) => one([r, c], slopeOf(run, child, other, [r, c], spot(run, parent.id, [row, column])))));
}

function slopeOf(run: Run, child: Tensor, other: Tensor | undefined, cell: Cell, input: Spot): Handed["slope"] {
  const x = brief(input.value);
  const closed = x.startsWith("−") ? `(${x})` : x;
  switch (child.op) {
    case "+": return "1";
    case "*": return other ? spot(run, other.id, broadcast(other, cell)) : null;
    case "exp": return spot(run, child.id, cell);
    case "log": return `1 / ${closed}`;
    case "relu": return typeof input.value === "number" ? (input.value > 0 ? "1" : "0") : null;
    case "**": {
      const power = powerOf(run, child);
      if (power === null) return null;
      const less = String(Number(power.replace("−", "-")) - 1).replace("-", "−");
      return `${power} × ${closed} ** ${less}`;
    }
    default: return null;
  }
}
