/** What the build recorded by running the file, so that the page is alive before Python is. */

import type { Recording } from "./types";

const PLACE = "recording.json.gz"; // beside the page
const TRAINED = "trained.safetensors"; // the run that the recording shows

/** The recording, or null where there is none: the page then waits for Python instead. `beside`: the folder of the workbench's page. */
export async function loadRecording(beside: string | URL = document.baseURI): Promise<Recording | null> {
  try {
    const answer = await fetch(new URL(PLACE, beside));
    if (!answer.ok) return null;
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const recording = JSON.parse(await unfold(bytes)) as Partial<Recording>;
    return recording.boot && recording.xray ? (recording as Recording) : null;
  } catch {
    return null;
  }
}

/** The checkpoint of the recorded run in base64, or null where there is none. */
export async function loadTrained(beside: string | URL = document.baseURI): Promise<string | null> {
  try {
    const answer = await fetch(new URL(TRAINED, beside));
    if (!answer.ok) return null;
    const bytes = new Uint8Array(await answer.arrayBuffer());
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  } catch {
    return null;
  }
}

/** The first byte tells how it is packed: `{` is JSON, 0x1f gzip, 0x78 zlib, anything else raw deflate. */
async function unfold(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const first = bytes[0];
  if (first === 0x7b) return new TextDecoder().decode(bytes);
  const format = first === 0x1f ? "gzip" : first === 0x78 ? "deflate" : "deflate-raw";
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Response(stream).text();
}
