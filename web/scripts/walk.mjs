// Writes the pages of the walk into a built page: node scripts/walk.mjs RENDERER LESSONS RECORDING OUT
//   RENDERER  src/walk/render.ts, bundled for Node
//   LESSONS   what `python -m microgpt.lessons` wrote
//   RECORDING the run that the workbench plays, in raw deflate
//   OUT       the folder that Vite built, with its manifest, which is taken out here

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync, inflateRawSync } from "node:zlib";

const LIMIT = 150_000; // bytes of one chapter, compressed, before Python
const ENTRY = "src/walk/main.ts";
const INSTRUMENTS = "src/walk/instruments/";

const hash = (text) => createHash("sha256").update(text).digest("hex").slice(0, 8);

/** Scripts and styles of a part of the manifest and of what it imports, what is imported first. */
function partsOf(manifest, key, seen = new Set()) {
  const chunk = manifest[key];
  if (!chunk) throw new Error(`The bundle has no ${key}.`);
  if (seen.has(key)) return { scripts: [], styles: [] };
  seen.add(key);
  const below = (chunk.imports ?? []).map((name) => partsOf(manifest, name, seen));
  return {
    scripts: [...below.flatMap((part) => part.scripts), chunk.file],
    styles: [...below.flatMap((part) => part.styles), ...(chunk.css ?? [])],
  };
}

async function main(renderer, lessonsFile, recordingFile, out) {
  const lessons = JSON.parse(readFileSync(lessonsFile, "utf8"));
  const recording = JSON.parse(inflateRawSync(readFileSync(recordingFile)).toString());
  const manifest = JSON.parse(readFileSync(join(out, ".vite", "manifest.json"), "utf8"));
  const html = readFileSync(join(out, "index.html"), "utf8");
  const policy = /<meta http-equiv="Content-Security-Policy" content="(.*?)">/.exec(html)?.[1];
  if (!policy) throw new Error("The workbench's page states no policy for the walk to take over.");

  const up = ({ scripts, styles }) => ({ scripts: scripts.map((file) => `../${file}`), styles: styles.map((file) => `../${file}`) });
  const entry = up(partsOf(manifest, ENTRY));
  const named = Object.keys(manifest).filter((key) => key.startsWith(INSTRUMENTS));
  const instruments = Object.fromEntries(
    named.map((key) => [key.slice(INSTRUMENTS.length).replace(".svelte", ""), up(partsOf(manifest, key))]),
  );
  const links = { policy, script: entry.scripts.at(-1), scripts: entry.scripts.slice(0, -1), styles: entry.styles, instruments };
  const { pages } = await import(pathToFileURL(renderer).href);
  const { files } = pages(lessons, recording, links, hash);

  const folder = join(out, "walk");
  rmSync(folder, { recursive: true, force: true });
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  rmSync(join(out, ".vite"), { recursive: true });

  const small = (bytes) => gzipSync(bytes, { level: 9 }).length;
  const sizes = (html, pattern) =>
    [...html.matchAll(pattern)].reduce((sum, [, name]) => sum + small(readFileSync(join(folder, name))), 0);
  const kilo = (bytes) => `${Math.round(bytes / 1000)} kB`;
  const chapters = lessons.chapters.map(({ slug }) => {
    const html = files[`${slug}.html`];
    const data = Object.keys(files).find((name) => name.startsWith(`data/${slug}-`));
    const [page, answers] = [small(html), small(files[data])];
    const styles = sizes(html, /<link rel="(?:stylesheet|icon)" href="(.*?)"/g);
    const scripts = sizes(html, /<(?:link rel="modulepreload" href|script(?: type="module")? src)="(.*?)"/g);
    return { slug, page, answers, styles, scripts, total: page + answers + styles + scripts };
  });
  chapters.sort((a, b) => b.total - a.total);
  const [most] = chapters;
  if (!most) throw new Error("The lessons have no chapter.");
  console.log(
    `the heaviest chapter, ${most.slug}, has ${kilo(most.total)} compressed ` +
      `(page ${kilo(most.page)}, figures ${kilo(most.answers)}, styles ${kilo(most.styles)}, scripts ${kilo(most.scripts)})`,
  );
  const heavy = chapters.filter(({ total }) => total > LIMIT);
  if (heavy.length > 0)
    throw new Error(
      `${heavy.map(({ slug, total }) => `${slug} has ${kilo(total)}`).join(", ")}, more than ${kilo(LIMIT)} compressed: ` +
        "thin the answers of its figures, or load some of the scripts later.",
    );
}

const [renderer, lessons, recording, out] = process.argv.slice(2);
if (!out) throw new Error("usage: node scripts/walk.mjs RENDERER LESSONS RECORDING OUT");
await main(renderer, lessons, recording, out).catch((error) => {
  console.error(process.env.MICROGPT_TRACE ? error : error.message);
  process.exit(1);
});
