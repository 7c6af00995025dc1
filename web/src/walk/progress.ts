/** What the reader has met, kept on this device and nowhere else. Nothing depends on it. */

const KEY = "walk";

/** Steps with the lines they explain, guesses, and exercises that were done, by chapter or identifier. */
export interface Kept {
  version: 1;
  /** Of which file: the lines of another are not ours. */
  file: string;
  steps: Record<string, Record<string, number[]>>;
  guesses: Record<string, unknown>;
  exercises: Record<string, true>;
}

const listeners = new Set<() => void>();
let kept: Kept | null = null;

export function ownFile(): string {
  return document.body.dataset["file"] ?? "";
}

function empty(): Kept {
  return { version: 1, file: ownFile(), steps: {}, guesses: {}, exercises: {} };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What a text says, piece by piece as far as it can be believed; null when it is none of ours. */
export function read(text: string): Kept | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value) || value["version"] !== 1) return null;
  const found = empty();
  const same = value["file"] === found.file;
  for (const [slug, steps] of Object.entries(isRecord(value["steps"]) ? value["steps"] : {})) {
    if (!isRecord(steps)) continue;
    const own: Record<string, number[]> = {};
    for (const [id, lines] of Object.entries(steps)) {
      if (Array.isArray(lines)) own[id] = same ? lines.filter((line): line is number => Number.isSafeInteger(line)) : [];
    }
    found.steps[slug] = own;
  }
  if (isRecord(value["guesses"])) found.guesses = value["guesses"];
  for (const [id, done] of Object.entries(isRecord(value["exercises"]) ? value["exercises"] : {})) {
    if (done === true) found.exercises[id] = true;
  }
  return found;
}

export function progress(): Kept {
  if (kept) return kept;
  try {
    kept = read(localStorage.getItem(KEY) ?? "");
  } catch {
    // a private window: kept as long as the page
  }
  return (kept ??= empty());
}

function save(): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(progress()));
  } catch {
    // as above, or no room: the page goes on
  }
  for (const listener of listeners) listener();
}

export function onProgress(listener: () => void): void {
  listeners.add(listener);
}

export function meet(slug: string, step: string, lines: number[]): void {
  const steps = (progress().steps[slug] ??= {});
  if (steps[step]?.join() === lines.join()) return;
  steps[step] = lines;
  save();
}

export function guess(id: string, value: unknown): void {
  if (value === null) delete progress().guesses[id];
  else progress().guesses[id] = value;
  save();
}

export function finish(exercise: string): void {
  if (progress().exercises[exercise]) return;
  progress().exercises[exercise] = true;
  save();
}

/** Takes the place of all that was kept. */
export function replace(other: Kept): void {
  kept = other;
  save();
}

export function forget(): void {
  kept = empty();
  save();
}

export function metLines(): Set<number> {
  return new Set(Object.values(progress().steps).flatMap((steps) => Object.values(steps).flat()));
}
