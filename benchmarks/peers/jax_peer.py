"""The peer in JAX: the whole loop over the steps, or over the tokens, is one compiled scan."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import peers

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights

Tree = dict[str, jax.Array]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # weights, both moments, steps done
CHUNK = 4 * peers.threads()  # documents at a time, so that their activations stay in the cache
BLOCK = ("wqkv", "wo", "fc", "proj")


def norm(x: jax.Array) -> jax.Array:
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + peers.NORM_EPS)


def attention(qkv: jax.Array, n_head: int) -> jax.Array:
    """(B, T, 3C) -> (B, T, C)"""
    b, t, width = qkv.shape
    q, k, v = (part.reshape(b, t, n_head, -1) for part in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    past = jnp.tril(jnp.ones((t, t), bool))
    probs = jax.nn.softmax(jnp.where(past, scores, -jnp.inf))
    return jnp.einsum("bhqk,bkhd->bqhd", probs, v).reshape(b, t, width // 3)


def gpt(w: Tree, ids: jax.Array, n_head: int) -> jax.Array:
    """(B, T) -> (B, T, V)"""
    x = w["wte"][ids] + w["wpe"]
    for i in range(len(w["fc"])):
        wqkv, wo, fc, proj = (w[name][i] for name in BLOCK)
        x = x + attention(norm(x) @ wqkv, n_head) @ wo
        x = x + jax.nn.relu(norm(x) @ fc) @ proj
    return norm(x) @ w["lm_head"]


def loss_of(w: Tree, docs: jax.Array, lengths: jax.Array, n_head: int) -> jax.Array:
    """docs (b, T + 1), lengths (b,): the sum over the documents of the mean over their tokens."""
    logs = jax.nn.log_softmax(gpt(w, docs[:, :-1], n_head))
    surprise = -jnp.take_along_axis(logs, docs[:, 1:, None], axis=-1)[..., 0]
    real = jnp.arange(surprise.shape[1]) < lengths[:, None]
    return (jnp.where(real, surprise, 0).sum(-1) / lengths).sum()


def matrices(vector: jax.Array, shapes: Shapes) -> Tree:
    """A vector cut into matrices: one vector makes Adam one operation."""
    ends = np.cumsum([math.prod(shape) for _, shape in shapes])
    parts = jnp.split(vector, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes, parts)}


def in_line(tree: Tree, shapes: Shapes) -> jax.Array:
    return jnp.concatenate([tree[name].ravel() for name, _ in shapes])


@partial(jax.jit, static_argnames=("n", "batch", "n_head", "shapes"), donate_argnums=0)
def train(
    state: State, tokens: jax.Array, lengths: jax.Array,
    n: int, batch: int, n_head: int, shapes: Shapes,
) -> tuple[State, jax.Array]:  # fmt: skip
    """n steps from a state: the state after them and the losses (n,)."""
    parts = batch // math.gcd(batch, CHUNK)

    def one(state: State, _: None) -> tuple[State, jax.Array]:
        vector, m, v, step = state
        w = matrices(vector, shapes)
        first = step * batch
        docs = lax.dynamic_slice_in_dim(tokens, first, batch).reshape(parts, batch // parts, -1)
        ends = lax.dynamic_slice_in_dim(lengths, first, batch).reshape(parts, -1)

        def some(total: tuple[jax.Array, Tree], part: tuple[jax.Array, jax.Array]) -> Any:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(w, *part, n_head)), None

        nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, w)
        (loss, slopes), _ = lax.scan(some, nothing, (docs, ends))
        g = in_line(slopes, shapes) / batch
        c1, c2 = 1 - peers.BETA1 ** (step + 1.0), 1 - peers.BETA2 ** (step + 1.0)
        m = peers.BETA1 * m + (1 - peers.BETA1) * g
        v = peers.BETA2 * v + (1 - peers.BETA2) * g * g
        lr = peers.LR * (1 - step / peers.STEPS)
        vector -= lr * (m / c1) / (jnp.sqrt(v / c2) + peers.ADAM_EPS)
        return (vector, m, v, step + 1), loss / batch

    return lax.scan(one, state, None, length=n)


class Training:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n_head = problem.weights["wq"].shape[1]
        self.tokens, self.lengths = jnp.asarray(problem.tokens), jnp.asarray(problem.lengths)
        self.reset()

    def reset(self) -> None:
        w = peers.merged(self.problem.weights)
        self.shapes = tuple((name, part.shape) for name, part in w.items())
        vector = in_line({name: jnp.asarray(part) for name, part in w.items()}, self.shapes)
        state = vector, jnp.zeros_like(vector), jnp.zeros_like(vector), jnp.zeros((), jnp.int32)
        self.state: State = jax.block_until_ready(state)

    def step_many(self, n: int) -> Array:
        batch = self.problem.batch
        self.state, losses = train(
            self.state, self.tokens, self.lengths, n, batch, self.n_head, self.shapes
        )
        return np.asarray(losses)


def prepare(problem: Problem) -> Training:
    return Training(problem)


@partial(jax.jit, static_argnames="n_head")
def draw(w: Tree, chances: jax.Array, n_head: int) -> jax.Array:
    """A token for each chance."""
    (n_layer, c, _), positions = w["wo"].shape, len(w["wpe"])
    d = c // n_head

    def one(state: tuple[jax.Array, ...], chance: jax.Array) -> tuple[Any, jax.Array]:
        cache, token, t = state  # (L, 2, T, H, D), () and ()
        x = w["wte"][token] + w["wpe"][t]
        seen = jnp.arange(positions) <= t
        for i in range(n_layer):
            wqkv, wo, fc, proj = (w[name][i] for name in BLOCK)
            qkv = (norm(x) @ wqkv).reshape(3, n_head, d)
            cache = lax.dynamic_update_slice(cache, qkv[None, 1:, None], (i, 0, t, 0, 0))
            scores = jnp.einsum("hd,thd->ht", qkv[0] * d**-0.5, cache[i, 0])
            probs = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
            x = x + jnp.einsum("ht,thd->hd", probs, cache[i, 1]).reshape(c) @ wo
            x = x + jax.nn.relu(norm(x) @ fc) @ proj
        totals = jnp.cumsum(jax.nn.softmax(norm(x) @ w["lm_head"]))
        new = jnp.minimum((totals < chance).sum(), len(totals) - 1)
        go_on = (new != 0) & (t + 1 < positions)
        return (cache, jnp.where(go_on, new, 0), jnp.where(go_on, t + 1, 0)), new

    cache = jnp.zeros((n_layer, 2, positions, n_head, d))
    return lax.scan(one, (cache, jnp.int32(0), jnp.int32(0)), chances)[1]


def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    w = {name: jnp.asarray(w) for name, w in peers.merged(weights).items()}
    return np.asarray(draw(w, peers.uniforms(n_tokens, seed), weights["wq"].shape[1]))
