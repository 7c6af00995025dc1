/** The file beside the prose: the lines of the step are lit, those that were met have a mark in the margin. */

import { linesInWords } from "./code";
import { scrollTo } from "./motion";
import { metLines, onProgress } from "./progress";

const FEW = 4; // lines that are told when they are pointed at and out of view
const MARGIN = 1 / 4; // of the pane's height stays above the lines that it shows

export class Pane {
  readonly #scroller: HTMLElement | null;
  readonly #rows = new Map<number, HTMLElement>();
  readonly #counter: HTMLElement | null;
  readonly #elsewhere: HTMLElement | null;
  #near: number[] = [];

  constructor() {
    const pane = document.querySelector<HTMLElement>("aside.pane");
    this.#scroller = pane?.querySelector<HTMLElement>(".pane-scroll") ?? null;
    this.#counter = pane?.querySelector<HTMLElement>("[data-met]") ?? null;
    this.#elsewhere = pane?.querySelector<HTMLElement>("[data-elsewhere]") ?? null;
    for (const row of pane?.querySelectorAll<HTMLElement>("[data-line]") ?? []) this.#rows.set(Number(row.dataset["line"]), row);
    onProgress(() => this.#mark());
    this.#mark();
  }

  get visible(): boolean {
    return this.#scroller !== null && this.#scroller.offsetParent !== null;
  }

  /** Lights the lines of a step, and brings those beside the reader into view. */
  show(lines: number[], near: number[]): void {
    for (const [line, row] of this.#rows) row.classList.toggle("current", lines.includes(line));
    if (near.join() === this.#near.join()) return;
    this.#near = near;
    this.reveal(near);
  }

  /** Says which lines are lit by pointing, where none of them is in view. */
  point(): void {
    if (!this.#scroller || !this.#elsewhere || !this.visible) return;
    const { scrollTop, clientHeight } = this.#scroller;
    const rows = [...this.#rows].filter(([, row]) => row.querySelector(".lit"));
    const seen = rows.some(([, row]) => row.offsetTop + row.offsetHeight > scrollTop && row.offsetTop < scrollTop + clientHeight);
    const lines = rows.map(([line]) => line);
    this.#elsewhere.textContent = seen || rows.length === 0 ? "" : linesInWords(lines.slice(0, FEW)) + (lines.length > FEW ? " …" : "");
  }

  reveal(lines: number[]): void {
    const first = this.#rows.get(lines[0] ?? 0);
    const last = this.#rows.get(lines.at(-1) ?? 0);
    if (!this.#scroller || !first || !last || !this.visible) return;
    const room = this.#scroller.clientHeight;
    const top = first.offsetTop;
    const bottom = last.offsetTop + last.offsetHeight;
    const seen = top >= this.#scroller.scrollTop && bottom <= this.#scroller.scrollTop + room;
    if (!seen) scrollTo(this.#scroller, bottom - top > room * 0.7 ? top - 24 : Math.min(top - room * MARGIN, bottom - 24));
  }

  #mark(): void {
    const met = metLines();
    let count = 0;
    let all = 0;
    for (const [line, row] of this.#rows) {
      const full = row.textContent!.trim() !== String(line);
      const has = met.has(line);
      row.classList.toggle("met", has);
      if (full) all++;
      if (full && has) count++;
    }
    if (this.#counter && count > 0) this.#counter.textContent = `You have met ${count} of ${all} lines`;
    else if (this.#counter) this.#counter.textContent = `${all} lines`;
  }
}
