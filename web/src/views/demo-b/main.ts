import "../../styles/tokens.css";
import "../../styles/base.css";
import { mount } from "svelte";
import Stories from "./Stories.svelte";

const theme = new URLSearchParams(location.search).get("theme");
if (theme) document.documentElement.dataset["theme"] = theme;
const target = document.getElementById("page");
const answer = await fetch("./fixtures.json");
if (target) mount(Stories, { target, props: { f: await answer.json() } });
