"""The lessons: the parser on small texts and on every mistake, and the chapters as they are."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import math
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

from microgpt import checkpoint, source
from microgpt.errors import MicrogptError
from microgpt.lessons import Chapter, Figure, Lessons, __main__, exercises, facts, instruments
from microgpt.lessons.instruments import Models
from microgpt.run import Run
from microgpt.xray import thin

pytest.importorskip("markdown_it")
from microgpt.lessons import listing, parse

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / "web" / "generated"
FOLDER = ROOT / "microgpt" / "lessons"
ORIGINAL = source.ORIGINAL
Plain = dict[str, Any]

GLOSSARY = "# Glossary\n\n## Softmax\n\nMakes shares of [scores](#scores).\n"
REFERENCES = """# References

- vaswani2017 | Ashish Vaswani and others | 2017 | Attention Is All You Need | NeurIPS | The
  [transformer](glossary.md#softmax), of 2017.
"""
MADE = "# How this was made\n\nOf {{lines}} lines.\n"
TOP = "# Attention\nminutes: 5\n\nA lead.\n\n"


@pytest.fixture(scope="module")
def answers() -> facts.Answers:
    run = Run(steps=30)
    while not run.done:
        run.advance()
    return facts.Answers(Models(Run(), run))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chapters").mkdir()
    for name, text in (("glossary", GLOSSARY), ("references", REFERENCES), ("made", MADE)):
        (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")
    return tmp_path


def read(answers: facts.Answers, folder: Path, text: str, name: str = "05-attention.md") -> Lessons:
    (folder / "chapters" / name).write_text(text, encoding="utf-8")
    return parse.read(answers, folder)


def chapter(answers: facts.Answers, folder: Path, body: str) -> Chapter:
    return read(answers, folder, TOP + "## Do it\n\n" + body).chapters[0]


def block(answers: facts.Answers, folder: Path, text: str) -> Any:
    (found,) = chapter(answers, folder, text).steps[0].blocks
    return found


# ---- What is right ----


def test_a_chapter_has_a_lead_and_steps(answers: facts.Answers, folder: Path) -> None:
    found = read(
        answers, folder,
        "# From `x` to GPT-2\nminutes: 12\n\nA *lead* of {{2 + 2|word}}.\n\nIt goes on.\n\n"
        "## First & last\n\nSome `code`.\n\n- a\n- b\n\n### Small\n\n> quoted\n\n"
        "## {{n_head|word}} heads\n\n```python\nx = 1\n```\n\n"
        "| a | b |\n|---|---|\n| c | {{4|2}} |\n",
        "07-some-name.md",
    )  # fmt: skip
    (one,) = found.chapters
    assert (one.slug, one.number, one.title, one.minutes) == ("some-name", 7, "From x to GPT-2", 12)
    assert one.lead == "<p>A <em>lead</em> of four.</p>\n<p>It goes on.</p>"
    assert [(s.id, s.title) for s in one.steps] == [
        ("first-last", "First & last"), ("four-heads", "four heads"),
    ]  # fmt: skip
    (prose,), (second,) = one.steps[0].blocks, one.steps[1].blocks
    assert prose.kind == second.kind == "prose"
    assert "<h3>Small</h3>" in prose.html and "<li>a</li>" in prose.html
    assert "<table>" in second.html and "<td>4.00</td>" in second.html
    assert '<code class="language-python">x = 1\n</code>' in second.html
    assert found.glossary[0].id == "softmax" and found.glossary[0].term == "Softmax"
    assert found.references[0].authors == "Ashish Vaswani and others"
    assert (
        "of 2017." in found.references[0].html
        and "glossary.html#softmax" in found.references[0].html
    )
    lines = len([line for line in ORIGINAL.splitlines() if line.strip()])
    assert found.made == {"title": "How this was made", "html": f"<p>Of {lines} lines.</p>"}


def test_links_become_what_the_page_knows(answers: facts.Answers, folder: Path) -> None:
    prose = block(
        answers, folder,
        "[queries](#q) [*m*](#adam.m) [s](glossary.md#softmax) "
        "[V, 2017](references.md#vaswani2017) "
        "[here](05-attention.md#do-it) [made](made.md) [out](https://example.org/a) "
        "[all](glossary.md) [the workbench](../index.html)",
    ).html  # fmt: skip
    for piece in (
        '<span class="brush concept-query" data-brush="q" tabindex="0">queries</span>',
        '<span class="brush" data-brush="adam.m" tabindex="0"><em>m</em></span>',
        '<a class="term" data-term="softmax" href="glossary.html#softmax">s</a>',
        '<a class="reference" data-reference="vaswani2017" href="references.html#vaswani2017">V, 2',
        '<a class="chapter" href="attention.html#do-it">here</a>', '<a href="made.html">made</a>',
        '<a href="https://example.org/a" rel="noopener">out</a>', '<a href="glossary.html">all</a>',
        '<a href="../index.html">the workbench</a>',
    ):  # fmt: skip
        assert piece in prose


def test_html_is_text(answers: facts.Answers, folder: Path) -> None:
    prose = block(answers, folder, '<script>alert("x")</script> & {{"<b>&"}} `{{"<i>"}}`').html
    assert "<script" not in prose and "&lt;script&gt;" in prose
    assert "&lt;b&gt;&amp;" in prose and "<code>&lt;i&gt;</code>" in prose


def test_lines_are_found_by_their_words(answers: facts.Answers, folder: Path) -> None:
    one = chapter(
        answers, folder,
        "```lines attention\n    return weights @ v @ wo\n\nq, k, v = x @ wq, x @ wk, x @ wv  "
        "# (T, D): what it seeks, what it is, what it says\n```\n\n```lines\nimport math\n```\n",
    )  # fmt: skip
    first, second = one.steps[0].blocks
    assert (first.kind, first.scope, first.lines) == ("lines", "attention", [101, 105])
    assert (second.scope, second.lines) == ("", [4]) and one.steps[0].lines == [4, 101, 105]


def test_a_figure_is_asked_and_its_answer_kept(answers: facts.Answers, folder: Path) -> None:
    text = (
        "```figure surprise\ntext: otto\nview: small\ncaption: See [probs](#probs),\n"
        "  all {{vocab_size}}.\n```\n"
    )
    found = block(answers, folder, text)
    assert (found.kind, found.figure, found.id) == ("figure", "surprise", "do-it-surprise")
    assert found.args == {"text": "otto", "model": "trained"} and found.options == {"view": "small"}
    assert found.caption.endswith("all 27.") and 'data-brush="probs"' in found.caption
    full = instruments.answer(answers.models, "surprise", {"text": "otto"})
    assert found.answer == thin(full, 6)  # a table shows its losses to four decimals
    twice = chapter(answers, folder, text + "\n" + text).steps[0].blocks
    assert [b.id for b in twice] == ["do-it-surprise", "do-it-surprise-2"]
    nudge = block(answers, folder, "```figure nudge\nrow: {{1 + 1}}\nby: 0.001\ncaption: C\n```")
    assert nudge.args["row"] == 2 and nudge.args["by"] == 0.001 and nudge.args["weight"] == "wte"
    assert nudge.answer["measured"] == (nudge.answer["up"] - nudge.answer["down"]) / 0.002
    picture = block(answers, folder, "```figure model\ntext: anna\ncaption: C\n```")
    assert picture.answer is None and picture.args == {"text": "anna"}
    writing = block(answers, folder, "```figure writing\nprefix:\ntemperature: 1\ncaption: C\n```")
    assert writing.args["prefix"] == "" and writing.args["temperature"] == 1


def test_predictions_of_every_kind(answers: facts.Answers, folder: Path) -> None:
    choice = block(
        answers, folder,
        "```predict choice\nquestion: `q`?\noption: no\noption*: [k](#k)\nthen: So.\n```",
    )  # fmt: skip
    assert choice.truth == 1 and choice.options[1].startswith("<span") and choice.range is None
    assert choice.id == "do-it-guess" and choice.question == "<code>q</code>?"
    computed = block(
        answers, folder,
        "```predict choice\nquestion: ?\noption: a\noption: b\ntruth: {{len('a')}}\nthen: S\n```",
    )  # fmt: skip
    assert computed.truth == 1
    number = block(
        answers, folder,
        "```predict number\nquestion: ?\nrange: 0 6 0.1 nats a token\ntruth: loss.guess\n"
        "then: S\n```",
    )  # fmt: skip
    assert number.truth == math.log(27)
    assert number.range == {"low": 0.0, "high": 6.0, "step": 0.1, "unit": "nats a token"}
    line = block(
        answers, folder,
        "```predict line\nquestion: ?\nlines: attention | return weights @ v @ wo\n"
        "lines:  | import math\nthen: So.\n```",
    )  # fmt: skip
    assert line.truth == [105, 4]
    curve = block(
        answers, folder,
        "```predict curve\nquestion: ?\naxes: steps | loss | 1.5 | 4.5\n"
        "truth: training.losses\nthen: So.\n```",
    )  # fmt: skip
    assert curve.axes == {"x": "steps", "y": "loss", "low": 1.5, "high": 4.5}
    losses = answers.models.run("trained").losses
    assert [y for _, y in curve.truth] == [float(f"{y:.4g}") for y in losses]


def test_an_exercise_is_that_of_its_name(answers: facts.Answers, folder: Path) -> None:
    found = block(
        answers, folder,
        "```exercise mend-gradient\ntask: Mend *it*.\nhint: One\nhint: `1`\nthen: Done.\n```",
    )  # fmt: skip
    known = exercises.EXERCISES["mend-gradient"]
    assert (found.how, found.start, found.solution) == ("mend", known.start, known.solution)
    assert found.hints == ["One", "<code>1</code>"] and found.task == "Mend <em>it</em>."
    assert found.focus == known.focus and found.truth == []


# ---- What is wrong ----

FIGURE = "```figure surprise\n{}\n```"
CHOICE = "```predict choice\nquestion: ?\n{}\nthen: So.\n```"
NUMBER = "```predict number\nquestion: ?\n{}\nthen: So.\n```"
WRONG: list[tuple[str, str]] = [
    ("There are 3 of them.", "7: A number is typed here; let the file compute it: …There are 3"),
    ("One\ntwo, 3.5 three", "8: A number is typed"),
    ("[q, 12](#q)", "7: A number is typed"),
    ("| a |\n|---|\n| 4 |", "9: A number is typed"),
    ("### In 2017", "7: A number is typed"),
    ("{{nothing}}", "7: {{nothing}} cannot be computed: NameError"),
    ("{{1 / 0}}", "7: {{1 / 0}} cannot be computed: ZeroDivisionError"),
    ("{{None}}", "7: {{None}} is None."),
    ("{{value('attention.z', 0, 0)}}", "7: {{value('attention.z', 0, 0)}}: There is no 'z' in"),
    ("{{21|word}}", "7: {{21|word}} is 21, and numbers from 0 to 20 have a word."),
    ("{{'a'|2}}", "7: {{'a'|2}} is 'a', which is no number."),
    ("{{3|list}}", "7: {{3|list}} is no list."),
    ("{{float('inf')|2}}", "which is no finite number."),
    ("{{ a\nb }}", "7: There is a {{ whose }} is not on the same line."),
    ("[a](#nonsense)", "7: 'nonsense' is no name of the file that could light up"),
    ("[a](#a)", "7: 'a' is no name of the file"),
    ("[a](glossary.md#softmx)", "7: glossary.md has no entry 'softmx'; softmax is meant, perhaps."),
    ("[a](references.md#x)", "7: references.md has no entry 'x'."),
    ("[a](06-heads.md)", "7: This links to 06-heads.md, which is not there."),
    ("[a](05-attention.md#no)", "7: 05-attention.md has no step 'no'."),
    ("[a](elsewhere.html)", "7: This links to elsewhere.html, which is not there."),
    ("![a](b.png)", "7: A picture is made by a figure, not by an image."),
    ("```python3\nx\n```", "7: There is no block 'python3'; there are lines, figure"),
    ("```lines\nimport maths\n```", "8: There is no line in the file that reads: import maths"),
    ("```lines nowhere\nimport math\n```", "8: There is no nowhere in this source."),
    ("```lines\nback = 1\n\nw.grad = []\n```", "8: There is no line"),
    ("```lines\ndef __init__(self, data, *parents):\n```\n\n```lines\n\n```", "11: This block"),
    ("```figure\ncaption: C\n```", "7: There is no figure called ''; there are: tokens, matrix"),
    ("```figure suprise\ncaption: C\n```", "7: There is no figure called 'suprise'"),
    (FIGURE.format("text: anna"), "7: This block needs a caption."),
    (FIGURE.format("caption:"), "7: This block needs a caption."),
    (FIGURE.format("caption: C\ntext: Anna"), "7: The character 'A' is not in the vocabulary"),
    (FIGURE.format("caption: C\nmodle: first"), "9: There is no 'modle' here; model is meant"),
    (FIGURE.format("caption: C\ncaption: D"), "9: caption stands here twice."),
    (FIGURE.format("caption: C\nnonsense"), "9: A block has lines of the form key: value"),
    (FIGURE.format("caption*: C"), "8: Only an option has a star."),
    (FIGURE.format("caption: In 5 steps"), "8: A number is typed"),
    ("```figure nudge\ncaption: C\nrow: one\n```", "9: 'one' cannot be read as JSON."),
    ("```figure nudge\ncaption: C\nrow: 1.5\n```", "7: row must be a whole number, not 1.5."),
    ("```predict guess\nquestion: ?\n```", "7: There is no prediction 'guess'; there are: choice"),
    (CHOICE.format("option*: a"), "7: A choice has at least two options."),
    (CHOICE.format("option: a\noption: b"), "7: Mark the one true option"),
    (CHOICE.format("option*: a\noption*: b"), "7: Mark the one true option"),
    (CHOICE.format("option*: a\noption: b\ntruth: 1"), "11: The true option has"),
    (CHOICE.format("option: a\noption: b\ntruth: 2"), "11: The truth is the index of"),
    (CHOICE.format("option: a\noption: b\ntruth: {{0.5}}"), "11: The truth is the index"),
    (CHOICE.format("option*: a\noption: b\nrange: 1"), "11: A prediction of a choice has no range"),
    ("```predict choice\noption*: a\noption: b\nthen: S\n```", "7: This block needs a question."),
    ("```predict choice\nquestion: ?\noption*: a\noption: b\n```", "7: This block needs a then."),
    (NUMBER.format("truth: 3"), "7: This block needs a range."),
    (NUMBER.format("range: 0 6 0.1"), "7: This block needs a truth."),
    (NUMBER.format("range: zero\ntruth: 3"), "9: A range is: low high step unit"),
    (NUMBER.format("range: 6 0 1 x\ntruth: 3"), "9: The range's low must be below its high"),
    (NUMBER.format("range: 0 6 1 x\ntruth: 7"), "10: The truth, 7, lies outside of"),
    (NUMBER.format("range: 0 6 1 x\ntruth: 'a'"), "10: The truth is a number, not 'a'."),
    (NUMBER.format("range: 0 6 1 x\ntruth: nothing"), "10: {{nothing}} cannot be computed"),
    ("```predict line\nquestion: ?\nthen: S\n```", "7: Say which line is right"),
    ("```predict line\nquestion: ?\nlines: import math\nthen: S\n```", "9: A line is given as"),
    ("```predict line\nquestion: ?\nlines: mlp | x\nthen: S\n```", "9: There is no line"),
    ("```predict curve\nquestion: ?\naxes: a | b\ntruth: []\nthen: S\n```", "9: Axes are: x | y"),
    ("```predict curve\nquestion: ?\naxes: a|b|0|1\ntruth: [1]\nthen: S\n```", "10: The truth"),
    ("```predict curve\nquestion: ?\naxes: a | b | 0 | 1\ntruth: []\nthen: S\n```", "10: A curve"),
    ("```exercise nonsense\ntask: T\nthen: S\n```", "7: There is no exercise called 'nonsense'"),
    ("```exercise sgd\nthen: S\n```", "7: This block needs a task."),
    ("```exercise sgd\ntask: T\nthen: S\nhow: edit\n```", "10: An exercise has no how"),
    ("## Do it", "7: Another step of this chapter has this title."),
    ("# Again", "7: A chapter has one title (# …); this is a second."),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), WRONG)
def test_every_mistake_is_told_with_file_and_line(
    answers: facts.Answers, folder: Path, body: str, words: str
) -> None:
    with pytest.raises(parse.LessonsError) as refusal:
        read(answers, folder, TOP + "## Do it\n" + body + "\n")
    said = refusal.value.problems
    place, _, rest = words.partition(": ")
    wanted = f"chapters/05-attention.md:{words}" if place.isdigit() else words
    assert any(wanted in problem for problem in said), said
    assert rest or not place.isdigit()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: A chapter begins with its title"),
        ("Hello", "1: A chapter begins with its title: # Title"),
        ("# A\n\nlead\n", "3: Under the title stands how long it takes"),
        ("# A\nminutes: 0\n\nlead\n\n## S\n\nx\n", "2: Under the title"),
        ("# A\nminutes: 5\n\n## S\n\nx\n", "1: A chapter begins with a paragraph before"),
        ("# A\nminutes: 5\n\nlead\n", "1: A chapter has at least one step"),
        ("# A\nminutes: 5\n\nlead\n\n```lines\nimport math\n```\n\n## S\n", "6: This block"),
    ],
)  # fmt: skip
def test_what_every_chapter_has(
    answers: facts.Answers, folder: Path, text: str, words: str
) -> None:
    with pytest.raises(parse.LessonsError) as refusal:
        read(answers, folder, text)
    wanted = f"chapters/05-attention.md:{words}"
    assert any(wanted in problem for problem in refusal.value.problems), refusal.value.problems


def test_what_is_wrong_beside_the_chapters(answers: facts.Answers, folder: Path) -> None:
    good = TOP + "## Do it\n\nx\n"
    read(answers, folder, good)
    exercise = "```exercise sgd\ntask: T\nthen: S\n```\n"
    (folder / "chapters" / "06-more.md").write_text(good + exercise + "\n" + exercise)
    (folder / "chapters" / "07-attention.md").write_text(good)
    (folder / "chapters" / "07-other.md").write_text(good)
    (folder / "chapters" / "notes.md").write_text("x")
    (folder / "glossary.md").unlink()
    (folder / "references.md").write_text("- a | b | c\n- x | y | 2017 | t | v | {{zzz}}\n")
    (folder / "made.md").write_text("no title, 5\n")
    with pytest.raises(parse.LessonsError) as refusal:
        parse.read(answers, folder)
    said = refusal.value.problems
    for words in (
        "chapters/06-more.md:14: The exercise sgd stands in the lessons twice.",
        "chapters/notes.md:1: A chapter is called NN-slug.md",
        "Two chapters have the number 7.", "Two chapters have the slug attention.",
        "glossary.md:1: This file is missing or cannot be read.",
        "references.md:1: A reference is: - id | authors", "references.md:2: {{zzz}} cannot be",
        "made.md:1: This page begins with its title", "made.md:1: A number is typed here",
    ):  # fmt: skip
        assert any(words in problem for problem in said), (words, said)
    assert str(refusal.value) == "\n".join(said), "all of them at once"
    shutil.rmtree(folder / "chapters")
    with pytest.raises(parse.LessonsError, match="There is no chapter in"):
        parse.read(answers, folder)


# ---- Facts ----


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (3.14159, "2", "3.14"), (-0.5, "1", "\u22120.5"), (-0.001, "2", "0.00"), (2, "0", "2"),
        (0.031234, "sig3", "0.0312"), (1.2e-9, "sig3", "1.2e\u22129"), (4, "word", "four"),
        (4.0, "word", "four"), (10007, "comma", "10,007"), (0.425, "percent", "42\u202f%"),
        ([1, 2, 3], "list", "1, 2, 3"), (["a", "\n"], "list", "a, ↵"), ("\n", "", "↵"),
        ((5, 4), "", "(5, 4)"), (-3, "", "\u22123"), (0.1 + 0.2, "", "0.3"), ("x", "", "x"),
        (174_588_899_328, "big", "175 billion"), (41_648_115, "big", "42 million"),
        (1_556_609_600, "big", "1.6 billion"), (4192, "big", "4,192"),
        (9.96e6, "big", "10 million"),
        (1.17e-9, "tiny", "1 \u00d7 10⁻⁹"), (-3e4, "tiny", "\u22123 \u00d7 10⁴"),
    ],
)  # fmt: skip
def test_values_are_written_as_the_page_writes_them(value: Any, form: str, text: str) -> None:
    assert facts.written(value, form) == text


def test_an_expression_and_its_format() -> None:
    assert facts.split("a|2") == ("a", "2") and facts.split(" a | sig3 ") == ("a", "sig3")
    assert facts.split("a | b") == ("a | b", "") and facts.split("a or b") == ("a or b", "")


def test_facts_are_what_the_file_says(answers: facts.Answers, gpt: Any) -> None:
    known = facts.Facts(answers)
    models = answers.models
    lines = [line for line in ORIGINAL.splitlines() if line.strip()]

    def fact(expression: str) -> Any:
        return known.evaluate(expression)

    assert fact("lines") == len(lines) <= 150 and fact("columns") == max(map(len, lines)) <= 88
    assert fact("head_size * n_head") == fact("n_embd") and fact("mlp_size") == 4 * fact("n_embd")
    assert fact("parameters") == models.first.parameters
    assert fact("train_docs + held_out_docs") == fact("documents")
    assert fact("loss.guess") == math.log(fact("vocab_size"))
    assert fact("loss.first") == models.first.held_out_loss(50)
    assert fact("loss.trained") == models.run("trained").held_out_loss(50)
    assert fact("loss.lowest") == min(models.run("trained").losses) < fact("loss.last")
    assert fact("loss.highest") == max(models.run("trained").losses)
    assert fact('ids("anna")') == [0, 1, 14, 14, 1, 0]
    assert fact('tokens("a")') == ["\n", "a", "\n"]
    assert fact('shape("attention.q 1")') == (5, 4)
    row = [fact(f'value("attention.weights 1", 4, {i})') for i in range(5)]
    assert math.isclose(sum(row), 1)
    assert fact('value("wte", 1, 0, grad=True)') == fact('nudge("wte", 1, 0).gradient')
    assert fact('nudge("wte", 1, 0).relative') < 1e-6
    assert math.isclose(sum(fact(f'prob("ann", {c!r})') for c in models.first.vocab), 1)
    best = fact('top("ann", 3)')
    assert (
        len(best) == 3
        and best[0][1] >= best[1][1]
        and best[0][1] == fact(f'prob("ann", {best[0][0]!r})')
    )
    assert fact("samples(3, seed=2)") == models.run("trained").sample(3, seed=2)
    assert fact('slope("a * b + a", "a", a=2.0, b=3.0)') == 4
    assert fact('share_of_zeros("attention.future")') == 15 / 25
    assert fact('nearest("wte", "a")') in models.first.vocab[2:]
    parts = ["Head", "Tokenizer", "Autograd", "Model", "Training", "Sampling", "Main"]
    assert sum(fact(f'count_lines("{part}")') for part in parts) == len(lines)
    assert fact('line("mlp", "return hidden @ proj")') == 109
    assert math.isclose(abs(fact('moments("wte", 1, 0).first_move')), 1, rel_tol=1e-6)
    assert fact('scale("GPT-3").n_layer') == 96
    assert fact("at_temperature(0.5, n=3).n") == 3
    run = models.run("trained")
    record = models.record("anna", "trained")
    reached = set(instruments.completed(record))
    assert fact("nodes") == len(reached) <= len(record["tensors"])
    smoothed = fact("training.smoothed")
    assert smoothed[-1][1] == pytest.approx(sum(run.losses) / len(run.losses))
    for wrong in ('count_lines("x")', 'scale("x")', 'slope("a *", "a", a=1.0)', "loss.nothing"):
        with pytest.raises(MicrogptError):
            fact(wrong)


def test_curves_are_thinned_evenly_with_both_ends() -> None:
    points = facts._thinned([(i, float(i)) for i in range(1, 1001)])
    assert len(points) == facts.MOST_POINTS and points[0] == (1, 1) and points[-1] == (1000, 1000)


def test_slow_answers_are_kept_until_the_package_changes(
    answers: facts.Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "lessons.cache.json"
    arguments: Plain = {"temperatures": [1.0], "n": 2}
    first = facts.Answers(answers.models, cache).ask("temperatures", arguments)
    monkeypatch.setattr(instruments, "answer", lambda *_: pytest.fail("it is in the file"))
    assert facts.Answers(answers.models, cache).ask("temperatures", arguments) == first
    other = facts.Answers(Models(answers.models.first, Run()), cache)
    assert other.stamp != answers.stamp and not other.kept
    cache.write_text("{", encoding="utf-8")
    assert not facts.Answers(answers.models, cache).kept


# ---- The listing ----


def test_the_listing_is_the_file() -> None:
    rows = listing.listing(ORIGINAL, listing.names(ORIGINAL))
    assert ["".join(part.text for part in row) for row in rows] == [
        line if line.strip() else "" for line in ORIGINAL.splitlines()
    ]
    kinds = {part.kind for row in rows for part in row}
    assert kinds == {"", "keyword", "comment", "string", "number", "defined"}
    assert rows[0][0].kind == rows[1][-1].kind == "string"
    defined = {part.text for row in rows for part in row if part.kind == "defined"}
    assert {"Tensor", "attention", "__init__", "sample"} <= defined


def test_a_name_lights_up_where_it_means_what_is_meant() -> None:
    rows = listing.listing(ORIGINAL, listing.names(ORIGINAL))
    where: dict[str, set[str]] = {}
    functions = source.functions(ORIGINAL)
    for number, row in enumerate(rows, 1):
        inside = [f.name.split(".")[0] for f in functions if f.first <= number <= f.last]
        for part in row:
            if part.brush:
                where.setdefault(part.brush, set()).add(inside[0] if inside else "")
    assert where["q"] == where["k"] == where["v"] == where["weights"] == {"attention"}
    assert where["x"] == {"norm", "attention", "mlp", "gpt"}
    assert where["adam.m"] == where["adam.v"] == {"adam", "train"}
    assert where["adam.w"] == {"adam", "train"} and "m" not in where and "w" not in where
    assert where["hidden"] == {"mlp"} and where["probs"] == {"cross_entropy", "sample"}
    only = listing.listing(ORIGINAL, {"q"})
    assert {part.brush for row in only for part in row} == {None, "q"}
    assert listing.concept("adam.v") is None and listing.concept("v") == "value"
    assert listing.concept("blocks.0.heads.1.wq") == "query"


def test_concepts_are_those_of_the_page() -> None:
    page = (ROOT / "web" / "src" / "format.ts").read_text(encoding="utf-8")
    table = page.split("const CONCEPTS")[1].split("};")[0]
    assert dict(re.findall(r"(\w+): \"(\w+)\"", table)) == listing._CONCEPTS


# ---- The command ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the build trained, or one of the same recipe, trained now."""
    built = GENERATED / "trained.safetensors"
    if built.is_file() and checkpoint.read(built).source == ORIGINAL:
        return built
    run = Run()
    while not run.done:
        run.advance()
    path = tmp_path_factory.mktemp("trained") / "trained.safetensors"
    checkpoint.save(run, path)
    return path


def test_the_command_writes_or_says_what_is_wrong(
    folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "chapters" / "05-attention.md").write_text(TOP + "## Do it\n\n{{lines}} lines\n")
    out = tmp_path / "out.json"
    command = [str(out), "--trained", str(trained), "--lessons", str(folder)]
    assert __main__.main(command) == 0
    lessons = json.loads(out.read_text(encoding="utf-8"))
    assert set(lessons) == {field.name for field in dataclasses.fields(Lessons)}
    (folder / "chapters" / "05-attention.md").write_text(TOP + "## Do it\n\n7 lines\n")
    out.unlink()
    assert __main__.main(command) == 1 and not out.exists()
    assert capsys.readouterr().err == (
        "chapters/05-attention.md:8: A number is typed here; let the file compute it: …7 lines…\n"
    )
    run = Run(steps=2)
    other = tmp_path / "other.safetensors"
    checkpoint.save(run, other)
    assert __main__.main([str(out), "--trained", str(other)]) == 1
    assert "not a finished run" in capsys.readouterr().err
    for content, words in (
        (zlib.compress(b'{"losses": [{"loss": 1}]}', wbits=-15), "of different runs"),
        (b"nonsense", "cannot be read"),
    ):
        (tmp_path / "recording").write_bytes(content)
        assert __main__.main([*command, "--recording", str(tmp_path / "recording")]) == 1
        assert words in capsys.readouterr().err
    assert __main__.main([str(out), "--trained", str(tmp_path / "none")]) == 1
    assert "There is no file" in capsys.readouterr().err


# ---- The contract with the page ----


def interfaces() -> dict[str, set[str]]:
    """The names of the fields of each interface of the page's types, its inner ones left out."""
    text = (ROOT / "web" / "src" / "walk" / "types.ts").read_text(encoding="utf-8")
    text = re.sub(r"/\*\*.*?\*/", "", text, flags=re.S)
    found = {}
    for name, body in re.findall(r"export interface (\w+) \{(.*?)\n?\}\n", text, re.S):
        while re.search(r"\{[^{}]*\}", body):
            body = re.sub(r"\{[^{}]*\}", "inner", body)
        found[name] = set(re.findall(r"(?:^|;)\s*(\w+)\??:", body, re.M))
    return found


def test_lessons_have_the_shape_that_the_page_knows() -> None:
    import microgpt.lessons as package

    known = interfaces()
    for name in ("Lessons", "Chapter", "Step", "Prediction", "Exercise", "CodeToken"):
        fields = {field.name for field in dataclasses.fields(getattr(package, name))}
        assert fields == known[name], name


def test_answers_have_the_shape_that_the_page_knows(answers: facts.Answers) -> None:
    known = interfaces()
    for name in instruments.INSTRUMENTS:
        interface = f"{name.capitalize()}Answer"
        if name in ("training", "xray"):  # a whole training; the page's own Xray
            continue
        arguments: Plain = {"n": 1} if name == "temperatures" else {}
        found = instruments.answer(answers.models, name, arguments)
        assert set(found) == known[interface], name


# ---- The chapters as they are ----


@pytest.fixture(scope="module")
def lessons(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    cache = tmp_path_factory.mktemp("lessons") / "lessons.cache.json"
    built = GENERATED / "lessons.cache.json"
    if built.is_file():  # what the build kept; it is used only if it is of this very package
        shutil.copy(built, cache)
    return parse.read(facts.Answers(__main__.models(trained), cache))


class _Html(html.parser.HTMLParser):
    """What a piece of HTML links to and brushes with; it must be well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag


def pieces(lessons: Lessons) -> list[tuple[str, str]]:
    """Every piece of HTML of the lessons, with the chapter that it is in."""
    found = [("", term.html) for term in lessons.glossary]
    found += [("", reference.html) for reference in lessons.references]
    found.append(("", lessons.made["html"]))
    for one in lessons.chapters:
        found.append((one.slug, one.lead))
        for block in (block for step in one.steps for block in step.blocks):
            for field in ("html", "caption", "question", "then", "task"):
                if hasattr(block, field):
                    found.append((one.slug, getattr(block, field)))
            for field in ("options", "hints"):
                value = getattr(block, field, [])
                found += [(one.slug, text) for text in value if isinstance(value, list)]
    return found


def blocks(lessons: Lessons, kind: str) -> list[Any]:
    every = [b for one in lessons.chapters for step in one.steps for b in step.blocks]
    return [block for block in every if block.kind == kind]


def test_every_line_of_the_file_is_explained(lessons: Lessons) -> None:
    explained = {line for one in lessons.chapters for step in one.steps for line in step.lines}
    filled = {n for n, line in enumerate(ORIGINAL.splitlines(), 1) if line.strip()}
    assert sorted(filled - explained) == []
    assert explained <= filled


def test_no_number_is_typed() -> None:
    """Digits stand in `code`, between braces, in the names of things (GPT-2), and in citations."""
    for path in [
        *sorted((FOLDER / "chapters").glob("*.md")),
        FOLDER / "glossary.md",
        FOLDER / "made.md",
    ]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"\nminutes: \d+\n", "\n", text)
        text = re.sub(r"^```lines.*?^```$", "", text, flags=re.S | re.M)
        keys = ("text", "model", "value", "values", "scores", "seed", "temperature", "row",
                "column", "by", "steps", "range", "axes", "truth", "lines", "weight",
                "prefix")  # fmt: skip
        text = re.sub(rf"^(?:{'|'.join(keys)}):.*$", "", text, flags=re.M)
        text = re.sub(r"\{\{.*?\}\}", "", text)
        text = re.sub(r"^```.*$|```.*?```|`[^`]*`", "", text, flags=re.M)
        text = re.sub(r"\[[^\]]*\]\(references\.md[^)]*\)|\]\([^)]*\)", "", text)
        text = re.sub(r"^\d+\. ", "", text, flags=re.M)
        typed = re.findall(r".{0,20}(?<![\w])(?<!\w-)\d.{0,20}", text)
        assert not typed, f"{path.name}: {typed}"


def test_everything_that_is_linked_to_is_there(lessons: Lessons) -> None:
    pages: dict[str, set[str]] = {
        one.slug: {step.id for step in one.steps} for one in lessons.chapters
    }
    pages |= {"glossary": {t.id for t in lessons.glossary}, "made": set()}
    pages |= {"references": {r.id for r in lessons.references}}
    for slug, text in pieces(lessons):
        for tag, attributes in _Html(text).found:
            assert "style" not in attributes and tag not in ("script", "style", "img", "iframe")
            if tag == "a":
                to = attributes["href"] or ""
                page, _, part = to.partition("#")
                if not re.match(r"https://|\.\./", to):
                    assert page.removesuffix(".html") in pages, (slug, to)
                    assert not part or part in pages[page.removesuffix(".html")], (slug, to)


def test_every_brush_lights_up_a_line_or_a_picture(lessons: Lessons) -> None:
    lit = {part.brush for row in lessons.code for part in row}
    shown: dict[str, set[str]] = {}
    for one in lessons.chapters:
        shown[one.slug] = set()
        for block in (block for step in one.steps for block in step.blocks):
            if isinstance(block, Figure) and block.answer is not None:
                shown[one.slug] |= set(instruments.names_shown(block.figure, block.answer))
    brushed = 0
    for slug, text in pieces(lessons):
        for tag, attributes in _Html(text).found:
            if "data-brush" in attributes:
                brushed += 1
                assert tag == "span" and attributes["tabindex"] == "0"
                assert attributes["data-brush"] in lit | shown.get(slug, set())
    assert brushed > 20


def test_every_instrument_and_every_exercise_is_somewhere(lessons: Lessons) -> None:
    figures = {figure.figure for figure in blocks(lessons, "figure")}
    assert figures == {*instruments.INSTRUMENTS, *instruments.PICTURES} - {"xray"}
    assert {e.id for e in blocks(lessons, "exercise")} == set(exercises.EXERCISES)
    assert {p.how for p in blocks(lessons, "predict")} >= {"choice", "number", "curve"}


def test_ids_are_unique_in_their_chapter(lessons: Lessons) -> None:
    for one in lessons.chapters:
        ids = [step.id for step in one.steps]
        ids += [b.id for step in one.steps for b in step.blocks if hasattr(b, "id")]
        assert len(ids) == len(set(ids)), one.slug
        assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in ids)


def test_pictures_are_what_the_file_answers(lessons: Lessons, trained: Path) -> None:
    models = __main__.models(trained)
    for figure in blocks(lessons, "figure"):
        if figure.figure in instruments.PICTURES or figure.figure in facts.SLOW:
            continue
        full = instruments.answer(models, figure.figure, figure.args)
        digits = parse.OTHER.get(figure.figure, parse.DIGITS)
        exact = figure.figure in instruments.EXACT
        assert figure.answer == (full if exact else thin(full, digits)), figure.id


def test_published_sizes_cite_papers_that_are_listed(lessons: Lessons, trained: Path) -> None:
    listed = {reference.id for reference in lessons.references}
    cited = {m["reference"] for m in instruments.scale(__main__.models(trained))["models"]}
    assert cited - {""} <= listed


def test_the_walk_takes_about_an_hour(lessons: Lessons) -> None:
    assert 40 <= sum(one.minutes for one in lessons.chapters) <= 75
    assert [one.number for one in lessons.chapters] == list(range(1, len(lessons.chapters) + 1))
