/**
 * The graph of a run, laid out: functions as nested boxes, data flowing downwards, the residual stream as
 * a straight spine on the left. It knows tensors and calls only, so an edited program is drawn as it is.
 *
 * Every box is laid out by itself, the inner ones first: ranks by the longest path, order within a rank
 * by the mean of the neighbours, places by least squares. A line that crosses the border of a box passes
 * through a port, which the inner layout places and the outer one meets. All of it is deterministic.
 */

import { concept, type Concept } from "../format";
import type { Tensor } from "../types";
import { isNumber, operands, title, word, within, type Run } from "./run";

export interface Piece { text: string; tensor: number | null }

export interface GraphNode {
  key: string;
  kind: "value" | "op" | "call" | "failure";
  x: number; y: number; width: number; height: number;
  /** The tensor that it stands for; for a folded call what comes out of it. */
  tensor: number | null;
  call: number | null;
  name: string;
  hue: Concept | null;
  /** The operation, and the weights and numbers that go into it. */
  pieces: Piece[];
  thumb: { width: number; height: number } | null;
  /** All tensors it stands for, those folded into it included. */
  holds: number[];
  inStream: boolean;
}

export interface GraphBox {
  call: number; label: string; depth: number; x: number; y: number; width: number; height: number;
  /** Where its title begins, so that no line runs through it. */
  title: number;
}

export interface GraphEdge {
  key: string;
  source: number;
  targets: number[];
  stream: boolean;
  path: string;
}

export interface Graph {
  width: number; height: number;
  boxes: GraphBox[];
  /** In the order of execution. */
  nodes: GraphNode[];
  edges: GraphEdge[];
  /** By tensor: the key of the node that stands for it. */
  at: Map<number, string>;
}

export interface Folding {
  /** Calls that the reader folded or unfolded; the others follow the default. */
  chosen: ReadonlyMap<number, boolean>;
  /** Of calls that a line repeats, unfold only the first. */
  firstOnly: boolean;
  /** Boxes as late as possible: one under another instead of side by side. */
  stacked: boolean;
}

export const PLAIN: Folding = { chosen: new Map(), firstOnly: false, stacked: false };

const CHARACTER = 7.3;
const GAP = 14;
const RANK = 22;
const PAD = 12;
const TITLE = 26;
const LANE = 10;

// ---- What is drawn ----

/** Whether a call is a box of its own by default: if weights go into it, or if it stands near the top. */
function openByDefault(run: Run, call: number, firstOnly: boolean, holding: ReadonlySet<number>): boolean {
  const { xray } = run;
  const record = xray.calls[call];
  if (!record) return true;
  let depth = 0;
  for (let c = record.parent; c !== null && c !== undefined; c = xray.calls[c]?.parent ?? null) depth++;
  if (depth >= 2 && !holding.has(call)) return false;
  if (!firstOnly || depth < 2) return true;
  const first = xray.calls.find((c) => c.parent === record.parent && c.line === record.line && c.function === record.function);
  return first?.id === call;
}

/** The calls that weights go into, themselves or further down. */
function weighty(run: Run): Set<number> {
  const found = new Set<number>();
  for (const tensor of run.xray.tensors) {
    if (!tensor.parents.some((p) => run.xray.tensors[p]?.weight)) continue;
    for (let c = tensor.call; c !== null && c !== undefined && !found.has(c); c = run.xray.calls[c]?.parent ?? null) found.add(c);
  }
  return found;
}

/** The call in which the run stopped, if it did. */
export function stoppedIn(run: Run): number | null {
  const { xray } = run;
  if (!xray.error || xray.loss !== null) return null;
  let call: number | null = xray.values.at(-1)?.call ?? null;
  while (call !== null && !run.busy.has(call)) call = xray.calls[call]?.parent ?? null;
  return call;
}

