"""The workbench trains as one edits: numbers are dragged, the newest wish wins, and it says so."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from microgpt import source as file
from microgpt.run import Run

from .conftest import Open, Visit
from .test_shell import AXE, edit, program

expect: Any = pytest.importorskip("playwright.sync_api").expect

TRAINED = re.compile(r"Trained here, just now, in \d+\.\d+ s: 1,000 steps")
SOON = 20_000  # ms, on a busy machine


def live(page: Any) -> Any:
    """The line that shows everywhere what a change does."""
    return page.locator(".live:visible").first


def held_out(page: Any) -> float:
    found = re.search(r"held-out (\d+\.\d\d)", live(page).inner_text())
    assert found, live(page).inner_text()
    return float(found[1])


def drag(page: Any, target: Any, pixels: int, hold: bool = False) -> None:
    """Press on it, and move sideways in small steps."""
    box = target.bounding_box()
    x, y = box["x"] + min(12, box["width"] / 2), box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 11):
        page.mouse.move(x + pixels * i / 10, y)
        page.wait_for_timeout(20)
    if not hold:
        page.mouse.up()


def knob(page: Any, name: str) -> Any:
    return page.locator(".knobs:visible li", has=page.get_by_text(name, exact=True)).first


def field(page: Any, name: str) -> Any:
    return page.get_by_role("textbox", name=name, exact=True)


# ---- Before Python ----


def test_the_page_trains_before_python_is_there(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open("room=train")
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    run = Run(engine="fast")
    losses = run.advance_by(1000)
    expect(page.get_by_role("tabpanel")).to_contain_text(
        re.compile(rf"Step 1,000 of 1,000: loss {sum(losses[-50:]) / 50:.1f}\d, held-out")
    )
    assert abs(held_out(page) - run.held_out_loss(50)) < 0.02
    expect(page.get_by_text("told when Python is there")).to_be_visible()
    expect(page.get_by_role("list", name="Samples by step")).to_contain_text("step 500")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate("axe.run().then((found) => found.violations.map((v) => v.id))") == []


def test_what_is_dragged_before_python_is_trained_when_it_is_there(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open("room=train")
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    visit.release_python()
    visit.ready()
    expect(page.get_by_role("radio", name="trained, 1,000 steps")).to_be_checked(timeout=SOON)
    expect(page.get_by_text("told when Python is there")).to_have_count(0, timeout=SOON)
    before = held_out(page)
    drag(page, knob(page, "lr"), 160)
    expect(live(page)).to_contain_text(f"before {before:.2f}", timeout=SOON)
    assert field(page, "lr").input_value() == "0.1"


# ---- Dragging a number ----


def test_a_drag_trains_as_it_goes_and_is_one_step_for_undo(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    page.wait_for_timeout(1500)  # the reader rests, and Python takes the run over
    before = held_out(page)
    drag(page, knob(page, "lr"), 200, hold=True)
    expect(live(page)).to_contain_text(f"before {before:.2f}", timeout=SOON)
    assert field(page, "lr").input_value() == "0.18"
    page.mouse.up()
    expect(page.get_by_role("tabpanel")).to_contain_text(
        f"Before the change it ended at {before:.2f}"
    )
    expect(page.get_by_role("img", name=re.compile("Before the change it ended"))).to_be_visible()
    expect(page.get_by_text("the same mean before the change")).to_be_visible()
    expect(page.get_by_text("learning rate 0.18")).to_be_visible(timeout=SOON)
    assert held_out(page) > before
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+z")
    expect(page.get_by_text("The original file · 150 lines")).to_be_visible()
    expect(page.get_by_text("learning rate 0.01")).to_be_visible(timeout=SOON)
    assert abs(held_out(page) - before) < 0.005
    page.keyboard.press("Control+y")
    expect(field(page, "lr")).to_have_value("0.18")


def test_a_click_on_a_number_is_no_drag(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    field(page, "lr").click()
    expect(field(page, "lr")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(field(page, "lr")).to_have_value("0.02")
    expect(page.get_by_text("learning rate 0.02")).to_be_visible(timeout=SOON)


def test_sizes_stay_valid_as_they_are_dragged(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    drag(page, knob(page, "n_embd"), 60)
    expect(field(page, "n_embd")).to_have_value("64")
    expect(page.get_by_text(re.compile(r"5\d,\d\d\d weights"))).to_be_visible(timeout=SOON)
    drag(page, knob(page, "n_head"), 30)
    expect(field(page, "n_head")).to_have_value("8")
    expect(page.get_by_label("Problems")).to_have_count(0)
    drag(page, knob(page, "n_embd"), 80, hold=True)
    expect(field(page, "n_embd")).to_have_value("512")
    expect(page.get_by_text("It is trained when you let go")).to_be_visible(timeout=SOON)
    drag(page, knob(page, "n_embd"), -300)
    page.mouse.up()


def test_every_number_of_the_program_can_be_dragged_in_the_editor(visit: Visit) -> None:
    page = visit.open("room=xray")
    visit.ready()
    line = page.locator(".cm-line", has_text="mean_square +")
    expect(line).to_be_visible()
    page.wait_for_timeout(1500)
    number = line.locator(".cm-number").last
    assert number.evaluate("(node) => getComputedStyle(node).cursor") == "ew-resize"
    drag(page, number, -30, hold=True)
    expect(line).to_contain_text("** -0.09")
    expect(live(page)).to_contain_text("before", timeout=SOON)  # seen in every room
    expect(page.get_by_role("tab", name="X-ray")).to_have_attribute("aria-selected", "true")
    page.get_by_role("tab", name="Graph").dispatch_event("click")  # during the drag
    page.mouse.up()
    expect(page.get_by_text("Edited: 1 line changed")).to_be_visible()
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+z")
    expect(page.get_by_text("The original file · 150 lines")).to_be_visible()
    number.click()
    page.keyboard.press("Control+ArrowUp")
    expect(line).to_contain_text("** -0.6")
    page.keyboard.press("Control+ArrowDown")
    expect(line).to_contain_text("** -0.5")
    page.keyboard.type("7")  # the click has placed the caret in the number
    assert "7" in line.inner_text()


def test_a_finger_drags_a_number(visitor: Open) -> None:
    with visitor(viewport={"width": 360, "height": 740}, has_touch=True) as visit:
        page = visit.open("room=train")
        visit.ready()
        expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
        knob(page, "lr").scroll_into_view_if_needed()
        box = knob(page, "lr").bounding_box()
        x, y = box["x"] + 12, box["y"] + box["height"] / 2
        touch = page.context.new_cdp_session(page)
        for i in range(11):
            kind = "touchMove" if i else "touchStart"
            points = [{"x": x + 16 * i, "y": y}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            page.wait_for_timeout(20)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(field(page, "lr")).to_have_value("0.1")
        expect(live(page)).to_contain_text("before", timeout=SOON)


# ---- Training as one edits ----


def test_an_edit_is_trained_and_the_choice_is_remembered(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    page.wait_for_timeout(1200)
    before = held_out(page)
    edit(page, "hidden = (x @ fc).relu()", "hidden = x @ fc")
    expect(live(page)).to_contain_text(f"before {before:.2f}", timeout=SOON)
    trained = page.get_by_role("radio", name="trained, 1,000 steps")
    expect(trained).to_be_checked(timeout=SOON)  # what the x-ray looks through
    page.get_by_role("checkbox", name="Train as I edit").uncheck()
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_text("This run was of another version of the program")).to_be_visible()
    expect(live(page)).to_contain_text("of an earlier version")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_text("This run was of another version of the program")).to_have_count(0)
    assert abs(held_out(page) - before) < 0.005
    field(page, "lr").fill("0.05")
    field(page, "lr").press("Enter")
    expect(live(page)).to_contain_text("of an earlier version")
    page.get_by_role("checkbox", name="Train as I edit").check()
    expect(page.get_by_text("learning rate 0.05")).to_be_visible(timeout=SOON)
    page.get_by_role("checkbox", name="Train as I edit").uncheck()
    page.reload()
    expect(page.get_by_role("checkbox", name="Train as I edit")).not_to_be_checked()


def test_the_newest_wish_wins(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    for _ in range(12):
        page.get_by_role("button", name="Raise seed").click()
    expect(page.get_by_text("falling to 0 · seed 54")).to_be_visible(timeout=SOON)
    found = held_out(page)
    page.wait_for_timeout(1500)
    assert held_out(page) == found
    run = Run(seed=54, engine="fast")
    run.advance_by(1000)
    assert abs(found - run.held_out_loss(50)) < 0.02


def test_other_data_are_trained_at_once(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    page.get_by_role("combobox", name="Learn from").select_option("copy")
    expect(page.get_by_text("3,648 weights")).to_be_visible(timeout=SOON)
    tokens = page.get_by_role("list", name=re.compile("tokens that the model reads"))
    expect(tokens).to_contain_text(">", timeout=SOON)


def test_python_takes_over_what_the_kernel_has_trained(visit: Visit) -> None:
    """The x-ray, the pictures, samples and the next steps are of the very weights."""
    page = visit.open("room=train&seed=7")
    visit.ready()
    expect(page.get_by_text("falling to 0 · seed 7")).to_be_visible(timeout=SOON)
    heading = page.get_by_role("heading", name=re.compile("What each head reads"))
    expect(heading).to_have_text("What each head reads, at step 1,000", timeout=SOON)
    page.get_by_role("button", name="step 300").click()
    expect(heading).to_have_text("What each head reads, at step 300", timeout=SOON)
    page.get_by_role("button", name="Back to the newest").click()
    page.get_by_role("tab", name="Sample").click()
    page.get_by_role("button", name="Whole", exact=False).first.click()
    expect(page.get_by_role("tabpanel")).to_contain_text("so far", timeout=SOON)
    page.get_by_role("tab", name="Train").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Step 1,000 of 1,000")


def test_an_edit_that_the_kernel_cannot_follow_is_trained_by_python(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    edit(page, "def flip(a): return", "def flip(a, b=0): return")
    expect(page.get_by_role("tabpanel")).to_contain_text(
        "This edit is trained by Python itself, which is slower: it changes flip", timeout=SOON
    )
    expect(page.get_by_text("This run was of another version of the program")).to_be_visible()
    page.get_by_role("button", name="Train again").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(
        re.compile(r"Step [1-9]\d* of 1,000"), timeout=SOON
    )
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED, timeout=SOON)


def test_a_run_that_diverges_says_where(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    field(page, "lr").fill("1e30")
    field(page, "lr").press("Enter")
    problem = page.get_by_label("Problems")
    expect(problem).to_contain_text(re.compile(r"The loss became (nan|inf) at step \d"))
    expect(problem).to_contain_text("try a learning rate lower than 1e+30")
    expect(problem).to_contain_text(re.compile(r"Line \d+"))
    field(page, "lr").fill("0.01")
    field(page, "lr").press("Enter")
    expect(page.get_by_label("Problems")).to_have_count(0)
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED, timeout=SOON)


def test_what_does_not_parse_or_never_ends_leaves_the_curve(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    before = held_out(page)
    edit(page, "def mlp(x, fc, proj):", "def mlp(x, fc, proj)")
    expect(page.get_by_label("Problems")).to_be_visible()
    assert held_out(page) == before
    page.get_by_role("button", name="Undo all").click()
    edit(page, "def mlp(x, fc, proj):", "while True: pass\ndef mlp(x, fc, proj):")
    expect(page.get_by_text("has been running for").first).to_be_visible(timeout=SOON)
    started = time.monotonic()
    page.get_by_role("button", name="Stop it").first.click()
    expect(
        page.get_by_text(re.compile(r"Stopped\. .+ did not finish within")).first
    ).to_be_visible()
    assert time.monotonic() - started < 3
    visit.ready()
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED, timeout=SOON)
    assert program(page) == file.ORIGINAL


def test_watching_it_slowly_can_be_paused_and_is_left_for_an_edit(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    page.get_by_role("button", name="Watch it slowly").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(
        re.compile(r"Step [1-9]\d? of 1,000"), timeout=SOON
    )
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Continue")).to_be_focused()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Raise seed").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED, timeout=SOON)
    expect(page.get_by_text("falling to 0 · seed 43")).to_be_visible()


def test_an_edit_is_compared_with_the_original_over_eight_seeds(visit: Visit) -> None:
    page = visit.open("room=train")
    visit.ready()
    expect(page.get_by_role("tabpanel")).to_contain_text(TRAINED)
    compare = page.get_by_role("button", name="Compare with the original over eight seeds")
    expect(compare).to_have_count(0)  # there is nothing to compare
    edit(page, "return norm(x) @ lm_head", "return norm(x) @ lm_head * 0.01")
    expect(live(page)).to_contain_text("before", timeout=SOON)
    compare.click()
    expect(page.get_by_text("This program is worse.")).to_be_visible(timeout=SOON)
    page.get_by_text("Each seed").click()
    rows = page.locator(".compared tbody tr")
    expect(rows).to_have_count(8)
    run = Run(seed=49, engine="fast")
    run.advance_by(1000)
    theirs = float(rows.last.locator("td").last.inner_text())
    assert abs(theirs - run.held_out_loss(50)) < 0.02
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate("axe.run().then((found) => found.violations.map((v) => v.id))") == []
    page.get_by_role("button", name="Raise seed").click()
    expect(page.get_by_text("This program is worse.")).to_have_count(0)
    compare.click()
    page.get_by_role("button", name="Stop comparing").click()
    expect(compare).to_be_visible()


def test_without_the_kernel_the_page_trains_with_python(visitor: Open) -> None:
    with visitor(expect_trouble=True) as visit:
        visit.page.route("**/kernel-*.wasm", lambda route: route.abort())
        page = visit.open("room=train")
        expect(page.get_by_role("tabpanel")).to_contain_text("Step 1,000 of 1,000")  # recorded
        visit.ready()
        expect(page.get_by_role("checkbox", name="Train as I edit")).to_be_disabled()
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("tabpanel")).to_contain_text(
            re.compile(r"Step [1-9]\d* of 1,000"), timeout=SOON
        )
        expect(page.get_by_role("tabpanel")).to_contain_text(
            "The fast engine could not be loaded; Python does the training."
        )
