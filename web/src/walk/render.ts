/** Renders the walk to static pages. Runs in the build (scripts/walk.mjs), never in a browser. */

import type { Component } from "svelte";
import { render } from "svelte/server";
import { counted, escape, textOf } from "./code";
import Figure from "./Figure.svelte";
import { outline } from "./instruments/outline";
import type { ChapterData, Walk } from "./pages";
import ChapterPage from "./shell/ChapterPage.svelte";
import ContentsPage from "./shell/ContentsPage.svelte";
import ListPage from "./shell/ListPage.svelte";
import type { InstrumentProps } from "./instruments/props";
import type { Recording } from "../types";
import type { Block, Chapter, Lessons } from "./types";

const instruments = import.meta.glob<Component<InstrumentProps>>("./instruments/[a-z]*.svelte", { eager: true, import: "default" });

/** The files that every page links, as addresses from inside walk/. */
export interface Links {
  policy: string;
  script: string;
  /** What the script imports, and its styles. */
  scripts: string[];
  styles: string[];
  /** Scripts and styles of an instrument, by its name. */
  instruments: Record<string, { scripts: string[]; styles: string[] }>;
}

export interface Rendered {
  /** Name in walk/ -> text. */
  files: Record<string, string>;
}

type Figured = Extract<Block, { kind: "figure" }>;

function blocks(chapter: Chapter): Block[] {
  return chapter.steps.flatMap((step) => step.blocks);
}

/** The page as Svelte wrote it, without the marks that only a hydrated page needs. */
function plain<Props extends Record<string, unknown>>(page: Component<Props>, props: Props): string {
  return render(page as Component<Record<string, unknown>>, { props }).body.replace(/<!--[\s\S]*?-->/g, "");
}

