/** Dragging a number sideways: what it becomes after so many pixels. */

/** A pointer that has moved less is a click. */
export const CLICK = 4;
const SIZE = 24; // pixels to the next size
const STEP = 6; // pixels to the next whole number, or the next last digit
const DECADE = 160; // pixels to ten times as much

/** What a knob becomes when it is dragged so far to the right: sizes double, rates grow in proportion. */
export function dragged(name: string, from: number, pixels: number, others: Record<string, number>): number {
  const sizes = Math.trunc(pixels / SIZE);
  switch (name) {
    case "n_layer":
      return Math.max(1, from + sizes);
    case "seed":
      return Math.max(0, from + Math.trunc(pixels / STEP));
    case "n_head": {
      // heads share the channels: only what divides them is offered
      const channels = others["n_embd"] ?? from;
      return along(Array.from({ length: channels }, (_, i) => i + 1).filter((n) => channels % n === 0), from, sizes);
    }
    case "n_embd": {
      const heads = others["n_head"] ?? 1;
      const fitting = Array.from({ length: 11 }, (_, i) => heads * 2 ** i).filter((n) => n <= LARGEST);
      return along([...new Set([...fitting, from])].sort((a, b) => a - b), from, sizes);
    }
    case "block_size":
    case "batch":
      return Math.min(LARGEST, sizes >= 0 ? from * 2 ** sizes : Math.max(1, Math.floor(from / 2 ** -sizes)));
    case "steps":
      return Math.max(1, Math.round(rate(from, pixels)));
    case "beta1":
    case "beta2":
      return Math.max(0, Number((1 - rate(1 - from, -pixels)).toPrecision(6))); // what matters is how far it is from 1
    default:
      return rate(from, pixels);
  }
}

const LARGEST = 512;

/** In proportion, with two digits. */
function rate(from: number, pixels: number): number {
  if (pixels === 0 || !(from > 0)) return from > 0 || pixels <= 0 ? from : Number((pixels * 1e-3).toPrecision(2));
  return Number((from * 10 ** (pixels / DECADE)).toPrecision(2));
}

function along(places: number[], from: number, steps: number): number {
  const at = places.findIndex((n) => n >= from);
  return places[Math.min(Math.max((at < 0 ? places.length - 1 : at) + steps, 0), places.length - 1)] ?? from;
}

// ---- Any number of the program ----

/** How many steps of a number such a way is. */
export const stepsOf = (pixels: number): number => Math.trunc(pixels / STEP);

/** A number as it is written, some steps of its last digit further; never below nothing, and whole numbers never below one. */
export function turned(text: string, steps: number): string {
  const plain = text.replaceAll("_", "");
  const [mantissa = "", power] = plain.toLowerCase().split("e");
  const end = power === undefined ? "" : `e${power}`;
  if (power !== undefined && /^[1-9]$/.test(mantissa)) {
    const place = Number(power) * 9 + Number(mantissa) - 1 + steps; // 9e-5 is followed by 1e-4
    return `${place - Math.floor(place / 9) * 9 + 1}e${Math.floor(place / 9)}`;
  }
  const places = mantissa.split(".")[1]?.length ?? 0;
  let value = Number(mantissa);
  if (!Number.isFinite(value)) return text;
  const isWhole = places === 0 && power === undefined;
  if (isWhole) {
    const unit = Math.max(1, 10 ** (String(value).length - 2));
    const to = value + steps * unit;
    return String(value === 0 ? Math.max(0, to) : Math.max(1, to));
  }
  let digits = places;
  for (let left = steps; left !== 0; left -= Math.sign(left)) {
    const unit = 10 ** -digits;
    if (left < 0 && value - unit < unit / 2) {
      if (digits >= places + 3) break; // small enough
      digits += 1;
      value -= 10 ** -digits;
    } else value += Math.sign(left) * unit;
    value = Number(value.toFixed(digits));
  }
  return value.toFixed(digits) + end;
}
