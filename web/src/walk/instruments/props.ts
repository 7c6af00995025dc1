/** What every instrument is given. It is a pure function of `answer`; everything else is there to ask for another. */

import type { Engine } from "../../engine/client";

/** Python, as an instrument sees it: one call, and whether it can be made now. Null while the build renders. */
export interface Live {
  /** "recorded": only what the build stored; "loading": Python is on its way; "ready"; "failed": it will not come. */
  readonly status: "recorded" | "loading" | "ready" | "failed";
  /** One call of the bridge's `instrument`: it answers with plain data, or fails with an Error whose message is a
      sentence for the reader. */
  ask(name: string, args: Record<string, unknown>): Promise<unknown>;
  /** The reader's own text, or the one that the chapters share. */
  readonly text: string;
  /** Python itself, once it was started; for what trains here and now. */
  readonly engine: Engine | null;
  start(): void;
}

export interface InstrumentProps<Answer = unknown> {
  /** What the instrument answered to `args` when the page was built. */
  answer: Answer;
  /** How the chapter wants it shown; keys that the instrument does not take as arguments. */
  options: Record<string, string>;
  args: Record<string, unknown>;
  live: Live | null;
  /** The text that the reader looks at; differs from `args.text` once they have chosen their own. */
  text: string;
  /** Unique on the page: identifiers inside the figure begin with it. */
  id: string;
}
