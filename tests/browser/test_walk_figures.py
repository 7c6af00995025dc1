"""The figures of the walk in a browser, held to Python; exercises right and wrong; guesses."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from test_exercises import RIGHT, WRONG, edited

from microgpt import source as file
from microgpt.lessons import exercises

from .conftest import Open, Visit, stop_takes
from .walk import (
    CHAPTERS,
    DASH,
    GUESSED,
    NUMBER,
    Chapter,
    ask,
    awaken,
    data,
    differ,
    exercise,
    figure,
    flat,
    models,
    percent,
    shows,
    standing,
    texts,
    words,
    write,
)

expect: Any = pytest.importorskip("playwright.sync_api").expect


# ---- Every figure, held to Python ----


def test_tokens_are_those_of_the_file(visit: Visit) -> None:
    page = visit.open_walk("tokens")
    drawn = figure(page, "tokens")
    for text, how in [("anna", "recorded"), ("emma", "live"), ("", "live")]:
        if how == "live":
            visit.live()
            write(page, text)
        standing(drawn, how)
        known = ask("tokens", text=text)
        assert texts(drawn, ".strip .id") == [str(i) for i in known["ids"]]
        glyphs = texts(drawn, ".strip .glyph")
        assert glyphs == [token.replace("\n", "↵") for token in known["tokens"]]
    assert texts(drawn, ".vocabulary .id") == [str(i) for i in range(len(known["vocab"]))]
    typed = drawn.get_by_role("textbox")
    typed.fill("Emma")
    expect(drawn.locator(".problem")).to_contain_text("small letters only")
    assert texts(drawn, ".strip .id") == ["?", DASH, DASH, DASH]
    typed.fill("zoé")
    expect(drawn.locator(".problem")).to_contain_text("U+00E9")


def weights_shown(drawn: Any, head: dict[str, Any], query: int) -> None:
    size = len(head["weights"])
    cells = drawn.locator("table").first.locator("td:not(thead td)").all_text_contents()
    flat_weights = [w for row in head["weights"] for w in row]
    assert len(cells) == size * size
    assert differ(cells, flat_weights, percent) == []
    shares = texts(drawn, ".readers .share")
    assert shares[query + 1 :] == [DASH] * (size - query - 1)
    row = head["weights"][query][: query + 1]
    assert differ(shares[: query + 1], row, percent) == []
    arcs = drawn.locator(".arcs .arc")
    thick = [float(a.get_attribute("stroke-width")) for a in arcs.all()]
    expected = [1 + 9 * w for w in row if w > 0.004]
    assert all(abs(a - b) < 0.02 for a, b in zip(thick, expected, strict=True))


def test_attention_is_what_python_computes(visit: Visit) -> None:
    page = visit.open_walk("attention")
    drawn = figure(page, "attention")
    standing(drawn, "recorded")
    known = ask("attention", text="anna", model="trained")
    weights_shown(drawn, known["heads"][0], 4)
    visit.live()
    write(page, "emma")
    standing(drawn)
    known = ask("attention", text="emma", model="trained")
    weights_shown(drawn, known["heads"][0], 5 - 1)
    for number, head in enumerate(known["heads"]):
        drawn.locator(".heads button").nth(number).click()
        weights_shown(drawn, head, 4)
    drawn.locator(".readers [role=radio][tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.mouse.move(0, 0)
    weights_shown(drawn, known["heads"][-1], 2)
    best = max(range(3), key=lambda i: known["heads"][-1]["weights"][2][i])
    sentence = drawn.locator(".sentence").inner_text()
    reads = "itself" if best == 2 else f"at place {best}"
    assert f"at place 2 reads {reads}" in sentence.replace(f"“{'↵emma'[best]}” ", "").replace(
        "the end mark ↵ ", ""
    )
    drawn.get_by_role("button", name="scores, before it").click()
    cells = drawn.locator("table").first.locator("td:not(thead td)").all_text_contents()
    scores = [s for row in known["heads"][-1]["scores"] for s in row]
    assert differ(cells, scores) == []


def test_all_heads_are_drawn_at_once(visit: Visit) -> None:
    page = visit.open_walk("heads")
    drawn = figure(page, "attention")
    visit.live()
    write(page, "emma")
    standing(drawn)
    known = ask("attention", text="emma", model="trained")
    heads = drawn.locator(".heads li")
    assert heads.count() == len(known["heads"])
    for one, head in zip(heads.all(), known["heads"], strict=True):
        best = max(head["weights"][-1])
        assert percent(flat(one.locator(".best").text_content()).rpartition("place ")[2][1:], best)
        squares = one.locator("rect").evaluate_all(
            "all => all.map((r) => [r.getAttribute('y'), r.getAttribute('x'),"
            " r.getAttribute('fill-opacity')].map(Number))"
        )
        drawn_weights = {(int(r), int(c)): w for r, c, w in squares}
        for r, row in enumerate(head["weights"]):
            for c, weight in enumerate(row):
                assert abs(drawn_weights.get((r, c), 0.0) - weight) < 0.006


MATRICES = [
    (chapter.slug, number, keys["value"][0])
    for chapter in CHAPTERS
    for number, keys in enumerate(k for name, k in chapter.blocks("figure") if name == "matrix")
]


@pytest.mark.parametrize(("slug", "number", "value"), MATRICES, ids=[m[2] for m in MATRICES])
def test_every_cell_of_a_matrix_is_pythons(
    visit: Visit, slug: str, number: int, value: str
) -> None:
    page = visit.open_walk(slug)
    drawn = figure(page, "matrix", number)

    def compare(text: str, grad: bool = False) -> None:
        known = ask("matrix", text=text, model="trained", value=value)
        rows = known["grad"] if grad else known["rows"]
        found: list[list[str]] = [[] for _ in rows]
        for table in drawn.locator("table").all():
            for row, line in zip(found, table.locator("tbody tr").all(), strict=True):
                row += line.locator("td").all_text_contents()
        assert [len(row) for row in found] == [len(row) for row in rows]
        assert [differ(*pair) for pair in zip(found, rows, strict=True) if differ(*pair)] == []
        assert drawn.locator(".name").inner_text() == known["name"]

    standing(drawn, "recorded")
    compare("anna")
    visit.live()
    write(page, "emma")
    standing(drawn)
    compare("emma")
    gradient = drawn.get_by_role("button", name="Gradient")
    if gradient.count():
        gradient.click()
        compare("emma", grad=True)


def test_a_cell_opens_into_its_arithmetic_and_the_walk_goes_on_and_back(visit: Visit) -> None:
    """From q to one product, to the weight in it, and back by the crumbs; all numbers Python's."""
    page = visit.open_walk("autograd")
    drawn = figure(page, "matrix")
    record = models().record("anna", "trained")
    q = next(t for t in record["tensors"] if t["name"] == "q")
    a, b = (record["tensors"][parent] for parent in q["parents"])
    cell = drawn.locator("tbody tr").nth(2).locator("td").nth(1)
    cell.focus()
    page.keyboard.press("Enter")
    walk = drawn.locator(".cellwalk")
    heading = walk.locator("[data-heading]")
    expect(heading).to_contain_text("q")
    expect(heading).to_be_focused()
    assert shows(walk.locator(".big").inner_text(), q["data"][2][1])
    terms = walk.locator(".sum").first.locator("button.number:not(.times)")
    factors = [re.sub(r":.*", "", t).strip("()") for t in terms.all_text_contents()]
    truth = [x for k in range(16) for x in (a["data"][2][k], b["data"][k][1])]
    assert len(factors) == len(truth)
    assert all(shows(f, t, 5e-4) for f, t in zip(factors, truth, strict=True))
    gradient = walk.get_by_role("heading", name="Its gradient")
    assert shows(gradient.inner_text().partition(":")[2], q["grad"][2][1])
    crumbs = walk.get_by_role("navigation").get_by_role("listitem")
    depth = crumbs.count()

    walk.locator("button.times").nth(3).click()  # one multiplication
    expect(walk.locator("[aria-current=location]")).to_have_text("product 3")
    assert crumbs.count() == depth + 1
    shown = flat(walk.inner_text())
    for factor in (a["data"][2][3], b["data"][3][1]):
        assert any(shows(n, factor, 5e-4) for n in NUMBER.findall(shown)), factor
    walk.get_by_role("button", name="row 2, column 1", exact=True).click()
    expect(walk.locator("[aria-current=location]")).to_have_text("row 2, column 1")

    walk.locator(".sum").first.locator("button.number:not(.times)").nth(7).click()  # wq, row 3
    expect(walk.locator("[aria-current=location]")).to_have_text("row 3, column 1")
    expect(heading).to_contain_text("wq")
    assert shows(walk.locator(".big").inner_text(), b["data"][3][1])
    page.keyboard.press("Escape")  # a step back
    expect(heading).to_contain_text("q")
    expect(walk.locator("[aria-current=location]")).to_have_text("row 2, column 1")
    walk.get_by_role("button", name="the whole model").click()
    expect(heading).to_contain_text("The whole model, as it ran on “anna”")
    walk.get_by_role("button", name=re.compile("^mlp")).first.click()
    expect(walk.locator("[aria-current=location]")).to_contain_text("mlp")
    walk.get_by_role("button", name="Close").click()
    expect(walk).to_have_count(0)
    assert page.evaluate("document.activeElement.tagName") == "TD"