interface Item {
  key: string;
  node: GraphNode | null;
  inner: Laid | null;
  width: number; height: number;
  order: number;
  rank: number;
  x: number; y: number;
  /** On the spine, and so held at its place. */
  spine: boolean;
  port: "in" | "out" | null;
  lane: number | null;
}

interface Line { from: string; to: string; source: number; targets: Set<number>; stream: boolean }

interface Segment { points: [number, number][]; source: number; targets: Set<number>; stream: boolean; key: string }

interface Laid {
  call: number | null;
  width: number; height: number;
  items: Item[];
  segments: Segment[];
  ins: Map<number, number>;
  outs: Map<number, number>;
}

export function layout(run: Run, folding: Folding = PLAIN): Graph {
  const { xray } = run;
  const holding = weighty(run);
  const stopped = stoppedIn(run);
  const isOpen = (call: number): boolean =>
    folding.chosen.get(call) ?? ((stopped !== null && within(xray, stopped, call)) || openByDefault(run, call, folding.firstOnly, holding));

  // Operands as the reader sees them, and the tensors that are drawn for themselves.
  const into: number[][] = xray.tensors.map((t) => operands(run, t.id));
  const uses: number[] = xray.tensors.map(() => 0);
  for (const made of into) for (const p of made) uses[p] = (uses[p] ?? 0) + 1;
  const beside = (t: Tensor): boolean => Boolean(t.weight) || isNumber(t) || (t.parents.length === 0 && (uses[t.id] ?? 0) === 1);
  const drawn = xray.tensors.filter((t) => {
    if (beside(t)) return false;
    if (t.call === null || !run.busy.has(t.call)) return false;
    return (uses[t.id] ?? 0) > 0 || run.names[t.id] !== null || (run.children[t.id]?.length ?? 0) === 0 && t.parents.length > 0;
  });

  // Which box a tensor stands in, and which folded call hides it.
  const outermostFolded = (call: number | null): number | null => {
    let folded: number | null = null;
    for (let c = call; c !== null && c !== undefined; c = xray.calls[c]?.parent ?? null) if (!isOpen(c)) folded = c;
    return folded;
  };
  const key = (tensor: Tensor): string => {
    const folded = outermostFolded(tensor.call);
    return folded === null ? `t${tensor.id}` : `c${folded}`;
  };
  const keys = new Map(drawn.map((t) => [t.id, key(t)]));
  const at = new Map<number, string>(keys);
  const nodes = new Map<string, GraphNode>();
  const homes = new Map<string, number | null>();
  for (const tensor of drawn) {
    const k = keys.get(tensor.id) as string;
    const existing = nodes.get(k);
    if (existing) {
      existing.holds.push(tensor.id);
      continue;
    }
    const folded = k.startsWith("c") ? Number(k.slice(1)) : null;
    nodes.set(k, blank(k, folded === null ? (run.names[tensor.id] === null ? "op" : "value") : "call", folded ?? tensor.call, tensor.id));
    homes.set(k, folded === null ? tensor.call : (xray.calls[folded]?.parent ?? null));
  }
  // What is hidden beside or stepped over belongs to the node that it goes into.
  for (const tensor of [...xray.tensors].reverse()) {
    if (at.has(tensor.id)) continue;
    const child = (run.children[tensor.id] ?? []).find((c) => at.has(c));
    const k = child === undefined ? undefined : at.get(child);
    if (k === undefined) continue;
    at.set(tensor.id, k);
    if (!tensor.weight) nodes.get(k)?.holds.push(tensor.id);
  }
  for (const node of nodes.values()) describe(run, node, into, keys);

  // Lines between them.
  const streamNext = new Map(run.stream.slice(0, -1).map((id, i) => [id, run.stream[i + 1]]));
  const wires: { source: number; target: number }[] = [];
  for (const tensor of drawn)
    for (const p of new Set(into[tensor.id] ?? [])) if (keys.has(p) && keys.get(p) !== keys.get(tensor.id)) wires.push({ source: p, target: tensor.id });

  const failure = stopped === null ? null : `f${stopped}`;
  if (failure && stopped !== null) {
    const node = blank(failure, "failure", stopped, null);
    const text = `stopped in line ${xray.error?.line ?? "?"}`;
    Object.assign(node, { name: text, width: text.length * CHARACTER + 20, height: 28 });
    nodes.set(failure, node);
    homes.set(failure, stopped);
  }

  // Boxes, the inner ones first.
  const boxes = new Map<number | null, { children: number[]; lines: Map<string, Line>; nodes: string[] }>();
  const box = (call: number | null): { children: number[]; lines: Map<string, Line>; nodes: string[] } => {
    const known = boxes.get(call);
    if (known) return known;
    const fresh = { children: [], lines: new Map<string, Line>(), nodes: [] };
    boxes.set(call, fresh);
    if (call !== null) box(xray.calls[call]?.parent ?? null).children.push(call);
    return fresh;
  };
  for (const [k, home] of homes) box(home).nodes.push(k);
  const upwards = (call: number | null): (number | null)[] => {
    const chain: (number | null)[] = [call];
    for (let c = call; c !== null; ) chain.push((c = xray.calls[c]?.parent ?? null));
    return chain;
  };
  const draw = (call: number | null, from: string, to: string, source: number, target: number): void => {
    const lines = box(call).lines;
    const id = `${from}>${to}>${source}`;
    const line = lines.get(id) ?? { from, to, source, targets: new Set<number>(), stream: false };
    line.targets.add(target);
    line.stream ||= streamNext.get(source) === target;
    lines.set(id, line);
  };
  for (const { source, target } of wires) {
    const [a, b] = [keys.get(source) as string, keys.get(target) as string];
    const up = upwards(homes.get(a) ?? null);
    const down = upwards(homes.get(b) ?? null);
    const meet = up.find((c) => down.includes(c)) as number | null;
    let from = a;
    for (const call of up) {
      if (call === meet) break;
      draw(call, from, `out${source}`, source, target);
      from = `b${call}`;
    }
    let to = b;
    for (const call of down) {
      if (call === meet) break;
      draw(call, `in${source}`, to, source, target);
      to = `b${call}`;
    }
    draw(meet, from, to, source, target);
  }

  // One call at the root, such as `train`, needs no frame: it is the whole picture.
  const root = box(null);
  const whole = root.children.length === 1 && root.nodes.length === 0 ? (root.children[0] ?? null) : null;
  const arrange = (call: number | null): Laid => {
    const { children, lines, nodes: own } = box(call);
    const items: Item[] = [];
    for (const k of own) {
      const node = nodes.get(k) as GraphNode;
      items.push(item(k, { node, width: node.width, height: node.height, order: node.kind === "failure" ? 1e9 : (node.tensor ?? 0), spine: node.inStream }));
    }
    for (const child of children) {
      const inner = arrange(child);
      const first = inner.items.reduce((least, i) => Math.min(least, i.order), Infinity);
      items.push(item(`b${child}`, { inner, width: inner.width, height: inner.height, order: first }));
    }
    if (failure && call === stopped) {
      const last = items.filter((i) => i.order < 1e9).sort((p, q) => p.order - q.order).at(-1);
      if (last) lines.set("failure", { from: last.key, to: failure, source: -1, targets: new Set(), stream: false });
    }
    return place(call, call === null || call === whole ? null : titleWidth(xray.calls[call]?.label ?? ""), items, [...lines.values()], folding.stacked);
  };
  const laid = arrange(null);

  // Everything at its place on the page.
  const graph: Graph = { width: laid.width, height: laid.height, boxes: [], nodes: [], edges: [], at };
  const unfold = (part: Laid, dx: number, dy: number, depth: number): void => {
    if (part.call !== null && part.call !== whole) {
      const label = xray.calls[part.call]?.label ?? "";
      const title = dx + free(titleWidth(label), part.width, [...part.ins.values()]);
      graph.boxes.push({ call: part.call, label, depth, x: dx, y: dy, width: part.width, height: part.height, title });
    }
    for (const i of part.items) {
      if (i.node) graph.nodes.push(Object.assign(i.node, { x: dx + i.x - i.width / 2, y: dy + i.y }));
      if (i.inner) unfold(i.inner, dx + i.x - i.width / 2, dy + i.y, part.call === whole || part.call === null ? depth : depth + 1);
    }
    for (const s of part.segments) {
      const points = s.points.map(([x, y]): [number, number] => [dx + x, dy + y]);
      graph.edges.push({ key: `${part.call} ${s.key}`, source: s.source, targets: [...s.targets], stream: s.stream, path: curve(points) });
    }
  };
  unfold(laid, 0, 0, 0);
  graph.nodes.sort((a, b) => (a.tensor ?? 1e9) - (b.tensor ?? 1e9));
  return graph;
}

