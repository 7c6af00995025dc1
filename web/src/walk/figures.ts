/** The instruments by the name that a chapter calls them: "attention" is instruments/attention.svelte. A page loads
    only those that it shows. */

import type { Component } from "svelte";
import type { InstrumentProps } from "./instruments/props";

type Instrument = Component<InstrumentProps>;

const found = import.meta.glob<Instrument>("./instruments/[a-z]*.svelte", { import: "default" });

/** The component of a kind of figure. The build has seen that there is one. */
export async function instrument(kind: string): Promise<Instrument> {
  const load = found[`./instruments/${kind}.svelte`];
  if (!load) throw new Error(`There is no instrument called ${kind}.`);
  return load();
}
