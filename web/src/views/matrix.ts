/** Colour scales, sizes and hit testing of a drawn matrix. */

import { cell } from "../format";
import type { Num, Rows } from "../types";
import type { Colour, Palette } from "./palette.svelte";

export type ScaleWish = "auto" | "signed" | "probability";

export interface Scale {
  kind: "signed" | "probability";
  /** Smallest and largest finite number, and the number that has the full colour. */
  low: number; high: number; limit: number;
  erased: boolean; nan: boolean; endless: boolean; finite: boolean;
}

/** The scale that a matrix asks for: probabilities are 0 or more and every row sums to one. */
export function scaleOf(rows: Rows, wish: ScaleWish = "auto", limit?: number): Scale {
  let low = Infinity, high = -Infinity, erased = false, nan = false, endless = false;
  let sums = rows.length > 0;
  for (const row of rows) {
    let sum = 0;
    for (const x of row) {
      if (typeof x === "string") {
        if (x === "nan") nan = true;
        else if (x === "-inf") erased = true;
        else endless = true;
        sums = false;
        continue;
      }
      if (x < low) low = x;
      if (x > high) high = x;
      sum += x;
    }
    if (Math.abs(sum - 1) > 0.01) sums = false; // the recording holds three digits of each number
  }
  const finite = low <= high;
  if (!finite) low = high = 0;
  const size = Math.max(Math.abs(low), Math.abs(high));
  const wide = (rows[0]?.length ?? 0) > 1;
  const kind = wish === "auto" ? (sums && low >= 0 && wide ? "probability" : "signed") : wish;
  return { kind, low, high, limit: limit ?? (size || 1), erased, nan, endless, finite };
}

/** The colour of one number: paper at zero, the full hue at the limit. */
export function shade(scale: Scale, x: number, palette: Palette): Colour {
  const t = Math.min(Math.abs(x) / scale.limit, 1) ** 0.8;
  const hue = scale.kind === "probability" ? palette.probability : x < 0 ? palette.negative : palette.positive;
  return mix(palette.paper, hue, t);
}

export function mix(a: Colour, b: Colour, t: number): Colour {
  return [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t];
}