def test_the_whole_model_is_drawn_from_the_run_and_opens(visit: Visit) -> None:
    page = visit.open_walk("language-model")
    drawn = figure(page, "whole")
    record = models().record("anna", "trained")
    count = sum(len(w.data) * len(w.data[0]) for w in _leaves())
    expect(drawn.locator(".weights .head")).to_contain_text(f"{count:,}")
    calls = [c for c in record["calls"] if c["function"] == "attention"]
    functions = drawn.get_by_role("button", name=re.compile("^attention"))
    assert functions.count() == len(calls)
    visit.live()
    functions.nth(1).click()
    walk = drawn.locator(".cellwalk")
    expect(walk.locator("[data-heading]")).to_contain_text("attention")
    tile = walk.locator("button.tile", has_text="weights").first
    tile.click()
    expect(walk.locator("[data-heading]")).to_have_text(re.compile("^weights"))
    second = [t for t in record["tensors"] if t["name"] == "weights"][1]
    cells = walk.locator("tbody td").all_text_contents()
    assert differ(cells, [x for row in second["data"] for x in row]) == []


def _leaves() -> list[Any]:
    run = models().run("trained")
    return list(run.namespace["leaves"](run.params))


def test_a_dragged_score_moves_every_weight(visit: Visit) -> None:
    page = visit.open_walk("attention")
    drawn = figure(page, "softmax")

    def compare(scores: list[float]) -> None:
        known = ask("softmax", scores=scores)
        rows = drawn.locator("tbody tr")
        for i, row in enumerate(rows.all()):
            assert shows(row.locator("output").inner_text(), scores[i])
            assert shows(row.locator(".figure").nth(0).text_content()[-7:], known["shifted"][i])
            exps = row.locator(".figure").nth(1).text_content().removeprefix("e to that")
            assert shows(exps, known["exps"][i])
            assert percent(row.locator(".weight span").inner_text(), known["weights"][i])
            wide = float(row.locator(".weight .fill").get_attribute("width"))
            assert abs(wide - 100 * known["weights"][i]) < 0.02

    scores = [1.0, 0.0, -1.0, 0.5]
    compare(scores)
    visit.live()
    drawn.get_by_role("slider").nth(2).focus()
    for _ in range(27):
        page.keyboard.press("ArrowRight")
    scores[2] = 1.7
    standing(drawn)
    compare(scores)
    page.keyboard.press("End")
    scores[2] = 4.0
    expect(drawn.locator("output").nth(2)).to_have_text("4.0")
    standing(drawn)
    expect(drawn.locator(".weight.best")).to_contain_text("91")
    compare(scores)
    drawn.get_by_role("button", name="Back to the first scores").click()
    compare([1.0, 0.0, -1.0, 0.5])


