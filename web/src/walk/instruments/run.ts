/** The whole run behind a figure: the build's recording where it fits, else Python's x-ray of the reader's text. */

import { loadRecording } from "../../recording";
import type { Recording, Xray } from "../../types";
import type { Live } from "./props";

export interface WholeRun {
  xray: Xray;
  /** The program, line by line; line 1 comes first. */
  lines: string[];
  /** The recording keeps three digits of each number; Python's own answer more. */
  recorded: boolean;
}

let recording: Promise<Recording | null> | null = null;
const asked = new Map<string, Promise<Xray>>();

function recorded(): Promise<Recording | null> {
  return (recording ??= loadRecording(new URL("../", document.baseURI)));
}

/** Null where Python is needed and will not come; asking starts it. Fails with a sentence where it cannot run the text. */
export async function wholeRun(text: string, model: string, live: Live | null): Promise<WholeRun | null> {
  const known = await recorded();
  const lines = known?.boot.source.split("\n") ?? [];
  if (known && model === "trained" && known.xray.doc === text) return { xray: known.xray, lines, recorded: true };
  if (live === null || live.status === "failed") return null;
  const key = JSON.stringify([text, model]);
  let answer = asked.get(key);
  if (!answer) {
    if (asked.size > 3) asked.clear(); // each is a few hundred kilobytes
    answer = live.ask("xray", { text, model }) as Promise<Xray>;
    asked.set(key, answer);
    answer.catch(() => asked.delete(key));
  }
  return { xray: await answer, lines, recorded: false };
}
