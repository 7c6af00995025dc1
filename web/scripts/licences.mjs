// What the built page carries of others' work: a table for the repository, and all the licence texts.

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const web = join(dirname(fileURLToPath(import.meta.url)), "..");
const text = (name) => readFileSync(join(web, "licences", name), "utf8").trim();

/** What comes inside Pyodide: its package on npm brings no licence files, so they are kept in web/licences/. */
function python() {
  const { version } = JSON.parse(readFileSync(join(web, "node_modules/pyodide/package.json"), "utf8"));
  const lock = JSON.parse(readFileSync(join(web, "node_modules/pyodide/pyodide-lock.json"), "utf8"));
  const emscripten = lock.info.platform.replace("emscripten_", "").replaceAll("_", ".");
  return [
    {
      name: "Pyodide",
      version,
      licence: "MPL-2.0",
      use: "Python in the browser; unchanged; its source is at github.com/pyodide/pyodide",
      text: text("mpl-2.0.txt"),
    },
    {
      name: "CPython, with its standard library",
      version: lock.info.python,
      licence: "PSF-2.0",
      use: "the interpreter inside Pyodide; of the library a part, compiled",
      text: text("cpython.txt"),
    },
    {
      name: "Emscripten, musl, LLVM's run-time libraries",
      version: emscripten,
      licence: "MIT; MIT; Apache-2.0 WITH LLVM-exception",
      use: "what the interpreter stands on",
      text: text("emscripten.txt"),
    },
    {
      name: "bzip2, Zstandard, liblzma, SQLite",
      version: "those of Pyodide",
      licence: "bzip2-1.0.6; BSD-3-Clause; 0BSD; public domain",
      use: "linked into the interpreter",
      text: text("libraries.txt"),
    },
  ];
}

/** The npm package that a bundled module is from: the folder after the last node_modules. */
export function packageOf(id) {
  const path = id.replace(/^\0/, "").split("?")[0].split(sep).join("/");
  const at = path.lastIndexOf("/node_modules/");
  if (at < 0) return null;
  const parts = path.slice(at + "/node_modules/".length).split("/");
  return parts[0].startsWith("@") ? parts.slice(0, 2).join("/") : parts[0];
}

function npm(name) {
  const folder = join(web, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^(licen[cs]e|copying)/i.test(entry));
  if (!license || !file) throw new Error(`${name} comes without a licence; it cannot be shipped.`);
  return { name, version, licence: license, use: "", text: readFileSync(join(folder, file), "utf8").trim() };
}

/** names: npm packages in the bundle. Returns the text file of the page and the Markdown of the repository. */
export function licences(names) {
  const shipped = [...python(), ...[...names].filter((name) => name !== "pyodide").sort().map(npm)];
  const rule = "=".repeat(100);
  const own = existsSync(join(web, "..", "LICENSE")) ? readFileSync(join(web, "..", "LICENSE"), "utf8") : "";
  const entries = shipped.map(
    (part) => `${rule}\n${part.name} ${part.version}\nLicence: ${part.licence}\n${rule}\n\n${part.text}\n`,
  );
  const rows = shipped.map(
    ({ name, version, licence, use }) => `| ${name} | ${version} | ${licence} | ${use} |`,
  );
  return {
    text: [`microgpt\n\n${own.trim()}\n\nThis page also carries:\n`, ...entries].join("\n"),
    markdown: `# What the built page carries

Written by the page's build from what it bundled (\`web/scripts/licences.mjs\`); a test compares the two.
The texts of all these licences are in the page, as \`licences.txt\`. The Python package itself carries
nothing else of others' work; the command uses click and rich, which are installed beside it.

| What | Version | Licence | Use |
|---|---|---|---|
${rows.join("\n")}
`,
  };
}
