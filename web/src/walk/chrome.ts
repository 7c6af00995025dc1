/** The page's frame: light and dark, the list of chapters, and the way to the workbench. */

import { THEME_NAMES, applyTheme, storedTheme, themeAfter } from "../theme";

export function frame(text: () => string): void {
  const button = document.querySelector<HTMLButtonElement>("[data-act=theme]");
  if (button) {
    let theme = storedTheme();
    const say = (): void => {
      button.textContent = `Theme: ${THEME_NAMES[theme]}`;
      button.setAttribute("aria-label", `Theme: ${THEME_NAMES[theme]}. Change it.`);
    };
    say();
    button.hidden = false;
    button.addEventListener("click", () => {
      theme = themeAfter(theme);
      applyTheme(theme);
      say();
    });
  }

  const bench = document.querySelector<HTMLAnchorElement>("[data-act=workbench]");
  bench?.addEventListener("click", () => {
    bench.hash = `v=1&text=${encodeURIComponent(text())}`;
  });

  // What folds out closes again: by Escape, and by a press elsewhere.
  const folds = document.querySelectorAll<HTMLDetailsElement>("details.chapters, details.keys");
  document.addEventListener("pointerdown", ({ target }) => {
    for (const fold of folds) if (target instanceof Node && !fold.contains(target)) fold.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const fold of folds) {
      if (!fold.open) continue;
      fold.open = false;
      fold.querySelector("summary")?.focus();
    }
  });

  // On paper everything is open, and dark on light.
  let closed: HTMLDetailsElement[] = [];
  let chosen: string | undefined;
  const { dataset } = document.documentElement;
  addEventListener("beforeprint", () => {
    chosen = dataset["theme"];
    dataset["theme"] = "light";
    closed = [...document.querySelectorAll<HTMLDetailsElement>("main details:not([open])")];
    for (const fold of closed) fold.open = true;
  });
  addEventListener("afterprint", () => {
    if (chosen === undefined) delete dataset["theme"];
    else dataset["theme"] = chosen;
    for (const fold of closed) fold.open = false;
  });
}
