/** From step to step: by the buttons, the keys, a click, the address, and by scrolling. */

import { moving, rest, scrollTo } from "./motion";
import { meet } from "./progress";
import type { Pane } from "./pane";

/** Where these keys mean something else. */
const CONTROLS =
  "input, textarea, select, button, summary, a[href], [contenteditable], [role=application], [role=slider], [role=listbox], [role=tab], [role=radio], svg[tabindex], .cm-editor";

/** Pixels that the page may move under a choice before it is given up. */
const NEAR = 60;

/** The step that crosses this height of the window is the current one. */
const LINE = 0.34;

interface Step {
  id: string; section: HTMLElement; heading: HTMLElement;
  /** The lines that it explains, and those of them that its first excerpt shows. */
  lines: number[]; first: number[];
}

function numbers(text: string | undefined): number[] {
  return (text ?? "").split(" ").filter(Boolean).map(Number);
}

export function stepping(slug: string, pane: Pane): void {
  const bar = document.querySelector<HTMLElement>("nav.step-bar");
  const steps: Step[] = [...document.querySelectorAll<HTMLElement>("section.step")].map((section) => ({
    id: section.id, section, heading: section.querySelector("h2")!, lines: numbers(section.dataset["lines"]),
    first: numbers(section.querySelector<HTMLElement>(":scope > .excerpt")?.dataset["lines"] ?? section.dataset["lines"]),
  }));
  if (!bar || steps.length === 0) return;
  const back = bar.querySelector<HTMLButtonElement>("[data-go=back]")!;
  const next = bar.querySelector<HTMLButtonElement>("[data-go=next]")!;
  const onward = bar.querySelector<HTMLAnchorElement>("[data-go=chapter]")!;
  const where = bar.querySelector<HTMLElement>("[data-where]")!;
  const title = bar.querySelector<HTMLElement>("[data-title]")!;
  bar.hidden = false;

  let at = -1;
  let held: number | null = null; // a deliberate choice stands until the reader scrolls away from this height
  let near: number[] = [];

  function become(index: number): void {
    const step = steps[index];
    if (!step) return;
    if (index !== at) {
      at = index;
      near = [];
      for (const [i, other] of steps.entries()) other.section.classList.toggle("now", i === index);
      where.textContent = `Step ${index + 1} of ${steps.length}`;
      title.textContent = step.heading.textContent;
      back.disabled = index === 0;
      const last = index === steps.length - 1;
      if (last && document.activeElement === next) onward.focus();
      next.hidden = last;
      onward.hidden = !last;
      meet(slug, step.id, step.lines);
      try {
        history.replaceState(history.state, "", index === 0 && !location.hash ? location.href : `#${step.id}`);
      } catch {
        // some browsers refuse many changes in a short time: the next one will do
      }
    }
    pane.show(step.lines, near.length > 0 ? near : step.first);
  }

  /** By a deliberate act: the step comes to the top, and its heading has the focus. */
  function go(index: number): void {
    const step = steps[index];
    if (!step) return;
    const root = document.documentElement;
    held = scrollTo(root, step.heading.getBoundingClientRect().top + root.scrollTop - headroom());
    become(index);
    step.heading.focus({ preventScroll: true });
  }

  function headroom(): number {
    return Number.parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 24;
  }

  function forward(): void {
    if (at < steps.length - 1) go(at + 1);
    else onward.click();
  }

  back.addEventListener("click", () => go(at - 1));
  next.addEventListener("click", forward);

  // ---- Keys ----

  let letters = false;
  const box = bar.querySelector<HTMLInputElement>("[data-act=letters]")!;
  try {
    letters = localStorage.getItem("walk.letters") === "on";
  } catch {
    // a private window
  }
  box.checked = letters;
  box.addEventListener("change", () => {
    letters = box.checked;
    try {
      localStorage.setItem("walk.letters", letters ? "on" : "off");
    } catch {
      // as above
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target instanceof Element && event.target.closest(CONTROLS) && !bar.contains(event.target)) return;
    if (event.target === box) return;
    if (event.key === "ArrowRight" || (letters && event.key === "n")) forward();
    else if (event.key === "ArrowLeft" || (letters && event.key === "p")) go(at - 1);
    else return;
    event.preventDefault();
  });

  // ---- A click, and the address ----

  let pending = 0;
  /** What the reader works in is the current step, wherever it stands on the screen. */
  function stay(index: number): void {
    if (!moving(document.documentElement)) {
      held = scrollY; // at once, for a scroll that came before the click may still have to be told
      pending = requestAnimationFrame(() => (held = scrollY)); // and once the focus is in view
    }
    become(index);
  }
  for (const [i, { section }] of steps.entries()) {
    section.addEventListener("click", () => stay(i));
    section.addEventListener("focusin", () => stay(i));
  }
  const arrive = (): void => {
    const id = decodeURIComponent(location.hash.slice(1));
    const index = id ? steps.findIndex((step) => step.id === id || step.section.contains(document.getElementById(id))) : -1;
    if (index >= 0) stay(index);
    else if (at < 0) become(0);
  };
  addEventListener("hashchange", arrive);
  arrive();
  // A step without lines leaves the file where it is; on arrival, those that come next are near.
  if (steps[at]?.first.length === 0) pane.reveal(steps.slice(at).find(({ first }) => first.length > 0)?.first ?? []);

  // ---- Scrolling: the step that crosses a line above the middle, and the excerpt that does ----

  for (const kind of ["wheel", "touchmove"]) addEventListener(kind, () => rest(document.documentElement), { passive: true });
  // A key that scrolls far is a wish to be elsewhere, however soon it comes after a click.
  document.addEventListener("keydown", ({ key, target }) => {
    if (!["Home", "End", "PageUp", "PageDown"].includes(key) || (target instanceof Element && target.closest(CONTROLS))) return;
    cancelAnimationFrame(pending);
    held = null;
  });
  let later: ReturnType<typeof setTimeout> | undefined;
  function release(): void {
    if (held === null || moving(document.documentElement) || Math.abs(scrollY - held) <= NEAR) return;
    held = null;
    follow();
  }
  addEventListener(
    "scroll",
    () => {
      release();
      clearTimeout(later);
      later = setTimeout(release, 250); // it may have come while the page was still on its way
    },
    { passive: true },
  );

  const crossing = new Set<Element>();
  function follow(): void {
    if (held !== null) return;
    const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const above = steps[0]!.section.getBoundingClientRect().top > innerHeight * LINE; // the head of the chapter is read
    const index = end ? steps.length - 1 : above ? 0 : steps.findIndex(({ section }) => crossing.has(section));
    if (index >= 0) become(index);
  }
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) crossing.add(target);
        else crossing.delete(target);
      }
      follow();
    },
    { rootMargin: `${-100 * LINE}% 0px ${100 * LINE - 99}% 0px` },
  );
  for (const { section } of steps) watch.observe(section);

  // An excerpt that comes above the middle is what the reader reads about now: the pane shows its lines.
  const excerpts = [...document.querySelectorAll<HTMLElement>("section.step > .excerpt")];
  const seen = new IntersectionObserver(
    () => {
      if (held !== null || !pane.visible || at < 0) return;
      const step = steps[at]!;
      const passed = excerpts.filter(
        (one) => step.section.contains(one) && one.getBoundingClientRect().top < innerHeight * 0.6,
      );
      near = numbers(passed.at(-1)?.dataset["lines"]);
      pane.show(step.lines, near.length > 0 ? near : step.first);
    },
    { rootMargin: "0px 0px -40% 0px" },
  );
  for (const excerpt of excerpts) {
    seen.observe(excerpt);
    const lines = numbers(excerpt.dataset["lines"]);
    const button = excerpt.querySelector<HTMLButtonElement>(".excerpt-place button")!;
    button.hidden = false;
    button.addEventListener("click", () => {
      near = lines;
      stay(steps.findIndex(({ section }) => section.contains(excerpt)));
      pane.reveal(lines);
    });
  }
}
