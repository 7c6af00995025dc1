// Puts the text of the file into the page, so that it can be read before any script has run, or without one.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const FILE = join(import.meta.dirname, "..", "microgpt", "gpt.py");
const PLACE = "<!--source-->";
const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };

export function source(): Plugin {
  return {
    name: "microgpt-source",
    transformIndexHtml: {
      order: "pre",
      handler(html) {
        if (!html.includes(PLACE)) return html; // a page without the program, such as a test's
        const text = readFileSync(FILE, "utf8").replace(/[&<>]/g, (char) => ESCAPES[char]!);
        // The parser drops the first newline of a <pre>, so it is given one to drop.
        return html.replace(PLACE, () => `\n${text}`);
      },
    },
  };
}
