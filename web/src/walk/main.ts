/** Makes a page of the walk alive. The page is whole without it. */

import "./walk.css";
import { mount } from "svelte";
import { brushing } from "./brush";
import { frame } from "./chrome";
import { contents } from "./contents";
import { awaken } from "./islands.svelte";
import { live } from "./live.svelte";
import { noting } from "./notes";
import type { ChapterData } from "./pages";
import { Pane } from "./pane";
import Progress from "./shell/Progress.svelte";
import Reader from "./shell/Reader.svelte";
import { stepping } from "./steps";

const { page, slug = "", from = "" } = document.body.dataset;

frame(() => live.text);
if (page === "chapter") void chapter();
else brushing();
if (page === "contents") {
  contents();
  const kept = document.querySelector<HTMLElement>("[data-island=progress]");
  if (kept) {
    mount(Progress, { target: kept });
    kept.hidden = false;
  }
}

async function chapter(): Promise<void> {
  const reader = document.querySelector<HTMLElement>("[data-island=reader]");
  if (reader) mount(Reader, { target: reader });
  const pane = new Pane();
  brushing(() => pane.point());
  stepping(slug, pane);
  let data: ChapterData;
  try {
    const answer = await fetch(new URL(from, document.baseURI));
    if (!answer.ok) throw new Error(String(answer.status));
    data = (await answer.json()) as ChapterData;
  } catch {
    const problem = document.createElement("p");
    problem.className = "problem";
    problem.setAttribute("role", "alert");
    problem.textContent = "The numbers behind the pictures could not be loaded, so the pictures stay as they are. Load the page again to try once more.";
    document.querySelector(".chapter-head")?.append(problem);
    return;
  }
  noting(data.notes);
  awaken(slug, data);
  startLater();
}

/** Python comes when the page has come to rest, unless the reader saves data: then the first wish starts it. */
function startLater(): void {
  const { connection } = navigator as Navigator & { connection?: { saveData?: boolean } };
  if (connection?.saveData) return;
  const start = (): void => {
    if ("requestIdleCallback" in window) requestIdleCallback(() => live.start(), { timeout: 4000 });
    else setTimeout(() => live.start(), 1500);
  };
  if (document.readyState === "complete") start();
  else addEventListener("load", start, { once: true });
}
