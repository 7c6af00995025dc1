"""The variants of the collection: each against PyTorch and against finite differences, on both
engines, alone and together."""

from __future__ import annotations

import ast
import importlib
import itertools
import math
import os
import random
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import engines
import pytest

from microgpt import data, source
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.lab.variants import COLLECTION, GROUPS, LADDERS, collection, program, recipes
from microgpt.run import Run
from microgpt.source import ORIGINAL

try:
    torch: Any = importlib.import_module("torch")
except ImportError:
    torch = None
else:
    torch.set_num_threads(1)  # the matrices are tiny
in_torch = pytest.mark.skipif(torch is None, reason="PyTorch is the oracle here")

NAMES = list(collection())
each = pytest.mark.parametrize("name", NAMES)
Tree = Any  # dicts and lists of tensors
Logits = Callable[[Tree, list[int]], Any]

# Weights that nothing reads, by the last part of their path: their gradient is zero.
POSITIONS = {"wpe"}
UNREAD = {
    "no-attention": {"wq", "wk", "wv", "wo"},
    "no-mlp": {"fc", "proj"},
    "uniform-attention": {"wq", "wk"},
} | dict.fromkeys(("no-positions", "alibi", "rope", "sinusoidal", "latent-attention"), POSITIONS)


@cache
def text(recipe: str) -> str:
    return program(recipe).source


@cache
def knobs(of: str) -> dict[str, float]:
    """The numbers of a source's signatures, by name."""
    return {knob.name: knob.value for knob in source.knobs(of)}


@cache
def turned(of: str) -> dict[str, float]:
    """The numbers that an edit of the file sets otherwise."""
    before = knobs(ORIGINAL)
    return {n: value for n, value in knobs(of).items() if n in before and before[n] != value}