export function css([r, g, b]: Colour): string {
  return `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;
}

function luminance([r, g, b]: Colour): number {
  const linear = (c: number): number => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}

export function contrast(a: Colour, b: Colour): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

const BLACK: Colour = [0, 0, 0];
const WHITE: Colour = [255, 255, 255];

/** Ink or paper, whichever reads better on that colour; black or white where neither reads well. */
export function textOn(colour: Colour, palette: Palette): Colour {
  const better = (a: Colour, b: Colour): Colour => (contrast(colour, a) >= contrast(colour, b) ? a : b);
  const usual = better(palette.ink, palette.paper);
  return contrast(colour, usual) >= 4.5 ? usual : better(BLACK, WHITE);
}

/** Where everything of a drawn matrix is, in CSS pixels. */
export interface Frame {
  rows: number; columns: number;
  cellWidth: number; cellHeight: number;
  /** Room for the labels of rows and columns. */
  left: number; top: number;
  width: number; height: number;
  numbers: boolean;
}

export interface FrameWish {
  /** Width that may be used, and the greatest height that looks well. */
  available: number; tall: number;
  left: number; top: number;
  /** Width of the widest number as written, and whether numbers are insisted on. */
  number: number; insist: boolean;
  compact: boolean;
}

const NUMBER_CELL = 36;
const LINE = 24;

export function frame(rows: number, columns: number, wish: FrameWish): Frame {
  const room = Math.max(wish.available - wish.left, 8);
  const needed = Math.max(NUMBER_CELL, Math.ceil(wish.number) + 3);
  const fits = room / columns >= needed && rows * LINE <= Math.max(wish.tall, 12 * LINE);
  const numbers = !wish.compact && (wish.insist || fits);
  let cellWidth: number, cellHeight: number;
  if (numbers) {
    cellWidth = Math.floor(Math.min(Math.max(room / columns, needed), Math.max(needed + 8, 56)));
    cellHeight = Math.min(LINE + 4, Math.max(LINE, Math.round(cellWidth * 0.55)));
  } else {
    const most = wish.compact ? 14 : 40;
    const across = Math.min(room / columns, most);
    cellWidth = across >= 3 ? Math.floor(across) : across;
    const down = Math.min(wish.compact ? cellWidth : Math.min(Math.max(cellWidth, 18), 26), wish.tall / rows);
    // Many rows lie flat rather than make the picture narrow; few columns stay close to squares.
    cellHeight = down >= 3 ? Math.floor(down) : Math.max(down, 2);
    if (columns === 1) cellWidth = Math.min(most, Math.max(cellWidth, 14));
    if (rows === 1) cellHeight = Math.min(most, Math.max(cellHeight, wish.compact ? 10 : 18));
  }
  return {
    rows, columns, cellWidth, cellHeight, left: wish.left, top: wish.top, numbers,
    width: wish.left + columns * cellWidth, height: wish.top + rows * cellHeight,
  };
}

/** The cell under a point, or null. */
export function hit(f: Frame, x: number, y: number): [number, number] | null {
  const column = Math.floor((x - f.left) / f.cellWidth);
  const row = Math.floor((y - f.top) / f.cellHeight);
  return row >= 0 && row < f.rows && column >= 0 && column < f.columns ? [row, column] : null;
}

/** The widest number of a matrix in a canvas's font, in pixels. */
export function widest(rows: Rows, scale: Scale, more: number, measure: (text: string) => number): number {
  const seen = new Map<string, string>();
  for (const row of rows)
    for (const x of row) {
      const text = inCell(x, scale, more);
      seen.set(`${text.length}${text.startsWith(DASH)}`, text);
    }
  return Math.max(0, ...[...seen.values()].map(measure));
}

const DASH = "\u2013"; // a minus sign as wide as a digit: sixteen numbers must fit beside each other

/**
 * A number as a cell has room for it: the same number of places in all cells of a matrix, or one `more`
 * where there is room; "0" only for zero itself.
 */
export function inCell(x: Num, scale: Scale, more = 0): string {
  if (typeof x === "string" || scale.limit >= 1e4 || scale.limit < 0.01) return cell(x, 2).replace("\u2212", DASH);
  if (x === 0) return "0";
  const whole = Number.isInteger(x) && Number.isInteger(scale.low) && Number.isInteger(scale.high);
  const places = scale.limit >= 100 ? 0 : scale.limit >= 10 ? 1 : scale.limit >= 0.1 ? 2 : 3;
  const three = Math.max(2 - Math.floor(Math.log10(Math.abs(x))), 0); // the recording holds three digits, so no more
  return (x < 0 ? DASH : "") + Math.abs(x).toFixed(whole ? 0 : Math.min(places + more, three));
}

/** What the picture shows, in a sentence. */
export function summary(name: string, rows: Rows, shape: string, where: (row: number, column: number) => string): string {
  let low = Infinity, high = -Infinity, sum = 0, n = 0, at: [number, number] = [0, 0];
  const odd = { nan: 0, "-inf": 0, inf: 0 };
  rows.forEach((row, r) => {
    row.forEach((x, c) => {
      if (typeof x === "string") odd[x]++;
      else {
        low = Math.min(low, x);
        sum += x;
        n++;
        if (x > high) {
          high = x;
          at = [r, c];
        }
      }
    });
  });
  const parts = [`${name}, ${shape}.`];
  if (n) {
    const [min, max, mean] = [cell(low), cell(high), cell(sum / n)];
    parts.push(low === high ? `Every number is ${max}.` : `From ${min} to ${max}, mean ${mean}; the largest is at ${where(...at)}.`);
  }
  if (odd["-inf"]) parts.push(`${odd["-inf"]} cells are minus infinity.`);
  if (odd.inf) parts.push(`${odd.inf} cells are infinity.`);
  if (odd.nan) parts.push(`${odd.nan} cells are nan, not a number.`);
  return parts.join(" ");
}
