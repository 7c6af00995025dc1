/** Dragging a number sideways: what it becomes after so many pixels. */

/** Pixels of the pointer for one step of a number. */
const PIXELS = 8;
/** A pointer that has moved less is a click. */
export const CLICK = 4;

const RATES = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];

/** What a knob becomes, `steps` to the right of where it stood: sizes double, rates go by parts of ten. */
export function dragged(name: string, from: number, steps: number, others: Record<string, number>): number {
  switch (name) {
    case "n_layer":
      return Math.max(1, from + Math.trunc(steps / 4));
    case "seed":
      return Math.max(0, from + Math.trunc(steps / 2));
    case "n_head": {
      // heads share the channels: only what divides them is offered
      const channels = others["n_embd"] ?? from;
      const fitting = Array.from({ length: channels }, (_, i) => i + 1).filter((n) => channels % n === 0);
      return along(fitting, from, Math.trunc(steps / 4));
    }
    case "n_embd": {
      const heads = others["n_head"] ?? 1;
      const fitting = Array.from({ length: 10 }, (_, i) => heads * 2 ** i).filter((n) => n <= 1024);
      return along([...new Set([...fitting, from])].sort((a, b) => a - b), from, Math.trunc(steps / 4));
    }
    case "block_size":
    case "batch":
      return Math.min(512, doubled(from, Math.trunc(steps / 4)));
    case "steps":
      return Math.max(1, Math.round(rate(from, Math.trunc(steps / 2))));
    case "beta1":
    case "beta2":
      return Math.min(0.999, Math.max(0, Number((1 - rate(1 - from, -Math.trunc(steps / 2))).toPrecision(4))));
    default:
      return rate(from, Math.trunc(steps / 2));
  }
}

export const stepsOf = (pixels: number): number => Math.trunc(pixels / (PIXELS / 2));

function along(places: number[], from: number, steps: number): number {
  const at = places.findIndex((n) => n >= from);
  return places[Math.min(Math.max((at < 0 ? places.length - 1 : at) + steps, 0), places.length - 1)] ?? from;
}

function doubled(from: number, steps: number): number {
  return steps >= 0 ? from * 2 ** steps : Math.max(1, Math.floor(from / 2 ** -steps));
}

/** A number some places along 1, 1.2, 1.5, 2 … of every power of ten. */
function rate(from: number, steps: number): number {
  if (steps === 0 || !(from > 0)) return from > 0 ? from : steps > 0 ? 0.001 * steps : from;
  const power = Math.floor(Math.log10(from) + 1e-9);
  const lead = from / 10 ** power;
  let place = RATES.findIndex((x) => x > lead + 1e-9);
  place = (place < 0 ? RATES.length : place) - 1; // the last that is not larger
  if (steps < 0 && lead > RATES[place]! + 1e-9) place += 1;
  const to = place + steps;
  const tens = Math.floor(to / RATES.length);
  return Number((RATES[to - tens * RATES.length]! * 10 ** (power + tens)).toPrecision(6));
}

// ---- Any number of the program ----

/** A number as it is written, some steps of its last digit further; never below nothing, and whole numbers never below one. */
export function turned(text: string, steps: number): string {
  const plain = text.replaceAll("_", "");
  const [mantissa = "", power] = plain.toLowerCase().split("e");
  const end = power === undefined ? "" : `e${power}`;
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
