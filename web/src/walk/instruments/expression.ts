/** Where the nodes of a small expression stand: inputs above what uses them, the result at the bottom. */

import type { ExpressionAnswer } from "../types";

export type Node = ExpressionAnswer["nodes"][number];
export interface Placed { node: Node; x: number; y: number }
export interface Edge { from: number; to: number; path: string; /** Where its label stands. */ x: number; y: number }
export interface Drawing { width: number; height: number; nodes: Placed[]; edges: Edge[] }

export const BOX = { width: 98, height: 58 };
const GAP = { x: 10, y: 46 };
const LANE = 14; // room for a line that passes through a row
const PORT = 26; // between lines that arrive at one box

/** Something that takes room in a row: a node, or a line on its way through. */
interface Item { node: Node | null; width: number; x: number; near: Item[] }

/** Rows by depth; a leaf stands just above the first that uses it. Within a row, near what it is joined to. */
export function draw(nodes: readonly Node[]): Drawing {
  const users = new Map<number, Node[]>();
  for (const node of nodes) for (const p of node.parents) users.set(p, [...(users.get(p) ?? []), node]);
  const depth = (node: Node): number => {
    const first = Math.min(...(users.get(node.id) ?? []).map((u) => u.depth));
    return node.parents.length === 0 && Number.isFinite(first) ? first - 1 : node.depth;
  };
  const depths = [...new Set(nodes.map(depth))].sort((a, b) => a - b);
  const row = (node: Node): number => depths.indexOf(depth(node));
  const rows: Item[][] = depths.map(() => []);
  const items = new Map<number, Item>();
  for (const node of nodes) {
    const item: Item = { node, width: BOX.width, x: 0, near: [] };
    items.set(node.id, item);
    rows[row(node)]?.push(item);
  }
  // A line over several rows has a lane in each of them, so that it runs behind no box.
  const lanes = new Map<string, Item[]>();
  for (const node of nodes)
    for (const p of new Set(node.parents)) {
      const [from, to] = [items.get(p), items.get(node.id)];
      if (!from?.node || !to) continue;
      const through: Item[] = [];
      for (let r = row(from.node) + 1; r < row(node); r++) {
        const lane: Item = { node: null, width: LANE, x: 0, near: [] };
        rows[r]?.push(lane);
        through.push(lane);
      }
      lanes.set(`${p} ${node.id}`, through);
      const chain = [from, ...through, to];
      chain.forEach((item, i) => {
        for (const beside of [chain[i - 1], chain[i + 1]]) if (beside) item.near.push(beside);
      });
    }
  const size = (line: Item[]): number => line.reduce((sum, i) => sum + i.width, 0) + (line.length - 1) * GAP.x;
  const width = Math.max(BOX.width, ...rows.map(size));
  for (const line of rows) pack(line, width);
  // A few sweeps: each row in the order of the mean of its neighbours, and leaning towards them.
  for (let sweep = 0; sweep < 8; sweep++)
    for (const line of sweep % 2 ? rows : [...rows].reverse()) {
      const mean = new Map(line.map((i) => [i, i.near.length ? i.near.reduce((sum, n) => sum + n.x, 0) / i.near.length : i.x]));
      line.sort((a, b) => (mean.get(a) ?? 0) - (mean.get(b) ?? 0));
      pack(line, width, mean);
    }
  const top = (r: number): number => r * (BOX.height + GAP.y);
  const placed: Placed[] = nodes.map((node) => ({ node, x: Math.round(items.get(node.id)?.x ?? 0), y: top(row(node)) }));
  const at = new Map(placed.map((p) => [p.node.id, p]));
  const edges: Edge[] = placed.flatMap(({ node, x: tx, y: ty }) => {
    const arrives = node.parents.map((p) => lanes.get(`${p} ${node.id}`)?.at(-1)?.x ?? at.get(p)?.x ?? 0);
    return node.parents.flatMap((p, i) => {
      const from = at.get(p);
      if (!from) return [];
      const twice = node.parents.filter((q) => q === p).length > 1;
      // Lines arrive side by side, in the order in which they come, so that they do not cross.
      const mine = arrives[i] ?? 0;
      const left = arrives.filter((x, j) => j !== i && (x < mine || (x === mine && j < i))).length;
      const shift = (left - (node.parents.length - 1) / 2) * PORT;
      const points: [number, number][] = [
        [from.x + (twice ? shift : 0), from.y + BOX.height],
        ...(lanes.get(`${p} ${node.id}`) ?? []).flatMap((lane, k): [number, number][] => {
          const y = from.y + (k + 1) * (BOX.height + GAP.y);
          return [[Math.round(lane.x), y], [Math.round(lane.x), y + BOX.height]];
        }),
        [tx + shift, ty],
      ];
      return [{ from: p, to: node.id, path: curve(points), x: from.x, y: from.y + BOX.height + (twice && node.parents.indexOf(p) !== i ? 33 : 17) }];
    });
  });
  return { width, height: top(rows.length) - GAP.y, nodes: placed, edges };
}

/** A row in its order: as near to where its items want to be as their widths allow. */
function pack(line: Item[], width: number, wish?: Map<Item, number>): void {
  const total = line.reduce((sum, i) => sum + i.width, 0) + (line.length - 1) * GAP.x;
  let left = wish ? 0 : (width - total) / 2;
  let rest = total;
  for (const item of line) {
    const wanted = wish ? (wish.get(item) ?? 0) - item.width / 2 : left;
    const start = Math.min(Math.max(wanted, left), width - rest);
    item.x = start + item.width / 2;
    left = start + item.width + GAP.x;
    rest -= item.width + GAP.x;
  }
}

/** Down from point to point, upright at each. */
function curve(points: [number, number][]): string {
  return points.reduce((path, [x, y], i) => {
    const before = points[i - 1];
    if (!before) return `M${x} ${y}`;
    const middle = (before[1] + y) / 2;
    return before[0] === x ? `${path}V${y}` : `${path}C${before[0]} ${middle} ${x} ${middle} ${x} ${y}`;
  }, "");
}
