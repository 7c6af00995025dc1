/** Asking Python again when the reader changes something. The old picture stays until the new one is there. */

import { untrack } from "svelte";
import type { Live } from "./props";

export interface Wish<Answer> {
  name: string;
  /** The build's answer, and what it was asked. */
  recorded: Answer;
  args: Record<string, unknown>;
  /** What the reader wants to see now. */
  wanted: Record<string, unknown>;
  live: Live | null;
}

export interface Asked<Answer> {
  /** What to draw: the answer to `wanted`, or the one before it while that is on its way. */
  readonly answer: Answer;
  /** "recorded": the build's. "live": Python's. "asking": on its way. "waiting": Python is not there yet.
      "stuck": Python will not come. "refused": Python said no, see `problem`. */
  readonly standing: "recorded" | "live" | "asking" | "waiting" | "stuck" | "refused";
  readonly problem: string | null;
  /** Whether `answer` is the one to `wanted`. */
  readonly fits: boolean;
}

/** The same arguments in the same words, in whatever order they were given. */
function words(args: Record<string, unknown>): string {
  return JSON.stringify(Object.entries(args).filter(([, x]) => x !== undefined).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const KEPT = 24;

/** Call it while a component is set up. It asks at once; one question at a time, and then the newest wish. */
export function asking<Answer>(wish: () => Wish<Answer>): Asked<Answer> {
  const answers = new Map<string, Answer>();
  let fresh = $state.raw<{ key: string; answer: Answer } | null>(null);
  /** `there`: Python itself said no; else it was not there to be asked, and may be later. */
  let refused = $state.raw<{ key: string; message: string; there: boolean } | null>(null);
  let busy = $state(false);

  const recordedKey = $derived(words(wish().args));
  const key = $derived(words(wish().wanted));
  const status = $derived(wish().live?.status ?? "recorded");
  const isRecorded = $derived(key === recordedKey);
  const fits = $derived(isRecorded || fresh?.key === key);
  const said = $derived(refused?.key === key && (refused.there || status === "failed") ? refused : null);
  const answer = $derived(isRecorded || !fresh ? wish().recorded : fresh.answer);

  let timer: ReturnType<typeof setTimeout> | undefined;

  $effect(() => {
    const now = key;
    if (isRecorded || wish().live === null || status === "failed" || busy) return; // asking starts Python where it has not begun
    const known = answers.get(now);
    if (known !== undefined) {
      untrack(() => { if (fresh?.key !== now) fresh = { key: now, answer: known }; });
      return;
    }
    if (untrack(() => said !== null)) return;
    timer = setTimeout(() => void ask(now), 0);
    return () => clearTimeout(timer);
  });

  async function ask(now: string): Promise<void> {
    const { live, name, wanted } = untrack(wish);
    if (!live) return;
    busy = true;
    try {
      const got = (await live.ask(name, $state.snapshot(wanted))) as Answer;
      if (answers.size >= KEPT) answers.clear();
      answers.set(now, got);
      fresh = { key: now, answer: got };
      refused = null;
    } catch (error) {
      refused = { key: now, message: error instanceof Error ? error.message : String(error), there: untrack(() => status === "ready") };
    }
    busy = false;
  }

  return {
    get answer() { return answer; },
    get fits() { return fits; },
    get problem() { return said?.message ?? null; },
    get standing() {
      if (isRecorded) return "recorded";
      if (said) return "refused";
      if (fits) return "live";
      if (status === "failed") return "stuck";
      return status === "ready" ? "asking" : "waiting";
    },
  };
}
