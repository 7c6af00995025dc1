/** Brushing: pointing at a name lights it wherever the page shows it, in prose, in the code and in the pictures. */

let lit: string | null = null;
let told: () => void = () => {};

/** The innermost name under a place of the page. */
function nameAt(target: EventTarget | null): string | null {
  if (!(target instanceof Element)) return null;
  return target.closest("[data-brush]")?.getAttribute("data-brush") || null;
}

function light(name: string | null): void {
  if (name === lit) return;
  for (const element of document.querySelectorAll(".lit")) element.classList.remove("lit");
  lit = name;
  if (name !== null) {
    for (const element of document.querySelectorAll(`[data-brush="${CSS.escape(name)}"]`)) element.classList.add("lit");
  }
  told();
}

/** One set of listeners for the whole page, so that what is drawn later is lit, too; `changed` is told of each light. */
export function brushing(changed: () => void = () => {}): void {
  told = changed;
  let focused: string | null = null;
  document.addEventListener("pointerover", ({ target }) => light(nameAt(target) ?? focused));
  document.addEventListener("focusin", ({ target }) => light((focused = nameAt(target))));
  document.addEventListener("focusout", () => light((focused = null)));
  document.documentElement.addEventListener("pointerleave", () => light(focused));
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") light((focused = null));
  });
}