function drawing(block: Figured, chapter: Chapter): string {
  const where = `Figure "${block.figure}" of chapter ${chapter.slug}`;
  const found = instruments[`./instruments/${block.figure}.svelte`];
  if (!found) throw new Error(`${where} has no instrument: web/src/walk/instruments/ holds no component of that name.`);
  const { answer, options, args } = block;
  const text = typeof args["text"] === "string" ? args["text"] : "anna";
  try {
    return render(Figure, { props: { instrument: found, answer, options, args, live: null, text, id: `f-${block.id}` } }).body;
  } catch (error) {
    throw new Error(`${where} cannot be drawn: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What the links of a chapter show at once, by their address. */
function notes(html: string, lessons: Lessons): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [, page, id] of html.matchAll(/href="(glossary|references)\.html#([^"]+)"/g)) {
    const address = `${page}.html#${id}`;
    if (page === "glossary") {
      const entry = lessons.glossary.find((one) => one.id === id);
      if (entry) found[address] = `<p><b>${escape(entry.term)}</b></p>${entry.html}`;
    } else {
      const entry = lessons.references.find((one) => one.id === id);
      if (entry) found[address] = `<p>${citation(entry)}</p>${entry.html}`;
    }
    if (!(address in found)) throw new Error(`A link leads to ${address}, and there is no such entry.`);
  }
  return found;
}

function citation({ authors, year, title, venue }: Lessons["references"][number]): string {
  return `${escape(authors)} (${escape(year)}). <cite>${escape(title)}</cite>. ${escape(venue)}`;
}

function unique(names: string[]): string[] {
  return [...new Set(names)];
}

function document(
  title: string, description: string, body: string, links: Links, attributes: Record<string, string>, kinds: string[] = [],
): string {
  const parts = kinds.map((kind) => links.instruments[kind] ?? { scripts: [], styles: [] });
  const styles = unique([...links.styles, ...parts.flatMap((part) => part.styles)]);
  const preload = unique([...links.scripts, ...parts.flatMap((part) => part.scripts)]);
  const data = Object.entries(attributes).map(([name, value]) => ` ${name}="${escape(value)}"`).join("");
  const html = `<!doctype html>
<html lang="en">
  <head>
    <meta http-equiv="Content-Security-Policy" content="${links.policy}">
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>${escape(title)}</title>
    <meta name="description" content="${escape(description)}">
    <link rel="icon" href="../icon.svg" type="image/svg+xml">
    <script src="../theme.js"></script>
${styles.map((style) => `    <link rel="stylesheet" href="${style}">\n`).join("")}    <script type="module" src="${links.script}" fetchpriority="low"></script>
${preload.map((file) => `    <link rel="modulepreload" href="${file}" fetchpriority="low">\n`).join("")}  </head>
  <body class="walk"${data}>
${body}
  </body>
</html>
`;
  check(html, title);
  return html;
}

/** The policy forbids what is inline; a page that has some would not be what the reader sees. */
function check(html: string, title: string): void {
  const tag = /<[a-z][^>]*?\s(style|on[a-z]+)=/i.exec(html);
  if (tag) throw new Error(`The page "${title}" has an inline ${tag[1]} attribute, which its policy forbids: ${tag[0].slice(0, 120)}`);
  if (/<style|<script(?![^>]*\bsrc=)/i.test(html)) throw new Error(`The page "${title}" has an inline style or script, which its policy forbids.`);
}

function words(html: string): string {
  return html.replace(/<[^>]*>/g, "").replace(/&quot;/g, '"').replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&").replace(/\s+/g, " ").trim();
}

/** All pages of the walk and their data. `hash` makes a few letters of a text. */
export function pages(lessons: Lessons, recording: Recording, links: Links, hash: (text: string) => string): Rendered {
  const files: Record<string, string> = {};
  const whole = outline(recording.xray); // the answer of the figure "model", which asks no instrument
  const { code, chapters } = lessons;
  const walk: Walk = {
    chapters: chapters.map(({ slug, number, title, minutes }) => ({ slug, number, title, minutes })),
    code,
    lines: counted(code),
    file: hash(code.map(textOf).join("\n")),
  };
  const common = { "data-file": walk.file };

  for (const chapter of chapters) {
    const data: ChapterData = { figures: {}, predictions: {}, exercises: {}, notes: {} };
    const drawings: Record<string, string> = {};
    const numbers: Record<string, string> = {};
    for (const given of blocks(chapter)) {
      const block = given.kind === "figure" && given.figure === "model" ? { ...given, answer: whole } : given;
      if (block.kind === "figure") {
        const { figure, args, options, answer } = block;
        if (block.id in drawings) throw new Error(`Chapter ${chapter.slug} has two figures with the identifier ${block.id}.`);
        drawings[block.id] = drawing(block, chapter);
        numbers[block.id] = `${chapter.number}.${Object.keys(drawings).length}`;
        data.figures[block.id] = { figure, args, options, answer };
      } else if (block.kind === "predict") data.predictions[block.id] = block;
      else if (block.kind === "exercise") data.exercises[block.id] = block;
    }
    const mark = (id: string): string => `@drawing of ${id}@`;
    let body = plain(ChapterPage, { walk, chapter, numbers, place: mark });
    data.notes = notes(body, lessons);
    for (const [id, html] of Object.entries(drawings)) body = body.replace(mark(id), () => html);
    const text = JSON.stringify(data);
    const name = `data/${chapter.slug}-${hash(text)}.json`;
    files[name] = text;
    files[`${chapter.slug}.html`] = document(
      `${chapter.title} · microgpt`, words(chapter.lead).slice(0, 300), body, links,
      { ...common, "data-page": "chapter", "data-slug": chapter.slug, "data-from": name }, unique(Object.values(data.figures).map(({ figure }) => figure)),
    );
  }

  files["index.html"] = document(
    "The walk · microgpt", `A whole GPT in ${walk.lines} lines of Python, explained line by line, by running it.`,
    plain(ContentsPage, { walk, chapters }), links, { ...common, "data-page": "contents" },
  );
  const glossary = lessons.glossary.map(({ id, term, html }) => ({ id, title: term, html }));
  files["glossary.html"] = document(
    "Glossary · microgpt", "The words of this field that the walk uses, each in a sentence or two.",
    plain(ListPage, { walk, here: "glossary", title: "Glossary", entries: glossary }), links, { ...common, "data-page": "apart" },
  );
  const references = lessons.references.map(({ id, title, authors, year, venue, html }) => ({
    id, title, by: escape(`${authors}, ${year}. ${venue}`), html,
  }));
  files["references.html"] = document(
    "References · microgpt", "Where the ideas of the walk come from.",
    plain(ListPage, { walk, here: "references", title: "References", entries: references }), links, { ...common, "data-page": "apart" },
  );
  files["made.html"] = document(
    `${lessons.made.title} · microgpt`, "How the walk was made, and which of its numbers were measured how.",
    plain(ListPage, { walk, here: "made", title: lessons.made.title, html: lessons.made.html }), links, { ...common, "data-page": "apart" },
  );
  return { files };
}
