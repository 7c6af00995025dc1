// The engine without the views, for the browser tests. Built only by `vite build --mode test`.

import { EditorView } from "@codemirror/view";
import { Engine } from "./client";

declare global {
  interface Window {
    engine: Engine;
    seen: { name: string; at: number; value: unknown }[];
  }
}

const engine = new Engine();
window.engine = engine;
window.seen = [];
for (const name of ["status", "progress", "ready", "train", "print", "restarted"] as const)
  engine.on(name, (value) => {
    window.seen.push({ name, at: performance.now(), value });
    document.querySelector("#status")!.textContent = engine.status;
  });
new EditorView({ doc: "x = 1", parent: document.body }); // its styles must pass the policy
if (location.hash !== "#wait") engine.start();
