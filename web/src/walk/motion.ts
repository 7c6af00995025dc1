/** The one motion of these pages: something scrolls to where it is wanted, in less than 400 ms, or at once. */

const TIME = 320; // ms
const running = new WeakMap<Element, number>();
const inMotion = new WeakSet<Element>();

export function calm(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Whether an element is on its way. */
export function moving(element: Element): boolean {
  return inMotion.has(element);
}

/** Scrolls an element (or the page, as its root element) to a height, which it returns. A newer wish replaces the older. */
export function scrollTo(element: Element, top: number): number {
  const from = element.scrollTop;
  const to = Math.max(0, Math.min(top, element.scrollHeight - element.clientHeight));
  const serial = (running.get(element) ?? 0) + 1;
  running.set(element, serial);
  if (calm() || Math.abs(to - from) < 2) {
    inMotion.delete(element);
    element.scrollTop = to;
    return to;
  }
  inMotion.add(element);
  const begun = performance.now();
  const frame = (now: number): void => {
    if (running.get(element) !== serial) return;
    const t = Math.min(1, Math.max(0, (now - begun) / TIME));
    element.scrollTop = from + (to - from) * (1 - (1 - t) ** 3);
    if (t < 1) requestAnimationFrame(frame);
    else setTimeout(() => running.get(element) === serial && inMotion.delete(element), 50); // its last event has been told
  };
  requestAnimationFrame(frame);
  return to;
}

/** The reader scrolls by hand: whatever was moving rests. */
export function rest(element: Element): void {
  running.set(element, (running.get(element) ?? 0) + 1);
  inMotion.delete(element);
}