function titleWidth(label: string): number {
  return label.length * CHARACTER + 34;
}

/** Where a title of that width fits between the lines that enter at the top. */
function free(width: number, room: number, ports: number[]): number {
  const starts = [0, ...[...ports].sort((a, b) => a - b).map((x) => x + 2)];
  return starts.find((x) => x + width <= room && ports.every((p) => p < x || p > x + width)) ?? 0;
}

function item(key: string, parts: Partial<Item>): Item {
  return { key, node: null, inner: null, width: 0, height: 0, order: 0, rank: 0, x: 0, y: 0, spine: false, port: null, lane: null, ...parts };
}

function blank(key: string, kind: GraphNode["kind"], call: number | null, tensor: number | null): GraphNode {
  return {
    key, kind, x: 0, y: 0, width: 0, height: 0, tensor, call, name: "", hue: null, pieces: [], thumb: null,
    holds: tensor === null ? [] : [tensor], inStream: false,
  };
}

/** What a node says, and how much room that takes. */
function describe(run: Run, node: GraphNode, into: number[][], keys: ReadonlyMap<number, string>): void {
  const { xray } = run;
  if (node.kind === "failure") return;
  if (node.kind === "call") {
    // What comes out: the last tensor inside that something outside uses, or the last one made.
    const own = [...node.holds].sort((a, b) => a - b).filter((id) => keys.has(id));
    const out = own.filter((id) => (run.children[id] ?? []).some((c) => keys.has(c) && keys.get(c) !== node.key)).at(-1) ?? own.at(-1);
    node.tensor = out ?? node.tensor;
  }
  const tensor = xray.tensors[node.tensor ?? -1];
  if (!tensor) return;
  node.inStream = node.kind !== "call" && run.inStream.has(tensor.id);
  const own = run.names[tensor.id] ?? null;
  const label = node.call === null ? "" : (xray.calls[node.call]?.label ?? "");
  if (node.kind === "call") {
    node.name = own ?? label;
    const weights = new Set(node.holds.flatMap((id) => xray.tensors[id]?.parents ?? []).filter((p) => xray.tensors[p]?.weight));
    node.pieces = [{ text: own === null ? (weights.size ? `${weights.size} weights` : `${tensor.shape[0]} × ${tensor.shape[1]}`) : label, tensor: null }];
  } else {
    node.name = own ?? "";
    const besides = (into[tensor.id] ?? []).filter((p) => xray.tensors[p] && !keys.has(p)).map((p) => ({ text: title(run, p), tensor: p }));
    const op = word(run, tensor.id);
    node.pieces = op === "rows" ? [...besides, { text: besides.length ? "[…]" : "rows", tensor: null }] : [{ text: op, tensor: null }, ...besides];
  }
  node.hue = concept(own);
  const [rows, columns] = tensor.shape;
  if (node.kind !== "op") {
    const cell = Math.min(5, 64 / columns, 26 / rows);
    node.thumb = rows * columns > 1 ? { width: Math.max(4, Math.round(columns * cell)), height: Math.max(4, Math.round(rows * cell)) } : null;
  }
  const below = pieceWidth(node.pieces);
  if (node.kind === "op") {
    node.width = below + 16;
    node.height = 22;
    return;
  }
  const single = tensor.shape[0] * tensor.shape[1] === 1 ? 52 : 0;
  const above = node.name.length * (CHARACTER + 0.5) + (node.thumb ? node.thumb.width + 8 : 0) + single;
  node.width = Math.ceil(Math.max(above, below + (node.kind === "call" ? 18 : 0)) + 16);
  node.height = Math.max(24, (node.thumb?.height ?? 0) + 6) + 20;
}

