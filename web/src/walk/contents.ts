/** The contents: what was done of each chapter, and which lines of the file were met. */

import { metLines, onProgress, progress } from "./progress";

export function contents(): void {
  const chapters = [...document.querySelectorAll<HTMLElement>("[data-chapter]")];
  const bars = [...document.querySelectorAll<SVGElement>(".minimap [data-line]")];
  const counter = document.querySelector<HTMLElement>(".file [data-met]");
  const legend = document.querySelector<HTMLElement>("[data-legend]");
  const all = counter?.textContent ?? "";
  const list = (text: string | undefined): string[] => (text ?? "").split(" ").filter(Boolean);

  function mark(): void {
    const kept = progress();
    for (const chapter of chapters) {
      const steps = list(chapter.dataset["steps"]);
      const exercises = list(chapter.dataset["exercises"]);
      const own = kept.steps[chapter.dataset["chapter"] ?? ""] ?? {};
      const met = steps.filter((id) => id in own).length;
      const did = exercises.filter((id) => kept.exercises[id]).length;
      const done = chapter.querySelector<HTMLElement>("[data-done]");
      if (!done) continue;
      const whole = met === steps.length && did === exercises.length;
      const words = [];
      if (met > 0) words.push(met === steps.length ? "all steps seen" : `${met} of ${steps.length} steps seen`);
      if (did > 0) words.push(exercises.length === 1 ? "exercise done" : `${did} of ${exercises.length} exercises done`);
      done.textContent = words.length > 0 ? `${whole ? "✓ " : ""}${words.join(", ")}` : "";
    }
    const met = metLines();
    let count = 0;
    for (const bar of bars) {
      const has = met.has(Number(bar.getAttribute("data-line")));
      bar.classList.toggle("met", has);
      if (has) count++;
    }
    if (counter) counter.textContent = count > 0 ? `You have met ${count} of ${bars.length} lines.` : all;
    if (legend) legend.hidden = count === 0;
  }

  function point(chapter: HTMLElement | null): void {
    const lines = new Set(list(chapter?.dataset["lines"]).map(Number));
    for (const bar of bars) bar.classList.toggle("pointed", lines.has(Number(bar.getAttribute("data-line"))));
  }
  for (const chapter of chapters) {
    for (const kind of ["pointerenter", "focusin"]) chapter.addEventListener(kind, () => point(chapter));
    for (const kind of ["pointerleave", "focusout"]) chapter.addEventListener(kind, () => point(null));
  }

  onProgress(mark);
  mark();
}
