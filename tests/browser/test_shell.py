"""The page's frame: reading, editing, stopping, links, keys, themes, phones, and no eyes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from microgpt import source as file

from .conftest import ROOT, Open, Visit, stop_takes

expect: Any = pytest.importorskip("playwright.sync_api").expect

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
ROOMS = ("X-ray", "Graph", "Train", "Sample")
PHONE = {"width": 360, "height": 740}


def program(page: Any) -> str:
    """The program as the editor holds it, told by the page's address."""
    page.wait_for_timeout(700)  # the address is written at most twice a second
    _, _, fragment = page.url.partition("#")
    return str(file.decode_link(fragment).get("source", file.ORIGINAL))


def edit(page: Any, old: str, new: str) -> None:
    """Replace the one line that holds `old`, as a person would: click into it, select it, type."""
    line = page.locator(".cm-line", has_text=old).first
    if line.count() == 0:
        where = next(f for f in reversed(file.sections(file.ORIGINAL)) if f.first <= at(old))
        page.get_by_role("navigation", name="Sections of the program").get_by_text(
            where.name
        ).click()
    line.click()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+End")
    page.keyboard.insert_text(
        next(x for x in file.ORIGINAL.split("\n") if old in x).strip().replace(old, new)
    )


def at(text: str) -> int:
    """The line of the original that holds a text."""
    return next(n for n, row in enumerate(file.ORIGINAL.split("\n"), 1) if text in row)


def changed(rows: str, by: str) -> str:
    assert rows in file.ORIGINAL
    return file.ORIGINAL.replace(rows, by)


# ---- Before scripts, and before Python ----


def test_the_program_can_be_read_without_scripts(visitor: Open) -> None:
    with visitor(java_script_enabled=False) as visit:
        page = visit.page
        page.goto(visit.address)
        assert page.locator("#source").inner_text().rstrip("\n") == file.ORIGINAL.rstrip("\n")
        expect(page.get_by_text("With scripts allowed, the page runs it")).to_be_visible()


def test_alive_before_python(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open()
    expect(page.locator(".engine .status")).to_contain_text("Recording · Python is loading")
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_text("The original file · 150 lines")).to_be_visible()
    expect(page.get_by_role("tabpanel")).to_contain_text("weights")
    expect(page.locator(".cm-looked")).to_contain_text("weights = softmax(scores + future)")
    page.get_by_role("tab", name="Train").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(
        re.compile(r"Step 1,000 of 1,000: loss \d\.\d\d")
    )
    page.get_by_role("tab", name="Sample").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("recorded by the build")