function pieceWidth(pieces: Piece[]): number {
  return pieces.reduce((sum, piece) => sum + piece.text.length * CHARACTER, 0) + (pieces.length - 1) * 5;
}

// ---- One box ----

function place(call: number | null, frame: number | null, items: Item[], lines: Line[], stacked: boolean): Laid {
  items.sort((a, b) => a.order - b.order || (a.key < b.key ? -1 : 1));
  const by = new Map(items.map((i) => [i.key, i]));
  for (const line of lines) {
    for (const [k, port] of [[line.from, "in"], [line.to, "out"]] as const) {
      if (by.has(k)) continue;
      by.set(k, item(k, { port, width: LANE, order: line.source }));
    }
  }
  const all = [...by.values()];
  const outgoing = group(lines, (l) => l.from);
  const incoming = group(lines, (l) => l.to);

  rank(all, outgoing, incoming, by, stacked);
  const ranks: Item[][] = [];
  for (const i of all) (ranks[i.rank] ??= []).push(i);
  for (let r = 0; r < ranks.length; r++) ranks[r] ??= [];

  // Long lines get a lane in every rank that they pass; lines of one source share it.
  const lanes = new Map<string, Item>();
  const routes: { line: Line; stops: Item[] }[] = [];
  for (const line of lines) {
    const [a, b] = [by.get(line.from), by.get(line.to)];
    if (!a || !b) continue;
    const stops: Item[] = [a];
    for (let r = a.rank + 1; r < b.rank; r++) {
      const k = `${line.from} ${line.source} ${r}`;
      let lane = lanes.get(k);
      if (!lane) {
        lane = item(k, { lane: line.source, width: LANE, rank: r, order: line.source });
        lanes.set(k, lane);
        ranks[r]?.push(lane);
      }
      if (line.stream) lane.spine = true;
      stops.push(lane);
    }
    stops.push(b);
    routes.push({ line, stops });
  }

  const up = new Map<Item, Neighbour[]>();
  const down = new Map<Item, Neighbour[]>();
  const linked = new Set<string>();
  for (const { line, stops } of routes)
    for (let s = 0; s + 1 < stops.length; s++) {
      const [a, b] = [stops[s] as Item, stops[s + 1] as Item];
      const k = `${a.key}|${b.key}|${line.source}`;
      if (linked.has(k)) continue;
      linked.add(k);
      const weight = a.lane !== null && b.lane !== null ? 8 : a.lane !== null || b.lane !== null ? 0.4 : 1;
      push(down, a, { item: b, here: offset(a, line.source, "out"), there: offset(b, line.source, "in"), weight });
      push(up, b, { item: a, here: offset(b, line.source, "in"), there: offset(a, line.source, "out"), weight });
    }

  // Two beginnings, lanes to the right and lanes to the left of the rest; the one with fewer crossings stays.
  let least = Infinity;
  let kept: Item[][] = ranks;
  for (const aside of [1e9, 0]) {
    const tried = ranks.map((row) => [...row].sort((a, b) => natural(a, b, aside)));
    const count = order(tried, up, down);
    if (count < least) [least, kept] = [count, tried];
  }
  ranks.splice(0, ranks.length, ...kept);
  coordinates(ranks, up, down);
  return measure(call, frame, ranks, routes, items);
}

