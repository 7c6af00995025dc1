"""Gradients against finite differences: every operation, and every weight of a small model."""

from __future__ import annotations

import importlib
import itertools
import math
import operator
import random
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip(
    "hypothesis", reason="the shapes and numbers of these tests come from hypothesis"
)

from hypothesis import assume, given
from hypothesis import strategies as st

gpt: Any = importlib.import_module("microgpt.gpt")
Tensor: Any = gpt.Tensor
Shape = tuple[int, int]

STEP = 1e-5  # how far a number is moved to each side
VOCAB = ["\n", *"abcdef"]


def matrix(rng: random.Random, shape: Shape, low: float = -2.0, high: float = 2.0) -> Any:
    return Tensor([[rng.uniform(low, high) for _ in range(shape[1])] for _ in range(shape[0])])


def total(x: Any) -> Any:
    """All cells of a tensor added up, as a (1, 1) tensor."""
    return x.sum(-1, keepdim=True).transpose(-2, -1).sum(-1, keepdim=True)


def slopes(loss: Callable[[], float], w: Any) -> list[list[float]]:
    """How the loss changes with each cell of w, by moving the cell to both sides."""
    found: list[list[float]] = []
    for i, row in enumerate(w.data):
        found.append([])
        for j, x in enumerate(row):
            ends = []
            for moved in (x + STEP, x - STEP):
                w.data[i] = [*row[:j], moved, *row[j + 1 :]]
                ends.append(loss())
            w.data[i] = row
            found[-1].append((ends[0] - ends[1]) / (2 * STEP))
    return found


def worst(a: list[list[float]], b: list[list[float]]) -> float:
    assert [len(row) for row in a] == [len(row) for row in b]
    return max(abs(x - y) for rows in zip(a, b, strict=True) for x, y in zip(*rows, strict=False))


def check(make: Callable[..., Any], *inputs: Any, seed: int = 0) -> None:
    """backward's gradient of every input of `make` is that of finite differences.

    The result is weighed with random numbers before it is added up, so that a gradient which lands
    in the wrong cell is noticed.
    """
    result = make(*inputs)
    weigh = matrix(random.Random(seed), result.shape)
    gpt.backward(total(result * weigh))
    for x in inputs:
        expected = slopes(lambda: total(make(*inputs) * weigh).data[0][0], x)
        assert (len(x.grad), len(x.grad[0])) == x.shape
        size = max(1.0, max(abs(g) for row in expected for g in row))
        assert worst(x.grad, expected) < 1e-7 * size


# ---- Operations ----

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv]

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(sizes, sizes)


@st.composite
def fitting(draw: Any) -> tuple[Shape, Shape]:
    """Two shapes of which any size may be a 1 that repeats."""
    rows, columns = draw(shapes)
    one = [draw(st.booleans()) for _ in range(4)]
    return (1 if one[0] else rows, 1 if one[1] else columns), (
        1 if one[2] else rows,
        1 if one[3] else columns,
    )


@given(fitting(), seeds, st.sampled_from(BINARY))
def test_two_matrices_with_repeated_rows_and_columns(
    pair: tuple[Shape, Shape], seed: int, operation: Callable[..., Any]
) -> None:
    rng = random.Random(seed)
    a, b = matrix(rng, pair[0]), matrix(rng, pair[1], 0.5, 2.0)
    check(operation, a, b, seed=seed)


@given(shapes, seeds, st.floats(0.1, 3.0))
def test_a_matrix_and_a_number(shape: Shape, seed: int, number: float) -> None:
    x = matrix(random.Random(seed), shape)
    for operation in (
        lambda x: x + number,
        lambda x: number + x,
        lambda x: x - number,
        lambda x: x * number,
        lambda x: number * x,
        lambda x: x / number,
    ):
        x.grad = []
        check(operation, x, seed=seed)


def test_a_number_stands_on_either_side_of_plus_and_times() -> None:
    x = Tensor([[1.0, -2.0], [0.5, 4.0]])
    sums, products = [[4.0, 1.0], [3.5, 7.0]], [[3.0, -6.0], [1.5, 12.0]]
    for value, expected in (
        (x + 3, sums),
        (3 + x, sums),
        (x * 3, products),
        (3 * x, products),
        (x - 3, [[-2.0, -5.0], [-2.5, 1.0]]),
        (x / 4, [[0.25, -0.5], [0.125, 1.0]]),
    ):
        assert [list(row) for row in value.data] == expected


@given(shapes, shapes)
def test_new_full_has_the_shape_and_the_number(shape: Shape, other: Shape) -> None:
    full = matrix(random.Random(0), other).new_full(shape, -math.inf)
    assert full.shape == shape
    assert full.data == [[-math.inf] * shape[1]] * shape[0]
    assert full.parents == ()


@given(shapes, seeds, st.sampled_from([-2, -1, -0.5, 0.5, 1, 2, 3]))
def test_powers(shape: Shape, seed: int, power: float) -> None:
    check(lambda x: x**power, matrix(random.Random(seed), shape, 0.5, 2.0), seed=seed)