def test_what_is_asked_before_python_runs_when_it_is_there(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open("room=train")
    page.get_by_role("button", name="Watch it slowly").click()
    expect(page.get_by_text("training starts when it is ready")).to_be_visible()
    page.get_by_role("button", name="Raise n_layer").click()
    expect(page.get_by_role("textbox", name="n_layer")).to_have_value("1")
    visit.release_python()
    expect(page.get_by_role("tabpanel")).to_contain_text(
        re.compile(r"Step [1-9][\d,]* of 1,000"), timeout=90_000
    )
    expect(page.get_by_role("textbox", name="n_layer")).to_have_value("2")
    expect(page.get_by_text("7,264 weights")).to_be_visible(timeout=20_000)  # the edit is trained


def test_without_python_the_recording_stays_and_retry_is_offered(visitor: Open) -> None:
    with visitor(expect_trouble=True) as visit:
        visit.page.route("**/pyodide.asm.wasm", lambda route: route.abort())
        page = visit.open()
        expect(page.get_by_role("alert")).to_contain_text(
            "Python could not be downloaded", timeout=90_000
        )
        expect(page.get_by_role("tabpanel")).to_contain_text("weights")
        visit.page.unroute("**/pyodide.asm.wasm")
        page.get_by_role("button", name="Retry").click()
        visit.ready()


# ---- Editing ----


def test_a_knob_edits_the_file_and_undo_takes_it_back(visit: Visit) -> None:
    page = visit.open()
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text("attention 4")
    page.get_by_role("button", name="Raise n_layer").click()
    expect(page.get_by_text("Edited: 1 line changed")).to_be_visible()
    expect(page.locator(".cm-line", has_text="n_layer=2")).to_be_visible()
    expect(page.get_by_role("tabpanel")).to_contain_text("attention 8", timeout=20_000)
    page.get_by_role("button", name="Show difference").click()
    expect(page.locator(".cm-deletedChunk")).to_contain_text("n_layer=1")
    assert program(page) == changed("n_layer=1", "n_layer=2")
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+z")
    expect(page.get_by_text("The original file · 150 lines")).to_be_visible()
    expect(page.get_by_role("textbox", name="n_layer")).to_have_value("1")
    expect(page.get_by_role("tabpanel")).not_to_contain_text("attention 5", timeout=20_000)


def test_a_typed_number_that_cannot_be_is_refused_in_words(visit: Visit) -> None:
    page = visit.open()
    visit.ready()
    box = page.get_by_role("textbox", name="n_layer")
    box.fill("2.5")
    box.press("Enter")
    expect(page.get_by_text("n_layer must be a whole number, not 2.5").first).to_be_visible()
    expect(box).to_have_value("1")
    assert program(page) == file.ORIGINAL


def test_an_edited_operation_is_followed_by_the_values(visit: Visit) -> None:
    page = visit.open()
    visit.ready()
    edit(page, "hidden = (x @ fc).relu()", "hidden = (x @ fc) ** 2")
    expect(page.get_by_text("Edited: 1 line changed")).to_be_visible()
    page.keyboard.press("Alt+Enter")  # shows the values of the line
    expect(page.get_by_role("tabpanel")).to_contain_text("line 108", timeout=20_000)
    expect(page.get_by_role("tabpanel")).to_contain_text("raised to a power", timeout=20_000)
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_text("The original file · 150 lines")).to_be_visible()
    assert program(page) == file.ORIGINAL


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("return hidden @ proj", "return hidden @ (proj", 109, "never closed"),
        ("return hidden @ proj", "return hidden @ hidden", 109, "shapes do not fit"),
        ("return hidden @ proj", "return hiden @ proj", 109, "hiden"),
        ("return hidden @ proj", "return 1 / 0", 109, "divided by zero"),
    ],
)
def test_what_is_wrong_is_said_at_its_line(
    visit: Visit, old: str, new: str, line: int, words: str
) -> None:
    page = visit.open()
    visit.ready()
    edit(page, old, new)
    problems = page.get_by_role("list", name="Problems")
    expect(problems).to_contain_text(words, timeout=20_000)
    expect(page.locator(".cm-lint-marker-error")).to_have_count(1)
    problems.get_by_role("button", name=f"Line {line}").click()
    expect(page.locator(".cm-activeLine")).to_contain_text(new)


def test_an_endless_loop_is_stopped_and_the_edit_is_kept(visit: Visit) -> None:
    page = visit.open()
    visit.ready()
    edit(page, "hidden = (x @ fc).relu()", "while True: pass #")
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.click(timeout=20_000)
    started = time.monotonic()
    expect(
        page.get_by_text("Stopped. The edit is still here; it did not finish within").first
    ).to_be_visible()
    assert time.monotonic() - started < stop_takes()
    visit.ready()
    assert "while True: pass" in program(page)
    expect(page.get_by_text("It has not run again.")).to_be_visible()
    page.wait_for_timeout(1500)
    expect(page.locator(".engine .status")).to_contain_text("ready")  # nothing ran the loop again
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_role("tabpanel")).not_to_contain_text(
        "last version that ran", timeout=20_000
    )


def test_ones_own_edit_is_still_there_when_the_page_is_loaded_again(visit: Visit) -> None:
    page = visit.open()
    visit.ready()
    change = "hidden = (x @ fc).relu()", "hidden = (x @ fc) ** 2"
    edit(page, *change)
    mine = file.ORIGINAL.replace(*change)
    for _ in range(2):  # at once, when the address does not say it yet; and after it does
        page.reload()
        page.locator(".cm-content").wait_for()
        expect(page.get_by_text("Edited: 1 line changed")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page).to_have_url(re.compile("edit="))
        assert program(page) == mine
    address = page.url
    stranger = page.context.new_page()  # the same address in another tab was written by anybody
    stranger.goto(address)
    expect(stranger.get_by_role("dialog")).to_be_visible()