function natural(a: Item, b: Item, aside = 0): number {
  const place = (i: Item): number => i.order + (i.lane === null ? 0 : aside);
  return Number(b.spine) - Number(a.spine) || place(a) - place(b) || (a.key < b.key ? -1 : 1);
}

/** Ranks by the longest path; what nothing goes into stands close above where it is used. */
function rank(all: Item[], outgoing: Map<string, Line[]>, incoming: Map<string, Line[]>, by: Map<string, Item>, stacked: boolean): void {
  const ports = all.filter((i) => i.port === "in");
  const inside = all.filter((i) => i.port === null).sort((a, b) => a.order - b.order);
  for (const i of inside) {
    const before = (incoming.get(i.key) ?? []).map((l) => by.get(l.from)).filter((b): b is Item => b !== undefined && b.order <= i.order);
    i.rank = before.reduce((most, b) => Math.max(most, b.port === "in" ? 1 : b.rank + 1), ports.length ? 1 : 0);
  }
  for (const i of [...inside].reverse()) {
    const free = !(incoming.get(i.key) ?? []).length || (stacked && i.inner !== null) || (stacked && i.node?.kind === "call");
    if (!free || i.spine) continue;
    const after = (outgoing.get(i.key) ?? []).map((l) => by.get(l.to)).filter((b): b is Item => b !== undefined && b.port === null);
    if (after.length) i.rank = Math.max(i.rank, Math.min(...after.map((b) => b.rank)) - 1);
  }
  const bottom = inside.reduce((most, i) => Math.max(most, i.rank), 0) + 1;
  for (const i of all) if (i.port === "out") i.rank = bottom;
}

