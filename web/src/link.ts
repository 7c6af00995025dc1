/** The page's state as the part of its address after `#`, readable by people and by `microgpt` in a terminal.

    v=1&text=anna&seed=42&data=names&room=xray&temperature=0.7&of=1a2b3c4d&edit=...

    Everything is optional. `edit` is base64url of raw deflate of JSON `[[line, removed, [added, ...]], ...]`
    against the original whose SHA-256 starts with `of`. What arrives here was written by anybody: it is checked
    piece by piece, never thrown, and nothing of it runs. */

export type Room = "code" | "xray" | "graph" | "train" | "sample";
export const ROOMS: readonly Room[] = ["code", "xray", "graph", "train", "sample"];

/** First line (from 1), lines removed, lines added. */
export type Edit = [number, number, string[]];

export interface Link {
  text?: string;
  seed?: number;
  data?: string;
  room?: Room;
  temperature?: number;
  step?: number;
  model?: "fresh" | "run";
}

export interface Arrived {
  state: Link;
  /** The edited program that the link carries, if any. It has not been run. */
  source: string | null;
  /** One sentence, when something of the link was left out. */
  problem: string | null;
}

export const LONGEST_LINK = 20_000;
export const LONGEST_TEXT = 2_000;
const LONGEST_SOURCE = 200_000;

// ---- Edits: the difference of two texts in whole lines ----

/** What turns `original` into `source`, from the top, in as few lines as there are. */
export function edits(original: string, source: string): Edit[] {
  const a = original.split("\n");
  const b = source.split("\n");
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head
    && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const rows = a.length - head - tail;
  const columns = b.length - head - tail;
  if (rows === 0 && columns === 0) return [];
  if (rows * columns > 4_000_000) return [[head + 1, rows, b.slice(head, head + columns)]];

  // The longest common subsequence of what lies between, from the end; width columns + 1.
  const width = columns + 1;
  const length = new Uint32Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      length[i * width + j] = a[head + i] === b[head + j]
        ? length[(i + 1) * width + j + 1]! + 1
        : Math.max(length[(i + 1) * width + j]!, length[i * width + j + 1]!);
    }
  }
  const found: Edit[] = [];
  let i = 0;
  let j = 0;
  while (i < rows || j < columns) {
    if (i < rows && j < columns && a[head + i] === b[head + j]) {
      i++;
      j++;
      continue;
    }
    const edit: Edit = [head + i + 1, 0, []];
    while ((i < rows || j < columns) && !(i < rows && j < columns && a[head + i] === b[head + j])) {
      const drop = i < rows && (j === columns || length[(i + 1) * width + j]! >= length[i * width + j + 1]!);
      if (drop) {
        edit[1]++;
        i++;
      } else {
        edit[2].push(b[head + j]!);
        j++;
      }
    }
    found.push(edit);
  }
  return found;
}

/** The source that `edits` described, or null when they do not fit the original. */
export function applyEdits(original: string, changes: readonly Edit[]): string | null {
  const lines = original.split("\n");
  const done: string[] = [];
  let position = 0;
  for (const [line, removed, added] of changes) {
    if (line - 1 < position || removed < 0 || line - 1 + removed > lines.length) return null;
    for (const kept of lines.slice(position, line - 1)) done.push(kept);
    for (const row of added) done.push(row);
    position = line - 1 + removed;
  }
  return done.concat(lines.slice(position)).join("\n");
}

/** How many lines an edit touches, as a person would count: a changed line is one, not two. */
export function linesChanged(changes: readonly Edit[]): number {
  return changes.reduce((sum, [, removed, added]) => sum + Math.max(removed, added.length), 0);
}

export async function digest(source: string): Promise<string> {
  if (!globalThis.crypto?.subtle) return ""; // plain http on another host: the check is left out
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(source));
  return [...new Uint8Array(hash)].slice(0, 4).map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- Writing ----

/** The fragment for a state, without `#`. An edit too long for a link is left out; see `LONGEST_LINK`. */
export async function encode(state: Link, original: string, source: string): Promise<string> {
  const pairs: [string, string][] = [["v", "1"]];
  for (const key of ["text", "seed", "data", "room", "step", "temperature", "model"] as const) {
    const value = state[key];
    if (value !== undefined) pairs.push([key, key === "temperature" ? decimal(value as number) : String(value)]);
  }
  const changes = source === original ? [] : edits(original, source);
  if (changes.length > 0 && "CompressionStream" in globalThis) {
    const packed = await pack(JSON.stringify(changes));
    const of = await digest(original);
    if (of) pairs.push(["of", of]);
    pairs.push(["edit", packed]);
  }
  return pairs.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
}

function decimal(x: number): string {
  return String(Number(x.toFixed(6)));
}

