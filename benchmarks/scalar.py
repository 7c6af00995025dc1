"""The same GPT with one graph node per number, in the style of micrograd.

`microgpt/gpt.py` makes a node of a whole matrix. Here every single number is a node, so one cell
of a matrix can be followed through the model and back. The weights, the sums and the optimiser are
those of the file, and so are the losses (`tests/test_scalar.py` compares them); only the grain
differs, and with it the time a step takes (`benchmarks/step.py` measures it).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any


class Value:
    """A number that remembers the numbers it was made from, and its slope in each of them."""

    __slots__ = ("data", "grad", "parents", "slopes", "waiting")

    def __init__(
        self, data: float, parents: tuple[Value, ...] = (), slopes: tuple[float, ...] = ()
    ) -> None:
        self.data, self.parents, self.slopes = data, parents, slopes
        self.grad = 0.0  # how fast the loss grows with this number
        self.waiting = 0  # how many of the values made from this one have not passed back yet

    def __add__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, power: float) -> Value:
        return Value(self.data**power, (self,), (power * self.data ** (power - 1),))

    def exp(self) -> Value:
        value = math.exp(self.data)
        return Value(value, (self,), (value,))

    def log(self) -> Value:
        return Value(math.log(self.data), (self,), (1 / self.data,))

    def relu(self) -> Value:
        return Value(max(self.data, 0.0), (self,), (float(self.data > 0),))

    def backward(self) -> None:
        """The chain rule: a value passes its gradient on once all that was made from it has."""
        todo = [self]
        while todo:  # count, for every value, the values made from it
            for parent in todo.pop().parents:
                if not parent.waiting:
                    todo.append(parent)
                parent.waiting += 1
        self.grad, todo = 1.0, [self]
        while todo:
            value = todo.pop()
            for parent, slope in zip(value.parents, value.slopes):
                parent.grad += slope * value.grad
                parent.waiting -= 1
                if not parent.waiting:
                    todo.append(parent)


Row = Sequence[Value]
Matrix = Sequence[Row]


def dot(a: Row, b: Row) -> Value:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:]):
        total = total + x * y
    return total


def linear(x: Row, w: Matrix) -> Row:  # C values times a (C, D) matrix: D values
    return [dot(x, column) for column in zip(*w)]


def add(a: Row, b: Row) -> Row:
    return [x + y for x, y in zip(a, b)]


def softmax(x: Row) -> Row:
    largest = max(value.data for value in x)
    e = [(value + -largest).exp() for value in x]
    total = e[0]
    for value in e[1:]:
        total = total + value
    share = total**-1
    return [value * share for value in e]


def norm(x: Row) -> Row:
    scale = (dot(x, x) * (1 / len(x)) + 1e-5) ** -0.5
    return [value * scale for value in x]


def attention(x: Matrix, wq: Matrix, wk: Matrix, wv: Matrix, wo: Matrix) -> Matrix:
    q, k, v = [[linear(row, w) for row in x] for w in (wq, wk, wv)]
    out = []
    for t, query in enumerate(q, start=1):  # the future is left out, where the file masks it
        weights = softmax([dot(query, key) * len(query) ** -0.5 for key in k[:t]])
        out.append(linear([dot(weights, column) for column in zip(*v[:t])], wo))
    return out


def mlp(x: Row, fc: Matrix, proj: Matrix) -> Row:
    return linear([value.relu() for value in linear(x, fc)], proj)


def gpt(ids: list[int], wte: Matrix, wpe: Matrix, blocks: list[Any], lm_head: Matrix) -> Matrix:
    x = [add(wte[i], position) for i, position in zip(ids, wpe)]
    for block in blocks:
        h = [norm(row) for row in x]
        for head in block["heads"]:
            x = [add(row, read) for row, read in zip(x, attention(h, **head))]
        x = [add(row, mlp(norm(row), block["fc"], block["proj"])) for row in x]
    return [linear(norm(row), lm_head) for row in x]


def cross_entropy(logits: Matrix, targets: list[int]) -> Value:
    losses = [(softmax(row)[t] + 1e-30).log() * -1 for row, t in zip(logits, targets)]
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total * (1 / len(losses))


def copy(tree: Any) -> Any:
    """The numbers of the file's weights (nested dicts and lists of its tensors) as values."""
    if isinstance(tree, dict):
        return {name: copy(part) for name, part in tree.items()}
    if isinstance(tree, list):
        return [copy(part) for part in tree]
    return [[Value(x) for x in row] for row in tree.data]


def leaves(tree: Any) -> list[Value]:
    if isinstance(tree, Value):
        return [tree]
    return [w for part in (tree.values() if isinstance(tree, dict) else tree) for w in leaves(part)]


def train(
    params: dict[str, Any], docs: list[str], vocab: list[str], steps: int = 1000, lr: float = 0.01
) -> Iterator[float]:
    """Yield the loss of each step; one document a step, Adam as in the file."""
    weights = leaves(params)
    m, v = [0.0] * len(weights), [0.0] * len(weights)
    beta1, beta2, eps = 0.85, 0.99, 1e-8
    for step in range(steps):
        text = "\n" + docs[step % len(docs)] + "\n"
        ids = [vocab.index(char) for char in text][: len(params["wpe"]) + 1]
        loss = cross_entropy(gpt(ids[:-1], **params), ids[1:])
        loss.backward()
        c1, c2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
        rate = lr * (1 - step / steps)
        for i, w in enumerate(weights):
            m[i] = beta1 * m[i] + (1 - beta1) * w.grad
            v[i] = beta2 * v[i] + (1 - beta2) * w.grad * w.grad
            w.data -= rate * (m[i] / c1 / (math.sqrt(v[i] / c2) + eps))
            w.grad = 0.0
        yield loss.data
