/** The page's colours as numbers, for canvases; they follow the theme. */

import { createSubscriber } from "svelte/reactivity";

export type Colour = [number, number, number];

export interface Palette {
  paper: Colour; ink: Colour; muted: Colour; rule: Colour; problem: Colour; focus: Colour;
  negative: Colour; positive: Colour; probability: Colour;
}

const FALLBACK: Record<keyof Palette, string> = {
  paper: "#fbfaf7", ink: "#1d1d1b", muted: "#5f5c55", rule: "#e3e0d8", problem: "#a3281c", focus: "#1f5fbf",
  negative: "#2b6cb0", positive: "#c2571a", probability: "#8a6a00",
};
const VARIABLES: Partial<Record<keyof Palette, string>> = { probability: "--probability-full" };

function colour(text: string): Colour {
  const hex = /^#([0-9a-f]{6})$/i.exec(text.trim())?.[1];
  const n = parseInt(hex ?? "808080", 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
}

function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const result = {} as Palette;
  for (const name of Object.keys(FALLBACK) as (keyof Palette)[])
    result[name] = colour(style.getPropertyValue(VARIABLES[name] ?? `--${name}`) || FALLBACK[name]);
  return result;
}

let current: Palette | null = null;

const subscribe = createSubscriber((update) => {
  const renew = (): void => {
    current = null;
    update();
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(renew);
  dark.addEventListener("change", renew);
  observer.observe(document.documentElement, { attributes: true });
  return () => {
    dark.removeEventListener("change", renew);
    observer.disconnect();
  };
});

/** Read inside an effect or a derived value to be told of a new theme. */
export function palette(): Palette {
  subscribe();
  return (current ??= readPalette());
}
