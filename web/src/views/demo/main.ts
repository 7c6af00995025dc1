import "../../styles/tokens.css";
import "../../styles/base.css";
import { mount } from "svelte";
import type { Xray } from "../../types";
import Stories from "./Stories.svelte";

// #story/view/cursor/theme/width, for example #anna/xray/30/dark/640
const [story = "anna", view = "all", cursor = "0", theme = "light", width = ""] = location.hash.slice(1).split("/");
document.documentElement.dataset["theme"] = theme;
const answer = await fetch(`/fixtures/${story}.json`);
const { source, xray } = (await answer.json()) as { source: string; xray: Xray };
mount(Stories, { target: document.body, props: { source, xray, view, first: Number(cursor), width } });