def test_a_loop_without_end_does_not_run_again_by_loading_the_page_again(visit: Visit) -> None:
    page = visit.open()
    visit.ready()
    edit(page, "hidden = (x @ fc).relu()", "while True: pass #")
    page.get_by_role("button", name="Stop", exact=True).click(timeout=20_000)
    visit.ready()
    assert "while True: pass" in program(page)
    page.reload()
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.mark.parametrize(
    ("loop", "trained"),
    [("while True: pass #", False), ("while train.__doc__: pass #", True)],
    ids=["from the first sample", "from the first after a step"],
)
def test_an_endless_loop_that_only_sampling_meets_is_stopped_as_soon(
    visit: Visit, loop: str, trained: bool
) -> None:
    """Training goes well, and the samples that the page draws as it learns never end: those before
    the first step, or only those after it, when Stop is more patient with a run that it knows."""
    page = visit.open("room=train")
    visit.ready()
    edit(page, "yield total", 'train.__doc__ = "it has trained"; yield total')
    edit(page, "logits = gpt(encode(text, vocab)[:-1]", loop)
    visit.ready()
    room = page.get_by_role("tabpanel")
    page.get_by_role("button", name="Watch it slowly").click()
    if trained:
        expect(room).to_contain_text(re.compile(r"Step [1-9]\d* of 1,000"), timeout=30_000)
    # Not what came before: on a slow machine that may take long too, and ends.
    slow = "The drawing of a few samples has been running for"
    expect(page.get_by_text(slow).first).to_be_visible(timeout=30_000)
    started = time.monotonic()
    page.get_by_role("button", name="Stop it").first.click()
    told = re.compile(r"Stopped\. .+ did not finish within")
    expect(page.get_by_text(told).first).to_be_visible(timeout=20_000)
    assert time.monotonic() - started < stop_takes()
    assert loop in program(page)


def test_what_was_to_come_after_a_stop_does_not_come(visit: Visit) -> None:
    """Measuring is slow and ends; the samples that are to follow it would not."""
    page = visit.open("room=train")
    visit.ready()
    edit(page, "tokens = wte[ids]", '__import__("time").sleep(0.04); tokens = wte[ids]')
    edit(page, "logits = gpt(encode(text, vocab)[:-1]", "while True: pass #")
    visit.ready()
    page.get_by_role("button", name="Watch it slowly").click()
    slow = page.get_by_text("has been running for")
    measuring = page.get_by_text("The measuring of the held-out loss has been running for")
    expect(measuring.first).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Stop it").first.click()
    expect(slow).to_have_count(0, timeout=20_000)
    page.wait_for_timeout(3_000)
    expect(slow).to_have_count(0)


# ---- Training and sampling ----


def steps(page: Any) -> int:
    text = page.get_by_role("tabpanel").inner_text()
    found = re.search(r"Step ([\d,]+) of ([\d,]+)", text)
    assert found, text
    return int(found[1].replace(",", ""))


