/** Where the nodes of a small expression stand: inputs above what uses them, the result at the bottom. */

import type { ExpressionAnswer } from "../types";

export type Node = ExpressionAnswer["nodes"][number];
export interface Placed { node: Node; x: number; y: number }
export interface Edge { from: number; to: number; path: string; /** Where its label stands. */ x: number; y: number }
export interface Drawing { width: number; height: number; nodes: Placed[]; edges: Edge[] }

export const BOX = { width: 98, height: 58 };
const GAP = { x: 10, y: 46 };

/** Rows by depth; a leaf stands just above the first that uses it. Within a row, near what it came from. */
export function draw(nodes: readonly Node[]): Drawing {
  const users = new Map<number, Node[]>();
  for (const node of nodes) for (const p of node.parents) users.set(p, [...(users.get(p) ?? []), node]);
  const rank = (node: Node): number => {
    const first = Math.min(...(users.get(node.id) ?? []).map((u) => u.depth));
    return node.parents.length === 0 && Number.isFinite(first) ? first - 1 : node.depth;
  };
  const least = Math.min(...nodes.map(rank));
  const rows: Node[][] = [];
  for (const node of nodes) (rows[rank(node) - least] ??= []).push(node);
  const filled = rows.filter((row) => row?.length);
  const widest = Math.max(1, ...filled.map((row) => row.length));
  const width = widest * BOX.width + (widest - 1) * GAP.x;
  const x = new Map<number, number>();
  const spread = (row: Node[]): void => {
    const total = row.length * BOX.width + (row.length - 1) * GAP.x;
    row.forEach((node, i) => x.set(node.id, (width - total) / 2 + i * (BOX.width + GAP.x) + BOX.width / 2));
  };
  filled.forEach(spread);
  // A few sweeps: order each row by the mean of its neighbours, then let it lean towards them.
  const near = (node: Node): number => {
    const ids = [...node.parents, ...(users.get(node.id) ?? []).map((u) => u.id)];
    return ids.length ? ids.reduce((sum, i) => sum + (x.get(i) ?? 0), 0) / ids.length : (x.get(node.id) ?? 0);
  };
  for (let sweep = 0; sweep < 6; sweep++)
    for (const row of sweep % 2 ? filled : [...filled].reverse()) {
      row.sort((a, b) => near(a) - near(b) || a.id - b.id);
      let left = BOX.width / 2;
      row.forEach((node, i) => {
        const most = width - BOX.width / 2 - (row.length - 1 - i) * (BOX.width + GAP.x);
        const at = Math.min(Math.max(near(node), left), most);
        x.set(node.id, at);
        left = at + BOX.width + GAP.x;
      });
    }
  const placed: Placed[] = [];
  filled.forEach((row, r) => row.forEach((node) => placed.push({ node, x: Math.round(x.get(node.id) ?? 0), y: r * (BOX.height + GAP.y) })));
  const at = new Map(placed.map((p) => [p.node.id, p]));
  const edges: Edge[] = placed.flatMap(({ node, x: tx, y: ty }) =>
    node.parents.flatMap((p, i) => {
      const from = at.get(p);
      if (!from) return [];
      const twice = node.parents.filter((q) => q === p).length > 1;
      // Lines arrive side by side, in the order in which their boxes stand, so that they do not cross.
      const left = node.parents.filter((q, j) => j !== i && ((x.get(q) ?? 0) < (x.get(p) ?? 0) || (x.get(q) === x.get(p) && j < i))).length;
      const shift = (left - (node.parents.length - 1) / 2) * 26;
      const [sx, sy, ex, ey] = [from.x + (twice ? shift : 0), from.y + BOX.height, tx + shift, ty];
      const middle = (sy + ey) / 2;
      return [{ from: p, to: node.id, path: `M${sx} ${sy}C${sx} ${middle} ${ex} ${middle} ${ex} ${ey}`, x: Math.round(from.x), y: from.y + BOX.height + (twice && node.parents.indexOf(p) !== i ? 33 : 17) }];
    }),
  );
  return { width, height: filled.length * (BOX.height + GAP.y) - GAP.y, nodes: placed, edges };
}
