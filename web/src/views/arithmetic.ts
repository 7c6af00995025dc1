/** One cell of a result, in the numbers it was made from. The result itself is always the recorded one. */

import { cell as brief } from "../format";
import type { Num } from "../types";
import { operands, title, word, type Run } from "./run";

type Cell = [number, number];

function at(rows: Num[][], row: number, column: number): Num {
  // A single row or column repeats to fill the shape, as in the file.
  const line = rows.length === 1 ? rows[0] : rows[row];
  return line?.length === 1 ? (line[0] ?? "nan") : (line?.[column] ?? "nan");
}

function closed(x: Num): string {
  const text = brief(x);
  return text.startsWith("−") ? `(${text})` : text;
}

const FEW = 5;

/** The left side of "… = result", and a note where it is cut short. */
export function arithmetic(run: Run, id: number, [row, column]: Cell): { left: string; note: string } {
  const tensor = run.xray.tensors[id];
  const made = operands(run, id).map((p) => run.xray.tensors[p]);
  const [a, b] = made;
  if (!tensor || !a) return { left: "", note: "" };
  const op = word(run, id);
  if (op === "@" && b) {
    const terms = (a.data[row] ?? []).map((x, k) => `${k ? closed(x) : brief(x)} × ${closed(b.data[k]?.[column] ?? "nan")}`);
    const more = terms.length - FEW;
    return {
      left: terms.slice(0, more > 1 ? FEW : terms.length).join(" + ") + (more > 1 ? " + …" : ""),
      note: `${terms.length} products: row ${row} of ${title(run, a.id)} with column ${column} of ${title(run, b.id)}`,
    };
  }
  if (op === "sum") {
    const terms = (a.data[row] ?? []).map((x, k) => (k ? closed(x) : brief(x)));
    const more = terms.length - 2 * FEW;
    return { left: terms.slice(0, more > 1 ? 2 * FEW : terms.length).join(" + ") + (more > 1 ? " + …" : ""), note: `all ${terms.length} of the row` };
  }
  if (op === "transpose") return { left: `row ${column}, column ${row} of ${title(run, a.id)}`, note: "" };
  if (op === "rows") {
    const from = source(run, id, row);
    return { left: from === null ? `a row of ${title(run, a.id)}` : `row ${from}, column ${column} of ${title(run, a.id)}`, note: "" };
  }
  const x = at(a.data, row, column);
  if (b) return { left: `${brief(x)} ${op} ${closed(at(b.data, row, column))}`, note: "" };
  return { left: op === "**" ? `${closed(x)} ** …` : `${op}(${brief(x)})`, note: "" };
}

/** The row of the table that a picked row came from, found by its numbers. */
function source(run: Run, id: number, row: number): number | null {
  const tensor = run.xray.tensors[id];
  const table = run.xray.tensors[tensor?.parents[0] ?? -1];
  const wanted = JSON.stringify(tensor?.data[row]);
  const found = table?.data.findIndex((line) => JSON.stringify(line) === wanted) ?? -1;
  return found < 0 ? null : found;
}

/** What to point out in an operand when a cell of the result is chosen. */
export function marks(run: Run, id: number, operand: number, [row, column]: Cell): { row?: number; column?: number } | null {
  const tensor = run.xray.tensors[id];
  const parent = run.xray.tensors[operands(run, id)[operand] ?? -1];
  if (!tensor || !parent) return null;
  const op = word(run, id);
  if (op === "@") return operand === 0 ? { row } : { column };
  if (op === "sum") return { row };
  if (op === "transpose") return { row: column, column: row };
  if (op === "rows") {
    const from = source(run, id, row);
    return from === null ? null : { row: from, column };
  }
  return { row: parent.shape[0] === 1 ? 0 : row, column: parent.shape[1] === 1 ? 0 : column };
}