def nodes_shown(drawn: Any, known: dict[str, Any]) -> None:
    rows = drawn.locator("details tbody tr")
    assert rows.count() == len(known["nodes"])
    for row, node in zip(rows.all(), known["nodes"], strict=True):
        value, gradient = texts(row, "td")[1:]
        assert shows(value, node["value"])
        assert gradient == DASH if node["grad"] is None else shows(gradient, node["grad"])


def test_an_expression_runs_forward_and_back(visit: Visit) -> None:
    page = visit.open_walk("autograd")
    drawn = figure(page, "expression")
    start: dict[str, float] = {"a": 2.0, "b": 3.0, "c": -4.0}
    known = ask("expression", text="(a * b + c).relu()", values=start)
    nodes_shown(drawn, known)
    visit.live()
    slider = drawn.get_by_role("slider", name="a", exact=True)
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(drawn.locator("output").first).to_have_text("2.5")
    standing(drawn)
    known = ask("expression", text="(a * b + c).relu()", values=start | {"a": 2.5})
    nodes_shown(drawn, known)
    step = drawn.get_by_role("button", name="Next")
    got = {known["backward"][0]["node"]: 1.0}
    for entry in known["backward"]:
        step.click()
        got |= {give["parent"]: give["total"] for give in entry["gives"]}
        shown = texts(drawn, "svg .grad")
        assert len(shown) == len(known["nodes"])
        assert sum(text != DASH for text in shown) == len(got)
        amounts = NUMBER.findall(drawn.locator(".sentence").inner_text())
        for give in entry["gives"]:
            assert any(shows(n, give["amount"], 2e-3) for n in amounts)
    drawn.get_by_role("button", name="a * a", exact=True).click()
    standing(drawn)
    nodes_shown(drawn, ask("expression", text="a * a", values={"a": 2.5}))
    drawn.get_by_role("textbox").fill("a * (")
    expect(drawn.locator(".problem")).to_have_text("Python cannot read this expression.")
    drawn.get_by_role("textbox").fill("__import__('os')")
    expect(drawn.locator(".problem")).to_be_visible()
    nodes_shown(drawn, ask("expression", text="a * a", values={"a": 2.5}))  # the last that ran


def near_shown(drawn: Any, table: str, of: int) -> None:
    known = ask("neighbours", table=table)
    for place, when in enumerate(("first", "trained")):
        likes = [(x, i) for i, x in enumerate(known[when][of]) if i != of]
        likes.sort(key=lambda one: (-one[0], one[1]))
        rows = drawn.locator(".lists table").nth(place).locator("tbody tr")
        assert rows.count() == 6
        for row, (like, i) in zip(rows.all(), likes, strict=False):
            name = row.locator("button").evaluate("e => e.firstChild.textContent")
            assert known["labels"][i].replace("\n", "↵") == name
            assert shows(row.locator("td span").inner_text(), like, 2e-3)


def test_neighbours_are_those_of_the_tables(visit: Visit) -> None:
    page = visit.open_walk("embeddings")
    drawn = figure(page, "neighbours")
    near_shown(drawn, "wte", 1)
    visit.live()
    drawn.locator(".pick [role=radio][tabindex='0']").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    near_shown(drawn, "wte", 5)
    drawn.get_by_role("button", name="positions (wpe)").click()
    standing(drawn)
    near_shown(drawn, "wpe", 1)
    near_shown(figure(page, "neighbours", 1), "wpe", 1)


def stages_shown(drawn: Any, text: str, place: int) -> None:
    known = ask("stream", text=text, model="trained")
    rows = drawn.locator(".rows button.row")
    assert rows.count() == len(known["stages"])
    for row, stage in zip(rows.all(), known["stages"], strict=True):
        assert flat(row.locator(".name").inner_text()) == stage["label"]
        size, added = texts(row, ".sizes b")
        assert shows(size, stage["size"][place]) and shows(added, stage["added"][place])
        ranked = sorted(zip(stage["probs"][place], known["vocab"]), key=lambda p: -p[0])
        for guess, (prob, token) in zip(row.locator(".guess > i").all(), ranked, strict=False):
            letter, share = flat(guess.inner_text()).split(" ", 1)
            assert letter == token.replace("\n", "↵") and percent(share, prob)


