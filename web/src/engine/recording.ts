// The recording that the build made by running the file: the page is alive from it before Python is there.

declare const __RECORDING__: string;

/** Fetches and unpacks the recording (see `record` in bridge.py for its shape). Rejects when it cannot be had. */
export async function loadRecording<Recording = unknown>(): Promise<Recording> {
  const response = await fetch(new URL(__RECORDING__, document.baseURI));
  if (!response.ok || !response.body)
    throw new Error(`The recording could not be loaded: the server answered ${response.status}.`);
  const unpacked = response.body.pipeThrough(new DecompressionStream("deflate"));
  return (await new Response(unpacked).json()) as Recording;
}