def named(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every weight matrix and its path, in the order of `leaves`."""
    if isinstance(tree, dict | list):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from named(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def kind(path: str) -> str:
    """What a matrix is called, wherever it is: `blocks.0.heads.1.wq` is a `wq`."""
    return next(part for part in reversed(path.split(".")) if not part.isdigit())


SMALL = {"n_head": 2, "n_embd": 4, "block_size": 6}


def small(*recipes: str) -> tuple[tuple[str, int], ...]:
    """Sizes for runs of these, which leave the numbers that they set as they are."""
    asked = {knob for recipe in recipes for knob in turned(text(recipe))}
    asked |= {"n_embd"} if "n_head" in asked else set()  # which the heads must share
    return tuple((knob, value) for knob, value in SMALL.items() if knob not in asked)


# ---- Each is an edit with a story ----


def test_the_collection_is_what_the_folder_holds() -> None:
    files = {path.stem.replace("_", "-"): path for path in COLLECTION.rglob("*.py")}
    assert set(files) == set(NAMES)
    for name, path in files.items():
        assert collection()[name].group == path.parent.name
    assert set(GROUPS) == {v.group for v in collection().values()}
    assert all(set(rungs) <= set(NAMES) for rungs in LADDERS.values())


@each
def test_a_variant_is_an_edit_without_a_problem(name: str) -> None:
    made = program(name)
    assert made.name == name
    assert source.problems(made.source) == []
    assert any(line.startswith(("+", "-")) for line in made.diff.splitlines()[2:])
    for line in [*made.source.split("\n"), *collection()[name].text.split("\n")]:
        assert len(line) <= 88, line


@each
def test_a_variant_says_what_it_is_in_sentences(name: str) -> None:
    """Read from its file, and not by what reads variants."""
    told = ast.get_docstring(ast.parse(collection()[name].text))
    assert told is not None
    title, empty, rest = told.split("\n", 2)
    parts = re.split(r"^(Hypothesis|Reference|Builds on|Expected): ", rest, flags=re.MULTILINE)
    about, fields = parts[0], dict(zip(parts[1::2], parts[2::2]))
    assert title[0].isupper() and title[-1] not in ".:" and not empty
    for part in (about, fields["Hypothesis"], fields["Reference"]):
        assert re.fullmatch(r"[A-Z0-9].*\.", " ".join(part.split())), part
    assert re.search(r"[A-Z][\w-]+( et al\.| and [A-Z]\w+)? (19|20)\d\d, \w", fields["Reference"])
    for expected in fields["Expected"].strip().split(", "):
        assert re.fullmatch(rf"(worse|better|alike) on (names|{'|'.join(data.TASKS)})", expected)
    read = collection()[name]
    assert (read.title, read.about) == (title, " ".join(about.split()))
    assert read.hypothesis == " ".join(fields["Hypothesis"].split())
    assert read.reference == " ".join(fields["Reference"].split())
    assert [f"{v} on {task}" for task, v in read.expected.items()] == (
        fields["Expected"].strip().split(", ")
    )
    assert ", ".join(read.builds_on) == fields.get("Builds on", "").strip()


def test_titles_tell_variants_apart() -> None:
    assert len({v.title.lower() for v in collection().values()}) == len(NAMES)


IN_WORDS = {1: "one", 4: "four", 8: "eight", 16: "sixteen", 32: "thirty-two"}
NUMBERS = [name for name in NAMES if turned(text(name))]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_what_its_words_say(name: str) -> None:
    """Both the number and the one that it replaces are told, in words or in digits."""
    told = f"{collection()[name].title} {collection()[name].about}".lower()
    for knob, value in turned(text(name)).items():
        for number in (value, knobs(ORIGINAL)[knob]):
            assert f"{number:g}" in told or IN_WORDS.get(int(number), "none") in told, number


def test_sizes_are_numbers_alone() -> None:
    for name in (n for n in NAMES if collection()[n].group == "sizes"):
        ((knob, value),) = turned(text(name)).items()
        assert text(name) == source.set_knob(ORIGINAL, knob, value)


# ---- Gradients, by moving weights ----

TINY = {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 6}
FEW = Corpus("few", "a few names", data.load("names").docs[:60])
DOCS = ["abcade", "eba", "dc", "beda", "aace", "d", "cab", "dfee", "cc"]
STEP = 1e-5  # how far a number is moved to each side
SEED = 56  # with which every expert is picked


class FirstStep:
    """The first step of a variant's own `train`: its loss, and the gradients that it came to.

    What the weights would be moved by, and what would shorten their gradients, is left out.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.space = source.execute(text(name))
        self.changed = turned(text(name))
        rng = random.Random(seed)
        self.vocab = self.space["vocabulary"](DOCS)
        sizes = {k: v for k, v in TINY.items() if k not in self.changed}
        if "n_head" in self.changed:
            sizes["n_embd"] = 8
        self.params = self.space["init"](rng, len(self.vocab), **sizes)
        self.weights = dict(named(self.params))
        assert [id(w) for w in self.weights.values()] == [
            id(w) for w in self.space["leaves"](self.params)
        ]
        for w in self.weights.values():
            w.data = [[rng.gauss(0, 0.5) for _ in row] for row in w.data]
        self._gradients: list[list[list[float]]] = []
        for rule in {"adam", "sgd", "momentum", "muon"} & set(self.space):
            self.space[rule] = self._keep
        if "clip" in self.space:
            self.space["clip"] = lambda weights: None

    def _keep(self, w: Any, *rest: Any) -> None:
        self._gradients.append(w.grad or [[0.0] * w.shape[1]] * w.shape[0])
        w.grad = []

    def loss(self) -> float:
        self._gradients.clear()
        return next(self.space["train"](self.params, list(DOCS), self.vocab))

    def gradients(self) -> dict[str, list[list[float]]]:
        self.loss()
        return dict(zip(self.weights, self._gradients, strict=True))

    def slope(self, direction: dict[str, list[list[float]]]) -> float:
        """How the loss changes as some matrices move in a direction."""
        kept, ends = {path: self.weights[path].data for path in direction}, []
        backward, self.space["backward"] = self.space["backward"], lambda loss: None
        for step in (STEP, -STEP):
            for path, rows in direction.items():
                self.weights[path].data = [
                    [x + step * d for x, d in zip(*pair)] for pair in zip(kept[path], rows)
                ]
            ends.append(self.loss())
        self.space["backward"] = backward
        for path, rows in kept.items():
            self.weights[path].data = rows
        return (ends[0] - ends[1]) / (2 * STEP)


@each
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of a cell of every matrix, and of all cells at once in a random direction."""
    step, rng = FirstStep(name, SEED), random.Random(0)
    gradients = step.gradients()
    directions = []
    for path, g in gradients.items():
        cell = rng.randrange(len(g)), rng.randrange(len(g[0]))
        one = [[float((i, j) == cell) for j, _ in enumerate(row)] for i, row in enumerate(g)]
        directions.append({path: one})
    for _ in range(2):
        long = sum(len(row) for g in gradients.values() for row in g) ** 0.5
        anywhere = {
            path: [[rng.gauss(0, 1 / long) for _ in row] for row in g]
            for path, g in gradients.items()
        }
        directions.append(anywhere)
    for direction in directions:
        pairs = [zip(gradients[path], rows) for path, rows in direction.items()]
        expected = sum(x * d for rows in pairs for pair in rows for x, d in zip(*pair))
        assert step.slope(direction) == pytest.approx(expected, abs=1e-8, rel=1e-7)
    still = {kind(path) for path, g in gradients.items() if not any(x for row in g for x in row)}
    assert still == UNREAD.get(name, set())


# ---- The model, by PyTorch's own parts ----


def tensor(rows: Any, requires_grad: bool = False) -> Any:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=requires_grad)


def moved(tree: Tree) -> Tree:
    """The same weights as torch tensors, in the same tree."""
    if isinstance(tree, dict):
        return {name: moved(part) for name, part in tree.items()}
    return [moved(part) for part in tree] if isinstance(tree, list) else tensor(tree.data, True)


def far(a: Any, b: Any) -> float:
    """The largest difference of two cells."""
    a, b = (x.detach() if isinstance(x, torch.Tensor) else tensor(x) for x in (a, b))
    assert a.shape == b.shape
    return float((a - b).abs().max())


def do(name: str) -> Any:
    return getattr(torch.nn.functional, name)


def rms(x: Any, gain: Any = None) -> Any:
    return do("rms_norm")(x, x.shape[-1:], gain, eps=1e-5)


def embedded(p: Tree, ids: list[int]) -> Any:
    return do("embedding")(torch.tensor(ids), p["wte"])


def placed(p: Tree, ids: list[int]) -> Any:
    return embedded(p, ids) + do("embedding")(torch.arange(len(ids)), p["wpe"])


def projected(h: Any, heads: list[Tree], *names: str) -> Any:
    """What each head makes of h with some of its matrices: (heads, T, D) each."""
    return [torch.stack([h @ head[name] for head in heads]) for name in names]


def joined(read: Any, heads: list[Tree]) -> Any:
    """The heads side by side, and one matrix for all."""
    return torch.cat(list(read), -1) @ torch.cat([head["wo"] for head in heads])


def attended(h: Any, block: Tree, turn: Callable[[Any], Any] = lambda x: x, **how: Any) -> Any:
    q, k, v = projected(h, block["heads"], "wq", "wk", "wv")
    how = how or {"is_causal": True}
    read = do("scaled_dot_product_attention")(turn(q), turn(k), v, **how)
    return joined(read, block["heads"])


def fed(h: Any, block: Tree, bend: Callable[[Any], Any] | None = None) -> Any:
    return (bend or torch.relu)(h @ block["fc"]) @ block["proj"]


def nothing(h: Any, block: Tree) -> Any:
    return torch.zeros_like(h)


def plain(
    p: Tree,
    ids: list[int],
    *,
    place: Callable[[Tree, list[int]], Any] = placed,
    norm: Callable[[Any], Any] = rms,
    read: Callable[[Any, Tree], Any] = attended,
    feed: Callable[[Any, Tree], Any] = fed,
) -> Any:
    """A pre-norm transformer; the parts of a variant come in the place of its own."""
    x = place(p, ids)
    for block in p["blocks"]:
        x = x + read(norm(x), block)
        x = x + feed(norm(x), block)
    return norm(x) @ (p["lm_head"] if "lm_head" in p else p["wte"].T)


def without_residual(p: Tree, ids: list[int]) -> Any:
    x = placed(p, ids)
    for block in p["blocks"]:
        x = fed(rms(attended(rms(x), block)), block)
    return rms(x) @ p["lm_head"]


def normed_after(p: Tree, ids: list[int], place: Callable[[Tree, list[int]], Any] = placed) -> Any:
    x = place(p, ids)
    for block in p["blocks"]:
        x = rms(x + attended(x, block))
        x = rms(x + fed(x, block))
    return x @ p["lm_head"]


def averaged(h: Any, block: Tree) -> Any:
    """The mean of all values so far."""
    (v,) = projected(h, block["heads"], "wv")
    return joined(v.cumsum(1) / torch.arange(1, len(h) + 1)[:, None], block["heads"])


def distance(length: int) -> Any:
    """How far each token, a row, is behind each other one: below 0 where it comes later."""
    return torch.arange(length)[:, None] - torch.arange(length)


def slanted(h: Any, block: Tree, causal: bool = True) -> Any:
    """ALiBi: a geometric sequence of slopes that begins with its own ratio, 2 ** (-8 / heads)."""
    count, behind = len(block["heads"]), distance(len(h))
    ratio = 2.0 ** (-8.0 / count)
    slopes = torch.cumprod(tensor([ratio] * count), 0)[:, None, None]
    bias = -slopes * behind.clamp(min=0)
    return attended(h, block, attn_mask=bias.masked_fill(causal & (behind < 0), -math.inf))


def with_biases(h: Any, block: Tree) -> Any:
    def linear(x: Any, w: str, b: str) -> Any:
        return torch.stack([do("linear")(x, head[w].T, head[b][0]) for head in block["heads"]])

    q, k, v = linear(h, "wq", "bq"), linear(h, "wk", "bk"), linear(h, "wv", "bv")
    read = do("scaled_dot_product_attention")(q, k, v, is_causal=True)
    wo = torch.cat([head["wo"] for head in block["heads"]])
    return do("linear")(torch.cat(list(read), -1), wo.T, block["bo"][0])


def fed_with_biases(h: Any, block: Tree, bend: Callable[[Any], Any] | None = None) -> Any:
    hidden = (bend or torch.relu)(do("linear")(h, block["fc"].T, block["b1"][0]))
    return do("linear")(hidden, block["proj"].T, block["b2"][0])


def grouped(h: Any, block: Tree, turn: Callable[[Any], Any] = lambda x: x) -> Any:
    heads = [head for group in block["groups"] for head in group["heads"]]
    (q,) = projected(h, heads, "wq")
    k, v = projected(h, block["groups"], "wk", "wv")
    assert len(q) == 2 * len(k)
    attention = do("scaled_dot_product_attention")
    read = attention(turn(q), turn(k), v, is_causal=True, enable_gqa=True)
    return joined(read, heads)


def mean_and_size(x: Any) -> Any:
    return torch.nn.LayerNorm(x.shape[-1], eps=1e-5, elementwise_affine=False)(x)


def routed(h: Any, block: Tree) -> Any:
    """The expert that the router picks for a token, and no other, works on it."""
    chances = torch.softmax(h @ block["router"], -1)
    best = chances.argmax(-1)
    rows = [fed(h[t], block["experts"][e]) * chances[t, e] for t, e in enumerate(best.tolist())]
    return torch.stack(rows)


def recurred(h: Any, block: Tree) -> Any:
    rnn = torch.nn.RNN(h.shape[-1], h.shape[-1], bias=False, dtype=torch.float64)
    weights = {"weight_ih_l0": block["inner"].T, "weight_hh_l0": block["again"].T}
    states, _ = torch.func.functional_call(rnn, weights, h)
    return states


def turned_by_place(x: Any) -> Any:
    """RoPE: pairs of channels are complex numbers, each turned by its angle times the place."""
    length, channels = x.shape[-2:]
    angles = torch.arange(length)[:, None] * 10000.0 ** (-tensor(range(0, channels, 2)) / channels)
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], channels // 2, 2).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).reshape(x.shape)


def waved(p: Tree, ids: list[int]) -> Any:
    """Vaswani et al. 2017, 3.5: PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) the cos;
    and 3.4: embeddings times the root of d."""
    numpy = pytest.importorskip("numpy")
    x = embedded(p, ids)
    length, channels = x.shape
    table = numpy.zeros((length, channels))
    for i in range(channels // 2):
        phase = numpy.arange(length) / numpy.power(10000.0, 2 * i / channels)
        table[:, 2 * i], table[:, 2 * i + 1] = numpy.sin(phase), numpy.cos(phase)
    return x * math.sqrt(channels) + tensor(table)


def windowed(h: Any, block: Tree) -> Any:
    behind = distance(len(h))
    return attended(h, block, attn_mask=(behind >= 0) & (behind < 4))


def gated(h: Any, block: Tree) -> Any:
    return (do("silu")(h @ block["gate"]) * (h @ block["fc"])) @ block["proj"]


def convolved(h: Any, block: Tree) -> Any:
    """The last four tokens, each by its own matrix, are a convolution along the text."""
    kernel = torch.stack([w.T for w in reversed(block["near"])], -1)
    padded = do("pad")(h.T, (len(block["near"]) - 1, 0))
    return do("conv1d")(padded[None], kernel)[0].T.relu()


def latent(h: Any, block: Tree) -> Any:
    """DeepSeek-V2, 2.1.2 and 2.1.3, without the compression of queries: what is sought and what is
    found are two rows side by side, of which the second is turned."""
    heads, kept = block["heads"], rms(h @ block["down"])
    (q, turned_q), (k, v) = projected(h, heads, "wq", "wr"), projected(kept, heads, "wk", "wv")
    turned_k = turned_by_place(h @ block["turn"]).expand_as(k)
    seek, find = torch.cat([q, turned_by_place(turned_q)], -1), torch.cat([k, turned_k], -1)
    return joined(do("scaled_dot_product_attention")(seek, find, v, is_causal=True), heads)


def with_gains(p: Tree, ids: list[int]) -> Any:
    gains = iter(p["gains"])
    return plain(p, ids, norm=lambda x: rms(x, next(gains)[0]))


def change(**parts: Any) -> Logits:
    return lambda p, ids: plain(p, ids, **parts)


def bent(bend: Callable[[Any], Any]) -> Logits:
    return change(feed=lambda h, block: fed(h, block, bend))


MODELS: dict[str, Logits] = {
    "no-attention": change(read=nothing),
    "no-mask": change(read=lambda h, block: attended(h, block, is_causal=False)),
    "no-mlp": change(feed=nothing),
    "no-nonlinearity": change(feed=lambda h, block: h @ (block["fc"] @ block["proj"])),
    "no-norm": change(norm=lambda x: x),
    "no-positions": change(place=embedded),
    "no-residual": without_residual,
    "no-scaling": change(read=lambda h, block: attended(h, block, is_causal=True, scale=1.0)),
    "uniform-attention": change(read=averaged),
    "alibi": change(place=embedded, read=slanted),
    "biases": change(read=with_biases, feed=fed_with_biases),
    "gelu": bent(lambda x: do("gelu")(x, approximate="tanh")),
    "grouped-query": change(read=grouped),
    "layer-norm": change(norm=mean_and_size),
    "mixture-of-experts": change(feed=routed),
    "post-norm": normed_after,
    "qk-norm": change(read=lambda h, block: attended(h, block, rms)),
    "recurrent": change(read=recurred),
    "rope": change(place=embedded, read=lambda h, block: attended(h, block, turned_by_place)),
    "silu": bent(lambda x: do("silu")(x)),
    "sinusoidal": change(place=waved),
    "sliding-window": change(read=windowed),
    "squared-relu": bent(lambda x: torch.relu(x).square()),
    "swiglu": change(feed=gated),
    "tied-embeddings": plain,  # which finds no lm_head
    "window-mlp": change(read=convolved),
    "latent-attention": change(place=embedded, read=latent),
    "norm-gain": with_gains,
    "shared-expert": change(feed=lambda h, block: routed(h, block) + fed(h, block["shared"])),
}


class Case:
    """Weights at random, a document, and what a variant makes of both."""

    def __init__(self, name: str, seed: int = 0, **sizes: int) -> None:
        self.space = source.execute(text(name))
        rng = random.Random(seed)
        sizes = {"n_layer": 2, "block_size": 8} | sizes
        self.params = self.space["init"](rng, 7, **sizes)
        for _, w in named(self.params):
            w.data = [[rng.gauss(0, 0.3) for _ in row] for row in w.data]
        self.ids = [rng.randrange(7) for _ in range(8)]

    def logits(self, **more: Any) -> Any:
        return self.space["gpt"](self.ids[:-1], **self.params, **more)

    def loss(self, logits: Any) -> Any:
        targets = self.space["Tensor"]([[float(j == t) for j in range(7)] for t in self.ids[1:]])
        return self.space["cross_entropy"](logits, targets)


def assert_the_model_is(recipe: str, logits: Logits, smoothed: float = 0.0) -> None:
    """Logits, loss and every gradient, with the same weights."""
    case = Case(recipe)
    theirs = moved(case.params)
    other = logits(theirs, case.ids[:-1])
    loss = do("cross_entropy")(other, torch.tensor(case.ids[1:]), label_smoothing=smoothed)
    loss.backward()
    mine = case.logits()
    my_loss = case.loss(mine)
    case.space["backward"](my_loss)
    assert far(mine.data, other) < 1e-9
    assert far(my_loss.data, [[loss.item()]]) < 1e-9
    for (path, w), (_, weight) in zip(named(case.params), named(theirs), strict=True):
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        assert far(w.grad or [[0.0] * w.shape[1]] * w.shape[0], expected) < 1e-9, path


@in_torch
@each
def test_logits_and_every_gradient_are_pytorchs(name: str) -> None:
    """A variant that is not in `MODELS` has the model of the file."""
    assert_the_model_is(name, MODELS.get(name, plain), 0.1 if name == "label-smoothing" else 0.0)


def as_published(norm: Callable[[Any, Any], Any], **parts: Any) -> Logits:
    """Models whose norms have a gain, all but the one of latent rows."""

    def logits(p: Tree, ids: list[int]) -> Any:
        gains = iter(p["gains"])
        return plain(p, ids, norm=lambda x: norm(x, next(gains)[0]), **parts)

    return logits


def layer_norm(x: Any, gain: Any) -> Any:
    return do("layer_norm")(x, x.shape[-1:], gain, eps=1e-5)


def original(p: Tree, ids: list[int]) -> Any:
    """Vaswani et al. 2017, the decoder alone."""
    return normed_after(p, ids, waved)


def both_turned_and_grouped(h: Any, block: Tree) -> Any:
    return grouped(h, block, turned_by_place)


def gelu_with_biases(h: Any, block: Tree) -> Any:
    return fed_with_biases(h, block, lambda x: do("gelu")(x, approximate="tanh"))


TOGETHER: dict[str, Logits] = {
    recipes(["gpt-2"])[-1]: as_published(layer_norm, read=with_biases, feed=gelu_with_biases),
    recipes(["llama"])[-1]: as_published(
        rms, place=embedded, read=both_turned_and_grouped, feed=gated
    ),
    recipes(["deepseek"])[-1]: as_published(
        rms,
        place=embedded,
        read=latent,
        feed=lambda h, block: routed(h, block) + fed(h, block["shared"]),
    ),
    "post-norm+sinusoidal+dropout+label-smoothing+warmup-cosine": original,
    "no-nonlinearity+squared-relu": bent(lambda x: x.square()),
    "gelu+squared-relu": bent(lambda x: do("gelu")(x, approximate="tanh").square()),
    "no-mask+alibi": change(place=embedded, read=lambda h, block: slanted(h, block, causal=False)),
    "no-mlp+no-positions+no-norm": change(place=embedded, feed=nothing, norm=lambda x: x),
}


@in_torch
@pytest.mark.parametrize("recipe", TOGETHER)
def test_several_at_once_are_pytorchs(recipe: str) -> None:
    """What the words of several edits come to when they are put together."""
    assert_the_model_is(recipe, TOGETHER[recipe], 0.1 if "label-smoothing" in recipe else 0.0)


@in_torch
@pytest.mark.parametrize("name", [n for n in MODELS if "def init(" not in collection()[n].text])
def test_the_files_model_is_not_that_of_a_variant(name: str) -> None:
    """With the same weights; a variant that changed nothing would be noticed."""
    case = Case("")
    assert far(case.logits().data, plain(moved(case.params), case.ids[:-1])) < 1e-9
    assert far(case.logits().data, MODELS[name](moved(case.params), case.ids[:-1])) > 1e-3


@in_torch
@pytest.mark.parametrize("name", ["rope", "latent-attention"])
def test_a_turned_score_depends_on_the_distance_alone(name: str) -> None:
    space, rng = source.execute(text(name)), random.Random(0)
    q, k = ([[rng.gauss(0, 1) for _ in range(8)]] * 9 for _ in range(2))
    turned = [tensor(space["rotate"](space["Tensor"](rows)).data) for rows in (q, k)]
    scores = turned[0] @ turned[1].T
    for i, j in itertools.product(range(8), repeat=2):
        assert abs(scores[i, j] - scores[i + 1, j + 1]) < 1e-12
    assert abs(scores[0, 0] - sum(x * y for x, y in zip(q[0], k[0]))) < 1e-12
    assert len({round(float(x), 6) for x in scores[0]}) == 9


@in_torch
def test_the_slope_of_gelu_is_pytorchs_from_end_to_end() -> None:
    space = source.execute(text("gelu"))
    x = space["Tensor"]([[i / 4 for i in range(-60, 61)]])
    other = tensor(x.data, True)
    space["backward"](x.gelu().sum(-1, keepdim=True))
    do("gelu")(other, approximate="tanh").sum().backward()
    assert far(x.grad, other.grad) < 1e-12
    assert far(x.gelu().data, do("gelu")(other, approximate="none")) < 1e-3  # what it approximates


# ---- Training, by PyTorch's own optimisers ----

BETAS = (0.85, 0.99)  # as the file's Adam has them
STEPS, BATCH, RATE = 10, 2, 0.02


def linear(step: int) -> float:
    return 1 - step / STEPS


def warmed(step: int) -> float:
    """As transformers' get_cosine_schedule_with_warmup, the first step counted as one."""
    first = STEPS // 10
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / (STEPS - first)))


