"""The run: its recipe, its steps that leave no trace when they fail, its measures and its
samples."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from typing import Any

import pytest

import microgpt
from microgpt import data
from microgpt.errors import MicrogptError
from microgpt.run import ArgumentError, DivergedError, Run, expected_weights, spelled
from microgpt.source import ORIGINAL, execute

WORDS = "ab\nabc\nba\nbca\ncab\ncc\nacb\nbb\naca\nbac\ncba\nabca\nbcab\ncabc\naab\nbba\n"
CORPUS = data.load(WORDS)
SMALL: dict[str, Any] = {"n_embd": 4, "n_head": 2, "block_size": 6}


def small(**more: Any) -> Run:
    return Run(**({"corpus": CORPUS, "steps": 30} | SMALL | more))


def edited(old: str, new: str) -> str:
    assert ORIGINAL.count(old) == 1, f"the file has changed: {old!r}"
    return ORIGINAL.replace(old, new)


def numbers(run: Run) -> list[Any]:
    weights = [[row[:] for row in w.data] for w in run.named_weights().values()]
    return [weights, [([*m], [*v]) for m, v in run.moments or []], run.losses[:], run.step]


# ---- The recipe ----


def test_the_recipe_is_fixed() -> None:
    """The same numbers as the file gives by hand: shuffle, then weights, from one generator."""
    file = execute(ORIGINAL)
    rng = random.Random(7)
    docs = list(data.split(CORPUS.docs)[0])
    rng.shuffle(docs)
    vocab = file["vocabulary"](CORPUS.docs)
    params = file["init"](rng, len(vocab), **SMALL)
    expected = list(file["train"](params, docs, vocab, steps=20, batch=2, lr=0.02))

    run = small(seed=7, steps=20, batch=2, lr=0.02)
    assert [run.advance() for _ in range(20)] == expected
    assert run.losses == expected
    assert run.train_docs == docs
    assert run.done


def test_names_are_the_default_and_the_source_sets_what_is_not_given() -> None:
    run = Run()
    assert run.corpus.name == "names"
    assert (run.steps, run.batch, run.lr) == (1000, 1, 0.01)
    assert run.sizes == {"n_layer": 1, "n_head": 4, "n_embd": 16, "block_size": 16, "std": 0.08}
    assert (run.parameters, run.context, run.seed) == (4192, 16, 42)
    assert run.baseline == math.log(27)
    assert run.smoothed() != run.smoothed()
    first = run.advance()
    assert run.smoothed() == first
    assert abs(first - run.baseline) < 0.6  # before it learns, it guesses


def test_an_edit_sets_the_defaults() -> None:
    source = edited("steps=1000, batch=1, lr=0.01", "steps=5, batch=3, lr=0.5")
    run = Run(source, CORPUS, **SMALL)
    assert (run.steps, run.batch, run.lr) == (5, 3, 0.5)


def test_the_seed_decides() -> None:
    one, same, other = (small(seed=seed) for seed in (1, 1, 2))
    assert one.train_docs == same.train_docs != other.train_docs
    assert one.advance() == same.advance() != other.advance()


def test_a_run_learns() -> None:
    run = small(steps=300)
    before = run.held_out_loss()
    while not run.done:
        run.advance()
    assert run.held_out_loss() < before - 0.1
    with pytest.raises(MicrogptError, match="finished: all its 300 steps"):
        run.advance()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_layer": 0}, "n_layer must be 1 or more, not 0"),
        ({"n_layer": -3}, "n_layer must be 1 or more, not -3"),
        ({"n_embd": 4.5}, "n_embd must be a whole number, not 4.5"),
        ({"n_embd": True}, "n_embd must be a number, not True"),
        ({"block_size": "6"}, "block_size must be a number, not '6'"),
        ({"n_head": 3}, "4 channels cannot be shared by 3 heads"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"batch": 1.5}, "batch must be a whole number"),
        ({"lr": 0.0}, "lr must be a number above 0"),
        ({"lr": -0.1}, "lr must be a number above 0"),
        ({"lr": math.nan}, "lr must be a number above 0"),
        ({"std": math.inf}, "std must be a number 0 or more"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"n_embed": 8}, "gpt.py has no n_embed to set: its init takes n_layer, n_head, n_embd"),
        ({"n_embd": 1 << 20}, "plain Python can hold up to 10,000,000"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        small(**arguments)
    assert words in caught.value.message
    assert caught.value.message.endswith(".")


def test_impossible_sizes_by_an_edit_are_told_too() -> None:
    with pytest.raises(ArgumentError, match="16 channels cannot be shared by 5 heads"):
        Run(edited("n_head=4", "n_head=5"), CORPUS)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("heads", "channels"), [(1, 2), (2, 6)])
def test_expected_weights_are_those_of_init(layers: int, heads: int, channels: int) -> None:
    run = small(n_layer=layers, n_head=heads, n_embd=channels)
    assert expected_weights(run.sizes, len(run.vocab)) == run.parameters


def test_weights_have_paths() -> None:
    run = small(n_layer=2)
    weights = run.named_weights()
    assert list(weights) != sorted(weights)
    assert list(map(id, weights.values())) == list(map(id, run.namespace["leaves"](run.params)))
    assert weights["blocks.1.heads.0.wq"] is run.params["blocks"][1]["heads"][0]["wq"]


# ---- Steps that fail ----


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("when", [0, 1, 10])
def test_a_step_that_fails_leaves_no_trace(failure: type[BaseException], when: int) -> None:
    """Broken off while Adam is half-way through the weights, then tried again."""
    whole = small()
    while not whole.done:
        whole.advance()

    run = small()
    adam, count = run.namespace["adam"], 0

    def breaks(*arguments: Any) -> None:
        nonlocal count
        if count == 12 * len(run.named_weights()) + when:
            count += 1
            raise failure("broken off")
        count += 1
        adam(*arguments)

    run.namespace["adam"] = breaks
    for _ in range(12):
        run.advance()
    before = numbers(run)
    with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else MicrogptError):
        run.advance()
    assert numbers(run) == before
    assert run.whole
    while not run.done:
        run.advance()
    assert run.losses == whole.losses
    assert numbers(run) == numbers(whole)


@pytest.mark.parametrize("lr", [1e300, 1e160])
def test_divergence_is_told_at_its_step(lr: float) -> None:
    run = small(lr=lr)
    said = ""
    while not said:
        before = numbers(run)
        try:
            run.advance()
        except DivergedError as error:
            said = error.message
    assert f"at step {run.step + 1}: try a learning rate lower than {lr:g}" in said
    assert all(map(math.isfinite, run.losses))
    assert numbers(run) == before


def test_a_number_too_large_is_divergence_with_its_line() -> None:
    run = Run(edited("hidden = (x @ fc).relu()", "hidden = (x * 1000).exp() @ fc"), CORPUS, **SMALL)
    with pytest.raises(DivergedError, match="too large at step 1: try a learning rate lower") as e:
        run.advance()
    assert e.value.line == 1 + ORIGINAL[: ORIGINAL.index("    hidden = ")].count("\n")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("        yield total", "        pass", "must be a generator"),
        ("        yield total", "        yield loss", "yielded a Tensor"),
        ("        yield total", "        yield True", "yielded a bool"),
        ("    weights = leaves(params)", "    return; yield", "ended by itself after step 0"),
        ("    weights = leaves(params)", "    exit()", "asked Python to exit"),
        ("    weights = leaves(params)", "    weights = nothing", "'nothing' is not defined"),
    ],
)
def test_a_broken_train(old: str, new: str, words: str) -> None:
    run = Run(edited(old, new), CORPUS, **SMALL)
    with pytest.raises(MicrogptError, match=words):
        run.advance()


def test_a_broken_vocabulary() -> None:
    source = edited('["\\n"] + sorted(set("".join(docs)))', "range(3)")
    with pytest.raises(MicrogptError, match="vocabulary must return a list of texts"):
        Run(source, CORPUS)


def test_what_a_source_does_not_take_cannot_be_asked() -> None:
    source = edited("steps=1000, batch=1, lr=0.01", "steps=1000, lr=0.01").replace("batch", "1")
    run = Run(source, CORPUS, **SMALL)
    assert run.batch is None
    run.advance()
    with pytest.raises(ArgumentError, match="This source has no batch to set: its train takes"):
        Run(source, CORPUS, batch=2, **SMALL)


def test_without_moments_a_run_works_and_cannot_be_continued() -> None:
    run = Run(edited(", moments=None)", ")").replace("moments or ", ""), CORPUS, **SMALL)
    assert run.moments is None
    assert not run.resumable
    run.advance()
    run.advance()
    run._generator = None  # as after a step that failed
    with pytest.raises(MicrogptError, match="cannot go on; start it again"):
        run.advance()


@pytest.mark.parametrize("name", ["Tensor", "encode", "init", "leaves", "train", "sample", "gpt"])
def test_a_missing_function_is_named(name: str) -> None:
    source = ORIGINAL.replace(f"def {name}(", f"def other_{name}(")
    source = source.replace(f"class {name}:", f"class Other{name}:")
    with pytest.raises(MicrogptError, match=f"needs something called {name}"):
        Run(source, CORPUS)


# ---- Measures ----


def test_held_out_loss_is_the_files_own_cross_entropy_over_tokens() -> None:
    run = small()
    for _ in range(10):
        run.advance()
    file, total, count = run.namespace, 0.0, 0
    for doc in run.held_out_docs:
        ids = file["encode"](doc, run.vocab)[: run.context + 1]
        targets = file["Tensor"]([[float(j == t) for j in range(len(run.vocab))] for t in ids[1:]])
        loss = file["cross_entropy"](file["gpt"](ids[:-1], **run.params), targets).data[0][0]
        total, count = total + loss * len(ids[1:]), count + len(ids[1:])
    assert run.held_out_loss(None) == pytest.approx(total / count, abs=1e-12)
    assert not set(run.held_out_docs) & set(run.train_docs)


def test_held_out_loss_stays_comparable_when_the_training_loss_is_edited() -> None:
    doubled = edited("/ surprise.shape[-2]", "/ surprise.shape[-2] * 2")
    run, other = small(), small(source=doubled)
    assert other.advance() == pytest.approx(2 * run.advance())
    assert small(source=doubled).held_out_loss() == small().held_out_loss()


def test_held_out_loss_reads_the_same_documents_every_time() -> None:
    run = Run(**SMALL)
    assert run.held_out_loss(5) == run.held_out_loss(5) != run.held_out_loss(6)
    with pytest.raises(ArgumentError, match="at least one"):
        run.held_out_loss(0)


def test_long_documents_are_cut_to_the_context() -> None:
    run = small(corpus=data.load("abcabcabcabcabc\ncbacbacbacba\n"))
    run.advance()
    assert math.isfinite(run.held_out_loss())


def test_exact_answers() -> None:
    docs = tuple(f"{a}{b}>x" for a in "abcd" for b in "abcd")
    task = data.Corpus("mine", "Mine", docs, ">")
    run = small(corpus=task, steps=200)
    assert run.exact_answers() == 0
    while not run.done:
        run.advance()
    assert run.exact_answers() == 1
    with pytest.raises(MicrogptError, match="no answers to score"):
        small().exact_answers()


# ---- Sampling ----


@pytest.fixture(scope="module")
def trained() -> Run:
    run = small(steps=100)
    while not run.done:
        run.advance()
    return run


def test_samples_are_the_files_own(trained: Run) -> None:
    rng = random.Random(5)
    file = trained.namespace
    arguments = (trained.params, trained.vocab, rng, 0.8, "a")
    expected = [list(file["sample"](*arguments))[-1].removesuffix("\n") for _ in range(6)]
    assert trained.sample(6, temperature=0.8, prefix="a", seed=5) == expected
    assert all(text.startswith("a") for text in expected)
    assert len(set(expected)) > 1
    assert trained.sample(0) == []


def test_temperature_0_is_greedy(trained: Run) -> None:
    text = ""
    while not text.endswith("\n") and len(text) < 6:
        ids = trained.namespace["encode"](text, trained.vocab)[:-1]
        scores = trained.namespace["gpt"](ids, **trained.params).data[-1]
        text += trained.vocab[scores.index(max(scores))]
    assert trained.sample(3, temperature=0) == [text.removesuffix("\n")] * 3
    assert trained.sample(1, temperature=1e-320) == [text.removesuffix("\n")]


def test_steps_of_a_sample_come_with_their_probabilities(trained: Run) -> None:
    before = ""
    for text, probs in trained.sample_steps("", 1.0, random.Random(3)):
        ids = trained.namespace["encode"](before, trained.vocab)[:-1]
        scores = trained.namespace["gpt"](ids, **trained.params).data[-1]
        total = sum(math.exp(score) for score in scores)
        assert probs == pytest.approx([math.exp(score) / total for score in scores])
        assert text[:-1] == before
        assert probs[trained.vocab.index(text[-1])] > 0
        before = text
    assert before


def test_probabilities_are_empty_where_a_source_has_none() -> None:
    run = small(source=ORIGINAL.replace("probs", "chances"))
    assert next(probs for _, probs in run.sample_steps()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": -0.5}, "must be 0 (always the likeliest token) or more, not -0.5"),
        ({"temperature": math.nan}, "must be 0 (always the likeliest token) or more, not nan"),
        ({"temperature": "hot"}, "must be a number, not 'hot'"),
        ({"prefix": "axb"}, "has 'x', which is not in this model's vocabulary: abc."),
        ({"prefix": "aaaaaa"}, "has 6 characters, and a context of 6 leaves room for 5"),
        ({"prefix": "a\nb"}, "a line break, which marks the end of a document"),
        ({"n": -1}, "must be a whole number, not -1"),
    ],
)
def test_impossible_samples(trained: Run, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        trained.sample(**arguments)
    assert words in caught.value.message


def test_the_longest_prefix_fits(trained: Run) -> None:
    (text,) = trained.sample(1, prefix="abcab")
    assert text[:5] == "abcab"
    assert len(text) in (5, 6)


def test_a_sample_that_fails_is_told_with_its_line() -> None:
    run = small(source=edited("        probs = softmax(logits)", "        probs = missing(logits)"))
    with pytest.raises(MicrogptError, match="'missing' is not defined") as caught:
        run.sample(1)
    assert caught.value.line == 1 + ORIGINAL[: ORIGINAL.index("        probs = ")].count("\n")


def test_a_vocabulary_is_spelled_for_people() -> None:
    assert spelled(["\n", "a", "b"]) == "ab"
    assert spelled(["\n"] + [chr(0x4E00 + i) for i in range(100)]).endswith(" and others")


# ---- The three lines ----


def test_train_and_sample_in_python() -> None:
    seen: list[int] = []
    model = microgpt.train(WORDS, steps=3, on_step=lambda run: seen.append(run.step), **SMALL)
    assert seen == [1, 2, 3]
    assert model.losses == _losses(3, engine="fast")
    plain = microgpt.train(WORDS, steps=3, engine="reference", **SMALL)
    assert plain.losses == _losses(3)
    assert model.losses == pytest.approx(plain.losses, rel=1e-6)
    assert microgpt.sample(model, n=4, prefix="b", seed=1) == model.sample(4, prefix="b", seed=1)


def _losses(steps: int, **more: Any) -> list[float]:
    run = small(steps=steps, **more)
    return [run.advance() for _ in range(steps)]


processes = pytest.mark.skipif(sys.platform == "emscripten", reason="a browser has no processes")


@processes
def test_importing_the_package_imports_nothing_of_it_and_nothing_else() -> None:
    """Neither its own modules nor any that Python has not loaded for typing; in milliseconds."""
    script = (
        "import sys, collections.abc, time, typing; before = set(sys.modules);"
        "start = time.perf_counter(); import microgpt; took = time.perf_counter() - start;"
        "print(sorted(set(sys.modules) - before), took < 0.1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['__future__', 'microgpt'] True"


@processes
def test_the_core_needs_only_the_standard_library() -> None:
    script = (
        "import sys, microgpt.run, microgpt.checkpoint;"
        "print([name for name in ('click', 'rich', 'numpy', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_lazy_names() -> None:
    assert microgpt.Run is Run
    assert microgpt.MicrogptError is MicrogptError
    assert microgpt.Corpus is data.Corpus
    assert microgpt.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = microgpt.nothing
