/// <reference lib="webworker" />
// Python in a worker: starts Pyodide, loads the microgpt package, and passes calls to microgpt.bridge.
// It knows no mathematics. Between steps of training it looks for messages, so that pause is heard.

import type { loadPyodide as LoadPyodide } from "pyodide";
import type { Advance, Failure, FromWorker, PythonFiles, ToWorker } from "./protocol";

const BUDGET_MS = 30; // of training between two looks at the messages
const PRINT_LINES = 200; // at most so many printed lines a report; an endless print must not drown the page

const scope = self as unknown as DedicatedWorkerGlobalScope;
const post = (message: FromWorker, give: Transferable[] = []) => scope.postMessage(message, give);

class StartFailed extends Error {}

// ---- Fetching, with an honest count of bytes ----

/** Fetches the files of Python, all at once, and counts the bytes as they arrive. */
function download({ folder, sizes }: PythonFiles): Map<string, Promise<Response>> {
  const total = Object.values(sizes).reduce((sum, size) => sum + size, 0);
  let loaded = 0;
  let reported = 0;
  const count = (bytes: number) => {
    loaded += bytes;
    if (loaded < total && loaded - reported < total / 200) return;
    reported = loaded;
    post({ event: "progress", phase: loaded < total ? "download" : "python", loaded, total });
  };
  const get = async (name: string, url: string): Promise<Response> => {
    const response = await realFetch(url).catch(() => null);
    if (!response)
      throw new StartFailed("Python could not be downloaded. Check the connection, then try again.");
    if (!response.ok || !response.body)
      throw new StartFailed(
        `Python could not be downloaded: the server answered ${response.status} for ${name}.`,
      );
    const counter = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(chunk, controller) {
        count(chunk.byteLength);
        controller.enqueue(chunk);
      },
    });
    const body = response.body.pipeThrough(counter);
    // WebAssembly is compiled while it arrives; the rest is read now, whoever asks for it later.
    // The type is set here, so that no server's table of file types can break the start.
    if (name.endsWith(".wasm"))
      return new Response(body, { headers: { "content-type": "application/wasm" } });
    return new Response(await new Response(body).arrayBuffer());
  };
  const files = new Map<string, Promise<Response>>();
  for (const name of Object.keys(sizes)) {
    const url = new URL(name, folder).href;
    const file = get(name, url);
    file.catch(() => {}); // reported by whoever awaits it
    files.set(url, file);
  }
  return files;
}

const realFetch = scope.fetch.bind(scope);

// ---- Starting ----

let call: ((name: string, argumentsJson: string, parcel?: Uint8Array) => string) | undefined;
let takeParcel: () => Uint8Array<ArrayBuffer> | null;

async function boot(files: PythonFiles): Promise<void> {
  if (typeof WebAssembly !== "object" || !WebAssembly.instantiateStreaming)
    throw new StartFailed("This browser has no WebAssembly, which Python needs to run in the page.");
  const { folder } = files;
  const downloads = download(files);
  const [stdlib, core] = ["stdlib.zip", "core.zip"].map((name) => new URL(name, folder).href);
  scope.fetch = (input, init) => downloads.get(String(input)) ?? realFetch(input, init);

  // Pyodide logs a failure here and waits for ever; the page wants to know.
  let giveUp: (reason: unknown) => void;
  const failed = new Promise<never>((_, reject) => (giveUp = reject));
  const instantiate = WebAssembly.instantiateStreaming;
  WebAssembly.instantiateStreaming = async (source, imports) => {
    try {
      return await instantiate(source, imports);
    } catch (error) {
      giveUp(error);
      throw error;
    }
  };
  const start = async () => {
    const { loadPyodide } = (await import(/* @vite-ignore */ `${folder}pyodide.mjs`)) as {
      loadPyodide: typeof LoadPyodide;
    };
    // The archive's own failure must be seen before Pyodide goes on without a library.
    await downloads.get(stdlib!);
    return loadPyodide({
      indexURL: folder,
      stdLibURL: stdlib!,
      packageBaseUrl: folder,
      lockFileContents: { info: files.platform, packages: {} } as never,
      stdout: print,
      stderr: print,
    });
  };
  const python = await Promise.race([start(), failed]);
  scope.fetch = realFetch;

  const archive = new Uint8Array(await (await downloads.get(core!)!).arrayBuffer());
  const total = Object.values(files.sizes).reduce((sum, size) => sum + size, 0);
  post({ event: "progress", phase: "import", loaded: total, total });
  python.FS.writeFile("/tmp/core.zip", archive);
  python.globals.set("version", files.version);
  call = python.runPython(`
import zipfile
with zipfile.ZipFile("/tmp/core.zip") as archive:
    archive.extractall("/home/pyodide")
import microgpt
microgpt.__version__ = version
import microgpt.bridge
lambda name, text, parcel=None: microgpt.bridge.call(name, text, parcel and parcel.to_bytes())
`) as typeof call;
  const parcel = python.runPython("microgpt.bridge.parcel") as () => { toJs(): Uint8Array<ArrayBuffer>; destroy(): void } | undefined;
  takeParcel = () => {
    const found = parcel();
    const bytes = found?.toJs() ?? null;
    found?.destroy();
    return bytes;
  };
  closeDoors();
  post({ event: "ready", boot: ask("boot", {}) });
}

