/** Numbers and names as a person reads them. No view writes a number in another way. */

import type { Num } from "./types";

/** A thin space that does not break: "43 %" stays together. */
const THIN = "\u202f";
const MINUS = "\u2212";

/** Two or three significant digits, for a cell: 0.0312, 1.25, 12.5, 125, 4.2e5, 0, nan. */
export function cell(x: Num, digits = 3): string {
  if (typeof x === "string") return x === "inf" ? "∞" : x === "-inf" ? `${MINUS}∞` : "nan";
  if (x === 0) return "0";
  const size = Math.abs(x);
  const sign = x < 0 ? MINUS : "";
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa = "0", power = "0"] = size.toExponential(Math.max(digits - 2, 0)).split("e");
    return `${sign}${mantissa}e${power.replace("+", "").replace("-", MINUS)}`;
  }
  const places = Math.min(Math.max(digits - 1 - Math.floor(Math.log10(size)), 0), 4);
  return sign + size.toFixed(places);
}

/** All the digits that matter, for the readout of one cell. */
export function exact(x: Num): string {
  if (typeof x === "string") return cell(x);
  return String(Number(x.toPrecision(8))).replace("-", MINUS);
}

/** A loss: four decimals, so that two runs can be compared by eye. */
export function loss(x: Num | null | undefined): string {
  if (x === null || x === undefined) return "–";
  return typeof x === "string" ? cell(x) : x.toFixed(4).replace("-", MINUS);
}

/** A whole number: 1,000. */
export function count(n: number): string {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** "1 line", "3 lines". */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function percent(fraction: number): string {
  return `${Math.round(fraction * 100)}${THIN}%`;
}

/** A shape as the file writes it: (5, 16). */
export function shape(size: readonly [number, number] | null): string {
  return size ? `(${size[0]}, ${size[1]})` : "";
}

/** A token as it is shown: the mark of both ends of a document is a return sign, a space is an open box. */
export function token(text: string): string {
  return text === "\n" ? "↵" : text === " " ? "␣" : text === "\t" ? "⇥" : text;
}

/** A token as it is read aloud. */
export function tokenName(text: string): string {
  return text === "\n" ? "end mark" : text === " " ? "space" : text === "\t" ? "tab" : text;
}

export type Concept = "query" | "key" | "value" | "residual" | "position" | "gradient" | "probability";

const CONCEPTS: Readonly<Record<string, Concept>> = {
  q: "query", wq: "query",
  k: "key", wk: "key",
  v: "value", wv: "value",
  x: "residual", h: "residual", tokens: "residual", wte: "residual",
  wpe: "position",
  grad: "gradient",
  probs: "probability", weights: "probability",
};

/** The concept that a name of the file stands for, or null; a weight's path counts by its last part. */
export function concept(name: string | null | undefined): Concept | null {
  if (!name) return null;
  const last = name.slice(name.lastIndexOf(".") + 1);
  return Object.hasOwn(CONCEPTS, last) ? (CONCEPTS[last] ?? null) : null;
}
