// Makes the two archives from which Python starts in the page:
//   stdlib.zip  the standard library, trimmed to scripts/stdlib.txt and compiled
//   core.zip    the microgpt package as it stands in the working tree, without its command, its server,
//               and what only builds the lessons
// Usage: node scripts/runtime.mjs OUT. The compiler is the very Pyodide that the page will start.

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { loadPyodide } from "pyodide";

const scripts = dirname(fileURLToPath(import.meta.url));
const root = join(scripts, "..", "..");
const HOME = "/home/pyodide"; // where the page unpacks the package
// Not in the browser: the command, the server, what calls the kernel from Python (the page does it by itself), what
// only builds the lessons (tests/test_architecture.py has its list), and what experiments in the terminal.
const LEFT_OUT = [
  "microgpt/cli/", "microgpt/lab/collection/", "microgpt/__main__.py", "microgpt/site/", "microgpt/lessons/chapters/",
  "microgpt/engines/fast.py", "microgpt/engines/kernel.py", "microgpt/engines/built/",
  ...["parse.py", "facts.py", "listing.py", "__main__.py", "glossary.md", "references.md", "made.md"].map((name) => `microgpt/lessons/${name}`),
  ...["bench", "experiment", "parallel", "parts", "pictures", "records", "sweep", "trials", "variants"].map((name) => `microgpt/lab/${name}.py`),
];

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
  for (const [name, path] of packageFiles(join(root, "microgpt")))
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
