"""The file against PyTorch in float64: the same functions on another engine, and PyTorch's own."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is the oracle here")
functional: Any = torch.nn.functional
gpt: Any = importlib.import_module("microgpt.gpt")
Tensor: Any = gpt.Tensor
torch.set_num_threads(1)  # the matrices are tiny

CLOSE = 1e-9
VOCAB = ["\n", *"abcdefghijklmnopqrstuvwxyz"]


def tensor(data: Any, requires_grad: bool = False, dtype: Any = torch.float64) -> Any:
    return torch.tensor(data, dtype=dtype, requires_grad=requires_grad)


def move(tree: Any) -> Any:
    """The same weights as torch tensors, in the same tree."""
    if isinstance(tree, Tensor):
        return tensor(tree.data, requires_grad=True)
    if isinstance(tree, dict):
        return {name: move(part) for name, part in tree.items()}
    return [move(part) for part in tree]


def torch_leaves(tree: Any) -> list[Any]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree
    return [w for part in parts for w in torch_leaves(part)]


def apart(a: Any, b: Any) -> float:
    """The largest difference between numbers of the file (or torch) and of torch."""
    a, b = (x if isinstance(x, torch.Tensor) else tensor(x) for x in (a, b))
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


def one_hot(ids: list[int], size: int) -> list[list[bool]]:
    return [[j == t for j in range(size)] for t in ids]


def matrix(rng: random.Random, rows: int, columns: int, size: float = 1.0) -> Any:
    return Tensor([[rng.gauss(0, size) for _ in range(columns)] for _ in range(rows)])


# ---- The same functions on the other engine ----


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_layer", [1, 2])
@pytest.mark.parametrize("std", [0.08, 0.5])
def test_logits_loss_and_every_gradient(seed: int, n_layer: int, std: float) -> None:
    rng = random.Random(seed)
    params = gpt.init(rng, len(VOCAB), n_layer=n_layer, std=std)
    ids = gpt.encode("".join(rng.choices(VOCAB[1:], k=rng.randint(1, 15))), VOCAB)
    targets = one_hot(ids[1:], len(VOCAB))
    logits = gpt.gpt(ids[:-1], **params)
    loss = gpt.cross_entropy(logits, Tensor(targets))
    gpt.backward(loss)

    moved = move(params)
    same = gpt.gpt(ids[:-1], **moved)
    same_loss = gpt.cross_entropy(same, tensor(targets))
    same_loss.backward()
    assert apart(logits.data, same) < CLOSE
    assert apart(loss.data, same_loss) < CLOSE
    weights, others = gpt.leaves(params), torch_leaves(moved)
    assert len(weights) == len(others) == 3 + n_layer * (2 + 4 * 4)
    assert all(apart(w.grad, other.grad) < CLOSE for w, other in zip(weights, others, strict=True))
    theirs = functional.cross_entropy(same, torch.tensor(ids[1:]))
    assert abs(theirs.item() - same_loss.item()) < CLOSE


@pytest.mark.parametrize(
    ("vocab_size", "sizes"),
    [
        (1, {"n_embd": 1, "n_head": 1, "block_size": 1}),
        (2, {"n_embd": 1, "n_head": 1, "block_size": 2}),
        (2, {"n_embd": 4, "n_head": 4, "block_size": 3}),
        (3, {"n_embd": 5, "n_head": 2, "block_size": 3}),
        (3, {"n_embd": 4, "n_head": 2, "block_size": 3, "n_layer": 0}),
    ],
)
def test_the_smallest_sizes(vocab_size: int, sizes: dict[str, int]) -> None:
    """Where a size is 1, a matrix looks like one that repeats; gradients must not be mixed up."""
    rng = random.Random(12)
    params = gpt.init(rng, vocab_size, std=0.7, **sizes)
    ids = [rng.randrange(vocab_size) for _ in range(sizes["block_size"] + 1)]
    targets = one_hot(ids[1:], vocab_size)
    loss = gpt.cross_entropy(gpt.gpt(ids[:-1], **params), Tensor(targets))
    gpt.backward(loss)
    moved = move(params)
    same = gpt.cross_entropy(gpt.gpt(ids[:-1], **moved), tensor(targets))
    same.backward()
    assert apart(loss.data, same) < CLOSE
    for w, other in zip(gpt.leaves(params), torch_leaves(moved), strict=True):
        assert apart(w.grad, other.grad) < CLOSE


@pytest.mark.parametrize("n_layer", [1, 2])
def test_many_documents_at_once(n_layer: int) -> None:
    """(B, T) ids: a document's logits, loss and share of the gradients are as when alone."""
    rng = random.Random(3)
    params = gpt.init(rng, len(VOCAB), n_layer=n_layer, std=0.5)
    batch = [[0, *rng.choices(range(1, len(VOCAB)), k=6), 0] for _ in range(5)]
    alone = []
    for ids in batch:
        logits = gpt.gpt(ids[:-1], **params)
        loss = gpt.cross_entropy(logits, Tensor(one_hot(ids[1:], len(VOCAB)))) / len(batch)
        gpt.backward(loss)
        alone.append((logits.data, loss.data))

    moved = move(params)
    ids_tensor = torch.tensor(batch)
    logits = gpt.gpt(ids_tensor[:, :-1], **moved)
    losses = gpt.cross_entropy(logits, functional.one_hot(ids_tensor[:, 1:], len(VOCAB)))
    losses.mean().backward()
    assert logits.shape == (5, 7, len(VOCAB))
    assert losses.shape == (5, 1, 1)
    for i, (data, loss) in enumerate(alone):
        assert apart(data, logits[i]) < CLOSE
        assert apart(loss, losses[i] / len(batch)) < CLOSE
    for w, other in zip(gpt.leaves(params), torch_leaves(moved), strict=True):
        assert apart(w.grad, other.grad) < CLOSE