interface Neighbour { item: Item; here: number; there: number; weight: number }

/** Where a line leaves or enters, measured from the middle of the item. */
function offset(i: Item, source: number, side: "in" | "out"): number {
  if (!i.inner) return 0;
  const x = (side === "in" ? i.inner.ins : i.inner.outs).get(source);
  return x === undefined ? 0 : x - i.width / 2;
}

/** Fewer crossings: each rank sorted by where its neighbours are, the best order of several rounds kept. */
function order(ranks: Item[][], up: Map<Item, Neighbour[]>, down: Map<Item, Neighbour[]>): number {
  let best = crossings(ranks, down);
  let kept = ranks.map((row) => [...row]);
  for (let round = 0; round < 8 && best > 0; round++) {
    const downwards = round % 2 === 0;
    const sequence = downwards ? ranks : [...ranks].reverse();
    const near = downwards ? up : down;
    const index = new Map<Item, number>();
    for (const row of ranks) row.forEach((i, n) => index.set(i, n / Math.max(row.length, 1)));
    for (const row of sequence) {
      const mean = new Map<Item, number>();
      row.forEach((i, n) => {
        const all = near.get(i) ?? [];
        const own = n / Math.max(row.length, 1);
        mean.set(i, all.length ? all.reduce((s, o) => s + (index.get(o.item) ?? own) + o.there * 1e-5, 0) / all.length : own);
      });
      row.sort((a, b) => Number(b.spine) - Number(a.spine) || (mean.get(a) ?? 0) - (mean.get(b) ?? 0) || natural(a, b));
      row.forEach((i, n) => index.set(i, n / Math.max(row.length, 1)));
    }
    const now = crossings(ranks, down);
    if (now < best) {
      best = now;
      kept = ranks.map((row) => [...row]);
    }
  }
  kept.forEach((row, r) => (ranks[r] = row));
  return best;
}

