/** The page's frame: light and dark, the list of chapters, and the way to the workbench. */

const THEMES = ["system", "light", "dark"] as const;
const NAMES = { system: "System", light: "Light", dark: "Dark" };

function theme(): (typeof THEMES)[number] {
  const chosen = document.documentElement.dataset["theme"];
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

function setTheme(chosen: (typeof THEMES)[number]): void {
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
  try {
    if (chosen === "system") localStorage.removeItem("theme");
    else localStorage.setItem("theme", chosen);
  } catch {
    // a private window: the choice lasts as long as the page
  }
}

export function frame(text: () => string): void {
  const button = document.querySelector<HTMLButtonElement>("[data-act=theme]");
  if (button) {
    const say = (): void => {
      button.textContent = `Theme: ${NAMES[theme()]}`;
      button.setAttribute("aria-label", `Theme: ${NAMES[theme()]}. Change it.`);
    };
    say();
    button.hidden = false;
    button.addEventListener("click", () => {
      setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]!);
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
