// Runs a Python file in the page's own Python, under Node, for the tests.
// Usage: node scripts/python.mjs ARCHIVES FILE; ARCHIVES is the folder with stdlib.zip and core.zip.
// The file's last expression, a text, is printed.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { loadPyodide } from "pyodide";

const [archives, file] = process.argv.slice(2);
if (!archives || !file) throw new Error("usage: node scripts/python.mjs ARCHIVES FILE");

async function main() {
  const python = await loadPyodide({ stdLibURL: resolve(archives, "stdlib.zip") });
  python.FS.writeFile("/tmp/core.zip", readFileSync(join(archives, "core.zip")));
  python.runPython(`
import zipfile
with zipfile.ZipFile("/tmp/core.zip") as archive:
    archive.extractall("/home/pyodide")
`);
  console.log(await python.runPythonAsync(readFileSync(file, "utf8"), { filename: file }));
}

// Pyodide's own source is one line of a megabyte, and Node prints the line of an uncaught error.
await main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
