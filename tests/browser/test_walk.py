"""The walk in a browser: every chapter from its first step to its last, without scripts, brushing,
progress, screens, and the weight."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from microgpt import source as file

from .conftest import BUILT, ROOT, Open, Visit
from .walk import (
    CHAPTERS,
    GUESSED,
    NUMBER,
    SLUGS,
    Chapter,
    awaken,
    data,
    every_chapter,
    exercise,
    figure,
    flat,
    models,
    standing,
    texts,
    words,
    write,
)

expect: Any = pytest.importorskip("playwright.sync_api").expect

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"width": 360, "height": 740}
KB = 1000

# ---- Every chapter, step by step ----


def current(page: Any) -> dict[str, Any]:
    return dict(
        page.evaluate(
            """() => ({
              now: [...document.querySelectorAll("section.step.now")].map((s) => s.id),
              lines: [...document.querySelectorAll(".pane .current")].map((l) => +l.dataset.line),
              hash: location.hash.slice(1),
              focus: document.activeElement.id,
              top: document.querySelector("section.step.now")?.getBoundingClientRect().top,
              end: scrollY + innerHeight >= document.documentElement.scrollHeight - 1,
              where: document.querySelector("[data-where]").textContent,
              title: document.querySelector("[data-title]").textContent,
            })"""
        )
    )


@every_chapter
def test_a_chapter_is_walked_from_its_first_step_to_its_last(
    visitor: Open, chapter: Chapter
) -> None:
    """With the real engine beside it: by the keyboard in every second chapter, else by button."""
    number = SLUGS.index(chapter.slug)
    after = [*SLUGS, "index"][number + 1]
    keyboard = number % 2 == 0
    with visitor(reduced_motion="reduce") as visit:
        page = visit.open_walk(chapter.slug)
        expect(page.get_by_role("heading", level=1)).to_have_text(chapter.title)
        steps = page.locator("section.step")
        expect(steps).to_have_count(len(chapter.steps))
        ids = steps.evaluate_all("all => all.map((one) => one.id)")
        button = page.locator("[data-go=next]")
        for i, step in enumerate(chapter.steps):
            found = current(page)
            assert found["now"] == [ids[i]], (step.title, found)
            assert found["lines"] == step.lines, step.title
            assert found["where"] == f"Step {i + 1} of {len(ids)}"
            assert found["title"] == flat(steps.nth(i).locator("h2").inner_text())
            if i > 0:
                assert found["hash"] == ids[i] and found["focus"] == f"{ids[i]}-title"
                assert found["end"] or 0 < found["top"] < 120, "the step is not at the top"
            if i < len(ids) - 1:
                if keyboard:
                    page.keyboard.press("ArrowRight")
                else:
                    button.click()
        if keyboard:
            page.keyboard.press("ArrowLeft")
            assert current(page)["now"] == [ids[-2]]
            page.keyboard.press("ArrowRight")
        awaken(page)
        visit.live()
        assert page.locator(".problem:visible").all_inner_texts() == []
        own = page.locator("#own-text")
        own.fill("emma")
        waiting = page.locator(
            ":is([data-standing=asking], [data-standing=waiting], [data-standing=stuck], "
            "[data-standing=refused])"
        )
        expect(waiting).to_have_count(0)
        live = page.locator("[data-standing=live]")
        follows = [f for f in data(chapter.slug)["figures"].values() if "text" in f["args"]]
        alone = ("model", "training", "expression")  # these do not ask of the reader's text
        follows = [f for f in follows if f["figure"] not in alone]
        if chapter.slug != "tokens":  # its figure has a field of its own, too
            expect(live).to_have_count(len(follows), timeout=20_000)
        own.press("Enter")
        page.locator("section.step").last.locator("h2").click()
        expect(button).to_be_hidden()
        onward = page.locator("[data-go=chapter]")
        expect(onward).to_be_visible()
        if keyboard:
            page.keyboard.press("ArrowRight")
        else:
            onward.click()
        page.wait_for_url(f"**/walk/{after}.html*")
        if after != "index":
            expect(page.locator("#own-text")).to_have_value("emma")


@every_chapter
def test_a_chapter_is_complete_without_scripts(visitor: Open, chapter: Chapter) -> None:
    with visitor(java_script_enabled=False) as visit:
        page = visit.page
        page.goto(f"{visit.address}walk/{chapter.slug}.html")
        expect(page.get_by_role("heading", level=1)).to_have_text(chapter.title)
        sections = page.locator("section.step")
        assert sections.count() == len(chapter.steps)
        for step, section in zip(chapter.steps, sections.all(), strict=True):
            expect(section).to_be_visible()
            whole = flat(section.text_content())
            for piece in [*words(step.title), *(w for row in step.prose for w in words(row))]:
                assert piece in whole, (step.title, piece)
            rows = texts(section, ":scope > .excerpt code")
            for _, row in step.rows:
                assert flat(row) in rows, (step.title, row)
            for one in section.locator(":scope > .excerpt .listing").all():
                expect(one).to_be_visible()
            figures = [keys for kind, _, keys in step.blocks if kind == "figure"]
            drawn = section.locator(":scope > figure").all()
            assert len(drawn) == len(figures)
            for keys, one in zip(figures, drawn, strict=True):
                caption = flat(one.locator("figcaption").last.text_content())
                assert all(w in caption for w in words(" ".join(keys["caption"])))
                box = one.locator(".drawing").bounding_box()
                assert box["width"] > 200 and box["height"] > 60
                said = flat(one.locator(".drawing").inner_text())
                assert len(said) > 60 and re.search(r"\d", said), said
                for picture in one.locator("svg[role=img]").all():
                    names = picture.evaluate(
                        "e => e.getAttribute('aria-label') ?? "
                        "document.getElementById(e.getAttribute('aria-labelledby')).textContent"
                    )
                    assert len(names) > 5
        asks = [keys for kind, _, keys in [b for s in chapter.steps for b in s.blocks]
                if kind == "predict"]  # fmt: skip
        answers = page.locator("section[aria-label^='Your guess'], .ask:has(.question)").locator(
            ".plain details"
        )
        assert answers.count() == len(asks)
        for keys, one in zip(asks, answers.all(), strict=True):
            one.locator("summary").click()
            shown = flat(one.inner_text())
            assert re.search(r"\d|It is", shown), shown
            assert all(w in shown for w in words(" ".join(keys["then"])))
        tried = page.locator(".ask:has(.task) .plain")
        todo = chapter.blocks("exercise")
        assert tried.count() == len(todo)
        for (name, keys), one in zip(todo, tried.all(), strict=True):
            for fold in one.locator("summary").all():
                fold.click()
            shown = flat(one.inner_text())
            for row in [*keys["task"], *keys["hint"], *keys["then"]]:
                assert all(w in shown for w in words(row)), (name, row)
        dead = ".drawing :is(button.primary, input, select):visible:not([disabled])"
        assert page.locator(dead).count() == 0, "a control that does nothing without scripts"


# ---- Brushing ----


def lit(page: Any) -> dict[str, bool]:
    """Where a name is lit, and whether more than its colour says so."""
    return dict(
        page.evaluate(
            """() => {
              const found = {};
              for (const [place, at] of Object.entries({
                prose: "article .brush", code: ".pane [data-brush]", cell: ".drawing [data-brush]",
              })) for (const one of document.querySelectorAll(at)) {
                if (!one.classList.contains("lit") || one.getClientRects().length === 0) continue;
                const now = getComputedStyle(one);
                const marked = now.boxShadow !== "none" || now.outlineStyle !== "none";
                found[place] = (found[place] ?? true) && marked;
              }
              return found;
            }"""
        )
    )


def everywhere(page: Any, name: str) -> None:
    others = page.locator(f".lit:not([data-brush='{name}'])")
    assert lit(page) == {"prose": True, "code": True, "cell": True}
    assert others.count() == 0


@pytest.mark.parametrize(
    ("slug", "name"), [("attention", "scores"), ("feed-forward", "hidden"), ("loss", "probs")]
)
def test_pointing_at_one_lights_the_other_two(visit: Visit, slug: str, name: str) -> None:
    visit.hold_python()
    page = visit.open_walk(slug)
    awaken(page)
    word = page.locator(f"article .brush[data-brush='{name}']").first
    code = page.locator(f".pane [data-brush='{name}']").first
    cell = page.locator(f".drawing [data-brush='{name}']").first
    for place in (word, code, cell):
        place.scroll_into_view_if_needed()
        place.hover()
        everywhere(page, name)
        page.mouse.move(2, 2)
        assert lit(page) == {}
    word.focus()
    everywhere(page, name)
    page.keyboard.press("Escape")
    assert lit(page) == {}
    word.focus()
    word.evaluate("e => e.blur()")
    assert lit(page) == {}


def test_a_cell_that_has_the_focus_lights_its_name(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("attention")
    awaken(page)
    figure(page, "matrix").locator("td[tabindex='0']").focus()
    everywhere(page, "scores")
    page.keyboard.press("Tab")
    assert "prose" not in lit(page)


def test_adams_v_is_not_the_value(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("adam")
    awaken(page)
    page.locator("article .brush[data-brush='adam.v']").first.hover()
    everywhere(page, "adam.v")
    rows = page.locator(".pane [data-line]:has(.lit)").evaluate_all(
        "a => a.map((r) => +r.dataset.line)"
    )
    spans = {f.name: range(f.first, f.last + 1) for f in file.functions(file.ORIGINAL)}
    assert rows and all(row in spans["adam"] or row in spans["train"] for row in rows)


# ---- Progress ----


def met(page: Any) -> int:
    text = page.locator(".pane [data-met]").text_content()
    return int(NUMBER.findall(text)[0])


def test_progress_is_kept_exported_forgotten_and_taken_from_a_file(
    visit: Visit, tmp_path: Path
) -> None:
    visit.hold_python()
    page = visit.open_walk("tokens")
    for _ in CHAPTERS[1].steps[1:]:
        page.keyboard.press("ArrowRight")
    lines = {line for step in CHAPTERS[1].steps for line in step.lines}
    assert met(page) == len(lines)
    page.reload()
    expect(page.locator(".pane .met[data-line]")).to_have_count(len(lines))
    page = visit.open_walk("index")
    chapter = page.locator("[data-chapter=tokens] [data-done]")
    expect(chapter).to_have_text("all steps seen")
    count = sum(bool(row.strip()) for row in file.ORIGINAL.split("\n"))
    expect(page.locator(".file [data-met]")).to_have_text(
        f"You have met {len(lines)} of {count} lines."
    )
    expect(page.locator(".minimap .met")).to_have_count(len(lines))

    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a file").click()
    mine = tmp_path / "mine.json"
    download.value.save_as(mine)
    steps = json.loads(mine.read_text(encoding="utf-8"))["steps"]
    assert {line for lines in steps["tokens"].values() for line in lines} == lines

    page.get_by_role("button", name="Forget it").click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(chapter).to_have_text("all steps seen")
    page.get_by_role("button", name="Forget it").click()
    page.get_by_role("button", name="Yes, forget it all").click()
    expect(chapter).to_have_text("")
    assert page.evaluate("JSON.parse(localStorage.walk).steps") == {}
    expect(page.get_by_role("button", name="Save as a file")).to_be_disabled()

    page.locator("input[type=file]").set_input_files(mine)
    expect(page.get_by_role("status").last).to_have_text("Taken over.")
    expect(chapter).to_have_text("all steps seen")
    page.reload()
    expect(chapter).to_have_text("all steps seen")


BAD = {
    "no JSON": "<script>window.pwned = 1</script>",
    "another version": '{"version": 2, "steps": {}}',
    "a list": "[1, 2, 3]",
    "nothing": "",
    "null": "null",
    "deep": "[" * 200_000,
    "long": '{"version": 1, "guesses": {"a": "' + "x" * 1_100_000 + '"}}',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_file_that_is_no_progress_is_refused_in_words(visit: Visit, text: str) -> None:
    visit.hold_python()
    page = visit.open_walk("index")
    page.evaluate("localStorage.walk = JSON.stringify({version: 1, steps: {tokens: {a: []}}})")
    page.reload()
    bad = {"name": "x.json", "mimeType": "application/json", "buffer": text.encode()}
    page.locator("input[type=file]").set_input_files(bad)
    expect(page.get_by_role("status").last).to_contain_text("is not the progress of a walk")
    assert "tokens" in page.evaluate("JSON.parse(localStorage.walk).steps")
    assert page.evaluate("window.pwned") is None


def test_a_hostile_progress_does_no_harm(visit: Visit) -> None:
    """What can be believed is taken, and the rest is left: whatever stands in it, pages work."""
    keys = [f"{c.slug}-{id}" for c in CHAPTERS for id in data(c.slug)["predictions"]]
    odd: list[Any] = [1e9, -1, "<img src=x onerror='window.pwned=1'>", [], [1, "x"], {"a": 1}]
    hostile = {
        "version": 1, "file": "another", "exercises": {"sgd": "yes", "mend-gradient": True},
        "steps": {"__proto__": {"x": [1]}, "tokens": {"a": [1e9, "1", None, -4], "b": 3}, "c": 7},
        "guesses": {key: odd[i % len(odd)] for i, key in enumerate(keys)},
    }  # fmt: skip
    visit.hold_python()
    page = visit.open_walk("index")
    body = json.dumps(hostile).encode()
    page.locator("input[type=file]").set_input_files(
        {"name": "x.json", "mimeType": "application/json", "buffer": body}
    )
    expect(page.get_by_role("status").last).to_have_text("Taken over.")
    assert page.evaluate("({}).x") is None
    for chapter in GUESSED:
        page = visit.open_walk(chapter.slug)
        awaken(page)
        assert page.locator(".problem:visible").count() == 0
        assert page.locator(".alive img").count() == 0
        for one in page.locator(".ask:has(form) .alive").all():
            assert "undefined" not in one.inner_text() and "NaN" not in one.inner_text()
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("store", ["localStorage", "sessionStorage"])
def test_a_browser_that_keeps_nothing_walks_all_the_same(visit: Visit, store: str) -> None:
    visit.page.add_init_script(
        f"Object.defineProperty(window, '{store}',"
        " { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    visit.hold_python()
    page = visit.open_walk("tokens")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert current(page)["now"] == ["one-mark-for-both-ends"]
    one = page.locator(".ask:has(form) .alive")
    one.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    one.get_by_role("button", name="This is my guess").click()
    (truth,) = (p["truth"] for p in data("tokens")["predictions"].values())
    expect(one.locator(".told")).to_contain_text(f"It is {truth} ")
    write(page, "emma")
    page.get_by_role("button", name="Theme").click()
    page = visit.open_walk("index")
    expect(page.get_by_role("heading", level=1)).to_have_text("The walk")


# ---- Motion, screens, paper ----


def test_next_moves_for_less_than_400_ms_and_then_rests(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("attention")
    page.wait_for_timeout(300)
    times = page.evaluate(
        """async () => {
          const places = [[performance.now(), scrollY]];
          const begun = places[0][0];
          document.querySelector("[data-go=next]").click();
          while (performance.now() - begun < 900) {
            await new Promise(requestAnimationFrame);
            if (scrollY !== places.at(-1)[1]) places.push([performance.now() - begun, scrollY]);
          }
          return places.slice(1);
        }"""
    )
    assert len(times) > 2, "it did not move, or it jumped"
    assert times[-1][0] < 400 + 50  # and a frame of a busy machine
    heights = [y for _, y in times]
    assert heights == sorted(heights)


def test_calm_is_calm(visitor: Open) -> None:
    with visitor(reduced_motion="reduce") as visit:
        visit.hold_python()
        page = visit.open_walk("attention")
        awaken(page)
        restless = page.evaluate(
            """() => [...document.querySelectorAll("*")].flatMap((one) => {
              const { transitionDuration: t, animationDuration: a, scrollBehavior: s }
                = getComputedStyle(one);
              const long = [...t.split(","), ...a.split(",")].some((x) => parseFloat(x) > 0.01);
              return long || s === "smooth" ? [one.className || one.tagName] : [];
            })"""
        )
        assert restless == []
        before, after = page.evaluate(
            """() => {
              const before = scrollY;
              document.querySelector("[data-go=next]").click();
              return [before, scrollY];
            }"""
        )
        assert after > before  # at once


OVERFLOW = """() => {
  const wide = document.documentElement.clientWidth;
  const scrolls = (one) => {
    for (let up = one.parentElement; up && up !== document.body; up = up.parentElement) {
      const { overflowX } = getComputedStyle(up);
      if (overflowX === "auto" || overflowX === "scroll") return true;
      if (up instanceof SVGSVGElement) return true;
    }
    return false;
  };
  const out = [...document.querySelectorAll("body *")].filter((one) => {
    const box = one.getBoundingClientRect();
    return one.checkVisibility() && box.width > 1 && box.right > wide + 1 && !scrolls(one);
  });
  const page = document.documentElement.scrollWidth > wide ? ["the page itself"] : [];
  return [...page, ...out.slice(0, 4).map((one) => one.className?.baseVal ?? one.className)];
}"""


def audit(page: Any, only: list[str] | None = None) -> list[str]:
    found = page.evaluate(
        "(only) => axe.run(document,"
        " { resultTypes: ['violations'], ...(only ? { runOnly: only } : {}) })"
        ".then((r) => r.violations.map("
        "(v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(' | ')}`))",
        only,
    )
    return list(found)


COLOURS = ["color-contrast", "link-in-text-block"]  # what differs between light and dark


@every_chapter
def test_a_chapter_fits_every_screen_and_every_reader(visitor: Open, chapter: Chapter) -> None:
    """No screen scrolls sideways; axe finds nothing, wide or narrow, light or dark."""
    with visitor(reduced_motion="reduce") as visit:
        visit.hold_python()
        page = visit.open_walk(chapter.slug, "?text=abcdefghijklmnop")
        awaken(page)
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        found: dict[str, list[str]] = {}
        for width in (1920, 1280, 768, 360):
            page.set_viewport_size({"width": width, "height": 740})
            found[f"{width} pixels"] = page.evaluate(OVERFLOW)
            if width not in (1280, 360):
                continue
            found[f"light, {width}"] = audit(page)
            page.emulate_media(color_scheme="dark")
            found[f"dark, {width}"] = audit(page, COLOURS)
            page.emulate_media(color_scheme="light")
        assert {what: all_ for what, all_ in found.items() if all_} == {}


@pytest.mark.parametrize("name", ["index", "glossary", "references", "made"])
def test_the_other_pages_fit_too(visitor: Open, name: str) -> None:
    with visitor(reduced_motion="reduce") as visit:
        page = visit.open_walk(name)
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        for width in (1920, 1280, 768, 360):
            page.set_viewport_size({"width": width, "height": 740})
            assert page.evaluate(OVERFLOW) == [], width
            page.locator("details.chapters > summary").click()
            expect(page.get_by_role("navigation", name="Chapters")).to_be_visible()
            assert page.evaluate(OVERFLOW) == [], f"the chapters at {width}"
            page.keyboard.press("Escape")
            if width in (1280, 360):
                assert audit(page) == [], width
                page.emulate_media(color_scheme="dark")
                assert audit(page, COLOURS) == [], width
                page.emulate_media(color_scheme="light")


def test_axe_finds_nothing_once_the_reader_has_been_at_work(visitor: Open) -> None:
    """With a cell open, an exercise judged, guesses laid, a note shown."""
    with visitor(reduced_motion="reduce") as visit:
        page = visit.open_walk("attention")
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        one = exercise(page, "uniform-attention")
        one.get_by_role("button", name="Edit the program").click()
        visit.live()
        one.get_by_role("button", name="Check").click()
        expect(one.locator(".results")).to_be_visible()
        for _ in range(3):
            one.get_by_role("button", name=re.compile("hint$")).click()
        one.get_by_role("button", name="Show one solution").click()
        guess = page.locator(".ask:has(form) .alive").first
        guess.scroll_into_view_if_needed()
        guess.get_by_role("radio").first.check()
        guess.get_by_role("button", name="This is my guess").click()
        figure(page, "matrix").locator("tbody td").nth(7).click()
        expect(page.locator(".cellwalk .big")).to_be_visible()
        page.locator("a.reference").first.focus()
        expect(page.locator("#note")).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert audit(page) == [], scheme


def test_on_paper_all_is_open_and_nothing_is_a_control(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("loss")
    awaken(page)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for hidden in (".step-bar", ".reader", "[data-act=theme]", ".alive", ".pane"):
        expect(page.locator(hidden).first).to_be_hidden()
    folds = page.locator("main .ask details, main .drawing details")
    assert folds.count() > 3
    for fold in folds.all():
        assert fold.evaluate("e => e.open")
    for plain in page.locator(".ask .plain").all():
        expect(plain).to_be_visible()
    for one in page.locator("section.step > .excerpt .listing").all():
        expect(one).to_be_visible()
    assert page.evaluate(OVERFLOW) == []
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.locator("main details[open]").count() == 0


@every_chapter
def test_a_chapter_is_light_before_python(visit: Visit, chapter: Chapter) -> None:
    """Every file that it asks for, compressed as a static host does: 150 kB at most."""
    asked: set[str] = set()
    visit.page.on("request", lambda request: asked.add(request.url))
    visit.hold_python()
    page = visit.open_walk(chapter.slug)
    awaken(page)
    sizes = {}
    for url in asked:
        name = url.removeprefix(visit.address).partition("?")[0]
        if name.startswith("assets/python-") or name == "trained.safetensors":
            continue
        body = (BUILT / name).read_bytes()
        sizes[name] = len(body if name.endswith(".gz") else gzip.compress(body, 6))
    assert any(name.endswith(".css") for name in sizes)
    assert any(name.startswith("walk/data/") for name in sizes)
    assert sum(sizes.values()) <= 150 * KB, sorted(sizes.items(), key=lambda one: -one[1])


# ---- Notes, and what a stranger puts into the address ----


def test_a_definition_comes_when_it_is_wanted(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("embeddings")
    term, note = page.locator("a.term").first, page.locator("#note")
    note.wait_for(state="attached")
    entry = data("embeddings")["notes"][term.get_attribute("href")]
    parse = "html => new DOMParser().parseFromString(html, 'text/html').body.textContent"
    meant = flat(page.evaluate(parse, entry))
    assert len(meant.split()) > 5
    term.scroll_into_view_if_needed()
    term.hover()
    expect(note).to_be_visible()
    assert flat(note.text_content()) == meant
    expect(term).to_have_attribute("aria-describedby", "note")
    note.hover()  # the pointer may go to it
    page.wait_for_timeout(300)
    expect(note).to_be_visible()
    page.mouse.move(2, 2)
    expect(note).to_be_hidden()
    term.focus()
    expect(note).to_be_visible()
    page.keyboard.press("Escape")
    expect(note).to_be_hidden()
    expect(term).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    expect(note).to_be_visible()
    box = note.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 1280
    page.keyboard.press("Enter")
    page.wait_for_url("**/walk/glossary.html#*")
    assert page.locator(":target dt").count() == 1


def test_a_tap_shows_a_definition_and_the_next_leads_there(visitor: Open) -> None:
    with visitor(viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        visit.hold_python()
        page = visit.open_walk("embeddings")
        term, note = page.locator("a.term").first, page.locator("#note")
        note.wait_for(state="attached")
        term.tap()
        expect(note).to_be_visible()
        box = note.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
        assert "embeddings.html" in page.url
        term.tap()
        page.wait_for_url("**/walk/glossary.html#*")


def test_a_definition_is_a_link_without_scripts(visitor: Open) -> None:
    with visitor(java_script_enabled=False) as visit:
        page = visit.page
        page.goto(f"{visit.address}walk/embeddings.html")
        term = page.locator("a.term").first
        where = term.get_attribute("href").partition("#")[2]
        term.click()
        page.wait_for_url("**/walk/glossary.html#*")
        expect(page.locator(f"[id='{where}'] dd").first).to_be_visible()


STRANGE = {
    "a script": "<img src=x onerror=window.pwned=1>",
    "long": "a" * 10_000,
    "too long for the model": "abcdefghijklmnopqrstuvwxyz",
    "capitals": "Anna",
    "marks": "a\u0301\u202e\u200b\ud83d\ude00\x00",
    "lines": "an\nna",
    "quotes": "\"'`${x}",
    "nothing": "",
}


@pytest.mark.parametrize(
    ("slug", "text"),
    [
        *(pytest.param("attention", text, id=name) for name, text in STRANGE.items()),
        pytest.param("tokens", STRANGE["a script"], id="a script, as tokens"),
        pytest.param("tokens", STRANGE["marks"], id="marks, as tokens"),
    ],
)
def test_a_strange_text_in_the_address_is_told_in_words(visit: Visit, slug: str, text: str) -> None:
    from urllib.parse import quote

    raw = text.encode("utf-16", "surrogatepass").decode("utf-16")
    page = visit.open_walk(slug, f"?text={quote(raw)}")
    drawn = figure(page, slug)
    visit.live()
    expect(drawn.locator("[data-standing=asking]")).to_have_count(0)
    own = page.locator("#own-text")
    assert len(own.input_value()) <= 40
    known = models().first.vocab[1:]
    fits = own.input_value() == raw and all(char in known for char in raw) and len(raw) < 16
    problem = drawn.locator(".problem")
    if fits:
        expect(problem).to_have_count(0)
        standing(drawn)
    elif all(char in known for char in own.input_value()):
        expect(drawn.locator(".problem, .standing").first).not_to_be_empty()
    else:
        expect(problem.first).to_contain_text("not in the vocabulary")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img").count() == 0
    own.fill("emma")
    standing(drawn)
    expect(problem).to_have_count(0)
    assert page.url.partition("text=")[2].partition("#")[0] == "emma"


def test_home_leads_to_the_first_step(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("attention", "#mix-what-was-said")
    page.locator("#mix-what-was-said-title").click()
    page.keyboard.press("Home")
    # What comes alive above on the way may grow: the browser then ends that much below the top.
    page.wait_for_function("() => scrollY < innerHeight / 4")
    expect(page.locator("[data-where]")).to_have_text(re.compile("^Step 1 of"))


def test_lines_that_are_pointed_at_out_of_view_are_told(visitor: Open) -> None:
    with visitor(reduced_motion="reduce") as visit:
        visit.hold_python()
        page = visit.open_walk("attention")
        page.locator(".pane-scroll").evaluate("(pane) => (pane.scrollTop = 0)")
        page.locator(".chapter-head span.brush[data-brush=x]").hover()  # in view: nothing scrolls
        first = page.locator("aside.pane [data-line]:has(.lit)").first.get_attribute("data-line")
        told = page.locator("[data-elsewhere]")
        expect(told).to_contain_text(str(first))
        page.keyboard.press("Escape")
        expect(told).to_have_text("")


def test_the_workbench_opens_on_the_readers_text(visit: Visit) -> None:
    page = visit.open_walk("attention", "?text=emma")
    page.get_by_role("link", name="workbench").click()
    page.locator(".cm-content").wait_for(state="attached")
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value("emma")


def test_keys_are_the_readers_own_where_they_write(visit: Visit) -> None:
    """An arrow in a field moves in the field; n and p are letters until they are wished for."""
    visit.hold_python()
    page = visit.open_walk("tokens")
    first = current(page)["now"]
    page.locator("#own-text").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    assert current(page)["now"] == first
    page.locator("h1").click()
    page.keyboard.press("n")
    assert current(page)["now"] == first
    page.locator(".step-bar summary").click()
    page.get_by_role("checkbox").check()
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("n")
    assert current(page)["now"] != first
    page.keyboard.press("p")
    assert current(page)["now"] == first
    page.reload()
    page.locator(".step-bar:not([hidden])").wait_for()
    page.keyboard.press("n")
    assert current(page)["now"] != first


def test_scrolling_and_the_address_move_the_step(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("attention", "#mix-what-was-said")
    assert current(page)["now"] == ["mix-what-was-said"]
    page.mouse.move(400, 400)
    for _ in range(30):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(30)
        if current(page)["now"] != ["mix-what-was-said"]:
            break
    assert current(page)["now"] != ["mix-what-was-said"]
    page.evaluate("location.hash = 'three-questions'")
    expect(page.locator("section.step.now")).to_have_id("three-questions")
