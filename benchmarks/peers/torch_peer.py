"""The peer in PyTorch, one operation at a time (eager), with the library's own fused parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peers

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights

torch.set_num_threads(peers.threads())


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + peers.NORM_EPS)


def attention(qkv: Tensor, n_head: int) -> Tensor:
    """(B, T, 3C) -> (B, T, C)"""
    b, t, width = qkv.shape
    q, k, v = qkv.view(b, t, 3, n_head, -1).permute(2, 0, 3, 1, 4)
    read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return read.transpose(1, 2).reshape(b, t, width // 3)


def gpt(w: dict[str, Tensor], ids: Tensor, n_head: int) -> Tensor:
    """(B, T) -> (B, T, V). Each layer's weights are matrices of their own, as in a module."""
    x = F.embedding(ids, w["wte"]) + w["wpe"][: ids.shape[1]]
    n_layer = sum(name.startswith("fc") for name in w)
    for i in range(n_layer):
        x = x + attention(norm(x) @ w[f"wqkv{i}"], n_head) @ w[f"wo{i}"]
        x = x + F.relu(norm(x) @ w[f"fc{i}"]) @ w[f"proj{i}"]
    return norm(x) @ w["lm_head"]


def separate(weights: Weights) -> dict[str, Tensor]:
    """The merged form as one tensor for every matrix: wqkv0, wqkv1, ..."""
    out: dict[str, Tensor] = {}
    for name, w in peers.merged(weights).items():
        parts = {name: w} if w.ndim == 2 else {f"{name}{i}": w[i] for i in range(len(w))}
        out |= {key: torch.tensor(part) for key, part in parts.items()}
    return out


class Training:
    """One tensor for each matrix, and PyTorch's own fused Adam."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n_head = problem.weights["wq"].shape[1]
        self.tokens = torch.tensor(problem.tokens, dtype=torch.int64)
        self.lengths = problem.lengths.tolist()
        self.reset()

    def reset(self) -> None:
        self.w = {n: w.requires_grad_() for n, w in separate(self.problem.weights).items()}
        betas = (peers.BETA1, peers.BETA2)
        self.adam = torch.optim.Adam(self.w.values(), betas=betas, eps=peers.ADAM_EPS, fused=True)
        self.step = 0

    def step_many(self, n: int) -> Array:
        losses = torch.empty(n)
        batch = self.problem.batch
        for i in range(n):
            first = self.step * batch
            docs = self.tokens[first : first + batch, : self.lengths[first] + 1]
            logits = gpt(self.w, docs[:, :-1], self.n_head)
            loss = F.cross_entropy(logits.flatten(0, 1), docs[:, 1:].flatten())
            loss.backward()
            self.adam.param_groups[0]["lr"] = peers.rate(self.step)
            self.adam.step()
            self.adam.zero_grad()
            losses[i] = loss.detach()
            self.step += 1
        return losses.numpy()


def prepare(problem: Problem) -> Training:
    return Training(problem)


@torch.inference_mode()
def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    w = separate(weights)
    n_layer, n_head, c, d = weights["wq"].shape
    positions, last = len(w["wpe"]), len(w["wte"]) - 1
    layers = [[w[f"{name}{i}"] for name in ("wqkv", "wo", "fc", "proj")] for i in range(n_layer)]
    cache = torch.empty(n_layer, 2, n_head, positions, d)
    tokens = np.empty(n_tokens, np.int32)
    token = t = 0
    for i, chance in enumerate(peers.uniforms(n_tokens, seed).tolist()):
        x = (w["wte"][token] + w["wpe"][t])[None]
        for (wqkv, wo, fc, proj), kv in zip(layers, cache):
            qkv = (norm(x) @ wqkv).view(3, n_head, 1, d)
            kv[:, :, t : t + 1] = qkv[1:]
            keys, values = kv[:, :, : t + 1]
            read = F.scaled_dot_product_attention(qkv[0], keys, values)  # (H, 1, D)
            x = x + read.view(1, c) @ wo
            x = x + F.relu(norm(x) @ fc) @ proj
        totals = (norm(x) @ w["lm_head"]).softmax(-1).cumsum(-1)[0]
        token = min(int(torch.searchsorted(totals, chance)), last)
        tokens[i] = token
        t = t + 1 if token and t + 1 < positions else 0
        token = token if t else 0
    return tokens