def test_a_torch_engine_that_knows_only_the_contract() -> None:
    """The model asks for nothing but the dozen operations, in exactly the forms of the contract."""
    forms: set[str] = set()

    class Strict:
        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self.shape = tuple(inner.shape)

        def __getattr__(self, name: str) -> Callable[..., Any]:
            allowed: dict[str, list[tuple[Any, Any]]] = {
                "exp": [((), {})],
                "log": [((), {})],
                "relu": [((), {})],
                "sum": [((-1,), {"keepdim": True})],
                "amax": [((-1,), {"keepdim": True})],
                "transpose": [((-2, -1), {})],
                "triu": [((1,), {})],
            }

            def call(*args: Any, **kwargs: Any) -> Any:
                forms.add(name)
                if name == "new_full":
                    assert not kwargs
                    assert args[0] == self.shape
                    assert isinstance(args[1], float)
                else:
                    assert (args, kwargs) in allowed[name], f"{name}{args}{kwargs}"
                return Strict(getattr(self._inner, name)(*args, **kwargs))

            return call

        def _binary(self, name: str, other: Any) -> Any:
            forms.add(name)
            assert isinstance(other, (Strict, int, float))
            other = other._inner if isinstance(other, Strict) else other
            return Strict(getattr(self._inner, name)(other))

        def __add__(self, other: Any) -> Any:
            return self._binary("__add__", other)

        def __sub__(self, other: Any) -> Any:
            return self._binary("__sub__", other)

        def __mul__(self, other: Any) -> Any:
            return self._binary("__mul__", other)

        def __truediv__(self, other: Any) -> Any:
            return self._binary("__truediv__", other)

        def __pow__(self, other: float) -> Any:
            assert isinstance(other, (int, float))
            return self._binary("__pow__", other)

        def __matmul__(self, other: Any) -> Any:
            assert isinstance(other, Strict)
            return self._binary("__matmul__", other)

        def __getitem__(self, ids: Any) -> Any:
            forms.add("rows" if isinstance(ids, slice) else "ids")
            if isinstance(ids, slice):
                assert ids.start is None
                assert ids.step is None
                assert isinstance(ids.stop, int)
            else:
                assert isinstance(ids, list)
                assert all(isinstance(i, int) for i in ids)
            return Strict(self._inner[ids])

    def strict(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: strict(part) for name, part in tree.items()}
        return [strict(part) for part in tree] if isinstance(tree, list) else Strict(tree)

    params = move(gpt.init(random.Random(4), len(VOCAB), n_layer=2))
    ids = gpt.encode("strict", VOCAB)
    targets = tensor(one_hot(ids[1:], len(VOCAB)))
    loss = gpt.cross_entropy(gpt.gpt(ids[:-1], **strict(params)), Strict(targets))
    plain = gpt.cross_entropy(gpt.gpt(ids[:-1], **params), targets)
    assert loss._inner.item() == plain.item()
    assert forms == {
        "ids", "rows", "__add__", "__sub__", "__mul__", "__truediv__", "__pow__", "__matmul__",
        "exp", "log", "relu", "sum", "amax", "transpose", "triu", "new_full",
    }  # fmt: skip


