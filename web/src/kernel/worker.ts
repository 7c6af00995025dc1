/// <reference lib="webworker" />
// Trains packs with the compiled kernel, a few milliseconds at a time, and looks at its messages between: a newer
// pack takes the place of the older at once. It computes nothing itself; it copies, calls and reports.

import { Machine, Unfit, type Listed, type Loaded, type Work } from "./machine";
import { unpack, type Documents, type Pack, type Program } from "./pack";
import type { FromKernel, Report, ToKernel } from "./protocol";

const SLICE = 8; // ms of training between two looks at the messages
const REPORT_AFTER = 100; // ms: a run that takes longer is reported as it goes
const LARGE = 256_000_000; // bytes of memory that are not kept for the next run
const MOST_SNAPSHOTS = 64_000_000; // bytes of weights that are kept of one run, to look back on

const scope = self as unknown as DedicatedWorkerGlobalScope;
const post = (message: FromKernel, give: Transferable[] = []): void => scope.postMessage(message, give);

let compiled: WebAssembly.Module | null = null;
let machine: Machine | null = null;
let job: Job | null = null;
let first: Promise<ArrayBuffer | null> = Promise.resolve(null); // the pack that came with the page
let newest = 0; // the run that was asked for last

class Job {
  readonly id: number;
  readonly #m: Machine;
  readonly #pack: Pack;
  readonly #work: Work;
  readonly #training: Loaded;
  readonly #measuring: Loaded | null;
  readonly #sampling: Loaded | null;
  readonly #documents: Listed;
  readonly #heldOut: Listed;
  readonly #scalars: number;
  readonly #losses: number;
  readonly #chances: number;
  readonly #ids: number;
  readonly #lengths: number;
  readonly #single: number; // the weights of one run, where there are several
  #step = 0;
  #told = 0; // losses that were reported
  #pace = 0; // ms that a step takes
  #begun = performance.now();
  #reported = this.#begun;
  #report: Pick<Report, "heldOut" | "samples" | "snapshots"> = { heldOut: [], samples: [], snapshots: [] };

  constructor(m: Machine, id: number, pack: Pack) {
    const { facts, read } = pack;
    const { lanes, steps, parameters, slack, texts } = facts;
    this.id = id;
    this.#m = m;
    this.#pack = pack;
    m.clear(room(pack));
    this.#work = m.work(lanes);
    const shared = m.reals(3 * parameters * lanes + slack, read(facts.weights));
    this.#single = lanes > 1 ? m.reals(parameters + slack) : shared;
    this.#training = this.#load(facts.train, shared, lanes);
    this.#measuring = facts.measure && facts.held_out.count > 0 ? this.#load(facts.measure, this.#single, 1) : null;
    this.#sampling = facts.sample && facts.chances ? this.#load(facts.sample, this.#single, 1) : null;
    this.#documents = this.#list(facts.documents);
    this.#heldOut = this.#list(facts.held_out);
    this.#scalars = m.doubles(facts.scalars[2], read(facts.scalars));
    this.#losses = m.doubles(steps * lanes);
    this.#chances = facts.chances ? m.doubles(facts.chances[2], read(facts.chances)) : 0;
    this.#ids = m.wholes(texts * ((facts.run.context ?? 0) + 2));
    this.#lengths = m.doubles(texts);
    for (const [row, value] of facts.sample?.slots ?? []) {
      const { width } = facts.sample!;
      if (this.#sampling) m.single(this.#sampling.numbers + 4 * row * width, width).fill(value);
    }
    const { documents: d, held_out: h } = facts;
    this.#check(0, facts.train, this.#training, this.#documents, d, lanes);
    if (this.#measuring) this.#check(1, facts.measure!, this.#measuring, this.#heldOut, h, 1);
    if (this.#sampling) this.#check(2, facts.sample!, this.#sampling, null, null, 1);
    this.#look();
  }

  #check(use: 0 | 1 | 2, program: Program, loaded: Loaded, listed: Listed | null, d: Documents | null, lanes: number): void {
    const parts = use === 0 ? 3 : 1; // of weights: and two moments
    const { parameters, slack } = this.#pack.facts;
    const sizes = {
      code: program.code[2], shared: parts * parameters * lanes + slack, own: program.own,
      fixed: program.fixed[2] + slack * lanes, numbers: program.numbers[2],
    };
    this.#m.check(lanes, use, loaded, sizes, listed, d ? [d.tokens[2], d.lengths[2], d.order[2]] : [0, 0, 0]);
  }

  #load(program: Program, shared: number, lanes: number): Loaded {
    const m = this.#m;
    const { read, facts } = this.#pack;
    return {
      code: m.wholes(program.code[2], read(program.code)), shared, own: m.reals(program.own),
      fixed: m.reals(program.fixed[2] + facts.slack * lanes, read(program.fixed)),
      numbers: m.reals(program.numbers[2] + facts.slack, read(program.numbers)),
    };
  }

  #list({ tokens, lengths, order }: Documents): Listed {
    const { read } = this.#pack;
    return {
      tokens: this.#m.wholes(tokens[2], read(tokens)), starts: this.#m.begins(read(lengths)),
      order: this.#m.wholes(order[2], read(order)),
    };
  }