def trained(name: str, **more: Any) -> tuple[list[float], Tree, Tree]:
    """Losses and weights of a variant's own training, and the same first weights in torch."""
    case = Case(name, n_layer=1)
    vocab, theirs = case.space["vocabulary"](DOCS), moved(case.params)
    more = {"batch": BATCH, "lr": RATE} | more
    losses = list(case.space["train"](case.params, list(DOCS), vocab, steps=STEPS, **more))
    return losses, case.params, theirs


def steps_in_torch(
    p: Tree,
    optimiser: Any,
    rate: Callable[[int], float] = linear,
    batch: int = BATCH,
    smoothed: float = 0.0,
    longest: float = math.inf,
) -> Iterator[float]:
    vocab = ["\n", *sorted(set("".join(DOCS)))]
    weights = [w for _, w in named(p)]
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * rate(step)
        optimiser.zero_grad()
        losses = []
        for i in range(step * batch, (step + 1) * batch):
            ids = [vocab.index(char) for char in f"\n{DOCS[i % len(DOCS)]}\n"][:9]
            logits, targets = plain(p, ids[:-1]), torch.tensor(ids[1:])
            losses.append(do("cross_entropy")(logits, targets, label_smoothing=smoothed))
        mean = torch.stack(losses).mean()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(weights, longest)
        optimiser.step()
        yield mean.item()


