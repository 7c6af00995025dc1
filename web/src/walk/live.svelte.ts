/** Python beside the lessons: it starts when it is first needed, and every figure of the page asks the same one. */

import { Engine, EngineError } from "../engine/client";
import { loadTrained } from "../recording";
import type { Live } from "./instruments/props";
import { LONGEST, SHARED } from "./text";
import type { Checked } from "./types";

const TEXT = "walk.text";

/** The folder of the workbench's page, in which Python's files and the trained weights lie. */
const BESIDE = new URL("../", document.baseURI);

class Python implements Live {
  status = $state<Live["status"]>("recorded");
  /** Of the download, from 0 to 1. */
  share = $state(0);
  /** Why Python did not start, or what happened to it. */
  problem = $state("");
  /** The reader's own text; null until they have one. */
  chosen = $state<string | null>(arrivedText());
  #engine = $state.raw<Engine | null>(null);
  #here: Promise<void> = Promise.resolve();
  #arrived: () => void = () => undefined;

  get text(): string {
    return this.chosen ?? SHARED;
  }

  /** The client itself, once it was started; for what trains here and now. */
  get engine(): Engine | null {
    return this.#engine;
  }

  /** Starts Python in the background, unless it was. */
  start(): void {
    if (this.#engine && this.status !== "failed") return;
    const engine = this.#engine ?? this.#prepare();
    this.#await();
    this.status = "loading";
    this.problem = "";
    engine.start();
  }

  async ask(name: string, args: Record<string, unknown>): Promise<unknown> {
    return this.#call("instrument", { name, arguments: args });
  }

  async check(id: string, source: string): Promise<Checked> {
    return (await this.#call("exercise", { id, source })) as Checked;
  }

  /** Ends whatever runs; Python is started again if it does not answer. Resolves to whether it came to that. */
  async stop(): Promise<boolean> {
    return (await this.#engine?.stop()) ?? false;
  }

  choose(text: string | null): void {
    this.chosen = text;
    if (text !== null) this.start();
    keepText(text);
  }

  async #call(name: string, args: Record<string, unknown>): Promise<unknown> {
    this.start();
    await this.#here;
    if (!this.#engine || this.status === "failed") throw new Error(this.problem || "Python is not there.");
    return this.#engine.call(name, args);
  }

  #await(): void {
    this.#arrived();
    this.#here = new Promise((resolve) => (this.#arrived = resolve));
  }

  #prepare(): Engine {
    const engine = new Engine(BESIDE);
    this.#engine = engine;
    engine.on("progress", ({ phase, loaded, total }) => {
      this.share = phase === "download" ? Math.min(loaded / Math.max(total, 1), 1) : 1;
    });
    engine.on("restarted", ({ message }) => {
      this.#await();
      this.status = "loading";
      this.share = 1;
      this.problem = message;
    });
    engine.on("ready", () => void this.#adopt(engine));
    engine.on("status", (status) => {
      if (status !== "failed") return;
      this.status = "failed";
      this.problem = engine.failure?.message ?? "Python did not start.";
      this.#arrived();
    });
    return engine;
  }

  /** Gives Python the trained weights that came with the page; before that it would answer with others. */
  async #adopt(engine: Engine): Promise<void> {
    try {
      const checkpoint = await loadTrained(BESIDE);
      if (checkpoint === null) throw new Error("The trained weights could not be downloaded. Check the connection, then try again.");
      await engine.call("adopt", { base64_text: checkpoint });
      this.status = "ready";
      this.problem = "";
    } catch (error) {
      if (error instanceof EngineError && error.kind === "stopped") return; // another start is under way
      engine.close();
      this.#engine = null;
      this.status = "failed";
      this.problem = error instanceof Error ? error.message : String(error);
    }
    this.#arrived();
  }
}

/** The text in the address, else the one that this tab has kept. */
function arrivedText(): string | null {
  const text = new URLSearchParams(location.search).get("text");
  if (text !== null) {
    keepText(text.slice(0, LONGEST));
    return text.slice(0, LONGEST);
  }
  try {
    const kept = sessionStorage.getItem(TEXT);
    if (kept !== null) writeText(kept);
    return kept;
  } catch {
    return null; // a private window
  }
}

function keepText(text: string | null): void {
  try {
    if (text === null) sessionStorage.removeItem(TEXT);
    else sessionStorage.setItem(TEXT, text);
  } catch {
    // as above: the text lasts as long as the page
  }
  writeText(text);
}

function writeText(text: string | null): void {
  const address = new URL(location.href);
  if (text === null) address.searchParams.delete("text");
  else address.searchParams.set("text", text);
  try {
    history.replaceState(history.state, "", address);
  } catch {
    // some browsers refuse many changes in a short time: the next one will do
  }
}

export const live = new Python();
