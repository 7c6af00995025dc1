/** The program in CodeMirror: its look, its concepts in colour, and the lines that the rest of the page points at. */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import {
  HighlightStyle, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting, syntaxTree,
} from "@codemirror/language";
import { lintGutter } from "@codemirror/lint";
import { unifiedMergeView } from "@codemirror/merge";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, RangeSetBuilder, StateEffect, StateField, Transaction } from "@codemirror/state";
import type { Extension, Text } from "@codemirror/state";
import {
  Decoration, EditorView, ViewPlugin, drawSelection, highlightActiveLine, highlightActiveLineGutter,
  highlightSpecialChars, keymap, lineNumbers,
} from "@codemirror/view";
import type { DecorationSet, ViewUpdate } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { concept } from "../format";
import { CLICK, stepsOf, turned } from "./drag";
import { edits } from "../link";

// ---- Lines that are pointed at: by the pointer, by the x-ray, by a jump ----

type Marked = "brushed" | "looked" | "flashed";
export const setLine = StateEffect.define<{ kind: Marked; line: number | null }>();

const lineMarks: Record<Marked, Decoration> = {
  brushed: Decoration.line({ class: "cm-brushed" }),
  looked: Decoration.line({ class: "cm-looked" }),
  flashed: Decoration.line({ class: "cm-flashed" }),
};

function lineField(kind: Marked): StateField<DecorationSet> {
  return StateField.define<DecorationSet>({
    create: () => Decoration.none,
    update(marks, transaction) {
      marks = marks.map(transaction.changes);
      for (const effect of transaction.effects) {
        if (!effect.is(setLine) || effect.value.kind !== kind) continue;
        const { line } = effect.value;
        const { doc } = transaction.state;
        marks = line !== null && line >= 1 && line <= doc.lines
          ? Decoration.set(lineMarks[kind].range(doc.line(line).from))
          : Decoration.none;
      }
      return marks;
    },
    provide: (field) => EditorView.decorations.from(field),
  });
}

// ---- Section headers, set slightly apart; where they are follows every edit at once ----

const HEADER = /^# -{2,} ?([^:-]+)/;
const header = Decoration.line({ class: "cm-section" });

export interface Heading { name: string; line: number }

/** The sections' header lines, as they stand in the text now. */
export function headings(doc: Text): Heading[] {
  const found: Heading[] = [];
  for (let line = 1; line <= doc.lines; line++) {
    const { text } = doc.line(line);
    const match = HEADER.exec(text);
    if (match) found.push({ name: match[1]!.trim(), line });
    else if (text.startsWith("if __name__ ==")) found.push({ name: "Main", line });
  }
  return found;
}

const sectionLines = EditorView.decorations.compute(["doc"], (state) => {
  const lines = headings(state.doc).filter(({ name }) => name !== "Main");
  return Decoration.set(lines.map(({ line }) => header.range(state.doc.line(line).from)));
});

/** Marks of the text that is seen, found anew when it, or what is seen or understood of it, changes. */
function marked(find: (view: EditorView) => DecorationSet): Extension {
  class Marks {
    decorations: DecorationSet;

    constructor(view: EditorView) {
      this.decorations = find(view);
    }

    update(update: ViewUpdate): void {
      const parsed = syntaxTree(update.startState) !== syntaxTree(update.state);
      if (update.docChanged || update.viewportChanged || parsed) this.decorations = find(update.view);
    }
  }
  return ViewPlugin.fromClass(Marks, { decorations: (plugin) => plugin.decorations });
}

// ---- Concepts: the model's names in their colours ----

/** Where `x`, `k` and `v` are the model's and not a cell, an offset or a second moment. */
const EVERYWHERE = new Set(["wte", "wpe", "probs", "grad"]);
const NOT_OURS = new Set(["softmax", "vocabulary", "leaves"]);

