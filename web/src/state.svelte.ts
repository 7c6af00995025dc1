/** The page's one store. Data flows one way:

      source, text, settings  ->  Python (check, x-ray, sample)  ->  plain data  ->  views
                              ->  Python (pack)  ->  kernel (train)  ->

    Every question to Python carries what it was asked for; an answer to a question that is no longer
    the present one is dropped. Views read this store through props and never talk to Python. */

import { count, plural } from "./format";
import { Engine, EngineError } from "./engine/client";
import { Kernel, type Report, type Snapshot } from "./kernel/client";
import { Trainer, same, type Packed, type Wish } from "./kernel/trainer";
import { Choice } from "./choice.svelte";
import type { Progress, TrainEvent } from "./engine/client";
import * as link from "./link";
import type { Room } from "./link";
import type { Finished } from "./views/SampleView.svelte";
import { loadRecording, loadTrained } from "./recording";
import { applyTheme, storedTheme, type Theme } from "./theme";
import type {
  Advance, Boot, Check, Dataset, Failure, Knob, Measure, Num, Peek, Problem, Recording, RunInfo, SampleStep, Samples,
  Xray,
} from "./types";

export type RunStatus = "recording" | "idle" | "running" | "paused" | "done" | "failed";
export type Model = "fresh" | "run";
export interface Loss { step: number; loss: Num }

/** flash: it lights up for a moment; select: the caret goes there; otherwise it is only brought into view. */
export interface Goto { line: number; how: "flash" | "select" | "reveal" }

/** A run that the kernel has trained; Python goes on with it when nothing changes any more. */
interface Trained { wish: Wish; report: Report; losses: Loss[]; snapshots: Snapshot[]; taken: boolean }

/** The run before a change. */
export interface Before { losses: Loss[]; heldOut: Num | null }

/** This program and the original file over several seeds: how each run ended, and what that says. */
export interface Comparison {
  seeds: number[];
  ours: number[];
  theirs: number[];
  result: { ours: number; theirs: number; difference: number; low: number; high: number } | null;
  problem: string | null;
}

/** Who trained what is shown: the build, the kernel, or Python step by step. */
export type By = "recording" | "kernel" | "python";

/** How Python is. `share` is the part of its bytes that has arrived, 0 to 1, and 1 while it starts. */
export type EngineState =
  | { kind: "loading"; share: number; restart: boolean }
  | { kind: "ready" }
  | { kind: "failed"; message: string };

const REVIEW_AFTER = 400; // ms without a key: the source is checked and looked through
const TEXT_AFTER = 250;
const PEEK_EVERY = 350;
const LINK_AFTER = 500;
const SLOW_AFTER = 1_000; // ms: from then on a run is worth mentioning
const HELD_OUT_DOCS = 50;
const SAMPLES = 6;
const MOST_PEEKS = 80;
const MEASURING = "The measuring of the held-out loss";
const SAMPLING = "The drawing of a few samples";
const TRAINED_SOON = 600; // ms: so long the x-ray of an edit waits for its training
const RESTED = 400; // ms after the last change, when Python takes over what was trained
const WORTH_A_WORD = 0.5; // s
const FIRST_ALONE = 400; // ms: so long the first training has the machine for itself, before Python is started
const KNOWN_PATIENCE = 1_700; // ms that Stop waits for a program that has been seen to finish its steps; a loop still ends in two seconds
export const SEEDS = 8; // of a comparison
const FIRST_SEED = 42; // of the run that comes with the page
const LARGEST_SEED = 999_999_999; // nine digits, as a link carries it

export class Page {
  readonly original: string;

  // ---- What the reader decides ----
  source = $state("");
  text = $state("anna");
  room = $state<Room>("xray");
  data = $state("names"); // a dataset's name, or the reader's own text
  seed = $state(42);
  model = $state<Model>("run");
  measureEvery = $state(100);
  /** Whether every change is trained at once. */
  trainAsIEdit = new Choice("train as I edit", true);
  prefix = $state("");
  temperature = $state(1);
  sampleSeed = $state(7); // as in the recording
  theme = $state<Theme>("system");

  // ---- What is looked at ----
  cursor = $state(0);
  activeLine = $state<number | null>(null);
  selected = $state<number | null>(null); // a tensor
  /** A line that the editor brings into view. */
  goto = $state.raw<Goto | null>(null);

  // ---- What Python said ----
  recording = $state.raw<Recording | null>(null);
  boot = $state.raw<Boot | null>(null);
  check = $state.raw<Check | null>(null);
  checkedSource = $state.raw("");
  knobsWork = $state(true);
  xray = $state.raw<Xray | null>(null);
  xraySource = $state.raw("");
  xrayProblem = $state.raw<Failure | null>(null);
  /** Training steps behind the weights that the x-ray was made with; null for first weights. */
  xrayTrained = $state.raw<number | null>(null);

  runStatus = $state<RunStatus>("recording");
  run = $state.raw<RunInfo | null>(null);
  runSource = $state.raw("");
  /** Python holds the run's weights: it can be looked into and sampled from. */
  runAlive = $state(false);
  losses = $state.raw<Loss[]>([]);
  heldOut = $state.raw<Measure[]>([]);
  samples = $state.raw<Samples[]>([]);
  /** Looks into the running model, oldest first. */
  peeks = $state.raw<Peek[]>([]);
  peek = $derived(this.peeks.at(-1) ?? null);
  /** Who trained the run, and the seconds that it took the kernel. */
  by = $state.raw<By>("recording");
  seconds = $state.raw(0);
  /** The run before the latest change, to compare with. */
  before = $state.raw<Before | null>(null);
  /** The pictures of the model are of the run before, or of the recording. */
  peeksOf = $state.raw<"this" | "before" | "recording">("recording");
  /** This program compared with the original, while that is done and afterwards. */
  comparison = $state.raw<Comparison | null>(null);
  /** Why the kernel cannot train a program, and which. */
  refusal = $state.raw<{ message: string; wish: Wish } | null>(null);
  /** Why it trains nothing at all in this browser. */
  unusable = $state.raw<string | null>(null);
  /** What the training of the latest change waits for. */
  trainingWaits = $state.raw<"python" | "drag" | null>(null);
  /** The source as it was when the reader began to drag a number of it. */
  dragged = $state.raw<string | null>(null);
  runProblem = $state.raw<Failure | null>(null);
  runProblemSource = $state.raw("");

  sampling = $state.raw<SampleStep[]>([]);
  sampleStatus = $state<RunStatus>("recording");
  /** Names that were sampled to their end, newest first. */
  finished = $state.raw<Finished[]>([]);
  sampleProblem = $state.raw<Failure | null>(null);

