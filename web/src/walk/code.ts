/** Lines of the file as HTML: for the pane beside the prose, and for the excerpts between it. */

import { concept } from "../format";
import type { CodeToken } from "./types";

const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

export function escape(text: string): string {
  return text.replace(/[&<>"]/g, (char) => ESCAPES[char]!);
}

/** The colour of a name; Adam's own m, v and w are no queries, keys or values. */
export function hue(brush: string | null): string | null {
  return brush === null || brush.startsWith("adam.") ? null : concept(brush);
}

export function textOf(tokens: CodeToken[]): string {
  return tokens.map((token) => token.text).join("");
}

function tokenHtml({ text, kind, brush }: CodeToken): string {
  const colour = hue(brush);
  const classes = [kind && `code-${kind}`, colour && `concept-${colour}`].filter(Boolean).join(" ");
  if (!classes && brush === null) return escape(text);
  const names = brush === null ? "" : ` data-brush="${escape(brush)}"`;
  return `<span${classes && ` class="${classes}"`}${names}>${escape(text)}</span>`;
}

/** One line, without its number, and without the first spaces that it shares with its neighbours. */
export function lineHtml(tokens: CodeToken[], shared = 0): string {
  let left = shared;
  const rest = tokens.map((token) => {
    const cut = Math.min(left, token.text.length);
    left -= cut;
    return cut > 0 ? { ...token, text: token.text.slice(cut) } : token;
  });
  return rest.filter(({ text }) => text !== "").map(tokenHtml).join("");
}

export function indent(tokens: CodeToken[]): number {
  const text = textOf(tokens);
  return text.length - text.trimStart().length;
}

/** How far a line is indented, in steps of four; a line that is too wide goes on a little further in. */
export function depth(tokens: CodeToken[], shared = 0): number {
  return Math.min(4, Math.floor((indent(tokens) - shared) / 4));
}

/** "Line 84", "Lines 81–82", "Lines 3, 18–20". */
export function linesInWords(lines: number[]): string {
  const runs: [number, number][] = [];
  for (const line of lines) {
    const run = runs.at(-1);
    if (run && run[1] === line - 1) run[1] = line;
    else runs.push([line, line]);
  }
  const words = runs.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
  return `${lines.length === 1 ? "Line" : "Lines"} ${words}`;
}

/** Lines that hold something; only these are counted. */
export function counted(code: CodeToken[][]): number {
  return code.filter((tokens) => tokens.length > 0).length;
}