def adam(weights: list[Any]) -> Any:
    return torch.optim.Adam(weights, betas=BETAS, eps=1e-8)


OPTIMISERS: dict[str, tuple[Callable[[list[Any]], Any], dict[str, Any]]] = {
    "sgd": (lambda w: torch.optim.SGD(w), {}),
    "momentum": (lambda w: torch.optim.SGD(w, momentum=0.9), {}),
    "adamw": (lambda w: torch.optim.AdamW(w, betas=BETAS, eps=1e-8, weight_decay=0.1), {}),
    "gradient-clipping": (adam, {"longest": 1.0}),
    "label-smoothing": (adam, {"smoothed": 0.1}),
    "warmup-cosine": (adam, {"rate": warmed}),
    "few-steps": (adam, {}),
    "batch": (adam, {"batch": 8}),
}


@in_torch
@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_is_pytorchs(name: str) -> None:
    make, how = OPTIMISERS[name]
    losses, params, theirs = trained(name, **{k: v for k, v in how.items() if k == "batch"})
    optimiser = make([w for _, w in named(theirs)])
    expected = list(steps_in_torch(theirs, optimiser, **how))
    assert losses == pytest.approx(expected, abs=1e-9)
    for (path, w), (_, other) in zip(named(params), named(theirs), strict=True):
        assert far(w.data, other) < 1e-9, path


