// What the views derive from a run, checked on real runs of the file and of edits of it.
//   node --test web/src/views/demo/views.test.mjs
// Python (PYTHON, or python3) makes the runs; Vite reads the TypeScript.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { createServer } from "vite";

const folder = process.env.FIXTURES ?? mkdtempSync(join(tmpdir(), "microgpt-views-"));
if (!process.env.FIXTURES)
  execFileSync(process.env.PYTHON ?? "python3", [join(import.meta.dirname, "fixtures.py"), folder]);
const vite = await createServer({
  root: import.meta.dirname, configFile: false, logLevel: "error", appType: "custom",
  server: { middlewareMode: true, hmr: false, ws: false }, optimizeDeps: { noDiscovery: true },
});
after(async () => {
  await vite.close();
  if (!process.env.FIXTURES) rmSync(folder, { recursive: true });
});
const load = (name) => vite.ssrLoadModule(join(import.meta.dirname, "..", name));
const { read, formula, sizeText, labels, operands } = await load("run.ts");
const { layout, fit, PLAIN, stoppedIn } = await load("graph.ts");
const { scaleOf, inCell, frame, hit, shade, textOn, contrast, summary } = await load("matrix.ts");
const { arithmetic } = await load("arithmetic.ts");
const { forward, backward, crumbs, usesSource } = await load("../walk/instruments/walk.ts");
const { outline } = await load("../walk/instruments/outline.ts");
const { draw, BOX } = await load("../walk/instruments/expression.ts");

const STORIES = ["anna", "long", "single", "heads8", "layers2", "noresidual", "nomask", "square", "tied", "block", "error", "nan"];
const runs = new Map(STORIES.map((s) => [s, read(JSON.parse(readFileSync(join(folder, `${s}.json`), "utf8")).xray)]));
const run = (story) => runs.get(story);
const named = (r, name) => r.xray.tensors.filter((t) => r.names[t.id] === name && !t.weight);
const everything = (r) => ({ ...PLAIN, chosen: new Map(r.xray.calls.map((c) => [c.id, true])) });
const FOLDINGS = [["as it comes", () => PLAIN], ["stacked", () => ({ ...PLAIN, firstOnly: true, stacked: true })], ["all unfolded", everything]];

const overlap = (a, b) => a.x < b.x + b.width - 0.01 && b.x < a.x + a.width - 0.01 && a.y < b.y + b.height - 0.01 && b.y < a.y + a.height - 0.01;
const inside = (a, b) => a.x >= b.x - 0.01 && a.y >= b.y - 0.01 && a.x + a.width <= b.x + b.width + 0.01 && a.y + a.height <= b.y + b.height + 0.01;

for (const story of STORIES)
  for (const [how, folding] of FOLDINGS)
    test(`graph of ${story}, ${how}: nothing overlaps, boxes nest, data flows downwards`, () => {
      const r = run(story);
      const g = layout(r, folding(r));
      assert.ok(g.nodes.length > 5);
      for (const [i, a] of g.nodes.entries()) {
        for (const b of g.nodes.slice(i + 1)) assert.ok(!overlap(a, b), `${a.key} (${a.name}) on ${b.key} (${b.name})`);
        assert.ok(inside(a, { x: 0, y: 0, width: g.width, height: g.height }), `${a.key} is off the sheet`);
      }
      for (const [i, a] of g.boxes.entries()) {
        for (const b of g.boxes.slice(i + 1)) assert.ok(!overlap(a, b) || inside(a, b) || inside(b, a), `box ${a.label} on ${b.label}`);
        for (const node of g.nodes) assert.ok(!overlap(node, a) || inside(node, a), `${node.key} crosses ${a.label}`);
      }
      const at = new Map(g.nodes.map((n) => [n.key, n]));
      for (const t of r.xray.tensors)
        for (const p of operands(r, t.id)) {
          const [from, to] = [at.get(g.at.get(p)), at.get(g.at.get(t.id))];
          if (from && to && from !== to && !r.xray.tensors[p].weight)
            assert.ok(from.y + from.height <= to.y + 0.01, `${from.name || from.key} is not above ${to.name || to.key}`);
        }
      assert.ok(g.edges.every((e) => !/NaN|undefined/.test(e.path)));
    });