async function pack(text: string): Promise<string> {
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

// ---- Reading ----

/** What a fragment says, as far as it can be believed. Never throws. */
export async function decode(fragment: string, original: string): Promise<Arrived> {
  const arrived: Arrived = { state: {}, source: null, problem: null };
  const text = fragment.replace(/^#/, "");
  if (text === "") return arrived;
  if (text.length > LONGEST_LINK) {
    arrived.problem = "The link that brought you here is too long to be one of this page, so it was left out.";
    return arrived;
  }
  const pairs = new Map<string, string>();
  for (const part of text.split("&")) {
    const at = part.indexOf("=");
    const word = plain(at < 0 ? part : part.slice(at + 1));
    const key = at < 0 ? "" : part.slice(0, at);
    if (word === null || !KEYS.has(key)) {
      arrived.problem = "Part of the link that brought you here cannot be read, and was left out.";
    } else {
      pairs.set(key, word);
    }
  }
  const { state } = arrived;
  const refuse = (key: string): void => {
    arrived.problem = `The link's ${key} cannot be used here, and was left out.`;
  };
  const version = pairs.get("v");
  if (version !== undefined && version !== "1") {
    arrived.problem = "The link was made by another version of this page, so it was left out.";
    return arrived;
  }
  const doc = pairs.get("text");
  if (doc !== undefined) {
    if (doc.length <= LONGEST_TEXT && !CONTROL.test(doc)) state.text = doc;
    else refuse("text");
  }
  for (const key of ["seed", "step"] as const) {
    const value = pairs.get(key);
    if (value === undefined) continue;
    if (/^\d{1,9}$/.test(value)) state[key] = Number(value);
    else refuse(key);
  }
  const temperature = pairs.get("temperature");
  if (temperature !== undefined) {
    const value = Number(temperature);
    if (/^\d{1,3}(\.\d{1,6})?$/.test(temperature) && value <= 100) state.temperature = value;
    else refuse("temperature");
  }
  const data = pairs.get("data");
  if (data !== undefined) {
    if (/^[a-z][a-z_-]{0,31}$/.test(data)) state.data = data;
    else refuse("data");
  }
  const room = pairs.get("room");
  if (room !== undefined) {
    if ((ROOMS as readonly string[]).includes(room)) state.room = room as Room;
    else refuse("room");
  }
  const model = pairs.get("model");
  if (model !== undefined) {
    if (model === "fresh" || model === "run") state.model = model;
    else refuse("model");
  }
  const edit = pairs.get("edit");
  if (edit !== undefined) {
    const of = pairs.get("of");
    const here = await digest(original);
    if (of !== undefined && here !== "" && of !== here) {
      arrived.problem = "The link carries an edit of another version of the file, so the edit was left out.";
    } else {
      const changes = await unpack(edit);
      const source = changes && applyEdits(original, changes);
      if (source === null || source.length > LONGEST_SOURCE) {
        arrived.problem = "The link carries an edit that is damaged, so the edit was left out.";
      } else if (source !== original) {
        arrived.source = source;
      }
    }
  }
  return arrived;
}

const KEYS = new Set(["v", "text", "seed", "data", "room", "step", "temperature", "model", "of", "edit"]);
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/** Percent-decoded, or null when it is not text. */
function plain(word: string): string | null {
  try {
    return decodeURIComponent(word.replaceAll("+", "%20"));
  } catch {
    return null;
  }
}

async function unpack(text: string): Promise<Edit[] | null> {
  if (!/^[\w-]+$/.test(text) || !("DecompressionStream" in globalThis)) return null;
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const unfolded = await readAtMost(stream, LONGEST_SOURCE);
    return unfolded === null ? null : checked(JSON.parse(unfolded));
  } catch {
    return null;
  }
}

/** A stream as text, or null once it is longer than `limit` bytes: a small link can unfold to gigabytes. */
async function readAtMost(stream: ReadableStream<Uint8Array>, limit: number): Promise<string | null> {
  const reader = stream.getReader();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  for (let size = 0; ;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    size += value.byteLength;
    if (size > limit) {
      await reader.cancel();
      return null;
    }
    text += decoder.decode(value, { stream: true });
  }
}

function checked(value: unknown): Edit[] | null {
  if (!Array.isArray(value) || value.length > 10_000) return null;
  const found: Edit[] = [];
  for (const change of value as unknown[]) {
    if (!Array.isArray(change) || change.length !== 3) return null;
    const [line, removed, added] = change as [unknown, unknown, unknown];
    if (!Number.isSafeInteger(line) || !Number.isSafeInteger(removed)) return null;
    if (!Array.isArray(added)) return null;
    if (!added.every((row): row is string => typeof row === "string" && !/[\r\n]/.test(row))) return null;
    found.push([line as number, removed as number, added]);
  }
  return found;
}