def test_the_stream_grows_as_python_says(visit: Visit) -> None:
    page = visit.open_walk("residual-and-norm")
    drawn = figure(page, "stream")
    stages_shown(drawn, "anna", 4)
    visit.live()
    write(page, "emma")
    standing(drawn)
    stages_shown(drawn, "emma", 4)
    drawn.locator(".tokens button").nth(2).click()
    stages_shown(drawn, "emma", 2)
    drawn.get_by_role("button", name="First", exact=True).click()
    assert (
        drawn.locator(".rows .row.later").count() == drawn.locator(".rows button.row").count() - 1
    )
    drawn.get_by_role("button", name="Next", exact=True).click()
    expect(drawn.locator(".rows [aria-current=step] .name")).to_have_text("+ position")


def surprises_shown(drawn: Any, text: str, model: str) -> None:
    known = ask("surprise", text=text, model=model)
    rows = drawn.locator(".rows button.row")
    assert rows.count() == len(text) + 1
    for row, place in zip(rows.all(), known["places"], strict=True):
        assert percent(row.locator(".prob").inner_text().rpartition("with ")[2], place["prob"])
        assert shows(row.locator(".bars > i").inner_text(), place["surprise"])
    mean = drawn.locator(".rows .mean .bars > i").inner_text()
    assert shows(mean, known["loss"])
    logs = [math.log(place["prob"]) for place in known["places"]]
    assert shows(mean, -sum(logs) / len(logs))


def test_surprise_is_minus_the_logarithm(visit: Visit) -> None:
    page = visit.open_walk("loss")
    drawn = figure(page, "surprise")
    surprises_shown(drawn, "anna", "trained")
    visit.live()
    write(page, "emma")
    standing(drawn)
    surprises_shown(drawn, "emma", "trained")
    drawn.get_by_role("button", name="Before training").click()
    standing(drawn)
    surprises_shown(drawn, "emma", "first")
    drawn.locator(".rows button.row").nth(1).click()
    place = ask("surprise", text="emma", model="first")["places"][1]
    bars = drawn.locator(".odds rect.bar")
    tall = [float(bar.get_attribute("height")) for bar in bars.all()]
    assert len(tall) == len(place["probs"])
    scale = max(tall) / max(place["probs"])
    assert all(abs(a - scale * p) < 0.3 for a, p in zip(tall, place["probs"], strict=True))


def test_gradients_come_in_the_order_of_the_run(visit: Visit) -> None:
    page = visit.open_walk("backpropagation")
    drawn = figure(page, "backward")

    def compare(text: str) -> None:
        known = ask("backward", text=text, model="trained")
        drawn.locator("details").evaluate("e => e.open = true")
        rows = drawn.locator("details tbody tr")
        named = {part["name"]: part for part in known["order"]}
        assert rows.count() == len(known["order"])
        assert texts(rows, "th")[0] == "loss"
        for row, part in zip(rows.all(), known["order"], strict=True):
            assert flat(row.locator("th").inner_text()) == part["name"]
            assert shows(row.locator("td").last.inner_text(), part["size"], 6e-3), part["name"]
        assert {"wte", "wpe"} <= set(named)

    compare("anna")
    visit.live()
    write(page, "emma")
    standing(drawn)
    compare("emma")
    expect(drawn.locator(".now h3")).to_have_text("loss")
    drawn.get_by_role("button", name="Next", exact=True).click()
    known = ask("backward", text="emma", model="trained")
    expect(drawn.locator(".now h3")).to_have_text(known["order"][1]["name"])
    drawn.get_by_role("button", name="Last", exact=True).click()
    expect(drawn.locator(".now h3")).to_have_text(known["order"][-1]["name"])


def nudge_shown(drawn: Any, **arguments: Any) -> None:
    known = ask("nudge", text="emma", model="trained", **arguments)
    up, down, measured, gradient, error = texts(drawn, "dd")
    assert shows(up, known["up"], 0) and shows(down, known["down"], 0)
    assert shows(measured, known["measured"], 1e-4)
    assert shows(gradient, known["gradient"], 1e-5)
    relative = NUMBER.search(error)
    assert relative
    # The last digits of two losses that nearly agree are the machine's own; their size is not.
    if known["relative"] > 1e-6:
        assert (percent if "%" in error else shows)(error, known["relative"], 0.02)
    else:
        assert shows(error, 0.0, 0) or shows(error, known["relative"], 1.0)


def test_a_nudge_measures_what_backward_says(visit: Visit) -> None:
    page = visit.open_walk("backpropagation")
    drawn = figure(page, "nudge")
    visit.live()
    write(page, "emma")
    standing(drawn)
    nudge_shown(drawn, weight="wte", row=1, column=0, by=0.001)
    drawn.get_by_role("slider").focus()
    page.keyboard.press("End")  # a nudge by one: the loss is no straight line so far
    expect(drawn.locator("output")).to_have_text("± 1")
    standing(drawn)
    nudge_shown(drawn, weight="wte", row=1, column=0, by=1.0)
    drawn.get_by_role("combobox").select_option("blocks.0.fc")
    drawn.get_by_role("spinbutton", name="row").fill("3")
    drawn.get_by_role("spinbutton", name="row").press("Enter")
    standing(drawn)
    nudge_shown(drawn, weight="blocks.0.fc", row=3, column=0, by=1.0)