test("every tensor that leads to the loss is found in a node, and every line of it", () => {
  const r = run("anna");
  const g = layout(r);
  const wanted = new Set();
  const visit = (id) => {
    if (wanted.has(id)) return;
    wanted.add(id);
    r.xray.tensors[id].parents.forEach(visit);
  };
  visit(named(r, "loss")[0].id);
  assert.equal(wanted.size > 100, true);
  for (const id of wanted) assert.ok(g.at.has(id), `tensor ${id}`);
});

test("the same run is laid out the same way, whatever was laid out before", () => {
  const r = run("layers2");
  const first = JSON.stringify(layout(r));
  layout(run("heads8"));
  assert.equal(JSON.stringify(layout(r)), first);
});

test("the residual stream is found where there is one, and stands in one column", () => {
  const length = (story) => run(story).stream.length;
  assert.equal(length("anna"), 6); // the embedding, four heads, the MLP
  assert.equal(length("heads8"), 10);
  assert.equal(length("layers2"), 11);
  assert.equal(length("noresidual"), 0);
  const g = layout(run("anna"));
  const middles = g.nodes.filter((n) => n.inStream).map((n) => n.x + n.width / 2);
  assert.equal(middles.length, 6);
  for (const x of middles) assert.ok(Math.abs(x - middles[0]) < 0.5, `${middles}`);
  assert.equal(g.edges.filter((e) => e.stream).length, 5);
});

test("an edited program draws itself: heads, layers, another operation, a helper of its own", () => {
  const calls = (story, f) => layout(run(story)).boxes.filter((b) => b.label.startsWith(f)).length;
  assert.equal(calls("anna", "attention"), 4);
  assert.equal(calls("heads8", "attention"), 8);
  assert.equal(calls("layers2", "mlp"), 2);
  assert.equal(calls("block", "layer"), 1);
  const words = (story) => layout(run(story)).nodes.filter((n) => n.name === "hidden").map((n) => n.pieces[0].text);
  assert.deepEqual(words("anna"), ["relu"]);
  assert.deepEqual(words("square"), ["**"]);
  assert.equal(named(run("nomask"), "future").length, 4); // still made, but no longer used
  assert.ok(named(run("nomask"), "future").every((t) => run("nomask").children[t.id].length === 0));
});

test("a narrow view gets a graph that fits it; a fold that the reader chose is kept", () => {
  const r = run("anna");
  const wide = fit(r, new Map(), 4000);
  const narrow = fit(r, new Map(), 600);
  assert.ok(wide.width > narrow.width);
  assert.ok(narrow.width * 0.88 <= 600, `${narrow.width}`);
  const softmax = r.xray.calls.find((c) => c.function === "softmax").id;
  assert.ok(fit(r, new Map([[softmax, true]]), 4000).boxes.some((b) => b.call === softmax));
  assert.ok(!wide.boxes.some((b) => b.call === softmax));
});

test("a run that stopped shows where, and one with nan which value was the first", () => {
  const stopped = run("error");
  const g = layout(stopped);
  assert.equal(stopped.xray.calls[stoppedIn(stopped)].function, "attention");
  assert.equal(g.nodes.filter((n) => n.kind === "failure").length, 1);
  assert.match(g.nodes.find((n) => n.kind === "failure").name, /line 105/);
  assert.equal(stoppedIn(run("anna")), null);
  const nan = run("nan");
  assert.equal(nan.xray.tensors[nan.firstNan].function, "softmax");
  assert.equal(run("anna").firstNan, null);
});

test("300 tensors, all unfolded, are laid out in less than 100 ms", () => {
  const r = run("layers2");
  const folding = everything(r);
  layout(r, folding);
  const times = [1, 2, 3, 4, 5].map(() => {
    const start = performance.now();
    layout(r, folding);
    return performance.now() - start;
  });
  assert.ok(Math.min(...times) < 100, `${times.map((t) => t.toFixed(0))} ms`);
});

