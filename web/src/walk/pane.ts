/** The file beside the prose: the lines of the step are lit, those that were met have a mark in the margin. */

import { scrollTo } from "./motion";
import { metLines, onProgress } from "./progress";

const MARGIN = 1 / 4; // of the pane's height stays above the lines that it shows

export class Pane {
  readonly #scroller: HTMLElement | null;
  readonly #rows = new Map<number, HTMLElement>();
  readonly #counter: HTMLElement | null;
  #near: number[] = [];

  constructor() {
    const pane = document.querySelector<HTMLElement>("aside.pane");
    this.#scroller = pane?.querySelector<HTMLElement>(".pane-scroll") ?? null;
    this.#counter = pane?.querySelector<HTMLElement>("[data-met]") ?? null;
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
