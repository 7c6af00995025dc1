/** A yes or no that the browser remembers for the reader. */

export class Choice {
  #name: string;
  #on = $state(false);

  constructor(name: string, byDefault: boolean) {
    this.#name = name;
    try {
      const kept = localStorage.getItem(name);
      this.#on = kept === null ? byDefault : kept === "yes";
    } catch {
      this.#on = byDefault; // a private window
    }
  }

  get on(): boolean {
    return this.#on;
  }

  set on(on: boolean) {
    this.#on = on;
    try {
      localStorage.setItem(this.#name, on ? "yes" : "no");
    } catch {
      // as above: it lasts as long as the page
    }
  }
}
