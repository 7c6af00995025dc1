/** How the Train and Sample rooms write numbers and characters. Nothing of the model is computed here. */
import { count, token, tokenName } from "../format";
import type { Num } from "../types";

/** A thin space that does not break. */
const THIN = "\u202f";

/** A finite number, or null where Python said nan or inf. */
export const finite = (x: Num | null | undefined): number | null =>
  typeof x === "number" && Number.isFinite(x) ? x : null;

/** A loss in a sentence: two decimals, or the word that Python gave for it. Tables have four: see format.ts. */
export const brief = (x: Num | null | undefined): string => {
  if (x === null || x === undefined) return "–";
  return typeof x === "number" ? (Math.abs(x) < 1e4 ? x.toFixed(2) : x.toExponential(1)) : x;
};

/** A probability as per cent: 0.314 -> "31 %", 0.004 -> "0.4 %", 0.00001 -> "< 0.1 %". */
export const percent = (p: Num | null | undefined): string => {
  const x = finite(p);
  if (x === null) return p === null || p === undefined ? "–" : String(p);
  if (x > 0 && x < 0.001) return `<\u00a00.1${THIN}%`;
  if (x < 1 && x > 0.9995) return `>\u00a099.9${THIN}%`;
  return `${x !== 0 && (x < 0.0995 || (x > 0.995 && x < 1)) ? (x * 100).toFixed(1) : Math.round(x * 100)}${THIN}%`;
};

/** "As unsure as a choice among N": exp of a mean surprise, with the digits that it can carry. */
export const choices = (surprise: number): string => {
  const n = Math.exp(surprise);
  return n < 100 ? n.toFixed(1) : n < 1e6 ? count(n) : "more than a million";
};

/** Seconds in words that change slowly: "8 s", "3 min", "2 h". */
export const duration = (seconds: number): string => {
  if (seconds < 1) return "under 1 s";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
};

/** A visible sign for a token: also characters that have no shape of their own get one. */
export const sign = (text: string): string => {
  const code = text.codePointAt(0) ?? 0;
  if (text !== token(text) || text === "") return token(text) || "∅";
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  if (/^[\p{C}\p{Z}]/u.test(text)) return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  return /^\p{M}/u.test(text) ? `◌${text}` : text;
};

/** The same in a sentence. */
export const named = (text: string): string => {
  if (text === "\n") return `the ${tokenName(text)} ↵`;
  return text === token(text) ? `“${sign(text)}”` : `a ${tokenName(text)}`;
};

/** The mean of the last `window` values at each place; null where the value itself is not finite. */
export function trailingMean(values: (number | null)[], window: number): (number | null)[] {
  const means: (number | null)[] = [];
  let sum = 0;
  let n = 0;
  values.forEach((value, i) => {
    const leaves = i >= window ? values[i - window] : null;
    if (value !== null) { sum += value; n += 1; }
    if (leaves !== null && leaves !== undefined) { sum -= leaves; n -= 1; }
    means.push(value !== null && n > 0 ? sum / n : null);
  });
  return means;
}
