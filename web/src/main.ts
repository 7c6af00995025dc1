import "./styles/tokens.css";
import "./styles/base.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { Page } from "./state.svelte";

const written = document.getElementById("written");
const source = document.getElementById("source")?.textContent ?? "";
const page = new Page(source);
const target = document.getElementById("page");
if (target) {
  mount(App, { target, props: { page } });
  written?.remove(); // the page as it reads without scripts
  void page.open();
}
