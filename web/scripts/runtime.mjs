// Makes the two archives from which Python starts in the page:
//   stdlib.zip  the standard library, trimmed to scripts/stdlib.txt and compiled
//   core.zip    the microgpt package as it stands in the working tree, without its command, its server,
//               and what only builds the lessons
// Usage: node scripts/runtime.mjs OUT. The compiler is the very Pyodide that the page will start.

import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { loadPyodide } from "pyodide";

const scripts = dirname(fileURLToPath(import.meta.url));
const root = join(scripts, "..", "..");
const HOME = "/home/pyodide"; // where the page unpacks the package
const LESSONS = "microgpt/lessons/";
const LEFT_OUT = ["microgpt/cli.py", "microgpt/__main__.py", "microgpt/site/", LESSONS];
const LIVE = ["__init__", "instruments", "exercises"]; // of the lessons, what answers in the browser

/** The part of the lessons that runs in the browser: what answers there, and what that imports of its own folder. */
function lessonFiles() {
  const found = new Map();
  const wanted = [...LIVE];
  while (wanted.length > 0) {
    const module = wanted.pop();
    const path = join(root, LESSONS, `${module}.py`);
    if (found.has(`${LESSONS}${module}.py`) || !existsSync(path)) continue;
    found.set(`${LESSONS}${module}.py`, path);
    const source = readFileSync(path, "utf8");
    for (const [, line] of source.matchAll(/^\s*from microgpt\.lessons import (.+)$/gm)) wanted.push(...line.match(/\w+/g));
    for (const [, name] of source.matchAll(/^\s*(?:from|import) microgpt\.lessons\.(\w+)/gm)) wanted.push(name);
  }
  return [...found];
}

function packageFiles(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    const name = relative(root, path).split(sep).join("/");
    if (entry.isDirectory()) {
      const skipped = entry.name === "__pycache__" || LEFT_OUT.includes(name + "/");
      return skipped ? [] : packageFiles(path);
    }
    return LEFT_OUT.includes(name) || !/\.(py|txt|md)$/.test(name) ? [] : [[name, path]];
  });
}

async function main(out) {
  const python = await loadPyodide();
  const precompile = join(scripts, "precompile.py");
  await python.runPythonAsync(readFileSync(precompile, "utf8"), { filename: precompile });
  const save = (name, bytes) => {
    const data = bytes.toJs();
    writeFileSync(join(out, name), data);
    console.log(`${name}: ${(data.length / 1000).toFixed(0)} kB`);
  };
  const names = readFileSync(join(scripts, "stdlib.txt"), "utf8")
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter(Boolean);
  const files = python.globals.get("dict")();
  for (const [name, path] of [...packageFiles(join(root, "microgpt")), ...lessonFiles()])
    files.set(name, python.toPy(new Uint8Array(readFileSync(path))));
  save("stdlib.zip", python.globals.get("trimmed_library")(python.toPy(names), files));
  save("core.zip", python.globals.get("package")(files, HOME));
}

const out = process.argv[2];
if (!out) throw new Error("usage: node scripts/runtime.mjs OUT");
mkdirSync(out, { recursive: true });
// Pyodide's own source is one line of a megabyte, and Node prints the line of an uncaught error.
await main(out).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
