/** The program as this page shows it; the pane beside the prose holds it, seen or not. */

export interface FileLine { line: number; html: string; depth: string; blank: boolean }

export function fileLines(): FileLine[] {
  return [...document.querySelectorAll<HTMLElement>("aside.pane [data-line]")].map((row) => ({
    line: Number(row.dataset["line"]),
    html: row.querySelector("code")!.innerHTML,
    depth: [...row.classList].find((name) => name.startsWith("in-")) ?? "in-0",
    blank: row.querySelector("code")!.textContent === "",
  }));
}

export function fileText(): string {
  return [...document.querySelectorAll<HTMLElement>("aside.pane [data-line] code")].map((code) => `${code.textContent}\n`).join("");
}