@given(shapes, seeds, st.sampled_from(["exp", "log", "relu"]))
def test_functions_of_a_cell(shape: Shape, seed: int, name: str) -> None:
    low = 0.5 if name == "log" else -2.0
    x = matrix(random.Random(seed), shape, low)
    assume(all(abs(cell) > 2 * STEP for row in x.data for cell in row))  # relu has a corner at 0
    check(lambda x: getattr(x, name)(), x, seed=seed)
    values: dict[str, Callable[[float], float]] = {
        "exp": math.exp,
        "log": math.log,
        "relu": lambda cell: max(cell, 0.0),
    }
    expected = [[values[name](cell) for cell in row] for row in x.data]
    assert [list(row) for row in getattr(x, name)().data] == expected


def test_relu_is_flat_at_zero() -> None:
    x = Tensor([[-1.0, 0.0, 1.0]])
    gpt.backward(total(x.relu()))
    assert x.relu().data[0][1] == 0.0
    assert x.grad == [[0.0, 0.0, 1.0]]


@given(sizes, sizes, sizes, seeds)
def test_matmul(rows: int, inner: int, columns: int, seed: int) -> None:
    rng = random.Random(seed)
    check(lambda a, b: a @ b, matrix(rng, (rows, inner)), matrix(rng, (inner, columns)), seed=seed)


@given(shapes, seeds, st.data())
def test_rows_by_number_may_repeat_and_may_be_left_out(shape: Shape, seed: int, data: Any) -> None:
    ids = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=6))
    x = matrix(random.Random(seed), shape)
    assert [list(row) for row in x[ids].data] == [list(x.data[i]) for i in ids]
    check(lambda x: x[ids], x, seed=seed)


@given(shapes, seeds, st.data())
def test_rows_by_slice(shape: Shape, seed: int, data: Any) -> None:
    x = matrix(random.Random(seed), shape)
    count = data.draw(st.integers(1, 7))
    for rows in (slice(None, count), slice(-1, None), slice(None)):
        assert [list(row) for row in x[rows].data] == [list(row) for row in x.data[rows]]
        x.grad = []
        check(lambda x, rows=rows: x[rows], x, seed=seed)


@given(shapes, seeds)
def test_sum_and_transpose(shape: Shape, seed: int) -> None:
    x = matrix(random.Random(seed), shape)
    check(lambda x: x.sum(-1, keepdim=True), x, seed=seed)
    x.grad = []
    check(lambda x: x.transpose(-2, -1), x, seed=seed)
    assert [tuple(row) for row in x.transpose(-2, -1).data] == list(zip(*x.data, strict=True))


@given(sizes, seeds, st.sampled_from([0, 1]))
def test_triu_keeps_the_upper_triangle(size: int, seed: int, k: int) -> None:
    x = matrix(random.Random(seed), (size, size))
    cells = itertools.product(range(size), range(size))
    kept = x.triu(k).data
    assert all(kept[i][j] == (x.data[i][j] if j >= i + k else 0.0) for i, j in cells)
    check(lambda x: x.triu(k), x, seed=seed)


def test_triu_of_infinities_is_zero_below_not_nan() -> None:
    assert Tensor([[-math.inf] * 2] * 2).triu(1).data == [[0.0, -math.inf], [0.0, 0.0]]


@given(shapes, seeds)
def test_amax_is_a_constant_and_softmax_has_its_gradient_all_the_same(
    shape: Shape, seed: int
) -> None:
    """Softmax does not change when all of a row does, so the largest may be taken for a number."""
    x = matrix(random.Random(seed), shape)
    largest = x.amax(-1, keepdim=True)
    assert largest.parents == ()
    assert [row[0] for row in largest.data] == [max(r) for r in x.data]
    check(gpt.softmax, x, seed=seed)


@given(shapes, seeds)
def test_norm(shape: Shape, seed: int) -> None:
    check(gpt.norm, matrix(random.Random(seed), shape), seed=seed)


@given(sizes, sizes, sizes, seeds)
def test_attention(length: int, channels: int, width: int, seed: int) -> None:
    rng = random.Random(seed)
    inward = [matrix(rng, (channels, width), -1, 1) for _ in range(3)]
    x, wo = matrix(rng, (length, channels), -1, 1), matrix(rng, (width, channels), -1, 1)
    check(gpt.attention, x, *inward, wo, seed=seed)


@given(shapes, seeds)
def test_cross_entropy(shape: Shape, seed: int) -> None:
    rng = random.Random(seed)
    rows = [[rng.randrange(shape[1]) == j for j in range(shape[1])] for _ in range(shape[0])]
    check(lambda logits: gpt.cross_entropy(logits, Tensor(rows)), matrix(rng, shape), seed=seed)


# ---- Accumulation ----


