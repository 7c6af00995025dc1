"""What a GPT must do, whatever its weights: look back only, learn, resume, sample, tidy up."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

DOCS = ["anna", "bob", "cecilia", "dora", "edda", "fabiola", "gaia"]


def copy(tree: Any, tensor: Any) -> Any:
    """The same weights in tensors of their own."""
    if isinstance(tree, tensor):
        return tensor([list(row) for row in tree.data])
    if isinstance(tree, dict):
        return {name: copy(part, tensor) for name, part in tree.items()}
    return [copy(part, tensor) for part in tree]


def numbers(gpt: Any, params: Any) -> list[list[list[float]]]:
    return [[list(row) for row in w.data] for w in gpt.leaves(params)]


def loss_of(gpt: Any, params: Any, text: str, vocab: list[str]) -> float:
    ids = gpt.encode(text, vocab)[: params["wpe"].shape[-2] + 1]
    targets = gpt.Tensor([[j == t for j in range(len(vocab))] for t in ids[1:]])
    return float(gpt.cross_entropy(gpt.gpt(ids[:-1], **params), targets).data[0][0])


@pytest.fixture(scope="module")
def trained(gpt: Any) -> tuple[Any, list[str]]:
    """A small model that has learned a little, and its vocabulary."""
    vocab = gpt.vocabulary(DOCS)
    params = gpt.init(random.Random(1), len(vocab), n_embd=8, n_head=2, block_size=8)
    for _ in gpt.train(params, DOCS, vocab, steps=100):
        pass
    return params, vocab


# ---- Tokens ----


def test_the_vocabulary_is_sorted_and_begins_with_the_end_mark(gpt: Any, names: list[str]) -> None:
    assert gpt.vocabulary(["ba", "c", "ab"]) == ["\n", "a", "b", "c"]
    assert gpt.vocabulary(["a\tb"]) == ["\n", "\t", "a", "b"], "first, even where it sorts later"
    assert gpt.vocabulary(["zoë 2", "Añ"]) == ["\n", " ", "2", "A", "o", "z", "ë", "ñ"]
    assert gpt.vocabulary(names) == ["\n", *"abcdefghijklmnopqrstuvwxyz"]


def test_encoding_goes_back(gpt: Any) -> None:
    vocab = gpt.vocabulary(DOCS)
    for text in [*DOCS, "", "abc"]:
        ids = gpt.encode(text, vocab)
        assert ids[0] == ids[-1] == 0
        assert 0 not in ids[1:-1]
        assert "".join(vocab[i] for i in ids[1:-1]) == text


def test_a_character_outside_the_vocabulary_is_refused(gpt: Any) -> None:
    with pytest.raises(ValueError, match="'q' is not in list"):
        gpt.encode("queen", gpt.vocabulary(DOCS))


# ---- The model ----


@pytest.mark.parametrize("n_layer", [1, 2])
def test_a_token_changes_nothing_before_it(gpt: Any, n_layer: int) -> None:
    params = gpt.init(
        random.Random(2), 9, n_layer=n_layer, n_embd=8, n_head=2, block_size=8, std=0.7
    )
    ids = [0, 5, 3, 3, 8, 1, 7, 2]
    before = gpt.gpt(ids, **params).data
    for t in range(len(ids)):
        changed = [*ids[:t], (ids[t] + 4) % 9, *ids[t + 1 :]]
        after = gpt.gpt(changed, **params).data
        assert after[:t] == before[:t], "to the last bit"
        assert all(after[i] != before[i] for i in range(t, len(ids))), (
            "and all that follows sees it"
        )


def test_what_comes_later_changes_nothing_either(gpt: Any) -> None:
    params = gpt.init(random.Random(3), 9, n_layer=2, n_embd=8, n_head=2, block_size=8, std=0.7)
    ids = [0, 5, 3, 3, 8, 1, 7, 2]
    whole = gpt.gpt(ids, **params).data
    for t in range(1, len(ids)):
        assert gpt.gpt(ids[:t], **params).data == whole[:t]


def test_the_order_of_the_tokens_matters(gpt: Any) -> None:
    params = gpt.init(random.Random(4), 9, n_embd=8, n_head=2, block_size=8, std=0.7)
    assert gpt.gpt([0, 1, 2, 3], **params).data[-1] != gpt.gpt([0, 2, 1, 3], **params).data[-1]


def test_sizes_follow_the_arguments(gpt: Any) -> None:
    params = gpt.init(random.Random(5), 27)
    count = sum(rows * columns for rows, columns in (w.shape for w in gpt.leaves(params)))
    assert count == 27 * 16 + 16 * 16 + 4 * 4 * (16 * 4) + 2 * (16 * 64) + 16 * 27 == 4192
    params = gpt.init(random.Random(5), 7, n_layer=3, n_head=2, n_embd=6, block_size=5)
    assert params["wte"].shape == (7, 6)
    assert params["wpe"].shape == (5, 6)
    assert params["lm_head"].shape == (6, 7)
    assert len(params["blocks"]) == 3
    for block in params["blocks"]:
        assert block["fc"].shape == (6, 24)
        assert block["proj"].shape == (24, 6)
        assert [{n: w.shape for n, w in head.items()} for head in block["heads"]] == [
            {"wq": (6, 3), "wk": (6, 3), "wv": (6, 3), "wo": (3, 6)}
        ] * 2
    assert gpt.gpt([0, 1, 2], **params).shape == (3, 7)


def test_the_weights_come_from_the_given_generator_alone(gpt: Any) -> None:
    random.seed(0)
    state = random.getstate()
    first, same, other = (gpt.init(random.Random(seed), 9) for seed in (6, 6, 7))
    assert random.getstate() == state
    assert numbers(gpt, first) == numbers(gpt, same) != numbers(gpt, other)
    cells = [x for w in gpt.leaves(first) for row in w.data for x in row]
    spread = math.sqrt(sum(x * x for x in cells) / len(cells))
    assert abs(sum(cells) / len(cells)) < 0.005
    assert abs(spread - 0.08) < 0.004


def test_the_loss_begins_near_that_of_guessing(gpt: Any, names: list[str]) -> None:
    """ln(27), and about half the variance of the first logits (16 * 0.08**2 / 2 = 0.05) on top."""
    vocab = gpt.vocabulary(names)
    excess = []
    for seed in range(6):
        params = gpt.init(random.Random(seed), len(vocab))
        losses = [loss_of(gpt, params, text, vocab) for text in names[:20]]
        excess.append(sum(losses) / len(losses) - math.log(len(vocab)))
    assert max(abs(x) for x in excess) < 0.2, excess
    assert 0.0 < sum(excess) / len(excess) < 0.1, excess


# ---- Training ----


def test_fifty_steps_lower_the_loss(gpt: Any, names: list[str]) -> None:
    vocab = gpt.vocabulary(names)
    params = gpt.init(random.Random(0), len(vocab))
    losses = list(gpt.train(params, names[:50], vocab, steps=50))
    assert len(losses) == 50
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-10:]) < sum(losses[:10]) - 10 * 0.1


def test_one_document_can_be_learned_by_heart(gpt: Any) -> None:
    vocab = gpt.vocabulary(["abcab"])
    params = gpt.init(random.Random(8), len(vocab), n_embd=8, n_head=2, block_size=8)
    *_, last = gpt.train(params, ["abcab"], vocab, steps=300)
    assert last < 0.02
    assert list(gpt.sample(params, vocab, random.Random(0), 0.1))[-1] == "abcab\n"


def test_each_loss_is_that_of_the_weights_before_the_step(gpt: Any) -> None:
    vocab = gpt.vocabulary(DOCS)
    params = gpt.init(random.Random(9), len(vocab), n_embd=8, n_head=2, block_size=8)
    run = gpt.train(params, DOCS, vocab, steps=9, batch=3)
    for step in range(9):
        docs = [DOCS[i % len(DOCS)] for i in range(3 * step, 3 * step + 3)]
        expected = sum(loss_of(gpt, params, text, vocab) for text in docs) / 3
        assert next(run) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(StopIteration):
        next(run)


def test_long_documents_are_cut_to_the_context(gpt: Any) -> None:
    """Beyond the context nothing is read: neither the rest of a document nor its end."""
    vocab = gpt.vocabulary(["abcdef"])
    results = []
    for text in ("abcde", "abcdef", "abcdfffff"):
        params = gpt.init(random.Random(10), len(vocab), n_embd=8, n_head=2, block_size=4)
        results.append((list(gpt.train(params, [text], vocab, steps=5)), numbers(gpt, params)))
    assert results[0] == results[1] == results[2]
    params = gpt.init(random.Random(10), len(vocab), n_embd=8, n_head=2, block_size=4)
    assert list(gpt.train(params, ["abc"], vocab, steps=5)) != results[0][0]


def test_an_empty_document_teaches_the_end(gpt: Any) -> None:
    vocab = gpt.vocabulary(["ab"])
    params = gpt.init(random.Random(11), len(vocab), n_embd=4, n_head=1, block_size=4)
    *_, last = gpt.train(params, [""], vocab, steps=100)
    assert last < 0.2 < math.log(3)
    assert list(gpt.sample(params, vocab, random.Random(0), 0.1)) == ["\n"]


@pytest.mark.parametrize("batch", [1, 3])
def test_training_that_was_interrupted_goes_on_to_the_same_bits(gpt: Any, batch: int) -> None:
    vocab = gpt.vocabulary(DOCS)
    begin = gpt.init(random.Random(12), len(vocab), n_embd=8, n_head=2, block_size=8)

    def moments() -> list[tuple[Any, Any]]:
        return [
            ([[0.0] * w.shape[1]] * w.shape[0], [[0.0] * w.shape[1]] * w.shape[0])
            for w in gpt.leaves(begin)
        ]

    whole, kept = copy(begin, gpt.Tensor), moments()
    expected = list(gpt.train(whole, DOCS, vocab, steps=12, batch=batch, moments=kept))
    parts, memory, losses = copy(begin, gpt.Tensor), moments(), []
    for start in (0, 5, 6):
        run = gpt.train(parts, DOCS, vocab, steps=12, batch=batch, start=start, moments=memory)
        losses += [next(run) for _ in range({0: 5, 5: 1, 6: 6}[start])]
        run.close()
    assert losses == expected
    assert numbers(gpt, parts) == numbers(gpt, whole)
    assert memory == kept
    assert list(gpt.train(copy(begin, gpt.Tensor), DOCS, vocab, steps=12, batch=batch)) == expected


def test_a_step_leaves_no_reference_cycles(gpt: Any) -> None:
    vocab = gpt.vocabulary(["anna"])
    params = gpt.init(random.Random(13), len(vocab), n_layer=2, n_embd=8, n_head=2, block_size=8)
    run = gpt.train(params, ["anna"], vocab, steps=20)
    for _ in range(3):
        next(run)
    gc.collect()
    gc.disable()
    try:
        counts = []
        for _ in range(5):
            next(run)
            counts.append(len(gc.get_objects()))
        assert gc.collect() == 0, "unreachable objects were waiting for the collector"
        list(gpt.sample(params, vocab, random.Random(0)))
        assert gc.collect() == 0
        run.close()
        assert gc.collect() == 0
        assert max(counts) - min(counts) <= 5, counts
    finally:
        gc.enable()


def test_a_deep_graph_is_walked_and_freed_without_recursion(gpt: Any) -> None:
    params = gpt.init(random.Random(14), 3, n_layer=150, n_embd=2, n_head=1, block_size=4, std=0.02)
    *_, loss = gpt.train(params, ["", ""], ["\n", "a", "b"], steps=1)
    assert math.isfinite(loss)


# ---- Sampling ----


def test_sampling_yields_a_growing_text_that_ends_with_the_mark_or_the_context(
    gpt: Any, trained: Any
) -> None:
    params, vocab = trained
    ends = Counter()  # type: Counter[str]
    for seed in range(60):
        texts = list(gpt.sample(params, vocab, random.Random(seed)))
        assert [len(text) for text in texts] == list(range(1, len(texts) + 1))
        assert all(long.startswith(short) for short, long in itertools.pairwise(texts))
        assert "\n" not in texts[-1][:-1]
        assert set(texts[-1]) <= set(vocab)
        stopped = texts[-1].endswith("\n")
        assert stopped or len(texts[-1]) == 8
        ends["mark" if stopped else "context"] += 1
    assert len(ends) == 2, "both ends were seen"


def test_a_prefix_is_kept_and_a_finished_text_is_left_alone(gpt: Any, trained: Any) -> None:
    params, vocab = trained
    for prefix in ("a", "bo", "cecilia"):
        texts = list(gpt.sample(params, vocab, random.Random(1), text=prefix))
        assert texts
        assert all(text.startswith(prefix) for text in texts)
        assert len(texts[0]) == len(prefix) + 1
    for finished in ("anna\n", "cecilia\n", "abababab"):
        assert list(gpt.sample(params, vocab, random.Random(1), text=finished)) == []


def test_the_same_seed_gives_the_same_text(gpt: Any, trained: Any) -> None:
    params, vocab = trained
    texts = [
        list(gpt.sample(params, vocab, random.Random(seed)))[-1] for seed in [3] * 2 + [*range(20)]
    ]
    assert texts[0] == texts[1] == texts[5]
    assert len(set(texts)) > 5


def test_a_tiny_temperature_takes_the_likeliest(gpt: Any, trained: Any) -> None:
    params, vocab = trained
    text = ""
    while not text.endswith("\n") and len(text) < 8:
        row = gpt.gpt(gpt.encode(text, vocab)[:-1], **params).data[-1]
        text += vocab[list(row).index(max(row))]
    for seed in range(5):
        assert list(gpt.sample(params, vocab, random.Random(seed), 1e-6))[-1] == text


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_tokens_are_drawn_as_softmax_says(gpt: Any, trained: Any, temperature: float) -> None:
    """Pearson's chi-square of 1,500 first tokens against the probabilities they should have."""
    params, vocab = trained
    row = gpt.gpt([0], **params).data[-1]
    weigh = [math.exp(x / temperature) for x in row]
    expected = [1500 * w / sum(weigh) for w in weigh]
    rng = random.Random(15)
    drawn = Counter(next(gpt.sample(params, vocab, rng, temperature)) for _ in range(1500))
    score = sum(
        (drawn[char] - mean) ** 2 / mean for char, mean in zip(vocab, expected, strict=True)
    )
    freedom = len(vocab) - 1
    assert score < freedom + 4 * math.sqrt(2 * freedom), (score, freedom)