test("dimensions have the names that their sizes have, also where sizes coincide", () => {
  const r = run("anna");
  const size = (name) => {
    const t = named(r, name)[0];
    return sizeText(t.shape, r.dimensions[t.id]);
  };
  assert.equal(size("q"), "5 × 4 · tokens × channels of a head");
  assert.equal(size("weights"), "5 × 5 · tokens × tokens");
  assert.equal(size("hidden"), "5 × 64 · tokens × hidden channels");
  assert.equal(size("probs"), "5 × 27 · tokens × vocabulary");
  assert.equal(size("loss"), "one number");
  const wpe = r.xray.tensors.find((t) => t.weight === "wpe");
  assert.equal(sizeText(wpe.shape, r.dimensions[wpe.id]), "16 × 16 · positions × channels");
  assert.deepEqual(labels(r, "T"), r.xray.tokens);
  const unknown = read({ ...r.xray, tokens: ["a", "b", "c", "d"], values: [], calls: [], error: null,
    tensors: [{ id: 0, shape: [4, 4], data: [], grad: null, op: "odd", parents: [], line: 1, function: "", call: 0, name: null, weight: null },
      ...r.xray.tensors.filter((t) => t.weight).map((t, i) => ({ ...t, id: i + 1 }))] });
  assert.equal(sizeText([4, 4], unknown.dimensions[0]), "4 × 4"); // four tokens or four channels of a head
});

test("a formula is the program's own", () => {
  const r = run("anna");
  assert.equal(formula(r, named(r, "scores")[0].id), "q @ k.transpose() * 0.5");
  assert.equal(formula(r, named(r, "weights")[0].id), "e / e.sum()");
  assert.equal(formula(r, named(r, "x")[1].id), "x + attention(…)");
  assert.equal(formula(r, named(r, "hidden")[0].id), "(norm(…) @ fc).relu()");
  const returned = r.xray.tensors[named(r, "x")[1].id].parents[1];
  assert.equal(formula(r, returned), "weights @ v @ wo");
});

test("the main values leave out what repeats and keep the order", () => {
  const r = run("anna");
  const values = r.main.map((i) => r.xray.values[i]);
  assert.ok(r.main.length < 90 && r.main.every((i, n) => n === 0 || i > r.main[n - 1]));
  const names = values.filter((v) => v.function === "attention" && v.call === values.find((x) => x.function === "attention").call).map((v) => v.name);
  assert.deepEqual(names, ["q", "k", "v", "scores", "future", "weights", "return"]);
  assert.equal(values.filter((v) => v.name === "loss").length, 1);
  assert.equal(new Set(values.filter((v) => v.function === "adam").map((v) => v.call)).size, 1);
  assert.ok(values.every((v) => !r.given[v.i]));
  assert.equal(run("error").main.at(-1), run("error").xray.values.length - 1);
});

test("scales: probabilities are known by their sums, zero is paper, text is readable on every shade", () => {
  const r = run("anna");
  assert.equal(scaleOf(named(r, "weights")[0].data).kind, "probability");
  assert.equal(scaleOf(named(r, "q")[0].data).kind, "signed");
  const odd = scaleOf([["nan", "-inf", 1, -3]]);
  assert.deepEqual([odd.kind, odd.low, odd.high, odd.limit, odd.nan, odd.erased], ["signed", -3, 1, 3, true, true]);
  assert.equal(scaleOf([["-inf"]]).finite, false);
  const hex = (h) => [1, 3, 5].map((i) => parseInt(h.slice(i, i + 2), 16));
  const tokens = readFileSync(join(import.meta.dirname, "../../styles/tokens.css"), "utf8");
  const value = (part, name) => hex(new RegExp(`--${name}: (#[0-9a-f]{6})`).exec(part)[1]);
  for (const part of [tokens, tokens.slice(tokens.indexOf('[data-theme="dark"]'))]) {
    const palette = { paper: value(part, "paper"), ink: value(part, "ink"), negative: value(part, "negative"), positive: value(part, "positive"), probability: value(part, "probability-full") };
    const signed = { ...odd, limit: 1 };
    assert.deepEqual(shade(signed, 0, palette), palette.paper);
    for (const kind of ["signed", "probability"])
      for (let x = -1; x <= 1; x += 0.05) {
        const colour = shade({ ...signed, kind }, kind === "probability" ? Math.abs(x) : x, palette);
        assert.ok(contrast(colour, textOn(colour, palette)) >= 4.5, `${kind} ${x.toFixed(2)}: ${contrast(colour, textOn(colour, palette)).toFixed(2)}`);
      }
  }
});