function conceptMarks(view: EditorView): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  const { doc } = view.state;
  const parts = headings(doc);
  const model = parts.findIndex(({ name }) => name === "Model");
  const first = model < 0 ? Infinity : parts[model]!.line;
  const last = model < 0 ? -1 : (parts[model + 1]?.line ?? doc.lines + 1) - 1;
  for (const { from, to } of view.visibleRanges) {
    syntaxTree(view.state).iterate({
      from,
      to,
      enter(node) {
        if (node.name !== "VariableName" && node.name !== "PropertyName") return;
        const name = doc.sliceString(node.from, node.to);
        const found = concept(name);
        if (!found) return;
        if (!EVERYWHERE.has(name)) {
          const line = doc.lineAt(node.from).number;
          if (line < first || line > last) return;
          let up = node.node.parent;
          while (up && up.name !== "FunctionDefinition") up = up.parent;
          const title = up?.getChild("VariableName");
          if (title && NOT_OURS.has(doc.sliceString(title.from, title.to))) return;
        }
        builder.add(node.from, node.to, Decoration.mark({ class: `cm-concept concept-${found}` }));
      },
    });
  }
  return builder.finish();
}

const concepts = marked(conceptMarks);

// ---- Numbers: each can be dragged sideways ----

const draggable = Decoration.mark({ class: "cm-number" });

function numberMarks(view: EditorView): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  for (const { from, to } of view.visibleRanges) {
    syntaxTree(view.state).iterate({
      from,
      to,
      enter(node) {
        if (node.name === "Number") builder.add(node.from, node.to, draggable);
      },
    });
  }
  return builder.finish();
}

const numbers = marked(numberMarks);

/** The number at a place of the text, and where it begins and ends. */
function numberAt(state: EditorState, at: number): { from: number; to: number; text: string } | null {
  for (const side of [1, -1] as const) {
    const { name, from, to } = syntaxTree(state).resolveInner(at, side);
    if (name === "Number") return { from, to, text: state.sliceDoc(from, to) };
  }
  return null;
}

/** Turns the number at the caret by steps of its last digit. */
function turn(steps: number): (view: EditorView) => boolean {
  return (view) => {
    const { head, empty } = view.state.selection.main;
    const found = empty ? numberAt(view.state, head) : null;
    if (!found) return false;
    const insert = turned(found.text, steps);
    view.dispatch({
      changes: { from: found.from, to: found.to, insert },
      selection: { anchor: Math.min(head, found.from + insert.length) },
      userEvent: "input.turn",
    });
    return true;
  };
}