# ---- PyTorch's own functions ----


def test_softmax() -> None:
    x = matrix(random.Random(5), 6, 9, size=3.0)
    assert apart(gpt.softmax(x).data, torch.softmax(tensor(x.data), -1)) < CLOSE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_of_huge_scores_neither_overflows_nor_is_nan(dtype: Any) -> None:
    rows = [[1e4, -1e4, 9999.0, 0.0], [-1e4, -1e4, -1e4, -1e4], [0.0, 1e4, -math.inf, 1e4]]
    x = tensor(rows, requires_grad=True, dtype=dtype)
    probs = gpt.softmax(x)
    assert probs.dtype == dtype
    assert (probs - torch.softmax(x.detach(), -1)).abs().max() < 1e-6
    (probs * probs).sum().backward()
    assert torch.isfinite(x.grad).all()

    mine = Tensor(rows)
    ours = gpt.softmax(mine)
    gpt.backward((ours * ours).sum(-1, keepdim=True).transpose(-2, -1).sum(-1, keepdim=True))
    assert apart(ours.data, torch.softmax(tensor(rows), -1)) < CLOSE
    assert all(math.isfinite(g) for row in mine.grad for g in row)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_of_a_confident_mistake_is_finite(dtype: Any) -> None:
    """A probability of 0 is taken for 1e-30, so the surprise ends at 69 rather than at infinity."""
    logits = tensor([[1e4, 0.0, -1e4]], requires_grad=True, dtype=dtype)
    loss = gpt.cross_entropy(logits, tensor([[0, 0, 1]], dtype=dtype))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-30), rel=1e-5)
    assert torch.isfinite(logits.grad).all()
    mine = gpt.cross_entropy(Tensor([[1e4, 0.0, -1e4]]), Tensor([[False, False, True]]))
    assert mine.data[0][0] == pytest.approx(-math.log(1e-30))


def test_norm() -> None:
    for size in (1e-4, 1.0, 100.0):
        x = matrix(random.Random(6), 5, 16, size)
        expected = functional.rms_norm(tensor(x.data), (16,), eps=1e-5)
        assert apart(gpt.norm(x).data, expected) < CLOSE


def test_cross_entropy() -> None:
    rng = random.Random(7)
    for length in (1, 4, 16):
        logits, ids = matrix(rng, length, 11, 2.0), [rng.randrange(11) for _ in range(length)]
        loss = gpt.cross_entropy(logits, Tensor(one_hot(ids, 11)))
        gpt.backward(loss)
        other = tensor(logits.data, requires_grad=True)
        expected = functional.cross_entropy(other, torch.tensor(ids))
        expected.backward()
        assert abs(loss.data[0][0] - expected.item()) < CLOSE
        assert apart(logits.grad, other.grad) < CLOSE


@pytest.mark.parametrize("length", [1, 2, 7])
def test_attention(length: int) -> None:
    rng = random.Random(8)
    x, wo = matrix(rng, length, 16), matrix(rng, 4, 16)
    wq, wk, wv = (matrix(rng, 16, 4) for _ in range(3))
    h, a, b, c, d = (tensor(w.data) for w in (x, wq, wk, wv, wo))
    read = functional.scaled_dot_product_attention(h @ a, h @ b, h @ c, is_causal=True)
    assert apart(gpt.attention(x, wq, wk, wv, wo).data, read @ d) < CLOSE