/**
 * What the reader's program has no business with: the network, and what the browser keeps. The page's policy
 * binds a worker only where a server sends it as a header, which a plain static host does not.
 */
const DOORS = [
  "fetch", "XMLHttpRequest", "WebSocket", "WebSocketStream", "WebTransport", "EventSource", "RTCPeerConnection",
  "importScripts", "Worker", "BroadcastChannel", "indexedDB", "caches", "FileSystemHandle",
];

function closeDoors(): void {
  for (const name of DOORS)
    for (let owner: object | null = scope; owner !== null; owner = Object.getPrototypeOf(owner) as object | null)
      if (owner === scope || Object.hasOwn(owner, name))
        Object.defineProperty(owner, name, { value: undefined, writable: false, configurable: false });
}

/** A sentence for whatever kept Python from starting. */
function sentence(error: unknown): string {
  if (error instanceof StartFailed) return error.message;
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof RangeError || /memory/i.test(text))
    return "There is not enough memory for Python in this tab. Close other tabs, then try again.";
  if (/dynamically imported module|importing a module script/i.test(text))
    return "Python could not be downloaded. Check the connection, then try again.";
  return `Python did not start: ${gist(text)}`;
}

/** The line of a Python traceback that says what happened. */
function gist(text: string): string {
  const lines = text.trim().split("\n");
  return lines.findLast((line) => /^[\w.]+(Error|Exception|Interrupt|Exit)\b/.test(line)) ?? lines[0] ?? "";
}

// ---- Calls ----

class Refused extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message);
  }
}

/** Asks the bridge. Throws Refused with the bridge's own error, or with "broken" when Python fell over. */
function ask(name: string, args: Record<string, unknown>, parcel?: ArrayBuffer): unknown {
  let text: string;
  try {
    text = parcel ? call!(name, JSON.stringify(args), new Uint8Array(parcel)) : call!(name, JSON.stringify(args));
  } catch (error) {
    const reason = gist(error instanceof Error ? error.message : String(error));
    throw new Refused({ message: `Python stopped working: ${reason}`, line: null, kind: "broken" });
  } finally {
    flush();
  }
  const answer = JSON.parse(text) as { ok: unknown } | { error: Failure };
  if ("error" in answer) throw new Refused(answer.error);
  return answer.ok;
}

function failureOf(error: unknown): Failure {
  if (error instanceof Refused) return error.failure;
  return { message: `The page's engine failed: ${String(error)}`, line: null, kind: "broken" };
}

// ---- Training: a budget of steps, then a look at the messages, and so on ----

let training = false;
const turn = new MessageChannel();
turn.port1.onmessage = () => {
  if (!training) return;
  try {
    const result = ask("advance", { budget_ms: BUDGET_MS }) as Advance;
    training = !result.done;
    post({ event: "train", ...result, running: training });
  } catch (error) {
    training = false;
    post({ event: "train", running: false, error: failureOf(error) });
  }
  if (training) turn.port2.postMessage(null);
};

function answer(name: string, args: Record<string, unknown>, parcel?: ArrayBuffer): unknown {
  switch (name) {
    case "ping":
      return {};
    case "train":
      if (!training) turn.port2.postMessage(null);
      training = true;
      return {};
    case "pause": {
      const was = training;
      training = false;
      return { was };
    }
    case "start": // another run takes the place of this one
      training = false;
      return ask(name, args);
    default:
      return ask(name, args, parcel);
  }
}

scope.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  if ("boot" in data) {
    try {
      await boot(data.boot);
    } catch (error) {
      console.error(error);
      const failure = error instanceof Refused ? error.failure.message : sentence(error);
      post({ event: "failed", error: { message: failure, line: null, kind: "start" } });
    }
    return;
  }
  try {
    const ok = answer(data.call, data.args, data.parcel);
    const parcel = data.call === "pack" ? takeParcel()?.buffer : undefined;
    if (parcel) post({ id: data.id, ok, parcel }, [parcel]);
    else post({ id: data.id, ok });
  } catch (error) {
    post({ id: data.id, error: failureOf(error) });
  }
};

// ---- What the reader's program prints ----

let printed: string[] = [];
let dropped = 0;
let flushed = 0;

function print(line: string): void {
  if (printed.length < PRINT_LINES) printed.push(line);
  else dropped += 1;
  if (performance.now() - flushed > 100) flush();
}

function flush(): void {
  if (!printed.length) return;
  if (dropped) printed.push(`(${dropped} more lines)`);
  post({ event: "print", text: printed.join("\n") });
  printed = [];
  dropped = 0;
  flushed = performance.now();
}