/** A mouse that is pressed on a number and moved sideways drags it; a mere click is the editor's own. */
function dragNumbers(onDrag: (begins: boolean) => void): Extension {
  return EditorView.domEventHandlers({
    mousedown(event, view) {
      const target = event.target instanceof HTMLElement ? event.target.closest(".cm-number") : null;
      if (!target || event.button !== 0 || event.detail > 1 || event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return false;
      const found = numberAt(view.state, view.posAtDOM(target));
      const place = view.posAtCoords({ x: event.clientX, y: event.clientY });
      if (!found) return false;
      let end = found.to;
      let last = found.text;
      let moved = false;
      const move = (to: MouseEvent): void => {
        const pixels = to.clientX - event.clientX;
        if (!moved) {
          if (Math.abs(pixels) < CLICK) return;
          moved = true;
          view.dom.classList.add("cm-turning");
          view.dispatch({ selection: { anchor: found.from } }); // where undo will lead back to
          onDrag(true);
        }
        const insert = turned(found.text, stepsOf(pixels));
        if (insert === last) return;
        view.dispatch({ changes: { from: found.from, to: end, insert }, annotations: Transaction.addToHistory.of(false) });
        end = found.from + insert.length;
        last = insert;
      };
      const finish = (): void => {
        removeEventListener("mousemove", move);
        removeEventListener("mouseup", finish);
        removeEventListener("blur", finish);
        view.dom.classList.remove("cm-turning");
        if (moved) onDrag(false);
        else {
          view.dispatch({ selection: { anchor: place ?? found.from } });
          view.focus();
        }
      };
      addEventListener("mousemove", move);
      addEventListener("mouseup", finish);
      addEventListener("blur", finish);
      event.preventDefault();
      return true;
    },
  });
}

// ---- Look ----

const highlighting = HighlightStyle.define([
  { tag: tags.comment, color: "var(--muted)" },
  { tag: [tags.docString, tags.string], color: "var(--muted)" },
  { tag: tags.function(tags.definition(tags.variableName)), fontWeight: "700" },
  { tag: tags.definition(tags.className), fontWeight: "700" },
]);

const look = EditorView.theme({
  "&": { height: "100%", backgroundColor: "transparent", color: "var(--ink)", fontSize: "var(--code)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", fontVariantLigatures: "none" },
  ".cm-content": { padding: "8px 0 24px", caretColor: "var(--ink)" },
  ".cm-line": { padding: "0 16px 0 8px" },
  ".cm-gutters": { backgroundColor: "var(--paper)", color: "var(--muted)", border: "none" },
  ".cm-lineNumbers .cm-gutterElement": {
    minWidth: "36px", padding: "0 8px 0 4px", cursor: "pointer", fontSize: "var(--small)", lineHeight: "20.15px",
  },
  ".cm-lineNumbers .cm-gutterElement:hover": { color: "var(--ink)", textDecoration: "underline" },
  ".cm-gutter-lint": { width: "14px" },
  ".cm-gutter-lint .cm-gutterElement": { padding: "0 0 0 2px" },
  ".cm-activeLine": { backgroundColor: "transparent" },
  "&.cm-focused .cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--sunken) 80%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "transparent" },
  "&.cm-focused .cm-activeLineGutter": { color: "var(--ink)", backgroundColor: "var(--sunken)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)", borderLeftWidth: "2px" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    background: "color-mix(in srgb, var(--focus) 22%, transparent)",
  },
  ".cm-selectionMatch": { backgroundColor: "color-mix(in srgb, var(--focus) 12%, transparent)" },
  ".cm-matchingBracket, &.cm-focused .cm-matchingBracket": {
    backgroundColor: "transparent", boxShadow: "inset 0 -1px 0 var(--ink)",
  },
  ".cm-number": { cursor: "ew-resize" },
  ".cm-number:hover, &.cm-turning .cm-number:hover": {
    textDecoration: "underline dotted", textUnderlineOffset: "3px", textDecorationColor: "var(--muted)",
  },
  "&.cm-turning, &.cm-turning .cm-content": { cursor: "ew-resize" },
  ".cm-section": { color: "var(--ink)" },
  ".cm-section *": { color: "var(--ink)" },
  ".cm-looked": { boxShadow: "inset 3px 0 0 var(--ink)", backgroundColor: "var(--sunken)" },
  "&.cm-focused .cm-looked": { backgroundColor: "var(--sunken)" },
  ".cm-brushed, &.cm-focused .cm-brushed": { backgroundColor: "var(--brush)" },
  ".cm-flashed, &.cm-focused .cm-flashed": { backgroundColor: "var(--brush)" },
  ".cm-lintRange-error": {
    backgroundImage: "none", textDecoration: "underline wavy var(--problem)", textDecorationSkipInk: "none",
    textUnderlineOffset: "3px",
  },
  ".cm-lint-marker-error": {
    content: "none", width: "8px", height: "8px", margin: "6px 0 0", backgroundColor: "var(--problem)",
  },
  ".cm-tooltip": {
    border: "1px solid var(--rule-strong)", backgroundColor: "var(--raised)", color: "var(--ink)",
    fontFamily: "var(--sans)", fontSize: "var(--code)",
  },
  ".cm-diagnostic": { padding: "6px 10px", borderLeft: "3px solid var(--problem)" },
  ".cm-diagnostic-error": { borderLeft: "3px solid var(--problem)" },
  ".cm-panels": { backgroundColor: "var(--paper)", color: "var(--ink)", fontFamily: "var(--sans)" },
  ".cm-panels.cm-panels-bottom": { borderTop: "1px solid var(--rule)" },
  ".cm-panel.cm-search": { padding: "8px 32px 8px 12px", fontSize: "var(--code)" },
  ".cm-panel.cm-search label": { fontSize: "var(--small)" },
  ".cm-textfield": {
    border: "1px solid var(--rule-strong)", borderRadius: "3px", backgroundColor: "var(--raised)",
    fontSize: "var(--code)",
  },
  ".cm-button": {
    border: "1px solid var(--rule-strong)", borderRadius: "3px", backgroundImage: "none", fontSize: "var(--small)",
  },
  ".cm-searchMatch": { backgroundColor: "var(--brush)" },
  ".cm-searchMatch-selected": { backgroundColor: "color-mix(in srgb, var(--focus) 30%, transparent)" },
  "&.cm-merge-b .cm-changedLine, .cm-insertedLine": { backgroundColor: "var(--added)" },
  "&.cm-merge-b .cm-changedText": { background: "color-mix(in srgb, var(--added-ink) 20%, transparent)" },
  ".cm-deletedChunk": { backgroundColor: "var(--removed)", paddingLeft: "8px" },
  ".cm-deletedChunk .cm-deletedText, .cm-deletedChunk del": {
    background: "color-mix(in srgb, var(--removed-ink) 16%, transparent)", textDecoration: "none",
  },
  "&.cm-merge-b .cm-changedLineGutter": { background: "var(--added-ink)" },
  "& .cm-deletedLineGutter": { background: "var(--removed-ink)" },
  ".cm-chunkButtons button": {
    minHeight: "20px", padding: "0 6px", border: "1px solid var(--rule-strong)", borderRadius: "3px",
    backgroundColor: "var(--raised)", color: "var(--ink)", fontFamily: "var(--sans)", fontSize: "var(--small)",
  },
});

// ---- Put together ----

export interface Wishes {
  onChange(source: string): void;
  onLine(line: number | null): void;
  onGutter(line: number): void;
  onPlace(line: number): void;
  onRun(): void;
  onFocus(has: boolean): void;
  /** The reader begins to drag a number, or lets it go; without this none can be dragged. */
  onDrag?(begins: boolean): void;
}

const difference = new Compartment();

export function showDifference(view: EditorView, original: string, show: boolean): void {
  view.dispatch({ effects: difference.reconfigure(show ? comparison(original) : []) });
}

function comparison(original: string): Extension {
  return unifiedMergeView({
    original,
    gutter: true,
    highlightChanges: true,
    syntaxHighlightDeletions: true,
    mergeControls: (type, action) => {
      const button = document.createElement("button");
      if (type === "accept") {
        button.hidden = true; // the original never changes: there is nothing to accept into it
        return button;
      }
      button.textContent = "Undo this change";
      button.onmousedown = action;
      button.onclick = action;
      return button;
    },
  });
}

export interface Change { from: number; to: number; insert: string }

/** The few small replacements that turn the editor's text into `source`, so that all else keeps its place. */
export function replacements(doc: Text, source: string): Change[] {
  return edits(doc.toString(), source).map(([line, removed, added]) => {
    const past = line > doc.lines; // lines added below the last
    const from = past ? doc.length : doc.line(line).from;
    if (removed === 0) {
      const text = added.join("\n");
      return { from, to: from, insert: past ? `\n${text}` : `${text}\n` };
    }
    const last = doc.line(line + removed - 1);
    if (added.length === 0) {
      // A removed line takes one line end with it: its own, or the one above when it is the last.
      return last.to < doc.length ? { from, to: last.to + 1, insert: "" } : { from: Math.max(from - 1, 0), to: last.to, insert: "" };
    }
    return trimmed(doc.sliceString(from, last.to), added.join("\n"), from);
  });
}

/** A replacement without the beginning and the end that both texts share. */
function trimmed(now: string, wanted: string, at: number): Change {
  const shorter = Math.min(now.length, wanted.length);
  let head = 0;
  while (head < shorter && now[head] === wanted[head]) head++;
  let tail = 0;
  while (tail < shorter - head && now[now.length - 1 - tail] === wanted[wanted.length - 1 - tail]) tail++;
  return { from: at + head, to: at + now.length - tail, insert: wanted.slice(head, wanted.length - tail) };
}

/** The line that the first difference from the original stands on, or null. */
export function firstChange(doc: Text, original: string): number | null {
  const first = edits(original, doc.toString())[0];
  return first ? Math.min(first[0], doc.lines) : null;
}

export function editor(parent: HTMLElement, doc: string, wishes: Wishes): EditorView {
  let over: number | null = null;
  const point = (line: number | null): void => {
    if (line !== over) wishes.onLine((over = line));
  };
  const state = EditorState.create({
    doc,
    extensions: [
      lintGutter(),
      lineNumbers({
        domEventHandlers: {
          click(view, block) {
            wishes.onGutter(view.state.doc.lineAt(block.from).number);
            return true;
          },
        },
      }),
      highlightActiveLineGutter(),
      highlightSpecialChars(),
      history(),
      drawSelection(),
      EditorState.allowMultipleSelections.of(true),
      EditorState.tabSize.of(4),
      indentUnit.of("    "),
      indentOnInput(),
      bracketMatching(),
      highlightActiveLine(),
      highlightSelectionMatches(),
      search({ top: false }),
      python(),
      syntaxHighlighting(highlighting),
      concepts,
      wishes.onDrag ? [numbers, dragNumbers(wishes.onDrag)] : [],
      sectionLines,
      lineField("looked"),
      lineField("brushed"),
      lineField("flashed"),
      difference.of([]),
      look,
      EditorView.contentAttributes.of({
        "aria-label": "The program, gpt.py",
        tabindex: "0",
        "aria-describedby": "editor-keys",
        autocapitalize: "off",
        autocorrect: "off",
        spellcheck: "false",
        translate: "no",
      }),
      keymap.of([
        { key: "Mod-Enter", preventDefault: true, run: () => (wishes.onRun(), true) },
        {
          key: "Alt-Enter",
          preventDefault: true,
          run: (view) => (wishes.onGutter(view.state.doc.lineAt(view.state.selection.main.head).number), true),
        },
        { key: "Ctrl-ArrowUp", mac: "Ctrl-Alt-ArrowUp", run: turn(1) },
        { key: "Ctrl-ArrowDown", mac: "Ctrl-Alt-ArrowDown", run: turn(-1) },
        ...searchKeymap,
        ...historyKeymap,
        ...defaultKeymap.filter(({ key }) => key !== "Mod-Enter" && key !== "Escape"),
        {
          key: "Escape",
          run(view) {
            if (!view.state.selection.main.empty || view.state.selection.ranges.length > 1) {
              view.dispatch({ selection: { anchor: view.state.selection.main.head } });
            }
            view.contentDOM.blur();
            return true;
          },
        },
        indentWithTab,
      ]),
      EditorView.domEventHandlers({
        mousemove(event, view) {
          const at = view.posAtCoords({ x: event.clientX, y: event.clientY }, false);
          point(view.state.doc.lineAt(at).number);
        },
        mouseleave: () => point(null),
        focus: () => wishes.onFocus(true),
        blur: () => wishes.onFocus(false),
      }),
      EditorView.updateListener.of((update) => {
        if (update.docChanged) wishes.onChange(update.state.doc.toString());
        if (update.geometryChanged || update.viewportChanged || update.docChanged) place(update.view);
      }),
    ],
  });
  const view = new EditorView({ state, parent });

  /** Tells which line stands at the top of what is seen. */
  function place(seen: EditorView): void {
    const top = Math.max(seen.scrollDOM.scrollTop - seen.documentPadding.top, 0) + 40;
    const block = seen.lineBlockAtHeight(top);
    wishes.onPlace(seen.state.doc.lineAt(block.from).number);
  }
  view.scrollDOM.addEventListener("scroll", () => place(view), { passive: true });
  return view;
}