@in_torch
def test_gradients_are_clipped_together() -> None:
    """Above a length of 1 to that length, below it not at all, and as PyTorch does."""
    space, rng = source.execute(text("gradient-clipping")), random.Random(0)
    for size in (1e-3, 0.1, 10.0):
        weights = [space["Tensor"]([[0.0] * n] * m) for m, n in ((3, 4), (1, 5), (2, 2))]
        for w in weights[:2]:  # the third has no gradient
            w.grad = [[rng.gauss(0, size) for _ in row] for row in w.data]
        others = [tensor(w.data, True) for w in weights[:2]]
        for w, other in zip(weights, others):
            other.grad = tensor(w.grad)
        before = [w.grad for w in weights]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        space["clip"](weights)
        assert weights[2].grad == []
        for w, other in zip(weights, others):
            assert far(w.grad, other.grad) < 1e-12
        length = math.sqrt(sum(g * g for w in weights for row in w.grad for g in row))
        assert length == pytest.approx(1, abs=1e-5) if size > 1 else length < 1
        assert ([w.grad for w in weights] == before) == (size < 1)


@in_torch
@pytest.mark.parametrize("steps", [1, 2, 9, 10, 25, 1000])
def test_the_warm_up_is_linear_and_the_rest_half_a_wave(steps: int) -> None:
    """By PyTorch's own schedules, one after the other."""
    schedule = source.execute(text("warmup-cosine"))["schedule"]
    first = steps // 10
    optimiser = torch.optim.SGD([tensor([[0.0]], True)], lr=1.0)
    wave = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - first)
    told = [wave.get_last_lr()[0]]
    for _ in range(steps - first - 1):
        optimiser.step()
        wave.step()
        told += wave.get_last_lr()
    expected = [(i + 1) / first for i in range(first)] + told
    assert [schedule(step, steps) for step in range(steps)] == pytest.approx(expected, abs=1e-12)
    assert expected[first] == 1


# ---- Muon ----


def gradient(rng: random.Random, rows: int, columns: int, size: float = 1.0) -> list[list[float]]:
    return [[rng.gauss(0, size) for _ in range(columns)] for _ in range(rows)]


@in_torch
@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (2, 16)])
def test_muon_is_pytorchs(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision. A matrix of PyTorch's has its outputs in rows; the file's has its inputs
    there, so PyTorch is given it flipped."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())
    space, rng = source.execute(text("muon")), random.Random(0)
    w = space["Tensor"](gradient(rng, *shape))
    m, v = ([[0.0] * shape[1] for _ in range(shape[0])] for _ in range(2))
    other = torch.nn.Parameter(tensor(w.data).T.contiguous())
    optimiser = torch.optim.Muon([other], lr=0.02, weight_decay=0.0, momentum=0.95)
    for step in range(6):
        w.grad = gradient(rng, *shape, 10.0 ** rng.randint(-4, 2))
        other.grad = tensor(w.grad).T.contiguous()
        optimiser.step()
        space["muon"](w, m, v, step + 1, 0.02)
        assert w.grad == []
        assert far(w.data, other.T) < 1e-9
    assert v == [[0.0] * shape[1]] * shape[0]


@in_torch
@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (16, 64)])
def test_an_orthogonal_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    """Jordan et al. say between 0.7 and 1.2 for most; and its directions are those of the SVD."""
    orthogonal = source.execute(text("muon"))["orthogonal"]
    for seed in range(3):
        g = gradient(random.Random(seed), *shape, 1e-3)
        made = tensor(orthogonal(g))
        values = torch.linalg.svdvals(made)
        assert made.shape == shape
        assert values.min() > 0.6 and values.max() < 1.25
        u, _, vt = torch.linalg.svd(tensor(g), full_matrices=False)
        inner = u.T @ made @ vt.T
        assert far(inner, torch.diag(torch.diagonal(inner))) < 1e-9
        assert inner.diagonal().min() > 0.6
    assert far(orthogonal([[0.0] * 3] * 2), [[0.0] * 3] * 2) == 0


@pytest.mark.parametrize("recipe", ["muon", "biases+muon", "no-attention+muon"])
def test_muon_moves_the_matrices_of_blocks_and_adam_all_else(recipe: str) -> None:
    """Biases, which are single rows, and embeddings are Adam's."""
    space = source.execute(text(recipe))
    params = space["init"](random.Random(0), 7, n_embd=8, n_head=2, block_size=8)
    paths = {id(w): path for path, w in named(params)}
    before = {path: [list(row) for row in w.data] for path, w in named(params)}
    used: dict[str, str] = {}

    def spied(rule: str) -> Callable[..., None]:
        inner = space[rule]

        def move(w: Any, *rest: Any) -> None:
            used[paths[id(w)]] = rule
            inner(w, *rest)

        return move

    space |= {rule: spied(rule) for rule in ("adam", "muon")}
    next(space["train"](params, list(DOCS), space["vocabulary"](DOCS)))
    for path, w in named(params):
        read = "no-attention" not in recipe or kind(path) not in UNREAD["no-attention"]
        hidden = path.startswith("blocks") and len(w.data) > 1 and read
        assert used[path] == ("muon" if hidden else "adam"), path
        assert ([list(row) for row in w.data] != before[path]) == read, path


# ---- Dropout, and targets that are shuffled ----


def test_dropout_leaves_the_mean_as_it_was() -> None:
    """A tenth of the cells is zero, but for chance; the others, and gradients, are as much larger
    as makes up for it."""
    space, count = source.execute(text("dropout")), 200
    x = space["Tensor"]([[1.0] * count for _ in range(count)])
    y = space["dropout"](x, random.Random(0))
    cells = [cell for row in y.data for cell in row]
    share = cells.count(0) / count**2
    assert abs(share - 0.1) < 4 * (0.1 * 0.9) ** 0.5 / count
    assert sorted(set(cells)) == pytest.approx([0, 1 / 0.9])
    assert sum(cells) / count**2 == pytest.approx((1 - share) / 0.9)
    space["backward"](y.sum(-1, keepdim=True).transpose(-2, -1).sum(-1, keepdim=True))
    assert [list(row) for row in x.grad] == [list(row) for row in y.data]
    same, other = (space["dropout"](x, random.Random(seed)).data for seed in (0, 1))
    assert same == y.data != other


@in_torch
def test_dropout_is_where_each_part_is_added() -> None:
    case, rng = Case("dropout"), random.Random(1)
    masks = [[[rng.choice([0.0, 1 / 0.9]) for _ in range(16)] for _ in range(8)] for _ in range(10)]
    mine, theirs = iter(masks), iter(masks)
    logits = case.logits(drop=lambda x: x * case.space["Tensor"](next(mine)[: x.shape[0]]))

    def read(h: Any, block: Tree) -> Any:
        q, k, v = projected(h, block["heads"], "wq", "wk", "wv")
        seen = do("scaled_dot_product_attention")(q, k, v, is_causal=True)
        masked = [
            s @ head["wo"] * tensor(next(theirs)[: len(h)]) for s, head in zip(seen, block["heads"])
        ]
        return sum(masked)

    def feed(h: Any, block: Tree) -> Any:
        return fed(h, block) * tensor(next(theirs)[: len(h)])

    expected = plain(moved(case.params), case.ids[:-1], read=read, feed=feed)
    assert far(logits.data, expected) < 1e-9
    assert next(mine, None) is next(theirs, None) is None  # all masks were used