  /** Trains for a slice; whether there is more to do. */
  slice(): boolean {
    const { facts } = this.#pack;
    const { lanes, steps, batch, every, train } = facts;
    const end = performance.now() + SLICE;
    for (;;) {
      const now = performance.now();
      if (now >= end) break;
      const next = Math.min(steps, (Math.floor(this.#step / every) + 1) * every);
      const room = this.#pace ? Math.max(1, Math.floor((end - now) / this.#pace)) : 1;
      const count = Math.min(room, next - this.#step);
      const done = this.#m.train(
        lanes, this.#training, this.#from(batch), count, batch, this.#scalars + 8 * this.#step * train.scalars,
        this.#losses + 8 * this.#step * lanes, train.own, this.#work,
      );
      this.#pace = (performance.now() - now) / Math.max(1, done);
      this.#step += done;
      if (done < count) return this.#diverge();
      if (this.#step === next) this.#look();
      if (this.#step === steps) {
        this.#tell(true);
        return false;
      }
    }
    if (performance.now() - this.#reported > REPORT_AFTER) this.#tell(false);
    return true;
  }

  /** Reports what there is; nothing more is done. */
  end(): void {
    this.#tell(true);
  }

  /** The documents from the present step on. */
  #from(batch: number): Listed {
    return { ...this.#documents, order: this.#documents.order + 4 * this.#step * batch * this.#pack.facts.lanes };
  }

  #diverge(): false {
    const { lanes, batch, train } = this.#pack.facts;
    const loss = this.#m.double(this.#losses + 8 * this.#step * lanes, 1)[0]!;
    const bad = this.#m.firstBad(lanes, this.#training, this.#from(batch), batch);
    this.#tell(true, { loss, line: (bad >= 0 && train.lines[bad]) || null });
    return false;
  }

  /** Measures, samples and keeps the weights as they are after this step; of several runs, only at the end. */
  #look(): void {
    const { lanes, runs, steps } = this.#pack.facts;
    if (lanes > 1 && this.#step < steps) return;
    const measured: (number | null)[] = [];
    for (let run = 0; run < runs; run++) {
      if (lanes > 1) this.#pick(run);
      measured.push(this.#measured());
    }
    if (this.#measuring) this.#report.heldOut.push({ step: this.#step, losses: measured });
    if (lanes > 1) return;
    if (this.#sampling) this.#report.samples.push({ step: this.#step, texts: this.#written() });
    const bytes = 4 * this.#pack.facts.run.parameters * 12;
    if (bytes <= MOST_SNAPSHOTS || this.#step === steps) this.#report.snapshots.push({ step: this.#step, weights: this.#weights(1) });
  }

  /** The weights of one run of several, on their own. */
  #pick(run: number): void {
    const { lanes, parameters } = this.#pack.facts;
    const all = this.#m.single(this.#training.shared, parameters * lanes);
    const one = this.#m.single(this.#single, parameters);
    for (let i = 0; i < parameters; i++) one[i] = all[i * lanes + run]!;
  }

  #measured(): number | null {
    if (!this.#measuring) return null;
    const { surprise, tokens } = this.#m.measure(this.#measuring, this.#heldOut, this.#pack.facts.held_out.count, this.#work);
    return tokens > 0 ? surprise / tokens : null;
  }

  #written(): string[] {
    const { run, chances, mark, texts } = this.#pack.facts;
    const [most, end] = [(run.context ?? 0) + 1, mark ?? 0];
    if (!this.#sampling || chances![2] < texts * (most - 1)) return [];
    this.#m.whole(this.#ids, 1)[0] = end;
    const lengths = this.#m.sample(this.#sampling, this.#ids, 1, most, end, this.#chances, this.#lengths, texts, this.#work);
    return lengths.map((length, i) => {
      const ids = this.#m.whole(this.#ids + 4 * i * (most + 1), length).subarray(1);
      return Array.from(ids, (id) => run.vocab[id]).join("").replace(/\n$/, "");
    });
  }

  /** The first `parts` of weights and two moments, without the padding between rows: each weight with its moments. */
  #weights(parts: number): Float32Array<ArrayBuffer> {
    const { places, parameters, run } = this.#pack.facts;
    const flat = new Float32Array(parts * run.parameters);
    let to = 0;
    for (const [at, stride, rows, columns] of places)
      for (let part = 0; part < parts; part++)
        for (let row = 0; row < rows; row++, to += columns)
          flat.set(this.#m.single(this.#training.shared + 4 * (part * parameters + at + row * stride), columns), to);
    return flat;
  }

  #tell(done: boolean, diverged: Report["diverged"] = null): void {
    const { run, seeds, lanes, runs } = this.#pack.facts;
    const all = this.#m.double(this.#losses + 8 * this.#told * lanes, (this.#step - this.#told) * lanes);
    const losses = lanes === 1 ? all.slice() : Float64Array.from({ length: (this.#step - this.#told) * runs }, (_, i) => all[Math.floor(i / runs) * lanes + (i % runs)]!);
    const trained = done && lanes === 1 ? this.#weights(3) : null;
    const { snapshots } = this.#report;
    post(
      {
        event: "report", id: this.id, run, seeds, from: this.#told, losses, ...this.#report, step: this.#step,
        seconds: (performance.now() - this.#begun) / 1000, done, trained, diverged,
      },
      [losses.buffer, ...snapshots.map((s) => s.weights.buffer), ...(trained ? [trained.buffer] : [])],
    );
    this.#report = { heldOut: [], samples: [], snapshots: [] };
    this.#told = this.#step;
    this.#reported = performance.now();
  }
}

/** Bytes that a run takes in the kernel's memory, and some to spare between its parts. */
function room({ facts }: Pack): number {
  const { lanes, parameters, steps, slack, texts } = facts;
  let bytes = 4 * ((3 * lanes + 1) * parameters + 2 * slack);
  for (const program of [facts.train, facts.measure, facts.sample])
    if (program) bytes += 4 * (program.code[2] + program.own + program.fixed[2] + program.numbers[2] + slack * (lanes + 1));
  for (const { tokens, lengths, order } of [facts.documents, facts.held_out])
    bytes += 4 * (tokens[2] + order[2]) + 8 * (lengths[2] + 1);
  return bytes + 8 * (facts.scalars[2] + steps * lanes + (facts.chances?.[2] ?? 0)) + 4 * texts * ((facts.run.context ?? 0) + 4) + 64 * 64;
}

// ---- Messages ----

const turn = new MessageChannel();
turn.port1.onmessage = () => {
  const now = job;
  if (!now) return;
  try {
    if (!now.slice()) job = null;
  } catch (error) {
    refuse(now.id, error);
  }
  if (job) turn.port2.postMessage(null);
};

function refuse(id: number, error: unknown): void {
  job = machine = null;
  const told = error instanceof Unfit ? error.message : "The fast engine failed on this program.";
  if (!(error instanceof Unfit)) console.warn(error);
  post({ event: "refused", id, message: told });
}

function train(bytes: ArrayBuffer, id: number): void {
  const waiting = job !== null;
  try {
    const pack = unpack(bytes);
    if (!machine || machine.bytes > LARGE) machine = new Machine(compiled!);
    job = new Job(machine, id, pack);
    if (!waiting) turn.port2.postMessage(null);
  } catch (error) {
    refuse(id, error);
  }
}

async function trainFirst(id: number): Promise<void> {
  const pack = await first;
  if (id !== newest) return;
  if (pack) train(pack.slice(0), id);
  else post({ event: "missing", id });
}

async function fetchFirst(address: string): Promise<ArrayBuffer | null> {
  try {
    const answer = await fetch(address);
    if (!answer.ok || !answer.body) return null;
    return await new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  } catch {
    return null;
  }
}

async function load(address: string): Promise<void> {
  if (typeof WebAssembly !== "object") {
    post({ event: "failed", message: "This browser has no WebAssembly, which the fast engine needs; Python does the training." });
    return;
  }
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    compiled = await WebAssembly.compile(await answer.arrayBuffer());
    post({ event: "ready" });
  } catch (error) {
    const old = error instanceof WebAssembly.CompileError; // the file needs vectors, which old browsers have not
    post({
      event: "failed",
      message: old
        ? "This browser is too old for the fast engine; Python does the training."
        : "The fast engine could not be loaded; Python does the training.",
    });
  }
}

scope.onmessage = ({ data }: MessageEvent<ToKernel>) => {
  if ("kernel" in data) {
    first = fetchFirst(data.first);
    void load(data.kernel);
  } else if ("train" in data) {
    newest = data.id;
    if (data.train) train(data.train, data.id);
    else void trainFirst(data.id);
  } else if (job) {
    job.end();
    job = null;
  } else post({ event: "stopped" });
};