function crossings(ranks: Item[][], down: Map<Item, Neighbour[]>): number {
  let count = 0;
  for (let r = 0; r + 1 < ranks.length; r++) {
    const index = new Map((ranks[r + 1] ?? []).map((i, n) => [i, n]));
    const ends: [number, number][] = [];
    (ranks[r] ?? []).forEach((i, n) => {
      for (const o of down.get(i) ?? []) {
        const end = index.get(o.item);
        if (end !== undefined) ends.push([n + o.here * 1e-5, end + o.there * 1e-5]);
      }
    });
    for (let p = 0; p < ends.length; p++)
      for (let q = p + 1; q < ends.length; q++) {
        const [a, b] = [ends[p] as [number, number], ends[q] as [number, number]];
        if ((a[0] - b[0]) * (a[1] - b[1]) < 0) count++;
      }
  }
  return count;
}

/** Places from left to right: everything near its neighbours, nothing overlapping, the spine straight. */
function coordinates(ranks: Item[][], up: Map<Item, Neighbour[]>, down: Map<Item, Neighbour[]>): void {
  const spine = ranks.flat().filter((i) => i.spine);
  const middle = spine.reduce((most, i) => Math.max(most, i.width / 2), 0);
  for (const row of ranks) {
    let x = 0;
    for (const i of row) {
      i.x = i.spine ? middle : x + i.width / 2;
      x = i.x + i.width / 2 + between(i, null);
    }
  }
  for (let round = 0; round < 24; round++) {
    const downwards = round % 2 === 0;
    const sequence = downwards ? ranks : [...ranks].reverse();
    for (const row of sequence) {
      const wish = row.map((i) => {
        if (i.spine) return { at: middle, weight: 1e6 };
        const near = round > 15 ? [...(up.get(i) ?? []), ...(down.get(i) ?? [])] : ((downwards ? up : down).get(i) ?? []);
        if (!near.length) return { at: i.x, weight: 0.05 };
        const weight = near.reduce((s, n) => s + n.weight, 0);
        return { at: near.reduce((s, n) => s + n.weight * (n.item.x + n.there - n.here), 0) / weight, weight };
      });
      spread(row, wish);
    }
  }
}

function between(a: Item, b: Item | null): number {
  const slim = (i: Item | null): boolean => i !== null && (i.lane !== null || i.port !== null);
  return slim(a) && slim(b) ? 4 : slim(a) || slim(b) ? 8 : a.inner || b?.inner ? GAP + 2 : GAP;
}

/** The places closest to the wished ones that keep the order and the distances (pool adjacent violators). */
function spread(row: Item[], wish: { at: number; weight: number }[]): void {
  const shift: number[] = [];
  row.forEach((i, n) => {
    const before = row[n - 1];
    shift[n] = before ? (shift[n - 1] ?? 0) + before.width / 2 + between(before, i) + i.width / 2 : 0;
  });
  const blocks: { sum: number; weight: number; count: number }[] = [];
  row.forEach((_, n) => {
    const { at, weight } = wish[n] as { at: number; weight: number };
    let block = { sum: (at - (shift[n] ?? 0)) * weight, weight, count: 1 };
    for (let last = blocks.at(-1); last && last.sum / last.weight > block.sum / block.weight; last = blocks.at(-1)) {
      blocks.pop();
      block = { sum: block.sum + last.sum, weight: block.weight + last.weight, count: block.count + last.count };
    }
    blocks.push(block);
  });
  let n = 0;
  for (const block of blocks)
    for (let c = 0; c < block.count; c++, n++) (row[n] as Item).x = block.sum / block.weight + (shift[n] ?? 0);
}