def test_training_starts_pauses_steps_and_starts_over(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    room = page.get_by_role("tabpanel")
    page.get_by_role("button", name="Watch it slowly").click()
    expect(room).to_contain_text(re.compile(r"Step ([1-9]\d) of 1,000"), timeout=30_000)
    page.get_by_role("button", name="Pause").click()
    visit.ready()
    page.wait_for_timeout(500)
    here = steps(page)
    page.get_by_role("button", name="One step").click()
    expect(room).to_contain_text(f"Step {here + 1} of 1,000")
    page.get_by_role("button", name="Continue").click()
    expect(room).not_to_contain_text(f"Step {here + 1} of 1,000", timeout=20_000)
    room.get_by_role("button", name="Stop").click()
    visit.ready()
    assert steps(page) > here + 1  # the curve stays
    page.get_by_role("button", name="Start over").click()
    expect(room).to_contain_text("Nothing is trained yet")


def test_the_page_trains_as_python_does(visit: Visit) -> None:
    """The same file, data and seed: the first losses here are those of the run in this process."""
    from microgpt.run import Run

    run = Run(seed=7)
    mine = [run.advance() for _ in range(3)]
    page = visit.open("room=train&seed=7")
    visit.ready()
    for loss in mine:
        page.get_by_role("button", name="One step").click()
        expect(page.get_by_role("tabpanel")).to_contain_text(f"this step {loss:.4f}")


def test_samples_are_drawn_from_the_trained_model(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    page.get_by_role("button", name="One step").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Step 1 of 1,000", timeout=20_000)
    page.get_by_role("tab", name="Sample").click()
    page.get_by_role("button", name="Whole", exact=False).first.click()
    expect(page.get_by_role("tabpanel")).to_contain_text("so far", timeout=20_000)
    page.get_by_role("textbox", name="Begins with").fill("ann")
    page.get_by_role("button", name="Next character").click()
    expect(page.locator(".given .under", has_text="given")).to_have_count(3)


def test_an_edit_ends_the_pause_and_is_what_trains_next(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    page.get_by_role("checkbox", name="Train as I edit").uncheck()
    page.get_by_role("button", name="One step").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Step 1 of 1,000", timeout=20_000)
    page.get_by_role("textbox", name="steps").fill("500")
    page.get_by_role("textbox", name="steps").press("Enter")
    expect(page.get_by_text("This run was of another version of the program")).to_be_visible()
    page.get_by_role("button", name="One step").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Step 1 of 500", timeout=20_000)
    expect(page.get_by_text("This run was of another version of the program")).to_have_count(0)


# ---- Links ----


def test_a_link_of_the_page_is_read_by_python(visitor: Open) -> None:
    with visitor(permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open()
        visit.ready()
        page.get_by_role("textbox", name="Text", exact=True).fill("zoë & co")
        page.get_by_role("button", name="Raise n_head").click()
        expect(page.get_by_text("Edited: 1 line changed")).to_be_visible()
        page.get_by_role("tab", name="Graph").click()
        page.get_by_role("button", name="Copy link").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        state = file.decode_link(page.evaluate("navigator.clipboard.readText()"))
        assert state["text"] == "zoë & co"
        assert state["seed"] == 42
        assert state["room"] == "graph"
        assert state["source"] == changed("n_head=4", "n_head=8")


def test_a_link_of_python_is_read_by_the_page(visit: Visit) -> None:
    link = file.encode_link({"text": "maria", "seed": 7, "room": "sample", "temperature": 0.5})
    page = visit.open(link)
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value("maria")
    expect(page.get_by_role("textbox", name="seed")).to_have_value("7")
    expect(page.get_by_role("tab", name="Sample")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("textbox", name="Temperature as a number")).to_have_value("0.5")


EDITED = changed("n_layer=1", "n_layer=2").replace(
    "return hidden @ proj", "return hidden @ proj * 2"
)


def test_an_edit_by_link_waits_for_a_yes(visit: Visit) -> None:
    trap = f"while True: pass\n{EDITED}"
    page = visit.open(file.encode_link({"source": trap}))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This link carries an edit of 3 lines. It has not been run.")
    expect(dialog).to_contain_text("+added:while True: pass")
    visit.ready()
    page.wait_for_timeout(1500)
    expect(page.locator(".engine .status")).to_contain_text("ready")  # the trap has not sprung
    dialog.get_by_role("button", name="Keep the original").click()
    expect(dialog).to_have_count(0)
    assert program(page) == file.ORIGINAL


def test_an_edit_by_link_runs_after_a_yes(visit: Visit) -> None:
    page = visit.open(file.encode_link({"source": EDITED}))
    page.get_by_role("button", name="Use this edit").click()
    visit.ready()
    expect(page.get_by_text("Edited: 2 lines changed")).to_be_visible()
    expect(page.get_by_role("tabpanel")).to_contain_text("attention 8", timeout=20_000)
    assert program(page) == EDITED


@pytest.mark.parametrize(
    "source",
    [
        file.ORIGINAL.split("\n", 1)[1],
        file.ORIGINAL.rstrip("\n"),
        file.ORIGINAL + "# one\n\n# two",
        "\n".join(file.ORIGINAL.split("\n")[::2]),
        "# new\n" + file.ORIGINAL.replace("x", "y"),
        "",
    ],
    ids=["first line gone", "last end gone", "lines below", "every other line", "many", "nothing"],
)
def test_the_editor_takes_any_edit_exactly(visit: Visit, source: str) -> None:
    visit.hold_python()
    page = visit.open(file.encode_link({"source": source}))
    page.get_by_role("button", name="Use this edit").click()
    assert program(page) == source
    page.get_by_role("button", name="Undo all").click()
    assert program(page) == file.ORIGINAL


PACKED = file.encode_link({"source": EDITED}).rpartition("edit=")[2]


@pytest.mark.parametrize(
    "fragment",
    [
        "%E0%A4%A", "=&=&&&", "text=%00%1b", "seed=-1", "seed=1e99", "temperature=NaN",
        "temperature=1e400", "data=../../etc/passwd", "room=constructor", "__proto__=1", "v=2",
        "edit=%%%", "edit=AAAA", "edit=" + "A" * 15_000, "text=" + "x" * 25_000,
        f"of=00000000&edit={PACKED}", f"edit={PACKED[:-9]}",
    ],
)  # fmt: skip
def test_a_hostile_link_is_left_out_with_one_sentence(visit: Visit, fragment: str) -> None:
    visit.hold_python()
    page = visit.open(fragment)
    expect(page.get_by_text(re.compile(r"left out\.")).first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value("anna")
    expect(page.get_by_text("The original file · 150 lines")).to_be_visible()


def test_a_small_link_cannot_unfold_to_gigabytes(visit: Visit) -> None:
    import base64
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b'[[1,0,["' + b"a" * 12_000_000 + b'"]]]') + packer.flush()
    assert len(packed) < 15_000
    visit.hold_python()
    page = visit.open("edit=" + base64.urlsafe_b64encode(packed).decode().rstrip("="))
    expect(page.get_by_text("damaged").first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_script_in_a_text_is_text(visit: Visit) -> None:
    page = visit.open("text=" + "%3Cimg%20src%3Dx%20onerror%3D%22window.pwned%3D1%22%3E")
    visit.ready()
    expect(page.locator("#text-note")).to_contain_text("is not in the vocabulary", timeout=20_000)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
    page.get_by_role("textbox", name="Text", exact=True).fill("anna")
    expect(page.locator("#text-note")).to_have_text("", timeout=20_000)


# ---- Keys, themes, screens ----


def test_rooms_are_a_list_of_tabs(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open()
    page.get_by_role("tab", name="X-ray").focus()
    for key, name in [
        ("ArrowRight", "Graph"),
        ("End", "Sample"),
        ("ArrowRight", "X-ray"),
        ("ArrowLeft", "Sample"),
    ]:
        page.keyboard.press(key)
        tab = page.get_by_role("tab", name=name)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel")).to_have_attribute(
            "aria-labelledby", tab.get_attribute("id")
        )


def test_escape_leaves_the_editor(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open()
    page.locator(".cm-content").focus()
    page.keyboard.press("Tab")  # indents
    expect(page.locator(".cm-content")).to_be_focused()
    page.keyboard.press("Control+z")
    page.keyboard.press("Escape")
    expect(page.locator(".cm-content")).not_to_be_focused()
    page.keyboard.press("Tab")
    inside = page.evaluate("document.activeElement.closest('.cm-editor') !== null")
    assert not inside
    assert page.evaluate("document.activeElement !== document.body")


def test_help_opens_and_closes_by_key(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open()
    page.get_by_role("textbox", name="Text", exact=True).press("?")
    expect(page.get_by_role("dialog")).to_have_count(
        0
    )  # a question mark in a text is a question mark
    page.get_by_role("tab", name="X-ray").press("?")
    expect(page.get_by_role("dialog")).to_contain_text("What this page is")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("tab", name="X-ray")).to_be_focused()


def test_a_click_beside_a_line_shows_its_values(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open("room=xray")
    page.locator(".cm-lineNumbers .cm-gutterElement", has_text=re.compile(r"^101$")).click()
    expect(page.locator(".cm-looked")).to_contain_text("q, k, v = x @ wq")
    page.locator(".cm-lineNumbers .cm-gutterElement", has_text=re.compile(r"^106$")).click()
    expect(page.get_by_text("Line 106 made no value in this run.").first).to_be_visible()


def background(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark(visitor: Open) -> None:
    with visitor(color_scheme="dark") as visit:
        visit.hold_python()
        page = visit.open()
        assert background(page) == "rgb(21, 22, 26)"
        theme = page.get_by_role("button", name="Theme")
        theme.click()
        assert background(page) == "rgb(251, 250, 247)"
        page.reload()
        page.locator(".cm-content").wait_for()
        assert background(page) == "rgb(251, 250, 247)"
        theme.click()
        theme.click()
        assert background(page) == "rgb(21, 22, 26)"


def test_a_browser_that_stores_nothing(visit: Visit) -> None:
    visit.page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    visit.hold_python()
    page = visit.open()
    page.get_by_role("button", name="Theme").click()
    assert background(page) == "rgb(251, 250, 247)"


@pytest.mark.parametrize("width", [360, 768, 1079, 1080, 1280, 1920])
def test_no_screen_scrolls_sideways(visitor: Open, width: int) -> None:
    with visitor(viewport={"width": width, "height": 740}) as visit:
        visit.hold_python()
        page = visit.open("text=abcdefghijklmnop")
        tabs = page.get_by_role("tab")
        expect(tabs).to_have_count(4 if width >= 1080 else 5)
        for tab in tabs.all():
            tab.click()
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab.inner_text()
            room = page.get_by_role("tabpanel").first
            assert room.evaluate("e => e.scrollWidth - e.clientWidth") <= 0, tab.inner_text()


def test_a_phone_edits_and_follows(visitor: Open) -> None:
    with visitor(viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        page = visit.open()
        visit.ready()
        page.get_by_role("tab", name="Code").tap()
        page.get_by_role("button", name="Raise n_layer").tap()
        expect(page.get_by_text("Edited: 1 line changed")).to_be_visible()
        page.get_by_role("tab", name="X-ray").tap()
        expect(page.get_by_role("tabpanel")).to_contain_text("attention 8", timeout=20_000)


def test_a_phone_is_told_what_a_wide_screen_is_told(visitor: Open) -> None:
    with visitor(viewport=PHONE) as visit:
        visit.hold_python()
        page = visit.open("seed=-1")
        expect(page.get_by_text("The link's seed cannot be used here").first).to_be_visible()
        page.get_by_role("button", name="Close this note").click()
        expect(page.get_by_text("cannot be used here")).to_have_count(0)


# ---- Who cannot see, or not well ----


def audit(page: Any, what: str) -> None:
    found = page.evaluate(
        "() => axe.run(document, { resultTypes: ['violations'] })"
        ".then((r) => r.violations.map("
        "(v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(' | ')}`))"
    )
    assert found == [], what


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(visitor: Open, scheme: str, viewport: dict[str, int]) -> None:
    script = Path(AXE).read_text(encoding="utf-8")
    with visitor(color_scheme=scheme, viewport=viewport, reduced_motion="reduce") as visit:
        page = visit.open()
        page.evaluate(script)
        visit.ready()
        for tab in page.get_by_role("tab").all():
            tab.click()
            page.wait_for_timeout(300)
            audit(page, f"the room {tab.inner_text()}")
        page.get_by_role("button", name="Help").click()
        audit(page, "help")
        page.keyboard.press("Escape")
        page.get_by_role("tab").first.click()
        link = file.encode_link({"source": f"oops(\n{EDITED}"})
        page.evaluate("hash => { location.hash = hash }", link)
        expect(page.get_by_role("dialog")).to_be_visible()
        audit(page, "an edit by link")
        page.get_by_role("button", name="Use this edit").click()
        expect(page.get_by_role("list", name="Problems").first).to_be_attached(timeout=20_000)
        if page.get_by_role("button", name="Show difference").is_visible():
            page.get_by_role("button", name="Show difference").click()
        page.wait_for_timeout(500)
        audit(page, "an edit with a problem")
