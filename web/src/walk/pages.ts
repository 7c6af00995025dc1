/** What the pages of the walk know of each other, and what a chapter leaves to its script. Plain data. */

import type { Chapter, CodeToken, Exercise, Prediction } from "./types";

/** What every page is given. Links are relative, from inside walk/. */
export interface Walk {
  chapters: Pick<Chapter, "slug" | "number" | "title" | "minutes">[];
  code: CodeToken[][];
  /** Non-blank lines of the file. */
  lines: number;
  /** Begins the SHA-256 of the file: progress that was made with another one has other lines. */
  file: string;
}

export interface FigureData { figure: string; args: Record<string, unknown>; options: Record<string, string>; answer: unknown }

/** walk/data/SLUG-HASH.json: what the script needs and the page does not say. */
export interface ChapterData {
  figures: Record<string, FigureData>;
  predictions: Record<string, Prediction>;
  exercises: Record<string, Exercise>;
  /** What is shown at a link to the glossary or the references: its address, and HTML. */
  notes: Record<string, string>;
}
