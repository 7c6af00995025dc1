/** Definitions just in time: a link to the glossary or the references shows what it leads to, and still leads there. */

const SELECTOR = 'a[href^="glossary.html#"], a[href^="references.html#"]';
const DELAY = 160; // ms that the pointer may be away, so that it can reach the note

export function noting(notes: Record<string, string>): void {
  const box = document.createElement("div");
  box.id = "note";
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  (document.querySelector("main") ?? document.body).append(box); // inside a landmark

  let shown: HTMLAnchorElement | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let touch = false;

  function linkAt(target: EventTarget | null): HTMLAnchorElement | null {
    return target instanceof Element ? target.closest<HTMLAnchorElement>(SELECTOR) : null;
  }

  function show(link: HTMLAnchorElement): void {
    clearTimeout(timer);
    if (shown === link) return;
    const html = notes[link.getAttribute("href") ?? ""];
    if (!html) return;
    hide();
    shown = link;
    box.innerHTML = html; // the build's own
    box.hidden = false;
    link.setAttribute("aria-describedby", "note");
    const word = [...link.getClientRects()].at(-1) ?? link.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = box;
    const left = Math.max(8, Math.min(word.left, document.documentElement.clientWidth - width - 8));
    const below = word.bottom + 6;
    const top = below + height > innerHeight - 64 && word.top > height + 12 ? word.top - height - 6 : below;
    box.style.left = `${left + scrollX}px`;
    box.style.top = `${top + scrollY}px`;
  }

  function hide(): void {
    clearTimeout(timer);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    box.hidden = true;
  }

  const leave = (): void => {
    clearTimeout(timer);
    timer = setTimeout(hide, DELAY);
  };
  document.addEventListener("pointerover", ({ target, pointerType }) => {
    if (pointerType === "touch") return;
    const link = linkAt(target);
    if (link) show(link);
    else if (shown && target instanceof Node && box.contains(target)) clearTimeout(timer);
    else if (shown && document.activeElement !== shown) leave();
  });
  document.addEventListener("focusin", ({ target }) => {
    const link = linkAt(target);
    if (link) show(link);
    else if (shown) hide();
  });
  document.addEventListener("pointerdown", ({ target, pointerType }) => {
    touch = pointerType === "touch";
    if (shown && !linkAt(target) && !(target instanceof Node && box.contains(target))) hide();
  });
  document.addEventListener("click", (event) => {
    const link = linkAt(event.target);
    if (!link || !touch || !notes[link.getAttribute("href") ?? ""] || link.dataset["tapped"]) return;
    event.preventDefault(); // the first tap shows, the second leads there
    for (const other of document.querySelectorAll<HTMLElement>("[data-tapped]")) delete other.dataset["tapped"];
    link.dataset["tapped"] = "yes";
    show(link);
  });
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") hide();
  });
  addEventListener("resize", hide);
}
