/** The workbench's editor in an exercise. It is loaded when a reader first wants to edit, and not before. */

import { setDiagnostics } from "@codemirror/lint";
import { EditorView } from "@codemirror/view";
import { editor } from "../shell/editor";
import type { Checked } from "./types";

interface Wishes { onChange(source: string): void; onRun(): void }

const nothing = (): void => undefined;

/** The editor, with the line from which to begin in view, and what marks the lines that a check complains of. */
export function exerciseEditor(
  holder: HTMLElement, source: string, line: number, { onChange, onRun }: Wishes,
): { view: EditorView; mark: (checked: Checked | null) => void } {
  const view = editor(holder, source, { onChange, onRun, onLine: nothing, onGutter: nothing, onPlace: nothing, onFocus: nothing });
  const { doc } = view.state;
  const from = doc.line(Math.min(line, doc.lines)).from;
  view.dispatch({ selection: { anchor: from }, effects: EditorView.scrollIntoView(from, { y: "start", yMargin: 44 }) });
  view.focus();

  function mark(checked: Checked | null): void {
    const { doc: now } = view.state;
    const diagnostics = (checked?.results ?? []).flatMap(({ ok, line: at, message }) => {
      if (ok || at === null || at < 1 || at > now.lines) return [];
      const { from: start, to, text } = now.line(at);
      const indent = text.length - text.trimStart().length;
      return [{ from: Math.min(start + indent, to), to, severity: "error" as const, message }];
    });
    view.dispatch(setDiagnostics(view.state, diagnostics));
  }
  return { view, mark };
}