test("a frame fits its width, shows numbers where they fit, and finds the cell under a point", () => {
  const wish = { available: 620, tall: 420, left: 24, top: 20, number: 30, insist: false, compact: false };
  const small = frame(5, 5, wish);
  assert.ok(small.numbers && small.width <= 620);
  const phone = frame(5, 16, { ...wish, available: 328 });
  assert.ok(!phone.numbers && phone.width <= 328);
  const insisted = frame(5, 16, { ...wish, available: 328, insist: true });
  assert.ok(insisted.numbers && insisted.width > 328);
  const huge = frame(64, 16, wish);
  assert.ok(!huge.numbers && huge.width <= 620 && huge.height <= 460);
  for (const f of [small, phone, huge])
    for (const [r, c] of [[0, 0], [f.rows - 1, f.columns - 1]])
      assert.deepEqual(hit(f, f.left + (c + 0.5) * f.cellWidth, f.top + (r + 0.5) * f.cellHeight), [r, c]);
  assert.equal(hit(small, 2, 2), null);
  assert.equal(hit(small, small.width + 1, 30), null);
});

test("numbers in cells: equal places, at most three digits, zero only for zero", () => {
  const scale = scaleOf([[1.23456, -0.5, 0.0004, 0]]);
  assert.deepEqual([1.23456, -0.5, 0.0004, 0].map((x) => inCell(x, scale)), ["1.23", "–0.50", "0.00", "0"]);
  assert.deepEqual([1.23456, -0.5, 0.0004, 0].map((x) => inCell(x, scale, 1)), ["1.23", "–0.500", "0.000", "0"]);
  const whole = scaleOf([[14, 0, -3]]);
  assert.deepEqual([14, 0, -3, "nan", "-inf"].map((x) => inCell(x, whole)), ["14", "0", "–3", "nan", "–∞"]);
  assert.equal(inCell(0.00012, scaleOf([[0.00012, 0.0005]])), "1e–4");
});

test("words: a summary says where the largest is, a cell's arithmetic holds the numbers it came from", () => {
  const text = summary("m", [[1, -2], [5, "nan"]], "2 × 2", (r, c) => `${r}.${c}`);
  assert.match(text, /From −2\.00 to 5\.00, mean 1\.33; the largest is at 1\.0\. 1 cells are nan/);
  const r = run("anna");
  const x = named(r, "x")[1];
  const [a, b] = operands(r, x.id).map((p) => r.xray.tensors[p].data[2][3]);
  assert.ok(Math.abs(a + b - x.data[2][3]) < 1e-9);
  const { left } = arithmetic(r, x.id, [2, 3]);
  assert.match(left, /^−?[\d.e−]+ \+ \(?−?[\d.e−]+\)?$/);
  const tokens = named(r, "tokens")[0];
  assert.match(arithmetic(r, tokens.id, [1, 0]).left, /^row 1, column 0 of wte$/); // a is token 1
});

// ---- The walk through the cells ----

/** The number that a slope stands for: a recorded one, or a sum in the words of the page. */
function slopeOf(slope) {
  if (typeof slope === "object") return slope.value;
  const plain = slope.replaceAll("−", "-").replace(/[()]/g, "");
  const [, factor, base, power] = /^(\S+) × (\S+) \*\* (\S+)$/.exec(plain) ?? [];
  if (power !== undefined) return Number(factor) * Number(base) ** Number(power);
  return plain.startsWith("1 / ") ? 1 / Number(plain.slice(4)) : Number(plain);
}