def test_moments_are_those_of_a_real_training(visit: Visit) -> None:
    page = visit.open_walk("adam")
    drawn = figure(page, "moments")

    def compare(**weight: Any) -> None:
        known = ask("moments", steps=60, **weight)["steps"]
        drawn.locator("details").evaluate("e => e.open = true")
        rows = drawn.locator("details tbody tr")
        assert rows.count() == 60
        for row, step in zip(rows.all()[::7], known[::7], strict=True):
            doc, *numbers = texts(row, "td")
            assert doc == step["doc"]
            for text, key in zip(numbers, ("loss", "gradient", "m", "v", "move", "value")):
                assert shows(text, step[key]), (step["step"], key)

    compare(weight="wte", row=1, column=0)
    visit.live()
    drawn.get_by_role("combobox").select_option("lm_head")
    standing(drawn)
    compare(weight="lm_head", row=1, column=0)


def test_training_here_is_the_training_of_the_file(visit: Visit) -> None:
    """The recorded curve is the checkpoint's; what is trained in the page, a run made here."""
    from microgpt.run import Run

    page = visit.open_walk("training")
    drawn = figure(page, "training")
    trained = models().run("trained")
    moments = drawn.locator("details").first.locator("tbody tr")
    step, mean, held = texts(moments.last, "th, td")[:3]
    assert step == f"{trained.step:,}"
    assert shows(mean, trained.smoothed(50), 1e-3)
    assert shows(held, trained.held_out_loss(50), 1e-3)
    drawn.get_by_role("button", name="First", exact=True).click()
    first = models().run("first")
    expect(drawn.locator(".moment")).to_contain_text("After 0 steps")
    assert shows(
        drawn.locator(".moment").inner_text().rpartition("loss ")[2], first.held_out_loss(50), 1e-3
    )
    visit.live()
    drawn.get_by_role("button", name="Train it here").click()
    expect(drawn.locator(".told")).to_contain_text(re.compile(r"step [1-9]\d"), timeout=20_000)
    drawn.get_by_role("button", name="Pause").click()
    paused, moment = drawn.locator(".told"), drawn.locator(".moment")
    expect(paused).to_contain_text("Paused after")
    page.wait_for_function(  # the last look at the model has been taken
        """() => {
          const steps = (at) =>
            document.querySelector(at).textContent.match(/after (\\d+) step/i)?.[1];
          return steps(".training .told") === steps(".training .moment");
        }"""
    )
    done = int(NUMBER.findall(paused.inner_text())[0])
    run = Run(seed=trained.seed)
    for _ in range(done):
        run.advance()
    expect(moment).to_contain_text(f"After {done} steps, here")
    assert shows(moment.inner_text().rpartition("loss ")[2], run.held_out_loss(50), 1e-4)
    drawn.get_by_role("button", name="Continue").click()
    expect(paused).to_contain_text("Training here")
    drawn.get_by_role("button", name="Stop").click()
    expect(paused).to_contain_text("Stopped after")
    drawn.get_by_role("button", name="Show the recorded run").click()
    expect(moment).to_contain_text(f"After {trained.step:,} steps")


def test_training_all_at_once_is_the_same_training(visit: Visit) -> None:
    """By the compiled kernel, in a moment; then Python looks at the model at each moment kept."""
    from microgpt.run import Run

    page = visit.open_walk("training")
    drawn = figure(page, "training")
    drawn.get_by_role("textbox", name="seed").fill("5")
    drawn.get_by_role("button", name="All at once").click()
    visit.live()
    told = drawn.locator(".told")
    expect(told).to_contain_text("Trained here, in your browser: 1,000 steps", timeout=30_000)
    run = Run(seed=5, engine="fast")
    run.advance_by(1000)
    rows = drawn.locator("details").first.locator("tbody tr")
    expect(rows).to_have_count(11)
    step, mean, held = texts(rows.last, "th, td")[:3]
    assert step == "1,000"
    assert shows(mean, run.smoothed(50), 0.02)
    assert shows(held, run.held_out_loss(50), 0.02)
    expect(drawn.locator(".moment")).to_contain_text("After 1,000 steps, here")
    drawn.get_by_role("button", name="First", exact=True).click()
    expect(drawn.locator(".moment")).to_contain_text("After 0 steps, here")
    drawn.get_by_role("button", name="Show the recorded run").click()
    expect(told).to_have_text("")


def draws_shown(drawn: Any, **arguments: Any) -> None:
    known = ask("writing", **arguments)
    vocab, steps = known["vocab"], known["steps"]
    boxes = drawn.locator(".tokens li:not(.given):not(.open)")
    assert boxes.count() == len(steps)
    for box, step in zip(boxes.all(), steps, strict=True):
        assert box.locator(".box").inner_text() == step["char"].replace("\n", "↵")
        chance = step["probs"][vocab.index(step["char"])]
        assert percent(box.locator(".under").inner_text(), chance)
    expect(drawn.locator(".facts")).to_contain_text(
        "in the data it was made from" if known["known"] else "it is new"
    )


def test_writing_draws_what_python_draws(visit: Visit) -> None:
    page = visit.open_walk("language-model")
    drawn = figure(page, "writing")
    draws_shown(drawn, prefix="", temperature=1.0, seed=7)
    visit.live()
    drawn.get_by_role("spinbutton", name="seed").fill("12")
    drawn.get_by_role("spinbutton", name="seed").press("Enter")
    standing(drawn)
    draws_shown(drawn, prefix="", temperature=1.0, seed=12)
    drawn.get_by_role("textbox", name="begins with").fill("an")
    drawn.get_by_role("slider", name="temperature").focus()
    page.keyboard.press("Home")
    expect(drawn.locator("output")).to_have_text("0.1")
    standing(drawn)
    draws_shown(drawn, prefix="an", temperature=0.1, seed=12)
    drawn.get_by_role("button", name="Write it again").click()
    assert drawn.locator(".tokens li:not(.given):not(.open)").count() == 1
    drawn.get_by_role("button", name="Next character").click()
    assert drawn.locator(".tokens li:not(.given):not(.open)").count() == 2
    drawn.get_by_role("textbox", name="begins with").fill("É!")
    expect(drawn.locator(".strange .problem")).to_contain_text("not in the vocabulary")