@pytest.mark.parametrize(
    "twice",
    [
        lambda x: x + x,
        lambda x: x * x,
        lambda x: x - x * x,
        lambda x: x @ x,
        lambda x: x @ x.transpose(-2, -1),
        lambda x: x[[0, 0, 1]],
        lambda x: x * x.sum(-1, keepdim=True),
        lambda x: x.exp() + (x.exp() * x).relu() / x,
    ],
)
def test_what_is_used_twice_gets_both_gradients(twice: Callable[[Any], Any]) -> None:
    check(twice, matrix(random.Random(5), (3, 3)))


def test_a_value_waits_for_all_that_was_made_from_it() -> None:
    """Long and short ways from one value to the loss: it may pass its gradient on only once."""
    x = matrix(random.Random(6), (2, 2))

    def ladder(x: Any) -> Any:
        y = x * 0.5
        for _ in range(6):
            y = y + y * y * 0.1 + x
        return y + x

    check(ladder, x)


def test_gradients_of_two_documents_add_up_to_the_mean() -> None:
    params = gpt.init(random.Random(7), len(VOCAB), n_embd=8, n_head=2, block_size=8)
    weights = gpt.leaves(params)

    def loss(text: str) -> Any:
        ids = gpt.encode(text, VOCAB)
        targets = Tensor([[j == t for j in range(len(VOCAB))] for t in ids[1:]])
        return gpt.cross_entropy(gpt.gpt(ids[:-1], **params), targets)

    alone = []
    for text in ("abc", "fade"):
        gpt.backward(loss(text))
        alone.append([w.grad for w in weights])
        for w in weights:
            w.grad = []
    for text in ("abc", "fade"):
        gpt.backward(loss(text) / 2)
    for w, a, b in zip(weights, *alone, strict=True):
        mean = [
            [(x + y) / 2 for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=False)
        ]
        assert worst(w.grad, mean) < 1e-15


def test_a_weight_that_was_not_used_has_no_gradient_and_stays() -> None:
    params = gpt.init(random.Random(8), len(VOCAB), n_layer=2, n_embd=8, n_head=2, block_size=8)
    used, unused = ([*gpt.leaves(block)] for block in params["blocks"])
    one = dict(params, blocks=params["blocks"][:1])
    gpt.backward(total(gpt.gpt(gpt.encode("bad", VOCAB), **one)))
    before = [[list(row) for row in w.data] for w in used + unused]
    for w in used + unused:
        zeros = [[0.0] * w.shape[1] for _ in range(w.shape[0])]
        m, v = list(zeros), list(zeros)
        assert (w.grad == []) == (w in unused)
        gpt.adam(w, m, v, 1, 0.01)
        assert w.grad == []
        assert (m == zeros and v == zeros) == (w in unused)
    for w, data in zip(used + unused, before, strict=True):
        assert (w.data == data) == (w in unused)


# ---- Shapes ----


@given(shapes, shapes)
def test_shapes_broadcast_as_in_numpy_or_are_refused(a: Shape, b: Shape) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is the oracle for broadcasting")
    rng = random.Random(9)
    x, y = matrix(rng, a), matrix(rng, b)
    left, right = numpy.array(x.data), numpy.array(y.data)
    for operation in (operator.add, operator.mul, operator.sub):
        try:
            expected = operation(left, right)
        except ValueError:
            with pytest.raises(AssertionError, match=r"\(\d+, \d+\) is not \(\d+, \d+\)"):
                operation(x, y)
        else:
            result = operation(x, y)
            assert result.shape == expected.shape
            assert [list(row) for row in result.data] == expected.tolist()


@given(shapes, shapes)
def test_matrices_that_do_not_chain_are_refused(a: Shape, b: Shape) -> None:
    rng = random.Random(10)
    x, y = matrix(rng, a), matrix(rng, b)
    if a[1] == b[0]:
        assert (x @ y).shape == (a[0], b[1])
    else:
        with pytest.raises(AssertionError, match=f"{a[1]} columns @ {b[0]} rows do not fit"):
            x @ y


def test_a_text_longer_than_the_context_is_refused() -> None:
    params = gpt.init(random.Random(11), len(VOCAB), n_embd=8, n_head=2, block_size=4)
    with pytest.raises(AssertionError, match=r"\(4, 8\) is not \(5, 8\)"):
        gpt.gpt([0, 1, 2, 3, 4], **params)


# ---- The whole model ----


@pytest.mark.slow
def test_every_weight_of_a_small_model() -> None:
    rng = random.Random(1)
    params = gpt.init(rng, 7, n_layer=2, n_head=2, n_embd=8, block_size=8, std=0.3)
    ids = [0, 3, 6, 6, 2, 0]
    targets = Tensor([[j == t for j in range(7)] for t in ids[1:]])

    def loss() -> Any:
        return gpt.cross_entropy(gpt.gpt(ids[:-1], **params), targets)

    gpt.backward(loss())
    weights = gpt.leaves(params)
    assert sum(rows * columns for rows, columns in (w.shape for w in weights)) == 1712
    errors = [worst(w.grad, slopes(lambda: loss().data[0][0], w)) for w in weights]
    assert max(errors) < 1e-6, errors
    assert all(any(g for row in w.grad for g in row) for w in weights), "no weight is out of reach"