for (const story of ["anna", "long", "heads8", "layers2", "tied", "square", "noresidual"])
  test(`every gradient of ${story} is the sum of what the cells made from it hand back`, () => {
    const { source } = JSON.parse(readFileSync(join(folder, `${story}.json`), "utf8"));
    usesSource(source.split("\n"));
    const r = run(story);
    let cells = 0;
    for (const t of r.xray.tensors) {
      if (!t.grad) continue;
      const size = Math.max(1e-9, ...t.grad.flat().map(Math.abs));
      for (let row = 0; row < t.shape[0]; row++)
        for (let column = 0; column < t.shape[1]; column++) {
          const handed = backward(r, t.id, [row, column]).flatMap((b) => b.from);
          if (handed.length === 0) continue;
          assert.ok(handed.every((h) => h.slope !== null), `${t.op} ${t.id}`);
          // A slope that is written out, and not recorded, has the three digits that the page shows.
          const sum = handed.reduce((s, h) => s + (h.gradient === 0 ? 0 : h.gradient * slopeOf(h.slope)), 0);
          const near = handed.some((h) => typeof h.slope === "string" && /[/*]/.test(h.slope)) ? 0.02 : 1e-9;
          assert.ok(Math.abs(sum - t.grad[row][column]) <= near * size, `${story}: ${t.name ?? t.op} ${t.id} ${row},${column}: ${sum} is not ${t.grad[row][column]}`);
          cells++;
        }
    }
    assert.ok(cells > 3000, `${cells}`);
  });

test("what a cell was made from makes it", () => {
  const r = run("anna");
  for (const t of r.xray.tensors)
    for (const [row, column] of [[0, 0], [t.shape[0] - 1, t.shape[1] - 1]]) {
      const { kind, sign, terms } = forward(r, t.id, [row, column]);
      const [a, b] = terms[0]?.parts.map((p) => p.value) ?? [];
      const made =
        kind === "@" ? terms.reduce((s, { parts }) => s + parts[0].value * parts[1].value, 0)
        : kind === "sum" ? terms.reduce((s, { parts }) => s + parts[0].value, 0)
        : kind === "from" ? a
        : kind === "two" ? { "+": a + b, "-": a - b, "*": a * b, "/": a / b }[sign]
        : null;
      const x = t.data[row][column];
      if (made === null || typeof x !== "number" || typeof made !== "number") continue;
      const kept = sign === "triu" && column <= row ? 0 : made;
      assert.ok(Math.abs(kept - x) < 1e-9 * Math.max(1, Math.abs(x)), `${t.op} ${t.id} ${row},${column}: ${kept} is not ${x}`);
    }
});

test("the outline holds every function that made something, and the breadcrumb leads from the whole to one product", () => {
  for (const story of STORIES) {
    const r = run(story);
    const inside = (item) => (item.kind === "call" ? [item.call, ...item.items.flatMap(inside)] : []);
    const shown = new Set(outline(r.xray).calls.flatMap(inside));
    for (const call of r.busy)
      if (r.main.some((i) => r.xray.values[i].call === call && r.xray.values[i].tensor !== null)) assert.ok(shown.has(call), `${story}: call ${call}`);
  }
  const r = run("anna");
  const id = r.xray.tensors[named(r, "scores")[0].id].parents[0];
  const labels = crumbs(r, { at: "product", tensor: id, cell: [1, 2], k: 3 }).map((c) => c.label);
  assert.deepEqual(labels, ["the whole model", "gpt", "attention 1", "q @ k.transpose()", "row 1, column 2", "product 3"]);
});

test("a small expression is drawn without one thing on another", () => {
  const node = (id, parents, depth) => ({ id, name: null, op: "+", parents, value: 0, grad: null, depth });
  const { nodes, width } = draw([node(0, [], 1), node(1, [], 1), node(2, [], 1), node(3, [0, 1], 2), node(4, [3, 2], 3), node(5, [4], 4), node(6, [5, 0], 5), node(7, [6, 6], 6), node(8, [7, 1], 7)]);
  const boxes = nodes.map(({ x, y }) => ({ x: x - BOX.width / 2, y, ...BOX }));
  boxes.forEach((a, i) => {
    assert.ok(a.x >= -0.5 && a.x + a.width <= width + 0.5);
    for (const b of boxes.slice(i + 1)) assert.ok(!overlap(a, b));
  });
});
