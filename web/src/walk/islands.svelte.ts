/** The parts of a page that are alive: each is put over what the build has rendered, when the reader comes near. */

import { flushSync, hydrate, mount } from "svelte";
import type { Component } from "svelte";
import Figure from "./Figure.svelte";
import { instrument } from "./figures";
import { live } from "./live.svelte";
import type { ChapterData, FigureData } from "./pages";
import Exercise from "./shell/Exercise.svelte";
import Prediction from "./shell/Prediction.svelte";
import type { InstrumentProps, Live } from "./instruments/props";
import { SHARED } from "./text";

/** Takes over a drawing of the build. It is drawn just as the build did first, and then follows the reader. */
function figure(target: HTMLElement, id: string, { args, options, answer }: FigureData, instrument: Component<InstrumentProps>): void {
  const own = typeof args["text"] === "string" ? args["text"] : SHARED;
  let awake = $state(false);
  hydrate(Figure, {
    target,
    props: {
      instrument, answer, options, args, id: `f-${id}`,
      get live(): Live | null { return awake ? live : null; },
      get text(): string { return awake ? (live.chosen ?? own) : own; },
    },
  });
  flushSync();
  awake = true;
  for (const kind of ["pointerdown", "keydown"]) target.addEventListener(kind, () => live.start(), { once: true });
}

export function awaken(slug: string, data: ChapterData): void {
  const targets = [...document.querySelectorAll<HTMLElement>("[data-island][data-id]")];

  async function wake(target: HTMLElement): Promise<void> {
    const { island, id = "" } = target.dataset;
    delete target.dataset["island"]; // once
    if (island === "figure") {
      const given = data.figures[id];
      if (!given) return;
      try {
        figure(target, id, given, await instrument(given.figure));
      } catch {
        const problem = document.createElement("p");
        problem.className = "problem";
        problem.setAttribute("role", "status");
        problem.textContent = "What makes this picture alive could not be loaded, so it stays as it is.";
        target.append(problem);
      }
      return;
    }
    const plain = target.previousElementSibling;
    const prediction = data.predictions[id];
    const exercise = data.exercises[id];
    if (island === "predict" && prediction) mount(Prediction, { target, props: { ask: prediction, key: `${slug}-${id}` } });
    else if (island === "exercise" && exercise) mount(Exercise, { target, props: { exercise } });
    else return;
    plain?.classList.add("replaced");
  }

  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        watch.unobserve(target);
        void wake(target as HTMLElement);
      }
    },
    { rootMargin: "100% 0px" },
  );
  for (const target of targets) watch.observe(target);
}