def test_temperatures_count_what_python_counts(visit: Visit) -> None:
    page = visit.open_walk("what-it-learned")
    drawn = figure(page, "temperatures")
    recorded = next(
        f for f in data("what-it-learned")["figures"].values() if f["figure"] == "temperatures"
    )
    rows = drawn.locator("details tbody tr")

    def compare(row: Any, temperature: float) -> None:
        arguments = recorded["args"] | {"temperatures": [temperature]}
        known = ask("temperatures", **arguments)
        told = [int(NUMBER.findall(t)[0].replace(",", "")) for t in texts(row, "td")]
        only = known["rows"][0]
        assert told == [known["n"], only["known"], only["heldOut"], only["distinct"]]

    compare(rows.nth(0), recorded["answer"]["rows"][0]["temperature"])
    visit.live()
    before = rows.count()
    drawn.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    drawn.get_by_role("button", name=re.compile("^Sample")).click()
    expect(rows).to_have_count(before + 1, timeout=60_000)
    fresh = rows.filter(has=page.locator("th", has_text="0.85"))
    compare(fresh, 0.85)


def test_sizes_are_counted_by_one_formula(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("to-gpt-4")
    drawn = figure(page, "scale")
    known = ask("scale")["models"]
    rows = drawn.locator("tbody tr")
    keys = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "parameters")
    for row, model in zip(rows.all(), known, strict=True):
        assert texts(row, "td")[:6] == [f"{model[key]:,}" for key in keys]
    assert known[0]["parameters"] == sum(len(w.data) * len(w.data[0]) for w in _leaves())
    drawn.get_by_role("button", name="Layers").click()
    facts = f"This file has 1 layer; GPT-3 (2020) has {known[-1]['n_layer']}"
    expect(drawn.locator(".facts")).to_contain_text(facts)