def test_dropout_is_for_training_alone() -> None:
    one, other = (Run(text(name), FEW, seed=1, **SMALL) for name in ("dropout", ""))
    assert one.held_out_loss(5) == other.held_out_loss(5)
    assert one.sample(3) == other.sample(3)
    assert one.advance() != other.advance()


@pytest.mark.parametrize("name", ["dropout", "shuffled-targets", "muon", "momentum"])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(name: str) -> None:
    """A step draws the same at random, whenever it is done."""
    whole, first, second = (Run(text(name), FEW, seed=1, batch=2, **SMALL) for _ in range(3))
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    assert first.moments is not None
    second.take(2, first.losses, [w.data for w in first.named_weights().values()], first.moments)
    for _ in range(2):
        second.advance()
    assert second.losses == whole.losses


def test_targets_are_shuffled_within_their_document() -> None:
    space = source.execute(text("shuffled-targets"))
    vocab, read, asked = space["vocabulary"](DOCS), [], []
    inner, gpt = space["cross_entropy"], space["gpt"]

    def spied(logits: Any, targets: Any) -> Any:
        asked.append([row.index(True) for row in targets.data])
        return inner(logits, targets)

    space["cross_entropy"] = spied
    space["gpt"] = lambda ids, **params: read.append(ids) or gpt(ids, **params)
    params = space["init"](random.Random(0), len(vocab), n_embd=8, n_head=2, block_size=8)
    list(space["train"](params, list(DOCS), vocab, steps=3 * len(DOCS)))
    true = [space["encode"](doc, vocab) for doc in DOCS * 3]
    assert read == [ids[:-1] for ids in true]
    assert [sorted(ids) for ids in asked] == [sorted(ids[1:]) for ids in true]
    assert sum(a != ids[1:] for a, ids in zip(asked, true)) > len(true) / 2
    assert asked[0] != asked[len(DOCS)] or asked[0] != asked[2 * len(DOCS)]
    ends = [a.index(0) for a, ids in zip(asked, true) if len(ids) == len(true[0])]
    assert len(set(ends)) > 1  # the end of a document is anywhere, too


# ---- First weights ----

SPREAD, CHANNELS = 0.08, 32


def spread(name: str, path: str, rows: int) -> float:
    """What a matrix's first weights should deviate by: as in the file but for a few."""
    deep = 2
    match name:
        case "large-init":
            return 0.5
        case "small-init":
            return 0.02
        case "scaled-init":  # 1 / sqrt(N), of N parts that write into the stream
            return 0.02 / math.sqrt(2 * deep) if kind(path) in ("wo", "proj") else 0.02
        case "fan-in-init":
            return SPREAD if kind(path) in ("wte", "wpe") else 1 / math.sqrt(rows)
    return SPREAD


WEIGHERS = [n for n in NAMES if "init(" in collection()[n].text or "std" in turned(text(n))]


@pytest.mark.parametrize("name", WEIGHERS)
def test_first_weights_have_their_spread(name: str) -> None:
    """Each matrix within what chance explains, and all together; biases are 0 and gains 1."""
    space = source.execute(text(name))
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": CHANNELS, "block_size": 32}
    found, scaled = dict(named(space["init"](random.Random(0), 32, **sizes))), []
    for path, w in found.items():
        cells = [x for row in w.data for x in row]
        if kind(path) in ("bq", "bk", "bv", "bo", "b1", "b2", "gains"):
            assert cells == [float(kind(path) == "gains")] * len(cells)
            continue
        expected = spread(name, path, len(w.data))
        size = math.sqrt(sum(x * x for x in cells) / len(cells))
        assert abs(size / expected - 1) < 5 / math.sqrt(2 * len(cells)), path
        assert abs(sum(cells)) < 5 * expected * math.sqrt(len(cells)), path
        scaled += [x / expected for x in cells]
    size = math.sqrt(sum(x * x for x in scaled) / len(scaled))
    assert abs(size - 1) < 4 / math.sqrt(2 * len(scaled))
    assert len({id(w) for w in found.values()}) == len(found)


# ---- On the fast engine ----

UNCOMPILED = {"shuffled-targets", "recurrent", "dropout", "gradient-clipping", "muon"}


@cache
def pair_of_runs(name: str) -> tuple[Run, Run]:
    """A variant on both engines."""
    engines.library()  # skips where there is no kernel
    fast, reference = (
        Run(text(name), FEW, seed=1, engine=engine, **dict(small(name)))
        for engine in ("fast", "reference")
    )
    fast.prepare()
    return fast, reference


@each
def test_the_fast_engine_is_the_reference_engine(name: str) -> None:
    fast, reference = pair_of_runs(name)
    assert (fast.engine == "reference") == (name in UNCOMPILED)
    assert (fast.engine_note is None) == (name not in UNCOMPILED)
    if name not in UNCOMPILED:
        fast.advance_by(3)
        losses = [reference.advance() for _ in range(3)]
        assert fast.losses == pytest.approx(losses, rel=1e-5)
        assert fast.held_out_loss(1) == pytest.approx(reference.held_out_loss(1), rel=1e-5)
        assert len(set(losses)) == 3


# ---- Together ----

PAIRS = list(itertools.combinations(NAMES, 2))
SAMPLE = sorted(random.Random(0).sample(PAIRS, 60))
RUNGS = [recipe for ladder in LADDERS for recipe in recipes([ladder])]


@cache
def parts_of(of: str) -> dict[str, str]:
    """The words of every function, every method, and all that is outside of them."""
    lines, found = of.split("\n"), {}
    tree = ast.parse(of)
    owners = [("", tree), *((f"{n.name}.", n) for n in tree.body if isinstance(n, ast.ClassDef))]
    for owner, holder in owners:
        for node in holder.body:
            if isinstance(node, ast.FunctionDef):
                rows = slice(node.lineno - 1, node.end_lineno)
                found[owner + node.name] = "\n".join(lines[rows])
                lines[rows] = [""] * len(lines[rows])
    found[""] = "\n".join(line for line in lines if line.strip())
    return found


@cache
def anew(recipe: str) -> dict[str, str]:
    """The functions that a recipe makes otherwise than the file."""
    old = parts_of(ORIGINAL)
    return {name: words for name, words in parts_of(text(recipe)).items() if old.get(name) != words}


def without_comments(words: str) -> list[str]:
    return [line.split("#")[0].rstrip() for line in words.split("\n")]


def count(lines: Iterable[str]) -> Counter[str]:
    return Counter(word for line in lines for word in re.findall(r"\w+|[^\w\s]", line))


