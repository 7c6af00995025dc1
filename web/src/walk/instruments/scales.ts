/** Ticks, paths and heat-map cells: how plain numbers become marks of a picture. */

import type { Num, Rows } from "../../types";
import { finite } from "../../views/wording";

export type Point = [number, number];

/** A few round numbers that cover a range. */
export function ticks(low: number, high: number, wanted = 4): number[] {
  if (!(high - low > Math.abs(high) * 1e-12)) return [low];
  const rough = (high - low) / wanted;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((s) => s * size >= rough) ?? 10) * size;
  const found: number[] = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) found.push(n === 0 ? 0 : n * step);
  return found.map((x) => Number(x.toPrecision(12)));
}

/** From the smallest to the largest of some numbers, with a little room, and with zero where it is near. */
export function extent(values: (Num | null)[], zero = false): [number, number] {
  const good = values.flatMap((x) => finite(x) ?? []);
  if (good.length === 0) return [0, 1];
  let low = Math.min(...good), high = Math.max(...good);
  if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [zero && low === 0 ? 0 : low - room, zero && high === 0 ? 0 : high + room];
}

const LEVELS = 12;

/** A heat map as few paths: the cells of one sign and about one size together, each a unit square. */
export function levels(rows: Rows, limit: number): { d: string; sign: "positive" | "negative"; opacity: number }[] {
  const parts = new Map<number, string[]>();
  rows.forEach((row, r) =>
    row.forEach((x, c) => {
      const number = x === "inf" ? limit : x === "-inf" ? -limit : finite(x);
      if (number === null || number === 0 || limit === 0) return;
      const level = Math.max(1, Math.round(Math.min(Math.abs(number) / limit, 1) ** 0.8 * LEVELS));
      const key = number < 0 ? -level : level;
      parts.set(key, [...(parts.get(key) ?? []), `M${c} ${r}h1v1h-1z`]);
    }),
  );
  return [...parts].map(([key, cells]) => ({
    d: cells.join(""), sign: key < 0 ? ("negative" as const) : ("positive" as const), opacity: Math.round((Math.abs(key) / LEVELS) * 100) / 100,
  }));
}

/** A short stroke in every cell below zero: the sign is never told by colour alone. */
export function dashes(rows: Rows): string {
  return rows.flatMap((row, r) => row.flatMap((x, c) => (x === "-inf" || (finite(x) ?? 0) < 0 ? `M${c + 0.32} ${r + 0.5}h.36` : []))).join("");
}

/** Where the finite size is largest: the number that has the full colour. */
export function largest(rows: Rows): number {
  let most = 0;
  for (const row of rows) for (const x of row) most = Math.max(most, Math.abs(finite(x) ?? 0));
  return most;
}

/** Points as a path, in thousandths of the picture's width and height; whole ones where there are many points. */
export function path(points: Point[], x: [number, number], y: [number, number], dots = false): string {
  const at = scale(x, y);
  const many = points.length > 300;
  return points.map((p, i) => {
    const [px, py] = many ? at(p).map(Math.round) : at(p);
    return dots ? `M${px} ${py}h0` : `${i ? "L" : "M"}${px} ${py}`;
  }).join("");
}

export function scale([left, right]: [number, number], [low, high]: [number, number]): (p: Point) => Point {
  const round = (n: number): number => Math.round(n * 10) / 10;
  return ([x, y]) => [
    round(((x - left) / (right - left || 1)) * 1000),
    round((1 - (Math.min(Math.max(y, low), high) - low) / (high - low || 1)) * 1000),
  ];
}