def test_figures_wait_for_python_and_follow_when_it_is_there(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("attention")
    drawn = figure(page, "attention")
    page.mouse.wheel(0, 10)
    write(page, "emma")
    standing(drawn, "waiting")
    expect(drawn.locator(".standing")).to_contain_text("Python is still on its way")
    visit.release_python()
    standing(drawn)
    weights_shown(drawn, ask("attention", text="emma", model="trained")["heads"][0], 4)


def test_without_python_the_pictures_stay_and_retry_is_offered(visitor: Open) -> None:
    with visitor(expect_trouble=True) as visit:
        visit.page.route("**/pyodide.asm.wasm", lambda route: route.abort())
        page = visit.open_walk("attention")
        drawn = figure(page, "attention")
        retry = page.locator(".reader").get_by_role("button", name="Retry")
        retry.wait_for(timeout=60_000)
        write(page, "emma")  # one more try, in vain
        standing(drawn, "refused")
        expect(drawn.locator(".standing")).to_contain_text("Python could not be downloaded")
        weights_shown(drawn, ask("attention", text="anna", model="trained")["heads"][0], 4)
        visit.page.unroute("**/pyodide.asm.wasm")
        retry.click()
        visit.live()
        standing(drawn)


# ---- Exercises ----

LINES = {name: e for name, e in exercises.EXERCISES.items() if e.how == "line"}
EDITS = [name for name, e in exercises.EXERCISES.items() if e.how != "line"]
WHERE = {name: c for c in CHAPTERS for name, _ in c.blocks("exercise")}


def paste(page: Any, where: Any, source: str) -> None:
    """Put a whole program into an editor, as a person would who has it on the clipboard."""
    page.evaluate("text => navigator.clipboard.writeText(text)", source)
    where.locator(".cm-content").focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+v")


def done(page: Any) -> dict[str, Any]:
    return dict(page.evaluate("JSON.parse(localStorage.walk ?? '{}').exercises ?? {}"))


def test_every_exercise_of_the_walk_is_tried_here() -> None:
    assert set(WHERE) == set(exercises.EXERCISES)


@pytest.mark.parametrize("name", EDITS)
def test_an_exercise_is_done_right_and_wrong(visitor: Open, name: str) -> None:
    with visitor(permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open_walk(WHERE[name].slug)
        one = exercise(page, name)
        visit.live()
        one.get_by_role("button", name=re.compile("^(Edit|Open the broken)")).click()
        check = one.get_by_role("button", name="Check")
        results = one.locator(".results li")

        check.click()  # as it stands
        changes, useful = WRONG[name][0]
        assert changes == []
        expect(results.filter(has_text=useful).first).to_be_visible()
        expect(one.locator(".results")).to_be_focused()
        assert done(page) == {}

        changes, useful = WRONG[name][-1]
        source = edited(name, changes)
        paste(page, one, source)
        expect(results).to_have_count(0)  # an old judgement is of an old program
        check.click()
        failed = results.filter(has_text=useful).first
        expect(failed).to_contain_text("does not pass")
        found = exercises.check(name, source)["results"]
        wrong = next(r for r in found if not r["ok"] and useful in r["message"])
        expect(failed).to_contain_text(wrong["message"])
        if wrong["line"] is not None:
            failed.get_by_role("button", name=f"line {wrong['line']}").click()
            row = source.split("\n")[wrong["line"] - 1]
            expect(one.locator(".cm-activeLine")).to_have_text(row)
            expect(one.locator(".cm-lint-marker-error")).not_to_have_count(0)

        for changes in (RIGHT[name][0], RIGHT[name][-1]):
            paste(page, one, edited(name, changes))
            one.locator(".cm-content").press("Control+Enter")
            expect(one.get_by_role("list", name="Done: every check passes")).to_be_visible()
            assert one.locator(".results .sign:not(.ok)").count() == 0
        assert done(page) == {name: True}
        keys = dict(WHERE[name].blocks("exercise"))[name]
        then = flat(one.locator(".then").inner_text())
        assert all(w in then for row in keys["then"] for w in words(row))
        one.get_by_role("button", name="Start again").click()
        expect(results).to_have_count(0)


def test_hints_come_one_by_one_and_the_solution_is_a_diff(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("attention")
    one = exercise(page, "uniform-attention")
    keys = dict(WHERE["uniform-attention"].blocks("exercise"))["uniform-attention"]
    hints = one.locator(".hints li")
    for i, hint in enumerate(keys["hint"]):
        one.get_by_role("button", name="Another hint" if i else "A hint").click()
        expect(hints).to_have_count(i + 1)
        assert all(w in flat(hints.nth(i).inner_text()) for w in words(hint))
    assert one.locator(".solution").count() == 0
    one.get_by_role("button", name="Show one solution").click()
    solution = exercises.EXERCISES["uniform-attention"].solution.split("\n")[2:]
    for sign, selector in (("+", ".added"), ("-", ".removed")):
        rows = [flat(row[1:]) for row in solution if row.startswith(sign)]
        assert rows and texts(one, f".diff {selector} code") == rows
    expect(one.locator(".diff .removed").first).to_contain_text("removed:")


def test_an_edit_is_kept_when_the_page_is_loaded_again(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("feed-forward")
    one = exercise(page, "squared-relu")
    one.get_by_role("button", name="Edit the program").click()
    line = one.locator(".cm-line", has_text="hidden = (x @ fc).relu()")
    line.click()
    page.keyboard.press("End")
    page.keyboard.type("  # mine")
    page.reload()
    one = exercise(page, "squared-relu")
    one.get_by_role("button", name="Edit the program").click()
    expect(one.locator(".cm-line", has_text="# mine")).to_be_visible()
    one.get_by_role("button", name="Start again").click()
    expect(one.locator(".cm-line", has_text="# mine")).to_have_count(0)


def test_a_check_asked_before_python_runs_when_it_is_there(visit: Visit) -> None:
    visit.hold_python()
    page = visit.open_walk("feed-forward")
    one = exercise(page, "squared-relu")
    one.get_by_role("button", name="Edit the program").click()
    one.get_by_role("button", name="Check").click()
    expect(one.get_by_role("status").first).to_contain_text("waits for Python")
    visit.release_python()
    expect(one.locator(".results")).to_contain_text("still what relu gives", timeout=30_000)


def test_an_endless_loop_is_ended_and_the_edit_is_kept(visit: Visit) -> None:
    page = visit.open_walk("feed-forward")
    one = exercise(page, "squared-relu")
    visit.live()
    one.get_by_role("button", name="Edit the program").click()
    line = one.locator(".cm-line", has_text="hidden = (x @ fc).relu()")
    line.click()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+End")
    page.keyboard.insert_text("while True: pass  # for ever")
    one.get_by_role("button", name="Check").click()
    stop = one.get_by_role("button", name="Stop")
    stop.click(timeout=20_000)
    started = time.monotonic()
    expect(one.locator(".problem")).to_contain_text("Stopped.")
    assert time.monotonic() - started < stop_takes()
    expect(one.locator(".cm-line", has_text="while True: pass  # for ever")).to_be_visible()
    visit.live()
    drawn = figure(page, "matrix")
    write(page, "emma")
    standing(drawn)  # Python answers again, with the trained weights
    known = ask("matrix", text="emma", model="trained", value="mlp.hidden")
    cells = drawn.locator("table").first.locator("tbody tr").nth(1).locator("td")
    assert differ(cells.all_text_contents(), known["rows"][1][: cells.count()]) == []


@pytest.mark.parametrize("name", list(LINES))
def test_a_line_is_chosen_wrong_and_right(visit: Visit, name: str) -> None:
    visit.hold_python()
    page = visit.open_walk(WHERE[name].slug)
    one = exercise(page, name)
    truth = LINES[name].truth
    choose = one.get_by_role("button", name="This line")
    expect(choose).to_be_disabled()
    rows = one.get_by_role("listbox")
    wrong = truth[0] - 1 if file.ORIGINAL.split("\n")[truth[0] - 2].strip() else truth[0] + 1
    rows.locator(f"[data-at='{wrong}']").click()
    choose.click()
    expect(one.locator(".result")).to_contain_text(f"Line {wrong} is another one")
    assert done(page) == {}
    rows.focus()
    page.keyboard.press("ArrowDown" if wrong < truth[0] else "ArrowUp")
    selected = rows.locator("[aria-selected=true]")
    expect(selected).to_have_attribute("data-at", str(truth[0]))
    choose.click()
    expect(one.locator(".result")).to_contain_text(f"Line {truth[0]}: that is the one.")
    expect(rows.locator(".true")).to_contain_text("✓ this one")
    assert done(page) == {name: True}


# ---- Guesses ----


def judged(text: str) -> str | None:
    found = re.search(r"\b(wrong|correct|score of|points?|well done|sorry)\b", text, re.I)
    return found and found[0]


@pytest.mark.parametrize("chapter", GUESSED, ids=[c.slug for c in GUESSED])
def test_a_guess_comes_first_and_the_truth_is_laid_over_it(visit: Visit, chapter: Chapter) -> None:
    visit.hold_python()
    page = visit.open_walk(chapter.slug)
    awaken(page)
    asks = page.locator(".ask:has(form)")
    kept = list(data(chapter.slug)["predictions"].values())
    blocks = chapter.blocks("predict")
    assert asks.count() == len(kept) == len(blocks)
    for (how, keys), given, ask_ in zip(blocks, kept, asks.all(), strict=True):
        one, truth = ask_.locator(".alive"), given["truth"]
        told, act = one.locator(".told"), one.locator(".acts button")
        assert given["how"] == how
        expect(told).to_have_text("")
        GUESS[how](page, one, act, truth, given)
        then = flat(told.locator(".then").inner_text())
        assert all(w in then for row in keys["then"] for w in words(row))
        expect(told.locator(".then")).to_be_focused()
        prose = flat(told.locator(".then > :last-child").inner_text())  # the chapter's own words
        assert judged(flat(one.inner_text()).replace(prose, "")) is None
        told.get_by_role("button", name="Guess again").click()
        expect(told).to_have_text("")
    assert page.evaluate("JSON.parse(localStorage.walk).guesses") == {}


def guess_choice(page: Any, one: Any, act: Any, truth: int, given: Any) -> None:
    expect(act).to_be_disabled()
    options = one.get_by_role("radio")
    assert options.count() == len(given["options"])
    options.nth((truth + 1) % options.count()).check()
    act.click()
    marks = one.locator("label")
    expect(marks.nth((truth + 1) % options.count())).to_contain_text("your guess")
    expect(marks.nth(truth)).to_contain_text("✓ true")
    one.get_by_role("button", name="Guess again").click()
    options.nth(truth).check()
    act.click()
    expect(marks.nth(truth)).to_contain_text("✓ true, as you said")


def guess_number(page: Any, one: Any, act: Any, truth: float, given: Any) -> None:
    one.get_by_role("slider").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    act.click()
    scale, range_ = one.get_by_role("img"), given["range"]
    mine = range_["low"] + range_["step"]
    yours, true = texts(scale, "text.own, text.truth")
    assert shows(yours, mine, 0) and shows(true, truth, 0), (yours, true, truth)
    at = {
        kind: float(re.findall(r"M([\d.]+)", scale.locator(f"path.{kind}").get_attribute("d"))[0])
        for kind in ("own", "truth")
    }
    start, end = map(float, re.findall(r"[MH]([\d.]+)", scale.locator(".track").get_attribute("d")))
    for kind, value in (("own", mine), ("truth", truth)):
        place = (value - range_["low"]) / (range_["high"] - range_["low"])
        assert abs(at[kind] - (start + (end - start) * min(max(place, 0), 1))) < 0.1


def guess_line(page: Any, one: Any, act: Any, truth: list[int], given: Any) -> None:
    expect(act).to_be_disabled()
    rows = one.get_by_role("listbox")
    rows.locator(f"[data-at='{truth[0] - 1}']").click()
    act.click()
    expect(one.locator(".told")).to_contain_text(
        f"You chose line {truth[0] - 1}. It is line {truth[0]}."
    )
    expect(rows.locator(".chosen")).to_contain_text("your choice")
    one.get_by_role("button", name="Guess again").click()
    rows.focus()
    page.keyboard.press("ArrowDown")
    while rows.locator("[aria-selected=true]").get_attribute("data-at") != str(truth[0]):
        page.keyboard.press("ArrowDown")
    act.click()
    expect(one.locator(".told")).to_contain_text("That is the one.")


def guess_curve(page: Any, one: Any, act: Any, truth: list[list[float]], given: Any) -> None:
    expect(act).to_be_disabled()
    curve = one.get_by_role("application")
    curve.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageUp")
    expect(act).to_be_enabled()
    box = curve.bounding_box()  # and a stroke of the pointer over half of it
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.8, steps=4)
    page.mouse.up()
    drawn = one.locator("path.guess").get_attribute("d")
    act.click()
    assert one.locator("path.guess").get_attribute("d") == drawn
    name = one.get_by_role("img").get_attribute("aria-label")
    ends = [x.replace(",", "") for x in NUMBER.findall(name.rpartition("goes from")[2])]
    assert shows(ends[0], truth[0][1], 5e-3) and shows(ends[1], truth[-1][1], 5e-3)
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", one.locator("path.truth").get_attribute("d"))
    axes = given["axes"]
    assert len(points) == len(truth)
    tall = [float(y) for _, y in points]
    high, low = axes["high"], axes["low"]
    part = [(high - min(max(y, low), high)) / (high - low) for _, y in truth]
    scale = (max(tall) - min(tall)) / (max(part) - min(part))
    for y, share in zip(tall, part, strict=True):
        assert abs(y - min(tall) - scale * (share - min(part))) < 0.2


GUESS = {
    "choice": guess_choice, "number": guess_number, "line": guess_line, "curve": guess_curve,
}  # fmt: skip


def test_the_true_curve_is_the_training_of_the_file() -> None:
    (curve,) = (p for p in data("training")["predictions"].values() if p["how"] == "curve")
    losses = models().run("trained").losses
    for step, y in curve["truth"]:
        window = losses[max(0, step - 50) : step]
        assert math.isclose(y, sum(window) / len(window), rel_tol=6e-4)