  engine = $state.raw<EngineState>({ kind: "loading", share: 0, restart: false });
  /** What Python is doing for us now, once it has taken longer than a moment. */
  slow = $state.raw<string | null>(null);
  /** One sentence about what just happened; read out politely. */
  notice = $state("");
  /** An edit that came by link and waits for a yes. */
  arrived = $state.raw<{ source: string; lines: number } | null>(null);
  /** The source that did not finish: it runs again only when it is changed or Run is pressed. */
  hung = $state.raw<string | null>(null);
  /** What the program printed, newest last. */
  printed = $state.raw<string[]>([]);
  waiting = $state.raw<string | null>(null); // what will start by itself when Python is ready

  // ---- What follows ----
  edits = $derived.by(() => link.edits(this.original, this.source));
  changed = $derived(link.linesChanged(this.edits));
  edited = $derived.by(() => this.source !== this.original);
  ready = $derived(this.engine.kind === "ready");
  /** A training goes on that is worth a word: what the kernel does in a moment is not. */
  training = $derived(this.runStatus === "running" && (this.by === "python" || this.seconds > WORTH_A_WORD));
  checked = $derived(this.checkedSource === this.source);
  /** With the numbers that stand in the text now, where they are found at their lines. */
  knobs = $derived.by<Knob[]>(() => {
    const lines = this.source.split("\n");
    return (this.check?.knobs ?? []).map((knob) => {
      const text = numberAt(lines[knob.line - 1], knob.name)?.text;
      return text === undefined ? knob : { ...knob, value: Number(text) };
    });
  });
  #refused = $derived(this.refusal !== null && same(this.refusal.wish, { source: this.source, data: this.data, seed: this.seed }) ? this.refusal.message : null);
  readonly carriesKernel = Kernel.carried;
  /** Whether Train trains with the kernel. */
  fast = $derived(this.unusable === null && Kernel.carried && this.#refused === null);
  /** Why Python does the training, in a sentence; null where the kernel does. */
  slowness = $derived(this.unusable ?? this.#refused);
  datasets = $derived<Dataset[]>(this.boot?.datasets ?? []);
  /** The run was of another program than the one in the editor. */
  stale = $derived(this.run !== null && this.runSource !== this.source);
  problems = $derived.by<Problem[]>(() => {
    const found = this.checked ? [...(this.check?.problems ?? [])] : [];
    const add = (failure: Failure | null | undefined): void => {
      if (!failure || found.some((p) => p.message === failure.message)) return;
      found.push({ line: failure.line ?? 0, column: 1, message: failure.message });
    };
    if (this.xraySource === this.source) add(this.xray?.error);
    if (this.xrayProblem?.line) add(this.xrayProblem); // one without a line is of the text, and stands beside it
    if (this.runProblemSource === this.source) add(this.runProblem);
    return found;
  });
  /** The program in the editor did not finish, and waits for a change or a word. */
  stopped = $derived(this.hung !== null && this.hung === this.source);
  /** The values on the page are of an earlier text of the program, because this one cannot be run. */
  behind = $derived(this.xray !== null && this.xraySource !== this.source
    && (this.stopped || this.slow !== null || (this.checked && (this.check?.problems.length ?? 0) > 0)));
  /** The line that is pointed at, where the values know it. */
  pointed = $derived(this.xraySource === this.source ? this.activeLine : null);
  /** The line of the value that the x-ray stands on. */
  cursorLine = $derived(this.xray?.values[this.cursor]?.line ?? null);

  #engine: Engine;
  #trainer: Trainer;
  #trained: Trained | null = null;
  #taking: Promise<boolean> | null = null;
  #comparing: Kernel | null = null;
  #runWish: Wish | null = null; // of the run on the page
  #recorded = false; // Python has packed a run
  #rested = false; // the run on the page is what the reader came to rest with
  #restTimer: ReturnType<typeof setTimeout> | undefined;
  #looked: Trained | null = null; // what the x-ray was made with
  #known = new Map<string, Set<string>>(); // documents of data sets
  #reviewTimer: ReturnType<typeof setTimeout> | undefined;
  #textTimer: ReturnType<typeof setTimeout> | undefined;
  #linkTimer: ReturnType<typeof setTimeout> | undefined;
  #slowTimer: ReturnType<typeof setTimeout> | undefined;
  #looking = false;
  #lookAgain = false;
  #measuring = false;
  #peeking = false;
  #peekAgain = 0;
  #busy: { what: string; since: number }[] = [];
  #whenReady = new Map<string, () => void>();
  #runSerial = 0;
  #stops = 0; // what was asked for before a Stop does not go on after it
  #sampleSerial = 0;
  #ownFragment = "";

  constructor(original: string) {
    this.original = original;
    this.source = original;
    this.checkedSource = original;
    this.theme = storedTheme();
    this.#engine = new Engine();
    this.#trainer = new Trainer(new Kernel(), {
      ready: () => this.ready,
      dragging: () => this.dragged !== null,
      pack: (wish, most) => this.#pack(wish, most),
      report: (report, wish, first) => this.#onReport(report, wish, first),
      refused: (message, wish) => (this.refusal = message === null ? null : { message, wish }),
      failed: (error, wish) => {
        this.runProblem = failureOf(error);
        this.runProblemSource = wish.source;
      },
      waits: (why) => (this.trainingWaits = why),
      unusable: (message) => {
        this.unusable = message;
        if (this.ready) void this.#adopt();
      },
    });
    this.#trainer.start({ source: original, data: "names", seed: FIRST_SEED });
    this.#engine.on("progress", (progress) => this.#onProgress(progress));
    this.#engine.on("ready", (boot) => void this.#onReady(boot as Boot));
    this.#engine.on("train", (event) => this.#onTrainEvent(event));
    this.#engine.on("print", (text) => this.#onPrint(text));
    this.#engine.on("restarted", (reason) => this.#onRestarted(reason.kind === "stopped" ? null : reason.message));
    this.#engine.on("status", (status) => {
      if (status === "failed") {
        this.engine = { kind: "failed", message: this.#engine.failure?.message ?? "Python did not start." };
      }
    });
  }

  /** Starts everything: the link, the recording, then Python in the background. */
  async open(): Promise<void> {
    addEventListener("hashchange", () => {
      if (location.hash !== this.#ownFragment) void this.#arrive(location.hash);
    });
    await this.#arrive(location.hash);
    const trained = same(this.#wish, { source: this.original, data: "names", seed: FIRST_SEED }) ? this.#trainer.want(this.#wish) : null;
    const recording = await loadRecording();
    if (recording && recording.boot.source === this.original) this.#play(recording);
    if (trained) await Promise.race([trained, later(FIRST_ALONE)]);
    this.#engine.start();
  }

  get #wish(): Wish {
    return { source: this.source, data: this.data, seed: this.seed };
  }

  // ---- The recording ----

  #play(recording: Recording): void {
    this.recording = recording;
    if (this.boot) return; // Python was faster
    this.boot = recording.boot;
    if (!this.edited) {
      this.check = recording.check;
      this.checkedSource = this.original;
    }
    this.#showXray(recording.xray, this.original, recording.losses.at(-1)?.step ?? 0);
    if (this.runStatus === "recording") {
      this.run = { ...recording.run, step: recording.losses.at(-1)?.step ?? recording.run.step };
      this.runSource = this.original;
      this.losses = recording.losses;
      this.heldOut = recording.held_out;
      this.samples = recording.samples;
    }
    if (this.peeksOf === "recording") this.peeks = recording.peeks;
    if (this.sampleStatus === "recording") this.sampling = recording.sampling;
  }

  /** Python takes over the recorded run: the same weights, so that the page goes on where the recording ends. */
  async #adopt(): Promise<void> {
    const recorded = this.recording?.run;
    const same = recorded && this.runStatus === "recording" && this.data === recorded.data && this.seed === recorded.seed;
    if (!same || this.runAlive) return;
    const serial = this.#runSerial;
    try {
      const checkpoint = await loadTrained();
      if (checkpoint === null) return;
      await this.#engine.call<RunInfo>("adopt", { base64_text: checkpoint });
      if (serial === this.#runSerial) this.runAlive = true;
    } catch {
      // the page goes on with first weights, and says so beside the text
    }
  }

  // ---- The source ----

  /** The editor's text has changed, by a key, a knob or an undo. */
  setSource(source: string): void {
    if (source === this.source) return;
    const number = onlyNumbers(this.source, source);
    this.endComparison();
    this.source = source;
    this.runProblem = null;
    this.xrayProblem = null;
    if (this.runStatus === "paused") this.runStatus = "done"; // a paused run belongs to the program it began with
    this.#touchLink();
    if (number && this.#follows) void this.#trainer.want(this.#wish); // at once: a number breaks nothing that stood
    clearTimeout(this.#reviewTimer);
    this.#reviewTimer = setTimeout(() => void this.review(), REVIEW_AFTER);
  }

  /** The reader begins to drag a number; or lets it go, when the whole drag becomes one step for undo. */
  drag(begins: boolean): void {
    if (begins) this.dragged ??= this.source;
    else {
      this.dragged = null;
      void this.#trainer.pump();
      this.#rest();
    }
  }

  /** Whether every change is trained at once; what has changed meanwhile is then, too. */
  setTrainAsIEdit(on: boolean): void {
    this.trainAsIEdit.on = on;
    if (on && this.ready && this.checked && this.problems.length === 0) void this.#follow();
  }

  /** Whether changes are trained by themselves. */
  get #follows(): boolean {
    const own = this.by === "python" && this.runAlive && same(this.#runWish, this.#wish); // the reader trains it step by step
    return this.trainAsIEdit.on && this.#trainer.usable && this.source !== this.hung && this.arrived === null && !own;
  }

  /** Trains what there is now, if that is wanted; then looks through it. */
  async #follow(): Promise<void> {
    const wish = this.#wish;
    if (this.#follows) await Promise.race([this.#trainer.want(wish), later(TRAINED_SOON)]);
    if (same(wish, this.#wish) && this.dragged === null) await this.look();
  }

  /** Back to the file as it is; the editor's undo brings the edit back. */
  undoAll(): void {
    this.setSource(this.original);
    this.notice = "The original file is back. Undo in the editor returns your edit.";
  }

  /** Ctrl+Enter: check and look through the program now, also one that was stopped. */
  runNow(): void {
    this.hung = null;
    this.notice = "";
    this.printed = [];
    clearTimeout(this.#reviewTimer);
    if (!this.ready) this.#wait("x-ray", "The program runs as soon as Python is ready.", () => void this.review());
    else void this.review();
  }

  /** Checks the source and, when nothing is wrong with it, looks through it again. */
  async review(): Promise<void> {
    if (!this.ready) {
      this.#whenReady.set("review", () => void this.review());
      return;
    }
    const source = this.source;
    try {
      const check = await this.#engine.call<Check>("check", { source });
      if (source !== this.source) return; // typed on meanwhile: that review is on its way
      // A source that does not parse has no knobs: the last ones stay in their place, switched off.
      this.check = check.knobs.length > 0 || !this.check ? check : { ...check, knobs: this.check.knobs };
      this.knobsWork = check.knobs.length > 0;
      this.checkedSource = source;
      if (check.problems.length === 0) await this.#follow();
    } catch (error) {
      this.xrayProblem = failureOf(error);
    }
  }

  /** Turns a number in the file; the editor shows it, and its undo takes it back. False when it is refused. */
  async setKnob(name: string, value: number): Promise<boolean> {
    const changed = this.#withKnob(name, value);
    if (changed !== null && this.ready) {
      const line = this.knobs.find((k) => k.name === name)?.line;
      this.setSource(changed);
      if (line !== undefined && this.dragged === null) this.goto = { line, how: "flash" };
      return true;
    }
    if (!this.ready) {
      this.#wait(`knob ${name}`, `${name} changes when Python is ready.`, () => void this.setKnob(name, value));
      return true;
    }
    const source = this.source;
    const knob = this.knobs.find((k) => k.name === name);
    try {
      const answer = await this.#engine.call<{ source: string }>("set_knob", { source, name, value });
      if (source !== this.source) return await this.setKnob(name, value); // edited meanwhile: turn it there
      this.setSource(answer.source);
      if (knob) this.goto = { line: knob.line, how: "flash" };
      return true;
    } catch (error) {
      this.notice = failureOf(error)?.message ?? "";
      return false;
    }
  }

  /** The source with this number at its place; null where Python must find the place, or say what is wrong. */
  #withKnob(name: string, value: number): string | null {
    const knob = this.knobs.find((k) => k.name === name);
    const lines = this.source.split("\n");
    const place = knob && numberAt(lines[knob.line - 1], name);
    if (!knob || !place || !this.knobsWork) return null;
    const whole = /^-?\d+$/.test(place.text);
    if (whole && !Number.isSafeInteger(value)) return null;
    const text = String(value);
    const written = !whole && /^-?\d+$/.test(text) ? `${text}.0` : text;
    lines[knob.line - 1] = place.before + written + place.after;
    return lines.join("\n");
  }

  jump(line: number): void {
    this.goto = { line, how: "select" };
    if (narrow()) this.room = "code";
  }

  // ---- The text, and the look through the program ----

  setText(text: string): void {
    this.text = text.slice(0, link.LONGEST_TEXT);
    this.#touchLink();
    clearTimeout(this.#textTimer);
    this.#textTimer = setTimeout(() => {
      if (this.ready) void this.look();
      else this.#wait("x-ray", "The values follow as soon as Python is ready.", () => void this.look());
    }, TEXT_AFTER);
  }

  setModel(model: Model): void {
    this.model = model;
    this.#touchLink();
    if (this.ready) void this.look();
    else this.#wait("x-ray", "The values follow as soon as Python is ready.", () => void this.look());
  }

  /** Runs the program over the text and records every value; one at a time, always ending on the newest wish. */
  async look(): Promise<void> {
    if (!this.ready) {
      this.#whenReady.set("review", () => void this.review());
      return;
    }
    if (this.#looking) {
      this.#lookAgain = true;
      return;
    }
    const source = this.source;
    if (source === this.hung) return;
    this.#looking = true;
    if (this.model === "run") await this.#takeUp();
    const model = this.#modelFor(source);
    this.#looked = this.#trained;
    const asked = { source, doc: this.text, model, seed: this.seed, data: this.data };
    const trained = model === "run" ? (this.run?.step ?? 0) : null;
    try {
      const xray = await this.#ask<Xray>("xray", "The program", { ...asked });
      if (source === this.source && asked.doc === this.text) {
        this.xrayProblem = null;
        this.#showXray(xray, source, trained);
      }
    } catch (error) {
      if (source === this.source) this.xrayProblem = failureOf(error);
    } finally {
      this.#looking = false;
    }
    if (this.#lookAgain) {
      this.#lookAgain = false;
      void this.look();
    }
  }

  #modelFor(source: string): Model {
    return this.model === "run" && this.runAlive && this.runSource === source ? "run" : "fresh";
  }

  /** Shows a look, with the cursor on the same value of the program as before, where it still is. */
  #showXray(xray: Xray, source: string, trained: number | null): void {
    const before = this.xray;
    const place = before?.values[this.cursor];
    let next = -1;
    if (before && place) {
      const same = (v: Xray["values"][number]): boolean => v.function === place.function && v.name === place.name;
      const nth = before.values.slice(0, this.cursor).filter(same).length;
      next = xray.values.filter(same)[nth]?.i ?? Math.min(this.cursor, xray.values.length - 1);
    } else {
      next = xray.values.findIndex((v) => v.name === "weights" && v.tensor !== null); // the heart of attention
    }
    this.xray = xray;
    this.xraySource = source;
    this.xrayTrained = trained;
    this.cursor = Math.max(next, 0);
    this.selected = null;
    if (!before) this.#reveal();
  }

  setCursor(i: number): void {
    const last = (this.xray?.values.length ?? 1) - 1;
    this.cursor = Math.min(Math.max(i, 0), Math.max(last, 0));
    this.#reveal();
  }

  #reveal(): void {
    if (this.cursorLine !== null && this.xraySource === this.source) this.goto = { line: this.cursorLine, how: "reveal" };
  }

  /** A click beside a line: the x-ray goes to the first value that this line makes, after the cursor if there is one. */
  lookAtLine(line: number): void {
    const values = this.xray?.values ?? [];
    const here = values.filter((v) => v.line === line);
    const next = here.find((v) => v.i > this.cursor) ?? here[0];
    if (next) {
      this.cursor = next.i;
      if (this.room === "code") this.room = "xray";
    } else {
      this.notice = `Line ${line} made no value in this run.`;
    }
  }

  // ---- Training ----

  /** False when a seed is refused. */
  setTraining(settings: { data?: string; seed?: number }): boolean {
    const { data, seed } = settings;
    if (this.runStatus === "recording") this.runAlive = false; // it was of other data
    if (data !== undefined && data !== this.data) this.#example(data);
    if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0 && seed <= LARGEST_SEED)) {
      this.notice = `A seed is a whole number from 0 to ${count(LARGEST_SEED)}.`;
      return false;
    }
    this.endComparison();
    this.data = data ?? this.data;
    this.seed = seed ?? this.seed;
    this.runProblem = null;
    if (this.runStatus === "paused") this.runStatus = "done";
    this.#touchLink();
    if (this.ready || this.#follows) void this.#follow();
    return true;
  }

  /** With other data comes a text that they can read, unless the reader has written one. */
  #example(data: string): void {
    const examples = ["anna", ...this.datasets.map((dataset) => dataset.example)];
    if (!examples.includes(this.text)) return;
    const known = this.datasets.find((dataset) => dataset.name === data);
    const own = data.split("\n").find((line) => line.trim() !== "") ?? "";
    this.text = known ? (known.name === "names" ? "anna" : known.example) : own.slice(0, 40);
  }

  /** Trains the program from its beginning: with the kernel, or with Python where that cannot. */
  async train(): Promise<void> {
    if (!this.fast) return this.start();
    this.notice = "";
    this.hung = null;
    const wish = this.#wish;
    if ((await this.#trainer.want(wish, true)) === "refused" && same(wish, this.#wish)) await this.start();
  }

  /** Trains with Python, step by step, as slowly as that is; or goes on with that. */
  async start(): Promise<void> {
    if (!this.#readyFor("training", "Training starts as soon as Python is ready.", () => void this.start())) return;
    if (this.runStatus === "running") return;
    if (this.runStatus !== "paused" && !(await this.#begin())) return;
    this.runStatus = "running";
    this.notice = "";
    this.#engine.train().catch((error: unknown) => this.#onTrainFailed(failureOf(error)));
  }

  async pause(): Promise<void> {
    this.#whenReady.delete("training");
    if (this.runStatus !== "running" || this.by !== "python") return;
    this.runStatus = "paused";
    try {
      await this.#engine.pause();
      void this.#measure();
      void this.look();
    } catch {
      // stopped meanwhile: said elsewhere
    }
  }

  async step(): Promise<void> {
    if (!this.#readyFor("training", "The step is taken as soon as Python is ready.", () => void this.step())) return;
    if (this.runStatus === "running") return this.pause();
    if (this.runStatus !== "paused" && !(await this.#begin())) return;
    const serial = this.#runSerial;
    this.runStatus = "paused";
    try {
      const advance = await this.#ask<Advance>("advance", "The training step", { budget_ms: 0, max_steps: 1 });
      if (serial !== this.#runSerial) return;
      this.#onTrain(advance);
      if (!advance.done) this.runStatus = "paused";
      void this.look();
    } catch (error) {
      this.#onTrainFailed(failureOf(error));
    }
  }

  /** Ends the run; its curve stays. */
  async endRun(): Promise<void> {
    this.#whenReady.delete("training");
    if (this.by === "kernel") return this.#trainer.stop(true);
    if (this.runStatus !== "running" && this.runStatus !== "paused") return;
    this.runStatus = "done";
    await this.stop();
  }

  /** Forgets the run: the next start begins from new weights. */
  async reset(): Promise<void> {
    this.#whenReady.delete("training");
    const running = this.runStatus === "running";
    this.#trainer.stop();
    this.#trained = null;
    this.before = null;
    this.#runSerial++;
    this.runStatus = "idle";
    this.run = null;
    this.runSource = "";
    this.runAlive = false;
    this.runProblem = null;
    this.losses = [];
    this.heldOut = [];
    this.samples = [];
    this.peeks = [];
    if (running) await this.stop();
    if (this.ready) void this.look();
  }

  async #begin(): Promise<boolean> {
    this.#trainer.stop();
    clearTimeout(this.#restTimer);
    const serial = ++this.#runSerial;
    const stops = this.#stops;
    const source = this.source;
    const wish = this.#wish;
    this.runProblem = null;
    try {
      const run = await this.#ask<RunInfo>("start", "The start of the training", {
        source, data: this.data, seed: this.seed,
      });
      if (serial !== this.#runSerial) return false;
      this.#trained = null;
      this.#runWish = wish;
      this.by = "python";
      this.peeksOf = "this";
      this.run = run;
      this.runSource = source;
      this.runAlive = true;
      this.losses = [];
      this.heldOut = [];
      this.samples = [];
      this.peeks = [];
      this.runStatus = "paused";
      this.model = "run";
      if (this.sampleStatus === "recording") this.#clearSampling();
      if (stops !== this.#stops) return false;
      void this.#measure();
      return true;
    } catch (error) {
      if (serial === this.#runSerial) {
        this.runProblem = failureOf(error);
        this.runProblemSource = source; // the run on the page, if there is one, is still the one before
        if (this.runStatus !== "recording") this.runStatus = this.run ? "done" : "idle";
      }
      return false;
    }
  }

  #onTrainEvent(event: TrainEvent): void {
    if (event.error) this.#onTrainFailed(failureOf(new EngineError(event.error)));
    else if (this.by === "python" && this.runAlive && this.runStatus !== "idle") this.#onTrain(event as Advance);
  }

  #onTrain(advance: Advance): void {
    const before = this.losses.at(-1)?.step ?? 0;
    const first = advance.step - advance.losses.length + 1;
    const fresh = advance.losses.map((loss, i) => ({ step: first + i, loss })).filter((l) => l.step > before);
    if (fresh.length > 0) this.losses = [...this.losses, ...fresh];
    if (this.run) this.run = { ...this.run, step: advance.step, steps: advance.steps };
    const every = Math.max(1, this.measureEvery);
    if (advance.done || Math.floor(advance.step / every) > Math.floor(before / every)) void this.#measure();
    if (advance.done) {
      this.runStatus = "done";
      this.notice = `Training is done: ${plural(advance.step, "step")}.`;
      void this.look();
    }
    void this.#peekNow(advance.done);
  }

  #onTrainFailed(failure: Failure | null): void {
    if (this.runStatus === "running" || this.runStatus === "paused") this.runStatus = failure ? "failed" : "done";
    if (!failure) return;
    this.runProblem = failure;
    this.runProblemSource = this.runSource;
  }

  // ---- Trained by the kernel ----

  async #pack(wish: Wish, most: number | null): Promise<Packed> {
    const job = this.#begins("The program");
    this.#recorded = true;
    try {
      const { ok, parcel } = await this.#engine.exchange<{ refused: string | null; large: boolean }>("pack", { ...wish, most });
      return { ...ok, pack: parcel ?? null };
    } finally {
      this.#ends(job);
    }
  }

  #onReport(report: Report, wish: Wish, first: boolean): void {
    if (first) this.#another(wish);
    const { from, losses, heldOut, samples, diverged, done } = report;
    const fresh = Array.from(losses, (loss, i): Loss => ({ step: from + i + 1, loss: num(loss) }));
    this.losses = from === 0 ? fresh : [...this.losses, ...fresh];
    this.heldOut = [...this.heldOut, ...heldOut.map(({ step, losses }) => ({ step, held_out: num(losses[0] ?? NaN) }))];
    const known = this.#known.get(wish.data);
    this.samples = [...this.samples, ...samples.map(({ step, texts }) => ({ step, texts, known: known ? texts.map((text) => known.has(text)) : null }))];
    if (this.#trained && !same(this.#trained.wish, wish)) this.#trained = null;
    const snapshots = [...(first ? [] : (this.#trained?.snapshots ?? [])), ...report.snapshots];
    this.#trained = { wish, report, losses: this.losses, snapshots, taken: false };
    this.run = { ...report.run, step: report.step };
    this.seconds = report.seconds;
    this.runStatus = !done ? "running" : diverged ? "failed" : "done";
    if (diverged) {
      const lower = report.run.lr === null ? "a lower learning rate keeps it in range" : `try a learning rate lower than ${report.run.lr}`;
      this.runProblem = { message: `The loss became ${num(diverged.loss)} at step ${count(report.step + 1)}: ${lower}.`, line: diverged.line, kind: "run" };
      this.runProblemSource = wish.source;
    }
    if (done) this.#rest();
  }

  /** A run of the kernel takes the place of the one on the page; the one that the reader had come to rest with is kept. */
  #another(wish: Wish): void {
    if (this.by === "python" && this.runStatus === "running") void this.#engine.pause().catch(() => undefined);
    const told = this.run;
    const again = this.#runWish ? same(this.#runWish, wish) : this.runSource === wish.source && told?.seed === wish.seed && told.data === wish.data;
    this.#runWish = wish;
    if (this.#rested && !again && this.losses.length > 0) this.before = { losses: this.losses, heldOut: this.heldOut.at(-1)?.held_out ?? null };
    if (!again) {
      this.#rested = false;
      if (this.peeksOf === "this" || this.by !== "recording") this.peeksOf = "before";
    }
    clearTimeout(this.#restTimer);
    this.#runSerial++;
    this.by = "kernel";
    this.runSource = wish.source;
    this.runAlive = false;
    this.runProblem = null;
    this.heldOut = [];
    this.samples = [];
  }

  /** When nothing has changed for a moment, Python takes over what was trained, and the pictures follow. */
  #rest(): void {
    clearTimeout(this.#restTimer);
    this.#restTimer = setTimeout(() => {
      if (this.dragged !== null || this.#trainer.busy || !this.#trained || !same(this.#trained.wish, this.#wish)) return;
      this.#rested = true;
      void this.#mark();
      if (this.ready) void this.#prepare();
    }, RESTED);
  }

  /** The x-ray follows; then Python records the original, unless it has, so that the first drag need not wait for that. */
  async #prepare(): Promise<void> {
    const wish = this.#wish;
    if (this.#looked !== this.#trained) await this.look();
    if (this.#recorded || wish.source !== this.original || !same(wish, this.#wish)) return;
    this.#recorded = true;
    await this.#pack(wish, null).catch(() => undefined); // only so that it is kept there
  }

  /** Gives Python the run that the kernel has trained, if it has none of it yet; whether it goes on with that now. */
  async #takeUp(): Promise<boolean> {
    const run = this.#trained;
    if (!run || !this.ready || !run.report.trained || !same(run.wish, this.#wish)) return false;
    if (run.taken) return this.runAlive;
    const before = this.#taking;
    if (before) await before;
    if (run.taken || run !== this.#trained) return this.runAlive;
    this.#taking = this.#give(run);
    const taken = await this.#taking;
    this.#taking = null;
    return taken;
  }

  async #give(run: Trained): Promise<boolean> {
    const { wish, report, losses } = run;
    try {
      const args = { ...wish, step: report.step, losses: losses.map(({ loss }) => loss) };
      const told = await this.#engine.call<RunInfo>("take", args, report.trained!.slice().buffer);
      if (run !== this.#trained) return false;
      run.taken = true;
      this.run = told;
      this.runAlive = true;
      if (this.sampleStatus === "recording" && this.by === "kernel" && wish.source !== this.original) this.#clearSampling();
      if (this.heldOut.length === 0 || this.samples.length === 0) void this.#measure(); // what the kernel could not do
      void this.#peekNow(true);
      return true;
    } catch {
      return false; // the page says what it can do without
    }
  }

  /** Trains this program and the original file with the same eight seeds each, and says what the difference is worth. */
  async compare(): Promise<void> {
    if (!this.#readyFor("comparison", "The comparison starts as soon as Python is ready.", () => void this.compare())) return;
    this.endComparison();
    const kernel = (this.#comparing = new Kernel());
    const seeds = Array.from({ length: SEEDS }, (_, i) => (this.seed + i) % (LARGEST_SEED + 1));
    let told: Comparison = { seeds, ours: [], theirs: [], result: null, problem: null };
    const tell = (more: Partial<Comparison>): void => {
      if (kernel === this.#comparing) this.comparison = told = { ...told, ...more };
    };
    tell({});
    const { source, data } = this;
    const runs = seeds.flatMap((seed) => [this.original, source].map((source): Wish => ({ source, data, seed })));
    const packed = (i: number): Promise<Packed> | null => {
      const run = runs[i];
      const coming = run && kernel === this.#comparing ? this.#pack(run, null) : null;
      coming?.catch(() => undefined); // whoever waits for it is told
      return coming;
    };
    let coming = packed(0);
    /** The next run is packed while this one is trained. */
    const ended = async (i: number): Promise<number> => {
      const { refused, pack } = (await coming) ?? { refused: null, pack: null };
      coming = packed(i + 1);
      if (!pack) throw new Error(refused ?? "This program cannot be trained here.");
      const reports = await kernel.whole(pack);
      const last = reports.at(-1);
      if (!last) throw new Error("Stopped.");
      const loss = last.diverged ? null : (reports.flatMap((report) => report.heldOut).at(-1)?.losses[0] ?? null);
      if (loss === null || !Number.isFinite(loss)) {
        const { seed } = runs[i]!;
        throw new Error(`With seed ${seed} the run ends at step ${count(last.step)} without a held-out loss, so there is nothing to compare.`);
      }
      return loss;
    };
    try {
      for (let i = 0; i < runs.length; i += 2) {
        const theirs = await ended(i);
        const ours = await ended(i + 1);
        if (kernel !== this.#comparing) return;
        tell({ ours: [...told.ours, ours], theirs: [...told.theirs, theirs] });
      }
      tell({ result: await this.#engine.call<NonNullable<Comparison["result"]>>("paired", { ours: told.ours, theirs: told.theirs }) });
    } catch (error) {
      tell({ problem: error instanceof Error ? error.message : String(error) });
    } finally {
      kernel.close();
    }
  }

  /** Forgets the comparison, and ends it if it is under way. */
  endComparison(): void {
    this.#whenReady.delete("comparison");
    this.#comparing?.close();
    this.#comparing = null;
    this.comparison = null;
  }

  /** Says of each sample whether it is in the data, once Python has told what is. */
  async #mark(): Promise<void> {
    const { data } = this;
    if (!this.ready || !this.samples.some(({ known }) => known === null)) return;
    try {
      const found = this.#known.get(data) ?? new Set((await this.#engine.call<{ documents: string[] }>("documents", { data })).documents);
      if (this.#known.size > 4) this.#known.clear();
      this.#known.set(data, found);
      if (data === this.data) this.samples = this.samples.map((s) => ({ ...s, known: s.known ?? s.texts.map((text) => found.has(text)) }));
    } catch {
      // it stays open
    }
  }

  /** The reader looks back to a step: what the model saw then is asked for, if its weights were kept. */
  async lookBack(step: number): Promise<void> {
    const run = this.#trained;
    const kept = run?.snapshots.filter((s) => s.step <= step).at(-1);
    if (!run || !kept || !this.runAlive || this.#peeking || this.peeks.some((p) => p.step === kept.step) || this.peeksOf !== "this") return;
    this.#peeking = true;
    try {
      const peek = await this.#engine.call<Peek>("peek", { doc: this.text, step: kept.step }, kept.weights.slice().buffer);
      if (run === this.#trained) this.#keepPeek(peek);
    } catch {
      // an edited program may have no attention to look at
    } finally {
      this.#peeking = false;
    }
  }

  /** Held-out loss and a few samples of the run as it is; one at a time, missed ones are not made up for. */
  async #measure(): Promise<void> {
    if (this.#measuring || !this.runAlive) return;
    this.#measuring = true;
    const serial = this.#runSerial;
    const stops = this.#stops;
    try {
      const measure = await this.#ask<Measure>("measure", MEASURING, { limit: HELD_OUT_DOCS });
      if (serial !== this.#runSerial) return;
      if (this.heldOut.at(-1)?.step !== measure.step) this.heldOut = [...this.heldOut, measure];
      if (stops !== this.#stops) return;
      const samples = await this.#ask<Samples>("samples", SAMPLING, {
        n: SAMPLES, temperature: 1, seed: measure.step, prefix: "",
      });
      if (serial !== this.#runSerial) return;
      this.samples = [...this.samples.filter((s) => s.step !== samples.step), samples];
    } catch (error) {
      const failure = failureOf(error);
      if (failure && serial === this.#runSerial && !this.runProblem) {
        this.runProblem = failure;
        this.runProblemSource = this.runSource;
      }
    } finally {
      this.#measuring = false;
    }
  }

  async #peekNow(force: boolean): Promise<void> {
    const now = performance.now();
    if (this.#peeking || !this.runAlive || document.hidden) return;
    if (!force && (this.room !== "train" || now < this.#peekAgain)) return;
    this.#peeking = true;
    const serial = this.#runSerial;
    try {
      const peek = await this.#engine.call<Peek>("peek", { doc: this.text });
      if (serial === this.#runSerial) {
        if (this.peeksOf !== "this") this.peeks = [];
        this.peeksOf = "this";
        this.#keepPeek(peek);
      }
    } catch {
      // an edited program may have no attention to look at, and a text may not fit its vocabulary
    } finally {
      this.#peeking = false;
      const took = performance.now() - now;
      this.#peekAgain = performance.now() + Math.max(PEEK_EVERY, 4 * took); // a slow model is mostly left to train
    }
  }

  /** Keeps looks of all of the training, but no more than can be looked back on: in the end every second goes. */
  #keepPeek(peek: Peek): void {
    const all = [...this.peeks.filter((p) => p.step !== peek.step && p.tokens.join() === peek.tokens.join()), peek];
    all.sort((a, b) => a.step - b.step);
    this.peeks = all.length <= MOST_PEEKS ? all : all.filter((_, i) => i % 2 === all.length % 2 || i === all.length - 1);
  }

  // ---- Sampling ----

  setSampling(settings: { prefix?: string; temperature?: number; seed?: number }): void {
    if (settings.prefix !== undefined) this.prefix = settings.prefix;
    if (settings.temperature !== undefined && settings.temperature >= 0) this.temperature = settings.temperature;
    if (settings.seed !== undefined) this.sampleSeed = settings.seed;
    this.#touchLink();
  }

  /** The first choice of a new document. */
  async sampleStart(): Promise<boolean> {
    const again = (): void => void this.sampleStart().then(() => this.sampleNext());
    if (!this.#readyFor("sampling", "Sampling starts as soon as Python is ready.", again)) return false;
    if (!this.runAlive && !(await this.#takeUp()) && !(await this.#begin())) {
      this.sampleProblem = this.runProblem;
      return false;
    }
    const serial = ++this.#sampleSerial;
    this.#clearSampling();
    try {
      const step = await this.#ask<SampleStep>("sample_start", "The sampling", {
        prefix: this.prefix, temperature: this.temperature, seed: this.sampleSeed,
      });
      if (serial !== this.#sampleSerial) return false;
      this.sampling = [step];
      this.sampleStatus = "paused";
      return true;
    } catch (error) {
      if (serial === this.#sampleSerial) this.sampleProblem = failureOf(error);
      return false;
    }
  }

  async sampleNext(): Promise<boolean> {
    const again = (): void => void this.sampleNext();
    if (!this.#readyFor("sampling", "Sampling starts as soon as Python is ready.", again)) return false;
    if (this.sampleStatus !== "paused" && this.sampleStatus !== "running" && !(await this.sampleStart())) return false;
    const serial = this.#sampleSerial;
    try {
      const step = await this.#ask<SampleStep>("sample_next", "The sampling", {});
      if (serial !== this.#sampleSerial) return false;
      this.sampling = [...this.sampling, step];
      if (step.done) this.sampleStatus = "done";
      return !step.done;
    } catch (error) {
      if (serial === this.#sampleSerial) {
        this.sampleProblem = failureOf(error);
        this.sampleStatus = "done";
      }
      return false;
    }
  }

  async sampleAll(): Promise<void> {
    const again = (): void => void this.sampleAll();
    if (!this.#readyFor("sampling", "Sampling starts as soon as Python is ready.", again)) return;
    if (this.sampleStatus !== "paused" && !(await this.sampleStart())) return;
    this.sampleStatus = "running";
    const serial = this.#sampleSerial;
    while (this.sampleStatus === "running" && (await this.sampleNext())) {
      if (serial !== this.#sampleSerial) return;
    }
  }

  #clearSampling(): void {
    this.sampling = [];
    this.sampleProblem = null;
    this.sampleStatus = "idle";
  }

  // ---- Stop, and Python itself ----

  /** Ends whatever runs. If Python does not answer, it is ended and started again; the edit stays. */
  async stop(): Promise<void> {
    this.#stops++;
    this.#whenReady.clear();
    this.waiting = null;
    clearTimeout(this.#reviewTimer);
    this.#lookAgain = false;
    this.#trainer.stop(true);
    if (this.runStatus === "running") this.runStatus = "done";
    if (this.sampleStatus === "running") this.sampleStatus = "done";
    // A run whose steps have come is no endless loop: it is given time to end its step, or our measuring of it.
    const known = this.runAlive && this.losses.length > 0 && this.runSource === this.source && !this.#looking;
    await this.#engine.stop(known ? KNOWN_PATIENCE : undefined); // tells `restarted` when it had to end a deaf worker
  }

  /** Python was ended and starts again; what it held is gone, what the page holds is not. */
  #onRestarted(problem: string | null): void {
    const job = this.#busy[0];
    const since = job?.since;
    const chore = job?.what === MEASURING || job?.what === SAMPLING; // the page's own, and no fault of the program
    this.#busy = [];
    this.slow = null;
    this.hung = chore ? null : this.source;
    this.#touchLink(); // loading the page again must ask before it runs that once more
    this.engine = { kind: "loading", share: 0, restart: true };
    this.#lookAgain = false;
    const lost = this.runAlive && this.run !== null && this.by === "python"; // the others come back
    if (this.#trained) this.#trained = { ...this.#trained, taken: false };
    this.#trainer.restarted();
    this.#recorded = false;
    this.runAlive = false;
    this.#runSerial++;
    this.#sampleSerial++;
    if (this.runStatus === "paused" || this.runStatus === "running") this.runStatus = "done";
    if (this.sampleStatus === "paused" || this.sampleStatus === "running") this.sampleStatus = "done";
    const seconds = since === undefined ? null : Math.max(1, Math.round((performance.now() - since) / 1000));
    const what = chore ? job.what : this.edited ? "The edit is still here; it" : "The program";
    const told = problem ?? (seconds === null ? "Stopped." : `Stopped. ${what} did not finish within ${count(seconds)} s.`);
    this.notice = lost ? `${told} The trained weights are gone; the curves stay.` : told;
  }

  #onProgress(progress: Progress): void {
    if (this.engine.kind === "ready") return;
    const restart = this.engine.kind === "loading" && this.engine.restart;
    const share = progress.phase === "download" ? Math.min(progress.loaded / Math.max(progress.total, 1), 1) : 1;
    this.engine = { kind: "loading", share, restart };
  }

  #onPrint(text: string): void {
    this.printed = [...this.printed, ...text.split("\n")].slice(-200);
  }

  retry(): void {
    this.engine = { kind: "loading", share: 0, restart: true };
    this.#engine.start();
  }

  async #onReady(boot: Boot): Promise<void> {
    const first = this.boot === null || this.boot === this.recording?.boot;
    this.boot = boot;
    if (!this.#trained) await this.#adopt();
    this.engine = { kind: "ready" };
    this.waiting = null;
    const waiting = [...this.#whenReady.values()];
    this.#whenReady.clear();
    const current = this.xray !== null && this.xraySource === this.source && this.xray.doc === this.text;
    if (!this.checked || this.check === null || (first && !current)) void this.review();
    else if (this.#trained) this.#rest();
    else if (!same(this.#wish, { source: this.runSource, data: this.run?.data ?? "", seed: this.run?.seed ?? -1 })) void this.#follow();
    for (const go of waiting) go();
  }

  /** True when Python is ready; otherwise remembers the wish, says so, and does it then. */
  #readyFor(key: string, sentence: string, go: () => void): boolean {
    if (this.ready) return true;
    this.#wait(key, sentence, go);
    return false;
  }

  #wait(key: string, sentence: string, go: () => void): void {
    this.#whenReady.set(key, go);
    this.waiting = this.engine.kind === "failed" ? "This needs Python, which did not start." : sentence;
  }

  /** A question that runs the reader's program: it may take long, and then the page says so. */
  async #ask<T>(name: string, what: string, args: Record<string, unknown>): Promise<T> {
    const job = this.#begins(what);
    try {
      return await this.#engine.call<T>(name, args);
    } finally {
      this.#ends(job);
    }
  }

  #begins(what: string): { what: string; since: number } {
    const job = { what, since: performance.now() };
    this.#busy.push(job);
    this.#watch();
    return job;
  }

  #ends(job: { what: string; since: number }): void {
    this.#busy = this.#busy.filter((other) => other !== job);
    this.#watch();
  }

  #watch(): void {
    clearTimeout(this.#slowTimer);
    const job = this.#busy[0];
    if (!job) {
      this.slow = null;
      return;
    }
    const age = performance.now() - job.since;
    if (age >= SLOW_AFTER) this.slow = `${job.what} has been running for ${Math.round(age / 1000)} s`;
    this.#slowTimer = setTimeout(() => this.#watch(), age >= SLOW_AFTER ? 1_000 : SLOW_AFTER - age);
  }

  // ---- The address ----

  #state(): link.Link {
    const own = !/^[a-z][a-z_-]{0,31}$/.test(this.data); // the reader's own text stays here
    return {
      text: this.text, seed: this.seed, room: this.room, temperature: this.temperature,
      ...(own ? {} : { data: this.data }),
    };
  }

  setRoom(room: Room): void {
    this.room = room;
    this.#touchLink();
  }

  #touchLink(): void {
    this.#keep(); // now: the page may be loaded again before the address is written
    clearTimeout(this.#linkTimer);
    this.#linkTimer = setTimeout(() => void this.#writeLink(), LINK_AFTER);
  }

  /** Keep the reader's own program in this tab, unless it should not run by itself when loaded again. */
  #keep(): void {
    keepOwn(this.arrived === null && !this.stopped ? { hash: location.hash, source: this.source } : null);
  }

  async #fragment(): Promise<string> {
    return link.encode(this.#state(), this.original, this.arrived ? this.arrived.source : this.source);
  }

  async #writeLink(): Promise<void> {
    const fragment = await this.#fragment();
    if (fragment.length > link.LONGEST_LINK) return;
    try {
      history.replaceState(history.state, "", `#${fragment}`);
      this.#ownFragment = location.hash;
      this.#keep();
    } catch {
      // some browsers refuse many changes in a short time: the next one will do
    }
  }

  /** The page's address with all its state, or a sentence why there is none. */
  async address(): Promise<{ address: string } | { problem: string }> {
    const fragment = await this.#fragment();
    if (fragment.length > link.LONGEST_LINK) {
      return { problem: "This edit is too long for a link. Copy the program itself instead." };
    }
    return { address: `${location.href.split("#")[0]}#${fragment}` };
  }

  async #arrive(fragment: string): Promise<void> {
    const own = this.boot === null ? keptOwn(fragment) : null;
    const { state, source, problem } = await link.decode(fragment, this.original);
    if (problem) this.notice = problem;
    if (state.text !== undefined) this.text = state.text;
    if (state.seed !== undefined) this.seed = state.seed;
    if (state.data !== undefined) this.data = state.data;
    if (state.room !== undefined) this.room = state.room;
    if (state.temperature !== undefined) this.temperature = state.temperature;
    if (state.model !== undefined) this.model = state.model;
    if (own !== null) {
      this.setSource(own); // this tab wrote it, and was loaded again
    } else if (source !== null && source !== this.source) {
      this.arrived = { source, lines: link.linesChanged(link.edits(this.original, source)) };
    }
    if (this.ready) void this.#follow();
  }

  /** The reader's yes or no to an edit that came by link. */
  answerArrived(use: boolean): void {
    const arrived = this.arrived;
    this.arrived = null;
    if (!arrived) return;
    if (use) this.setSource(arrived.source);
    this.#touchLink();
  }

  // ---- Light and dark ----

  setTheme(theme: Theme): void {
    this.theme = theme;
    applyTheme(theme);
  }
}

/** The reader's own program that this tab kept while it stood at an address; null when there is none. */
function keptOwn(hash: string): string | null {
  try {
    const kept = JSON.parse(sessionStorage.getItem("own") ?? "null");
    return kept?.hash === hash && typeof kept.source === "string" ? kept.source : null;
  } catch {
    return null; // a private window: the page asks
  }
}

function keepOwn(own: { hash: string; source: string } | null): void {
  try {
    sessionStorage.setItem("own", JSON.stringify(own));
  } catch {
    // as above
  }
}

/** What went wrong, for the reader; null when it was the reader who stopped it. */
function failureOf(error: unknown): Failure | null {
  if (!(error instanceof EngineError)) return { message: String(error), line: null, kind: "user" };
  if (error.kind === "stopped") return null;
  const kind = error.kind === "syntax" || error.kind === "run" ? error.kind : "user";
  return { message: error.message, line: error.line, kind };
}

/** A number as the views have it. */
function num(x: number): Num {
  return Number.isFinite(x) ? x : Number.isNaN(x) ? "nan" : x > 0 ? "inf" : "-inf";
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const NUMBER = /(?<![\w.])\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?/g;

/** Whether two programs differ in numbers alone. */
function onlyNumbers(a: string, b: string): boolean {
  return a.replace(NUMBER, "0") === b.replace(NUMBER, "0");
}

/** Where a signature in this line says `name=` and a number. */
function numberAt(line: string | undefined, name: string): { before: string; text: string; after: string } | null {
  const found = line === undefined ? null : new RegExp(`^(.*\\b${name}\\s*=\\s*)(-?\\d[\\d_]*\\.?\\d*(?:[eE][-+]?\\d+)?)(.*)$`).exec(line);
  return found ? { before: found[1]!, text: found[2]!, after: found[3]! } : null;
}

function narrow(): boolean {
  return !matchMedia("(min-width: 1080px)").matches;
}
