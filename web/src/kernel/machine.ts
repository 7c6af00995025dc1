/** The compiled kernel (kernel/kernel.c, as WebAssembly): its memory and its functions. This is the only file that
    knows what they are called and what they take; its comments are in kernel.c. */

const PAGE = 65_536; // bytes that WebAssembly's memory grows by
const MOST = 1_500_000_000; // bytes: more is refused before anything is filled

/** A pointer is a number; a whole number of 8 bytes is a bigint. */
type Function = (...values: (number | bigint)[]) => bigint;

/** Where a program and its memory are. */
export interface Loaded { code: number; shared: number; own: number; fixed: number; numbers: number }
/** Where documents are: all tokens, where each begins, and in what order. */
export interface Listed { tokens: number; starts: number; order: number }

/** Why a run cannot be trained here, in a sentence. */
export class Unfit extends Error {}

export class Machine {
  readonly #exports: WebAssembly.Exports;
  readonly #memory: WebAssembly.Memory;
  readonly #base: number;
  #end = 0;

  constructor(module: WebAssembly.Module) {
    this.#exports = new WebAssembly.Instance(module).exports;
    this.#memory = this.#exports["memory"] as WebAssembly.Memory;
    this.#base = (this.#exports["__heap_base"] as WebAssembly.Global).value as number;
    this.#end = this.#base;
  }

  get bytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /** Forgets everything, and makes room for so many bytes of zeros. */
  clear(bytes: number): void {
    this.#end = this.#base;
    const wanted = this.#base + bytes;
    const refused = new Unfit(`This model takes ${(bytes / 2 ** 30).toFixed(1)} GiB of memory, more than there is; make it smaller.`);
    if (wanted > MOST) throw refused;
    const missing = wanted - this.bytes;
    try {
      if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE));
    } catch {
      throw refused;
    }
    new Uint8Array(this.#memory.buffer, this.#base, bytes).fill(0);
  }

  /** Room for so many bytes, at a multiple of 64. */
  #take(bytes: number): number {
    const at = -(-this.#end & ~63);
    this.#end = at + bytes;
    if (this.#end > this.bytes) throw new Error("The kernel's memory was laid out wrongly.");
    return at;
  }

  // ---- Memory: each gives the address of new numbers ----

  reals(count: number, content?: ArrayLike<number>): number {
    const at = this.#take(4 * count);
    if (content) this.single(at, count).set(content);
    return at;
  }
  doubles(count: number, content?: ArrayLike<number>): number {
    const at = this.#take(8 * count);
    if (content) this.double(at, count).set(content);
    return at;
  }
  wholes(count: number, content?: ArrayLike<number>): number {
    const at = this.#take(4 * count);
    if (content) new Int32Array(this.#memory.buffer, at, count).set(content);
    return at;
  }
  /** From how long each of them is, where it begins; and the end. */
  begins(lengths: ArrayLike<number>): number {
    const at = this.#take(8 * (lengths.length + 1));
    const begins = new BigInt64Array(this.#memory.buffer, at, lengths.length + 1);
    let sum = 0;
    for (let i = 0; i < lengths.length; i++) begins[i + 1] = BigInt((sum += lengths[i]!));
    return at;
  }

  single(at: number, count: number): Float32Array {
    return new Float32Array(this.#memory.buffer, at, count);
  }
  double(at: number, count: number): Float64Array {
    return new Float64Array(this.#memory.buffer, at, count);
  }
  whole(at: number, count: number): Int32Array {
    return new Int32Array(this.#memory.buffer, at, count);
  }

  // ---- What the kernel does ----

  #call(name: string, lanes: number, values: (number | bigint)[]): number {
    return Number((this.#exports[`${name}_v1${lanes > 1 ? `x${lanes}` : ""}`] as Function)(...values));
  }

  /** Trains so many steps, from where `order` and `scalars` point; how many were done. `work` is for the kernel. */
  train(lanes: number, p: Loaded, d: Listed, count: number, batch: number, scalars: number, losses: number, own: number, work: Work): number {
    return this.#call("train", lanes, [
      p.code, p.shared, p.own, p.fixed, p.numbers, d.tokens, d.starts, d.order, 0n, BigInt(count), BigInt(batch),
      scalars, losses, work.stop, 0n, 1n, BigInt(own), work.meetings, work.partial, 0,
    ]);
  }

  /** The surprise at all tokens of `count` documents, and how many tokens they are. */
  measure(p: Loaded, d: Listed, count: number, work: Work): { surprise: number; tokens: number } {
    const tokens = this.#call("measure", 1, [
      p.code, p.shared, p.own, p.fixed, p.numbers, d.tokens, d.starts, d.order, BigInt(count), work.partial, work.stop,
    ]);
    return { surprise: this.double(work.partial, 1)[0]!, tokens };
  }

  /** Goes on with the text of `count` tokens at `ids`, as often as there is room for in `lengths`: how many tokens
      each text has then. */
  sample(p: Loaded, ids: number, count: number, most: number, mark: number, chances: number, lengths: number, texts: number, work: Work): number[] {
    this.#call("sample", 1, [
      p.code, p.shared, p.own, p.fixed, p.numbers, ids, BigInt(count), BigInt(most), mark, chances, BigInt(texts), lengths,
      work.stop,
    ]);
    return Array.from(new BigInt64Array(this.#memory.buffer, lengths, texts), Number);
  }

  /** Refuses a program that is not safe to execute in memory of these sizes, on these documents. */
  check(lanes: number, use: 0 | 1 | 2, p: Loaded, sizes: Sizes, d: Listed | null, counts: [tokens: number, documents: number, order: number]): void {
    const wrong = this.#call("check", lanes, [
      p.code, BigInt(sizes.code), BigInt(use), BigInt(sizes.shared), BigInt(sizes.own), BigInt(sizes.fixed), BigInt(sizes.numbers),
      p.fixed, d?.tokens ?? 0, BigInt(counts[0]), d?.starts ?? 0, BigInt(counts[1]), d?.order ?? 0, BigInt(counts[2]),
    ]);
    if (wrong !== 0) throw new Unfit(`The fast engine refuses this program (number ${wrong}).`);
  }

  /** The number of the program's first step that makes something other than a finite number, or -1. */
  firstBad(lanes: number, p: Loaded, d: Listed, batch: number): number {
    return this.#call("first_bad", lanes, [
      p.code, p.shared, p.own, p.fixed, p.numbers, d.tokens, d.starts, d.order, BigInt(batch),
    ]);
  }

  /** Memory that every call may use. */
  work(lanes: number): Work {
    return { stop: this.wholes(2), meetings: this.wholes(6), partial: this.doubles(lanes + 1) };
  }
}

/** How many numbers a program and its memory have. */
export interface Sizes { code: number; shared: number; own: number; fixed: number; numbers: number }
export interface Work { stop: number; meetings: number; partial: number }
