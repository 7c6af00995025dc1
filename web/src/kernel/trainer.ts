/** Keeps the page's model trained on what the reader wants now: the newest wish is packed by Python and trained by
    the kernel. While one is packed or trained, later wishes only take each other's place; none is queued. */

import { Kernel, type Report } from "./client";

export interface Wish { source: string; data: string; seed: number }

/** `large`: it has more weights than are trained while a number is dragged. */
export interface Packed { refused: string | null; large: boolean; pack: ArrayBuffer | null }

export interface Hooks {
  /** Whether Python answers. */
  ready(): boolean;
  /** Whether a number is being dragged. */
  dragging(): boolean;
  /** Python's pack of a run. Rejects with what is wrong with the program. */
  pack(wish: Wish, most: number | null): Promise<Packed>;
  /** What has come of a run; `first` in its first report. */
  report(report: Report, wish: Wish, first: boolean): void;
  /** The kernel cannot train this, in a sentence; null when the sentence of an earlier wish no longer holds. */
  refused(message: string | null, wish: Wish): void;
  /** Packing it failed. */
  failed(error: unknown, wish: Wish): void;
  /** It waits: for Python, or for the end of the drag. */
  waits(why: "python" | "drag" | null): void;
  /** The kernel cannot be used in this browser, in a sentence. */
  unusable(message: string): void;
}

/** How a wish ended. */
export type End = "trained" | "refused" | "failed" | "superseded";

const PATIENCE = 200; // ms: so long a run may go on when a newer pack is there, so that a drag shows whole curves
const DRAGGED = 60_000; // weights: larger models are trained when the drag ends
const FOLLOWED = 10; // runs

export const same = (a: Wish | null, b: Wish | null): boolean =>
  a !== null && b !== null && a.source === b.source && a.data === b.data && a.seed === b.seed;

export class Trainer {
  readonly kernel: Kernel;
  #hooks: Hooks;
  #wish: Wish | null = null;
  #packed: Wish | null = null; // the last that was packed, or is being packed
  #ended: End | null = null; // and what came of it
  #packing = false;
  #held: { wish: Wish; pack: ArrayBuffer | null } | null = null; // null: the one that came with the page
  #running: { wish: Wish; id: number; since: number } | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #first: Wish | null = null;
  #wishes = new Map<number, Wish>();
  #told = 0; // the last run that was reported
  #waiters: { wish: Wish; resolve: (end: End) => void }[] = [];

  constructor(kernel: Kernel, hooks: Hooks) {
    this.kernel = kernel;
    this.#hooks = hooks;
    kernel.on("report", (report) => this.#onReport(report));
    kernel.on("refused", ({ id, message }) => {
      const wish = this.#wishes.get(id);
      this.#running = null;
      if (!wish) return;
      this.#settle(wish, "refused");
      hooks.refused(message, wish);
      this.#flush();
    });
    kernel.on("missing", () => {
      this.#running = this.#first = this.#packed = null;
      void this.pump();
    });
    kernel.on("failed", (message) => {
      this.#running = this.#held = null;
      this.#settle(null, "refused");
      hooks.unusable(message);
    });
  }

  /** Whether it can train at all. */
  get usable(): boolean {
    return Kernel.carried && this.kernel.status !== "failed";
  }

  get busy(): boolean {
    return this.#running !== null;
  }

  /** Starts the kernel: the sooner the better. `original`: the run whose pack comes with the page. */
  start(original: Wish): void {
    if (!this.usable) return;
    this.#first = original;
    this.kernel.start();
  }

  /** Trains this in place of whatever was wanted before; resolves when it is trained, or will not be. */
  want(wish: Wish, anew = false): Promise<End> {
    if (!this.usable) return Promise.resolve("refused");
    if (anew) this.#packed = null;
    this.#settle(wish, "superseded", true);
    this.#wish = wish;
    const end = new Promise<End>((resolve) => this.#waiters.push({ wish, resolve }));
    if (same(wish, this.#packed) && this.#ended) this.#settle(wish, this.#ended);
    void this.pump();
    return end;
  }

  /** Packs the newest wish, unless it was or Python is at it. */
  async pump(): Promise<void> {
    const wish = this.#wish;
    if (this.#packing || this.#held || wish === null || same(wish, this.#packed)) return;
    if (same(wish, this.#first)) {
      this.#packed = wish;
      this.#ended = null;
      this.#hooks.waits(null);
      this.#hooks.refused(null, wish);
      return this.#offer(wish, null);
    }
    if (!this.#hooks.ready()) return this.#hooks.waits("python");
    this.#packing = true;
    this.#packed = wish;
    this.#ended = null;
    const most = this.#hooks.dragging() ? DRAGGED : null;
    try {
      const { refused, large, pack } = await this.#hooks.pack(wish, most);
      const wanted = same(wish, this.#wish);
      if (this.#wish === null) {
        this.#packed = null; // stopped meanwhile
      } else if (large) {
        this.#packed = null;
        if (wanted && this.#hooks.dragging()) {
          this.#packing = false;
          return this.#hooks.waits("drag"); // `pump` is called again when the drag ends
        }
      } else if (pack) {
        this.#hooks.waits(null);
        this.#hooks.refused(null, wish);
        this.#offer(wish, pack);
      } else {
        this.#settle(wish, "refused");
        if (wanted) this.#hooks.refused(refused, wish);
      }
    } catch (error) {
      this.#settle(wish, "failed");
      if (same(wish, this.#wish)) this.#hooks.failed(error, wish);
    }
    this.#packing = false;
    void this.pump();
  }

  /** Forgets what is wanted, and ends what is trained; `reported`: it is still reported, as far as it came. */
  stop(reported = false): void {
    this.#wish = this.#held = null;
    this.#packed = null;
    clearTimeout(this.#timer);
    this.#hooks.waits(null);
    this.#settle(null, "superseded");
    this.kernel.stop();
    if (!reported) this.kernel.forget();
    this.#running = null;
  }

  /** Python is another one: what it was asked will not be answered. */
  restarted(): void {
    if (this.#packing) this.#packed = null;
  }

  #offer(wish: Wish, pack: ArrayBuffer | null): void {
    this.#held = { wish, pack };
    clearTimeout(this.#timer);
    const left = this.#running ? this.#running.since + PATIENCE - performance.now() : 0;
    if (left <= 0) this.#flush();
    else this.#timer = setTimeout(() => this.#flush(), left);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    const held = this.#held;
    if (!held) return;
    this.#held = null;
    const id = this.kernel.train(held.pack);
    this.#running = { wish: held.wish, id, since: performance.now() };
    this.#wishes.set(id, held.wish);
    this.#wishes.delete(id - FOLLOWED);
    void this.pump(); // the next one is packed while this one is trained
  }

  #onReport(report: Report): void {
    const wish = this.#wishes.get(report.id);
    if (!wish) return;
    if (report.done) this.#running = null;
    const first = this.#told !== report.id;
    this.#told = report.id;
    this.#hooks.report(report, wish, first);
    if (!report.done) return;
    this.#settle(wish, "trained");
    this.#flush();
  }

  /** Tells those who wait for this wish, or for any other than it, how it ended. */
  #settle(wish: Wish | null, end: End, others = false): void {
    if (!others && same(wish, this.#packed)) this.#ended = end;
    const told = this.#waiters.filter((w) => wish === null || same(w.wish, wish) !== others);
    this.#waiters = this.#waiters.filter((w) => !told.includes(w));
    for (const { resolve } of told) resolve(end);
  }
}