def test_the_next_token_follows_from_the_last_one_and_all_before(gpt: Any, trained: Any) -> None:
    params, vocab = trained
    rng, twin = random.Random(16), random.Random(16)
    for text in gpt.sample(params, vocab, rng, 0.7, "a"):
        row = gpt.gpt(gpt.encode(text[:-1], vocab)[:-1], **params).data[-1]
        weigh = [math.exp(x / 0.7) for x in row]
        assert twin.choices(vocab, weigh) == [text[-1]]


# ---- Dot products ----


def fresh(path: Path) -> Any:
    """The file imported anew, as an interpreter would that has what `math` has now."""
    spec = importlib.util.spec_from_file_location("fresh_gpt", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sumprod_is_used_where_it_exists(
    gpt: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hasattr(math, "sumprod"):
        assert gpt.dot is math.sumprod
    calls = []

    def sumprod(a: Any, b: Any) -> float:
        calls.append((tuple(a), tuple(b)))
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    monkeypatch.setattr(math, "sumprod", sumprod, raising=False)
    module = fresh(path)
    product = module.Tensor([[1.0, 2.0], [3.0, 4.0]]) @ module.Tensor([[5.0], [6.0]])
    assert product.data == [[17.0], [39.0]]
    assert calls == [((1.0, 2.0), (5.0, 6.0)), ((3.0, 4.0), (5.0, 6.0))]


def test_without_sumprod_the_numbers_are_the_same(
    gpt: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(math, "sumprod", raising=False)
    module = fresh(path)
    assert module.dot([1.0, 2.0, 3.0], (4.0, 5.0, 6.0)) == 32.0
    vocab, losses = gpt.vocabulary(DOCS), []
    for version in (gpt, module):
        params = version.init(random.Random(17), len(vocab), n_embd=8, n_head=2, block_size=8)
        losses.append(list(version.train(params, DOCS, vocab, steps=10)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
