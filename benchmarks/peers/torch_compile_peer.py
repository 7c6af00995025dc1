"""The peer in PyTorch, compiled: loss, gradient and Adam are one graph for `torch.compile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peers
from benchmarks.peers.torch_peer import gpt, norm, separate

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights

UNUSED = -100  # the target of a place after the end of a document, which the loss passes over
UNROLLED = 8  # tokens drawn by one call of the compiled graph


def train_step(
    w: dict[str, Tensor], m: dict[str, Tensor], v: dict[str, Tensor], docs: Tensor,
    step: Tensor, n_head: int,
) -> Tensor:  # fmt: skip
    """One step on documents (2, B, T) of ids and targets; all but them is updated in place."""

    def loss_of(w: dict[str, Tensor]) -> Tensor:
        logits = gpt(w, docs[0], n_head)
        return F.cross_entropy(logits.flatten(0, 1), docs[1].flatten(), ignore_index=UNUSED)

    grads, loss = torch.func.grad_and_value(loss_of)(w)
    lr = peers.LR * (1 - step / peers.STEPS)
    step += 1
    c1, c2 = 1 - peers.BETA1**step, 1 - peers.BETA2**step
    for name, g in grads.items():
        m[name].mul_(peers.BETA1).add_(g, alpha=1 - peers.BETA1)
        v[name].mul_(peers.BETA2).add_(g * g, alpha=1 - peers.BETA2)
        w[name].sub_(lr * (m[name] / c1) / ((v[name] / c2).sqrt() + peers.ADAM_EPS))
    return loss


compiled_step = torch.compile(train_step, fullgraph=True, dynamic=False)


class Training:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n_head = problem.weights["wq"].shape[1]
        tokens = torch.tensor(problem.tokens, dtype=torch.int64)
        ids, targets = tokens[:, :-1], tokens[:, 1:].clone()
        ends = torch.tensor(problem.lengths)[:, None]
        targets[torch.arange(targets.shape[1]) >= ends] = UNUSED
        self.docs = torch.stack([ids, targets])
        self.reset()

    def reset(self) -> None:
        self.w = separate(self.problem.weights)
        self.m = {name: torch.zeros_like(w) for name, w in self.w.items()}
        self.v = {name: torch.zeros_like(w) for name, w in self.w.items()}
        self.step = torch.zeros(())
        self.done = 0

    @torch.no_grad()
    def step_many(self, n: int) -> Array:
        losses = torch.empty(n)
        batch = self.problem.batch
        for i in range(n):
            first = self.done * batch
            docs = self.docs[:, first : first + batch].contiguous()
            losses[i] = compiled_step(self.w, self.m, self.v, docs, self.step, self.n_head)
            self.done += 1
        return losses.numpy()


def prepare(problem: Problem) -> Training:
    return Training(problem)


def next_tokens(
    w: dict[str, Tensor], cache: Tensor, token: Tensor, t: Tensor, chances: Tensor
) -> Tensor:
    """Draw a token for every chance; cache (L, 2, H, T, D), token and t (1,) in place."""
    n_layer, _, n_head, positions, d = cache.shape
    drawn = []
    for chance in chances:
        x = w["wte"][token] + w["wpe"][t]  # (1, C)
        seen = torch.arange(positions) <= t
        for i in range(n_layer):
            qkv = (norm(x) @ w[f"wqkv{i}"]).view(3, n_head, 1, d)
            cache[i].index_copy_(2, t, qkv[1:])
            scores = (qkv[0] * d**-0.5) @ cache[i, 0].transpose(1, 2)  # (H, 1, T)
            probs = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            x = x + (probs @ cache[i, 1]).view(1, n_head * d) @ w[f"wo{i}"]
            x = x + F.relu(norm(x) @ w[f"fc{i}"]) @ w[f"proj{i}"]
        totals = (norm(x) @ w["lm_head"]).softmax(-1).cumsum(-1)
        new = (totals < chance).sum(-1).clamp(max=len(w["wte"]) - 1)
        drawn.append(new)
        go_on = (new != 0) & (t + 1 < positions)
        t.copy_(torch.where(go_on, t + 1, 0))
        token.copy_(torch.where(go_on, new, 0))
    return torch.cat(drawn)


compiled_next = torch.compile(next_tokens, fullgraph=True, dynamic=False)


@torch.no_grad()
def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    w = separate(weights)
    n_layer, n_head, _, d = weights["wq"].shape
    cache = torch.zeros(n_layer, 2, n_head, len(w["wpe"]), d)
    token, t = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    chances = np.zeros(-(-n_tokens // UNROLLED) * UNROLLED, np.float32)
    chances[:n_tokens] = peers.uniforms(n_tokens, seed)
    parts = [
        compiled_next(w, cache, token, t, part) for part in torch.tensor(chances).split(UNROLLED)
    ]
    return torch.cat(parts)[:n_tokens].numpy().astype(np.int32)