def assert_all_there(merged: str, alone: list[dict[str, str]]) -> None:
    """What no part changes is as in the file; what one changes is as it has it. Of what several
    change, there is of each word as much more or less as all of them want together; where they may
    want the same, because they take out or put in the same lines, as much as that less."""
    old = parts_of(ORIGINAL)
    for name, words in parts_of(merged).items():
        wanted = {part[name] for part in alone if name in part} or {old.get(name)}
        if len(wanted) == 1:
            assert {words} == wanted, name
            continue
        before = without_comments(old.get(name, ""))
        sides = [without_comments(words) for words in wanted if words is not None]
        gone = [Counter(before) - Counter(lines) for lines in sides]
        new = [Counter(lines) - Counter(before) for lines in sides]
        often = sum((Counter(set(lines)) for lines in gone), Counter[str]())
        both_gone = count(line for line in before if often[line] > 1)
        added = [count(lines.elements()) for lines in new]
        wants = [count(lines) for lines in sides]
        found, first = count(without_comments(words)), count(before)
        for word in {*found, *first}.union(*wants):
            change = sum(w[word] - first[word] for w in wants)
            shared = sum(sorted(a[word] for a in added)[:-1])  # at most so much is the same
            doubly = (len(sides) - 1) * both_gone[word]
            assert change - shared <= found[word] - first[word] <= change + doubly, (name, word)


@cache
def reached(of: str) -> set[str]:
    """The functions of a program that training, measuring and sampling come to, by their names."""
    bodies = {name: words for name, words in parts_of(of).items() if name}
    nodes = {name: tree_of(words) for name, words in bodies.items()}
    found: set[str] = set()
    todo = ["vocabulary", "encode", "init", "leaves", "train", "sample", "softmax"]
    while todo:
        name = todo.pop()
        if name in found or name not in nodes:
            continue
        found.add(name)
        for node in ast.walk(nodes[name]):
            if isinstance(node, ast.Name):
                todo.append(node.id)
            elif isinstance(node, ast.Attribute):
                todo.append(f"Tensor.{node.attr}")
    return found | {name for name in bodies if re.fullmatch(r"Tensor\.__\w+__", name)}


@cache
def tree_of(words: str) -> ast.AST:
    """A function or method, wherever it stood."""
    return ast.parse(textwrap.dedent(words))


@cache
def run_of(recipe: str, sizes: tuple[tuple[str, int], ...]) -> Run:
    """After three steps."""
    run = Run(text(recipe), FEW, seed=1, **dict(sizes))
    for _ in range(3):
        run.advance()
    return run


def assert_it_measures_and_samples(run: Run) -> None:
    assert all(map(math.isfinite, [*run.losses, run.held_out_loss(1)]))
    assert run.sample(1)[0].isprintable()


# Pairs of which one undoes what the other does, though the program still comes to it: what is left
# is the first alone.
UNDONE = {
    ("no-norm", "qk-norm"): "there is no norm to give queries and keys",
    ("no-norm", "post-norm"): "where a norm stands that does nothing is all the same",
    ("uniform-attention", "qk-norm"): "scores are times 0, whatever they were",
    **{
        (one, "gradient-clipping"): "the first gradients are all shorter than 1"
        for one in ("no-norm", "sinusoidal", "batch")
    },
    **{
        (one, heads): "there are no heads, and their number changes nothing"
        for one in ("no-attention", "recurrent", "window-mlp")
        for heads in ("one-head", "many-heads")
    },
}


def refused(recipe: str) -> str | None:
    """Why parts cannot be put together."""
    try:
        text(recipe)
    except MicrogptError as error:
        return error.message
    return None


def below(name: str) -> set[str]:
    """A variant and all that it builds on."""
    return {name}.union(*(below(other) for other in collection()[name].builds_on))


def assert_they_go_together(one: str, other: str) -> None:
    pair = f"{one}+{other}"
    why = refused(pair)
    if why is not None:
        for name in (one, other):
            assert name in why or any(collection()[n].title in why for n in below(name)), why
        assert re.search(
            r" (cannot be put together: |do not fit together: |set the same number, )", why
        )
        assert why.endswith(".") and "\n" not in why and len(why) < 400
        return
    on_top = [name for name in (one, other) if name not in below(one) & below(other)]
    assert_all_there(text(pair), [anew(name) for name in on_top])
    sizes = small(one, other)
    run = run_of(pair, sizes)
    assert_it_measures_and_samples(run)
    for kept, lost in ((one, other), (other, one)):
        unused = not set(anew(lost)) & reached(text(pair))
        inert = unused or (kept, lost) in UNDONE or text(pair) == text(kept)
        assert (run.losses == run_of(kept, sizes).losses) == inert, (kept, lost)


@pytest.mark.parametrize(("one", "other"), SAMPLE, ids=map("+".join, SAMPLE))
def test_two_variants_go_together_or_say_why_not(one: str, other: str) -> None:
    """Both edits are in the program, and both are felt, unless nothing of one is ever used."""
    assert_they_go_together(one, other)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (
            "gelu+silu",
            "GELU and SiLU cannot be put together: both change the line 'hidden = (x @ fc).relu()  "
            "# (T, 4C)'. Choose one of them, or write a variant that builds on the other.",
        ),
        ("one-head+rope+many-heads", "one-head and many-heads set the same number, n_head: leave "),
        ("biases+swiglu", "Biases and SwiGLU do not fit together: These shapes do not fit togeth"),
        ("no-attention+no-mlp", "No attention and No feed-forward do not fit together: Python "),
        (
            "rope+post-norm+norm-gain",
            "RoPE and Post-norm and Norms with a gain do not fit together: ",
        ),
    ],
)
def test_what_stands_in_the_way_is_said(recipe: str, sentence: str) -> None:
    """The same words or number; a program that Python cannot read, or that fails when it is run."""
    why = refused(recipe)
    assert why is not None and why.startswith(sentence)


@pytest.mark.skipif("MICROGPT_EXHAUSTIVE" not in os.environ, reason="takes minutes")
@each
def test_exhaustive(name: str) -> None:
    """All pairs.

    MICROGPT_EXHAUSTIVE=1 .venv/bin/python -m pytest tests/test_variants.py -k exhaustive
    """
    for one, other in PAIRS:
        if one == name:
            assert_they_go_together(one, other)


@pytest.mark.parametrize("recipe", RUNGS)
def test_every_rung_of_every_ladder_holds(recipe: str) -> None:
    """It has all of the edits that it is made of, and is another model than the rung below."""
    parts = recipe.split("+")
    on_top = [n for n in parts if not any(n in below(other) for other in parts if other != n)]
    assert_all_there(text(recipe), [anew(name) for name in on_top])
    for name in on_top:
        for knob, value in turned(text(name)).items():
            assert knobs(text(recipe))[knob] == value
    run = run_of(recipe, small(recipe))
    assert_it_measures_and_samples(run)
    rung_below = "+".join(parts[:-1])
    assert run.losses != run_of(rung_below, small(recipe)).losses


# ---- Recipes ----


def test_groups_and_ladders_are_written_out() -> None:
    folders = {g: sorted(p.stem for p in (COLLECTION / g).glob("*.py")) for g in GROUPS}
    for group, files in folders.items():
        assert recipes([group]) == [name.replace("_", "-") for name in files]
    for ladder, rungs in LADDERS.items():
        made = recipes([ladder])
        assert len(made) == len(rungs) == len(set(rungs))
        assert made[0] == rungs[0] and made[-1] == "+".join(rungs)
        assert all(b == f"{a}+{name}" for a, b, name in zip(made, made[1:], rungs[1:]))
    assert recipes(["rope", "rope+lr=1", "nonsense"]) == ["rope", "rope+lr=1", "nonsense"]
    assert recipes(["gelu", "gpt-2", "gelu"]) == recipes(["gpt-2"])
    assert recipes([]) == []


def test_an_empty_recipe_is_the_file() -> None:
    for recipe in ("", "  "):
        assert program(recipe).source == ORIGINAL and program(recipe).diff == ""


