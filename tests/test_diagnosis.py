"""What is wrong with a model: measured again by hand, and each failure of the gallery found."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from engines import loss_and_gradients
from test_cli import command, refused

from microgpt.data import Corpus, load
from microgpt.lab import diagnosis
from microgpt.lab.diagnosis import GALLERY, Measured, corpus_of, diagnose, failure, measure
from microgpt.lab.variants import program
from microgpt.run import Run

FEW = Corpus("few", "a few names", load("names").docs[:200])


def trained(recipe: str, corpus: Corpus, seed: int = 42) -> Run:
    run = Run(program(recipe).source, corpus, seed=seed, engine="fast")
    while not run.done:
        run.advance_by(run.steps or 1)
    return run


@pytest.mark.parametrize("seed", [42, 7])
@pytest.mark.parametrize("name", [one.name for one in GALLERY])
def test_every_failure_of_the_gallery_is_found(name: str, seed: int) -> None:
    one = failure(name)
    assert one is not None
    found = diagnose(trained(one.recipe, corpus_of(one), seed))
    assert one.expected in [finding.name for finding in found]


@pytest.mark.parametrize("recipe", ["", "gelu", "n_layer=2"])
def test_nothing_is_wrong_with_a_model_that_learns(recipe: str) -> None:
    assert diagnose(trained(recipe, load("names"))) == []


def test_what_is_measured_is_so() -> None:
    run = trained("steps=60+n_layer=2+n_embd=8+n_head=2", FEW)
    seen = measure(run)
    docs = run.train_docs[: diagnosis.READ]
    documents = [tuple(run.namespace["encode"](doc, run.vocab)[:17]) for doc in docs]

    _, gradients = loss_and_gradients(run.namespace, run.params, documents, 1.0, len(run.vocab))
    by_name = dict(zip(run.named_weights(), gradients))
    for block, size in enumerate(seen.gradients):
        cells = np.concatenate(
            [np.ravel(g) for name, g in by_name.items() if name.startswith(f"blocks.{block}.")]
        )
        assert size == pytest.approx(math.sqrt(float((cells**2).mean())), rel=1e-9)
    assert len(seen.gradients) == len(seen.dead) == 2

    tokens = [t for doc in run.train_docs for t in run.namespace["encode"](doc, run.vocab)[1:17]]
    counts, size = Counter(tokens), len(run.vocab)
    kept = [t for doc in run._held_out(None)[: diagnosis.READ] for t in doc + "\n"]
    chance = [(counts[run.vocab.index(t)] + 1) / (len(tokens) + size) for t in kept]
    assert seen.unigram == pytest.approx(-np.log(chance).mean(), rel=1e-9)
    assert (
        seen.held_out == seen.at_once == pytest.approx(run.held_out_loss(diagnosis.READ), rel=1e-5)
    )
    texts = run.sample(diagnosis.WRITTEN, seed=run.seed)
    assert seen.copies == sum(text in run.train_docs for text in texts) / len(texts)
    assert run.namespace["Tensor"]([[-1.0, 2.0]]).relu().data == [[0.0, 2.0]]  # as it was before


def test_cells_that_never_pass_anything_are_counted() -> None:
    run = Run(program("n_embd=8+n_head=2").source, FEW)
    fc = run.named_weights()["blocks.0.fc"]
    fc.data = [[0.0 if j < 8 else x for j, x in enumerate(row)] for row in fc.data]
    seen = measure(run)
    assert seen.dead == [pytest.approx(8 / 32, abs=1 / 32)]


def test_findings_have_bounds() -> None:
    run = trained("steps=30", FEW)
    fine = Measured(2.5, 2.6, 3.0, [0.1], [1.0], 0.0, False, 2.6)
    assert diagnose(run, fine) == []

    def name(**changed: object) -> list[str]:
        return [finding.name for finding in diagnose(run, replace(fine, **changed))]  # type: ignore[arg-type]

    assert name(train=2.9, held_out=3.0) == ["unlearnt"]
    assert name(dead=[0.1, 0.9]) == ["dead"]
    assert name(gradients=[1.0, 0.001]) == ["gradients"]
    assert name(gradients=[1.0, 0.0]) == ["gradients"]
    assert name(train=1.0, held_out=2.9) == ["memorised"]
    assert name(copies=0.9) == ["memorised"]
    assert name(sees=True, at_once=0.1) == ["future"]
    run.losses = [2.0, math.inf]
    assert name() == ["diverged"]


def test_the_command_shows_the_gallery_and_one_of_it() -> None:
    printed = command("diagnose").stdout
    for one in GALLERY:
        assert f"  {one.name}" in printed
    assert [f["name"] for f in json.loads(command("diagnose", "--json").stdout)["failures"]] == [
        one.name for one in GALLERY
    ]
    printed = command("diagnose", "overfitting").stdout
    assert "Thirty names, again and again" in printed
    assert "of its texts are copies of them" in " ".join(printed.split())
    assert "What mends it: more data" in printed
    told = json.loads(command("diagnose", "lr=1e30", "--json").stdout)
    assert [finding["name"] for finding in told["findings"]] == ["diverged"]
    assert "Nothing is wrong" in command("diagnose", "gelu", "--data", "names").stdout
    assert refused("diagnose", "gelo", code=1).startswith("microgpt: There is no variant 'gelo'")