/** Heights, lines, and the size of the whole box. */
function measure(call: number | null, title: number | null, ranks: Item[][], routes: { line: Line; stops: Item[] }[], items: Item[]): Laid {
  const all = ranks.flat();
  const solid = all.filter((i) => i.port === null);
  const left = Math.min(...solid.map((i) => i.x - i.width / 2), Infinity);
  const right = Math.max(...solid.map((i) => i.x + i.width / 2), -Infinity);
  const frame = title !== null;
  const inner = Number.isFinite(left) ? right - left : 0;
  const width = Math.max(inner + (frame ? 2 * PAD : 0), title ?? 0);
  const shift = (width - inner) / 2 - (Number.isFinite(left) ? left : 0);
  for (const i of all) i.x += shift;

  const tops: number[] = [];
  const bottoms: number[] = [];
  let y = frame ? TITLE : 0;
  ranks.forEach((row, r) => {
    const height = row.reduce((most, i) => Math.max(most, i.height), 0);
    const portsOnly = row.every((i) => i.port !== null);
    if (r > 0 && row.length) y += portsOnly && frame ? PAD : RANK;
    tops[r] = y;
    for (const i of row) i.y = i.inner || i.node?.inStream ? y : y + (row.some((o) => o.inner) ? 0 : (height - i.height) / 2);
    y += height;
    bottoms[r] = y;
  });
  const outs = all.filter((i) => i.port === "out");
  const height = y + (frame && !outs.length ? PAD : 0);

  const segments: Segment[] = routes.map(({ line, stops }) => {
    const points: [number, number][] = [];
    stops.forEach((i, n) => {
      const top = tops[i.rank] ?? 0;
      const bottom = bottoms[i.rank] ?? 0;
      if (i.port === "in") points.push([i.x, frame ? 0 : top], [i.x, top]);
      else if (i.port === "out") points.push([i.x, height]);
      else if (i.lane !== null) points.push([i.x, top], [i.x, bottom]);
      else if (n === 0) {
        points.push([i.x + offset(i, line.source, "out"), i.y + i.height]);
        if (i.y + i.height < bottom - 1) points.push([i.x + offset(i, line.source, "out"), bottom]);
      } else {
        const x = i.x + offset(i, line.source, "in");
        if (i.y > top + 1) points.push([x, top]);
        points.push([x, i.y]);
      }
    });
    return { points, source: line.source, targets: line.targets, stream: line.stream, key: `${line.from} ${line.to} ${line.source}` };
  });
  const portAt = (port: "in" | "out"): Map<number, number> =>
    new Map(all.filter((i) => i.port === port).map((i) => [Number(i.key.replace(/^\D+/, "")), i.x]));
  return { call, width, height, items, segments, ins: portAt("in"), outs: portAt("out") };
}

/** Straight down where it can be, and a quiet S between two places. */
function curve(points: [number, number][]): string {
  let path = "";
  points.forEach(([x, y], n) => {
    const before = points[n - 1];
    const [px, py] = [x.toFixed(1), y.toFixed(1)];
    if (!before) path = `M${px} ${py}`;
    else if (Math.abs(before[0] - x) < 0.5) path += `L${px} ${py}`;
    else {
      const middle = ((before[1] + y) / 2).toFixed(1);
      path += `C${before[0].toFixed(1)} ${middle} ${px} ${middle} ${px} ${py}`;
    }
  });
  return path;
}

function group(lines: Line[], by: (line: Line) => string): Map<string, Line[]> {
  const found = new Map<string, Line[]>();
  for (const line of lines) push(found, by(line), line);
  return found;
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

/** The first folding whose width fits: all unfolded, then one of each repeated call, then one under another. */
export function fit(run: Run, chosen: ReadonlyMap<number, boolean>, width: number): Graph {
  const tries: Folding[] = [
    { chosen, firstOnly: false, stacked: false },
    { chosen, firstOnly: true, stacked: false },
    { chosen, firstOnly: true, stacked: true },
  ];
  let graph = layout(run, tries[0] as Folding);
  for (const folding of tries.slice(1)) {
    if (graph.width * SMALLEST <= width) break;
    graph = layout(run, folding);
  }
  return graph;
}

/** The smallest scale at which the words of the graph can be read. */
export const SMALLEST = 0.88;
