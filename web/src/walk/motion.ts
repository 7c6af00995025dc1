/** The one motion of these pages: something scrolls to where it is wanted, in less than 400 ms, or at once. */

const TIME = 320; // ms
const running = new WeakMap<Element, number>();

export function calm(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Scrolls an element (or the page, as its root element) to a height. A newer wish replaces the older. */
export function scrollTo(element: Element, top: number): void {
  const from = element.scrollTop;
  const to = Math.max(0, Math.min(top, element.scrollHeight - element.clientHeight));
  const serial = (running.get(element) ?? 0) + 1;
  running.set(element, serial);
  if (calm() || Math.abs(to - from) < 2) {
    element.scrollTop = to;
    return;
  }
  const begun = performance.now();
  const frame = (now: number): void => {
    if (running.get(element) !== serial) return;
    const t = Math.min(1, Math.max(0, (now - begun) / TIME));
    element.scrollTop = from + (to - from) * (1 - (1 - t) ** 3);
    if (t < 1) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

/** The reader scrolls by hand: whatever was moving rests. */
export function rest(element: Element): void {
  running.set(element, (running.get(element) ?? 0) + 1);
}
