/** The whole model in a few words: the functions that ran, inside each other, with the values that they named. */

import { concept, type Concept } from "../../format";
import type { Xray } from "../../types";
import { path, read, title, type Run } from "../../views/run";

/** `brush` is the name as the file writes it; null where it has none. */
export interface OutlineValue { kind: "value"; name: string; brush: string | null; tensor: number; shape: [number, number]; hue: Concept | null }
export interface OutlineCall { kind: "call"; call: number; label: string; function: string; line: number | null; items: OutlineItem[] }
export type OutlineItem = OutlineValue | OutlineCall;

export interface Outline {
  text: string;
  weights: OutlineValue[];
  /** From the function that ran first. */
  calls: OutlineCall[];
  /** How many numbers the run computed, and how many weights it has. */
  tensors: number; numbers: number; parameters: number;
}

function valueOf(run: Run, tensor: number, name: string): OutlineValue {
  const { shape, weight } = run.xray.tensors[tensor] ?? { shape: [0, 0] as [number, number], weight: null };
  if (name === "return") return { kind: "value", name: "returns", brush: null, tensor, shape, hue: null };
  const brush = weight ? weight.slice(weight.lastIndexOf(".") + 1) : name;
  return { kind: "value", name, brush, tensor, shape, hue: concept(brush) };
}

/** What one call did, in order: the values that it named, and the calls that it made. Only what led to a tensor. */
export function itemsOf(run: Run, call: number): OutlineItem[] {
  const items: OutlineItem[] = [];
  const seen = new Set<string>();
  for (const i of run.main) {
    const value = run.xray.values[i];
    if (!value || value.tensor === null) continue;
    const calls = path(run.xray, value.call);
    const depth = calls.indexOf(call);
    if (depth < 0) continue;
    const inner = calls[depth + 1];
    const key = inner === undefined ? `v${value.i}` : `c${inner}`;
    if (seen.has(key)) continue;
    seen.add(key);
    if (inner === undefined) items.push(valueOf(run, value.tensor, value.name));
    else items.push(callOf(run, inner));
  }
  return items;
}

export function callOf(run: Run, call: number): OutlineCall {
  const record = run.xray.calls[call];
  return {
    kind: "call", call, label: record?.label ?? "", function: record?.function ?? "", line: record?.line ?? null,
    items: itemsOf(run, call),
  };
}

export function outline(xray: Xray): Outline {
  const run = read(xray);
  const roots = xray.calls.filter((c) => c.parent === null && run.busy.has(c.id));
  const weights = xray.tensors.filter((t) => t.weight);
  const size = (list: typeof weights): number => list.reduce((sum, t) => sum + t.shape[0] * t.shape[1], 0);
  return {
    text: xray.doc,
    weights: weights.map((t) => valueOf(run, t.id, shortPath(t.weight ?? title(run, t.id)))),
    calls: roots.map((c) => callOf(run, c.id)),
    tensors: xray.tensors.length, numbers: size(xray.tensors), parameters: size(weights),
  };
}

/** "blocks.0.heads.1.wq" as a person says it: "wq 2"; with the layer where there are several. */
export function shortPath(path: string): string {
  const parts = path.split(".");
  const last = parts.at(-1) ?? path;
  const head = parts.indexOf("heads");
  const number = head >= 0 ? ` ${Number(parts[head + 1]) + 1}` : "";
  const layer = Number(parts[1] ?? 0);
  return last + number + (parts[0] === "blocks" && layer > 0 ? `, layer ${layer + 1}` : "");
}