def test_heads_that_add_up_are_multi_head_attention() -> None:
    """To read with each head and add is to join the heads' values and project them at once."""
    rng = random.Random(9)
    x = matrix(rng, 6, 16)
    heads = gpt.init(rng, 5, n_head=4, n_embd=16, std=0.5)["blocks"][0]["heads"]
    mine = gpt.attention(x, **heads[0])
    for head in heads[1:]:
        mine = mine + gpt.attention(x, **head)
    h = tensor(x.data)
    q, k, v = (
        torch.stack([h @ tensor(head[w].data) for head in heads]) for w in ("wq", "wk", "wv")
    )
    read = functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # (4, T, D)
    joined = read.transpose(0, 1).reshape(6, 16)
    wo = torch.cat([tensor(head["wo"].data) for head in heads])
    assert apart(mine.data, joined @ wo) < CLOSE


@pytest.mark.parametrize("n_layer", [1, 3])
def test_the_whole_model_is_the_usual_one(n_layer: int) -> None:
    """A pre-norm transformer put together from PyTorch's own parts gives the same logits."""
    rng = random.Random(13)
    params = gpt.init(rng, 11, n_layer=n_layer, n_head=2, n_embd=6, block_size=8, std=0.5)
    ids = [rng.randrange(11) for _ in range(7)]
    moved = move(params)

    def norm(x: Any) -> Any:
        return functional.rms_norm(x, (6,), eps=1e-5)

    position = torch.arange(len(ids))
    x = functional.embedding(torch.tensor(ids), moved["wte"])
    x = x + functional.embedding(position, moved["wpe"])
    for block in moved["blocks"]:
        h = norm(x)
        reads = []
        for head in block["heads"]:
            q, k, v = (functional.linear(h, head[w].T) for w in ("wq", "wk", "wv"))
            reads.append(functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        x = x + functional.linear(
            torch.cat(reads, -1), torch.cat([head["wo"] for head in block["heads"]]).T
        )
        x = x + functional.linear(functional.linear(norm(x), block["fc"].T).relu(), block["proj"].T)
    expected = functional.linear(norm(x), moved["lm_head"].T)
    assert apart(gpt.gpt(ids, **params).data, expected) < CLOSE


# ---- The optimiser ----


def test_adam_over_twenty_steps_with_linear_decay() -> None:
    rng = random.Random(10)
    w = matrix(rng, 3, 4)
    other = torch.nn.Parameter(tensor(w.data))
    optimiser = torch.optim.Adam([other], lr=0.01, betas=(0.85, 0.99), eps=1e-8)
    m, v = ([[0.0] * 4 for _ in range(3)] for _ in range(2))
    for step in range(20):
        lr = 0.01 * (1 - step / 20)
        w.grad = [[rng.gauss(0, 10.0 ** rng.randint(-6, 2)) for _ in range(4)] for _ in range(3)]
        other.grad = tensor(w.grad)
        optimiser.param_groups[0]["lr"] = lr
        optimiser.step()
        gpt.adam(w, m, v, step + 1, lr)
        assert w.grad == []
        assert apart(w.data, other.detach()) < 1e-12


def test_training_is_training_in_torch() -> None:
    """Twenty steps of the whole loop, two documents a step, give the same losses and weights."""
    rng = random.Random(11)
    docs = ["anna", "bo", "cyrus", "dag", "eleonora", "f"]
    vocab = gpt.vocabulary(docs)
    params = gpt.init(rng, len(vocab))
    moved = move(params)

    def in_torch(steps: int) -> Iterator[float]:
        optimiser = torch.optim.Adam(torch_leaves(moved), lr=0.01, betas=(0.85, 0.99), eps=1e-8)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
            optimiser.zero_grad()
            total = tensor(0.0)
            for i in (2 * step, 2 * step + 1):
                ids = gpt.encode(docs[i % len(docs)], vocab)
                logits = gpt.gpt(ids[:-1], **moved)
                total = total + functional.cross_entropy(logits, torch.tensor(ids[1:])) / 2
            total.backward()
            optimiser.step()
            yield total.item()

    for mine, other in zip(
        gpt.train(params, docs, vocab, steps=20, batch=2), in_torch(20), strict=True
    ):
        assert abs(mine - other) < CLOSE
    for w, weight in zip(gpt.leaves(params), torch_leaves(moved), strict=True):
        assert apart(w.data, weight.detach()) < CLOSE