def test_a_recipe_may_have_spaces_and_say_things_twice() -> None:
    made = program("rope + swiglu+lr=0.02").source
    assert made == program("rope+swiglu+rope+lr=0.02+lr=0.02").source
    assert knobs(made)["lr"] == 0.02
    assert program("latent-attention").source == program("rope+latent-attention").source


def test_numbers_are_set_by_their_name_or_their_functions() -> None:
    assert program("lr=0.5").source == ORIGINAL.replace("lr=0.01", "lr=0.5")
    assert program("train.lr=1e-3").source == ORIGINAL.replace("lr=0.01", "lr=0.001")
    assert program("n_layer=3").source == ORIGINAL.replace("n_layer=1", "n_layer=3")


GOOD = '"""Half\n\nHalf of it.\n"""\n\n\ndef mlp(x, fc, proj):\n    return x / 2\n'


def test_a_path_is_a_variant_or_a_whole_program(tmp_path: Path) -> None:
    own = tmp_path / "my_half.py"
    own.write_text(GOOD, encoding="utf-8")
    assert "return x / 2" in program(str(own)).source
    merged = program(f"{own}+rope").source
    assert "return x / 2" in merged and "def rotate" in merged
    own.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())  # as Windows has it
    assert program(f"{own}+rope").source == merged
    edited = ORIGINAL.replace("lr=0.01", "lr=0.5")
    whole = tmp_path / "gpt_edited.py"
    whole.write_text(edited, encoding="utf-8")
    assert (program(str(whole)).source, program(str(whole)).name) == (edited, "gpt_edited")


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("rop", "There is no variant 'rop': did you mean rope?"),
        ("no-atention+rope", "There is no variant 'no-atention': did you mean no-attention?"),
        ("removal", "There is no variant 'removal': did you mean removals?"),
        ("xyzzy", "There is no variant 'xyzzy': microgpt variants lists them."),
        ("rope++gelu", "The recipe 'rope++gelu' has an empty part between its plus signs."),
        ("+rope", "The recipe '+rope' has an empty part between its plus signs."),
        ("rope+ ", "The recipe 'rope+ ' has an empty part between its plus signs."),
        ("lr=0.1+lr=0.2", "lr=0.1 and lr=0.2 set the same number, lr: leave one of them out."),
        ("lr=fast", "lr=fast does not set a number: 'fast' is none."),
        ("lr=nan", "lr must be a number, not nan."),
        ("n_head=2.5", "n_head must be a whole number, not 2.5."),
        ("colour=3", "This source has no number called colour; it has: n_layer, "),
        ("{missing}", "The variant {missing} cannot be read: no such file or directory."),
        ("{folder}", "The variant {folder} cannot be read: is a directory."),
        ("{binary}", "{binary} is not a text in UTF-8, so it is no program."),
        ("{long}", "{long} is too long to be a variant of gpt.py."),
        ("{broken}", "The variant broken does not apply, line 7: Python expected ':' here."),
        ("{untitled}", "The variant untitled does not say what it is: begin it with a docstring "),
        ("{hopeful}", "The variant hopeful expects 'best on names': write worse, better or alike"),
        ("{vague}", "The variant vague expects 'better': write worse, better or alike, and on "),
        ("{imports}", "The variant imports does not apply, line 2: A variant holds functions and "),
        ("{unused}", "The variant unused does not apply: A function half is added, and none uses"),
        ("{whole}+rope", "The variant whole does not apply, line 4: A variant holds functions "),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_in_a_sentence(
    recipe: str, sentence: str, tmp_path: Path
) -> None:
    texts: dict[str, str | bytes] = {
        "binary": b"\xff\xfe\x00\x01",
        "long": '"""Long"""\n' + "#" * source.LARGEST,
        "broken": GOOD.replace("proj):", "proj)"),
        "untitled": GOOD.split('"""')[2],
        "hopeful": GOOD.replace("of it.\n", "of it.\n\nExpected: best on names\n"),
        "vague": GOOD.replace("of it.\n", "of it.\n\nExpected: better\n"),
        "imports": '"""Imports"""\nimport os\n',
        "unused": '"""Unused"""\ndef half(x): return x\n',
        "whole": ORIGINAL,
    }
    paths = {name: str(tmp_path / f"{name}.py") for name in [*texts, "missing", "folder"]}
    for name, content in texts.items():
        data_ = content if isinstance(content, bytes) else content.encode()
        Path(paths[name]).write_bytes(data_)
    Path(paths["folder"]).mkdir()
    with pytest.raises(MicrogptError) as caught:
        program(recipe.format(**paths))
    assert caught.value.message.startswith(sentence.format(**paths))


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(GOOD.replace("proj):", "proj)"), encoding="utf-8")
    with pytest.raises(MicrogptError, match="broken"):
        program(str(path))


@pytest.mark.parametrize("recipe", ["{}", "{}+rope"])
def test_a_variant_that_sets_no_number_of_the_file_is_named(recipe: str, tmp_path: Path) -> None:
    path = tmp_path / "colourful.py"
    path.write_text(GOOD + "\ncolour = 3\n", encoding="utf-8")
    with pytest.raises(MicrogptError, match="colourful"):
        program(recipe.format(path))


def test_a_number_in_a_signature_and_the_same_number_alone_are_two_edits_of_it(
    tmp_path: Path,
) -> None:
    """One of the two must not win in silence."""
    body = parts_of(ORIGINAL)["init"].replace("std=0.08", "std=0.02")
    path = tmp_path / "quiet.py"
    path.write_text(f'"""Quiet\n\nLess.\n"""\n\n\n{body}\n', encoding="utf-8")
    assert knobs(program(str(path)).source)["std"] == 0.02
    with pytest.raises(MicrogptError, match="std"):
        program(f"{path}+large-init")


def test_a_number_by_two_names_is_set_twice() -> None:
    with pytest.raises(MicrogptError, match="set the same number"):
        program("lr=0.1+train.lr=0.2")


def test_the_blame_for_a_conflict_is_on_who_has_it() -> None:
    """Large first weights set a number, which is no line that is in the way."""
    with pytest.raises(MicrogptError, match="cannot be put together") as caught:
        program("large-init+window-mlp+scaled-init")
    assert caught.value.message.startswith("An MLP in attention's place and GPT-2's first weights")


def test_what_stands_in_the_way_of_a_variant_is_told_with_its_name() -> None:
    """A shared expert is what was asked for, and not the mixture that it builds on."""
    with pytest.raises(MicrogptError, match="A shared expert"):
        program("no-mlp+shared-expert")


def test_nothing_is_advised_that_was_just_refused() -> None:
    with pytest.raises(MicrogptError) as caught:
        program("removals")
    assert "did you mean removals" not in caught.value.message


def test_a_variant_that_builds_on_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "round.py"
    path.write_text(GOOD.replace("of it.\n", f"of it.\n\nBuilds on: {path}\n"), encoding="utf-8")
    with pytest.raises(MicrogptError, match=r"^The variant .*round\.py builds on itself\.$"):
        program(str(path))


def test_a_group_or_a_ladder_is_no_part_of_a_recipe() -> None:
    """It stands for several recipes, which `recipes` writes out."""
    for name in ("removals", "gpt-2", "removals+rope"):
        with pytest.raises(MicrogptError, match="There is no variant"):
            program(name)
