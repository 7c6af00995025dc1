"""The file in the fast engine, several runs of it side by side in the lanes of a vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers import microgpt_peer

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights


class Training(microgpt_peer.Training):
    """The same run in every lane, each with documents of its own: lane k begins k documents on."""

    def open(self) -> None:
        self.runs = self.fast.most_runs
        self.state = self.fast.open(self.runs)

    def reset(self) -> None:
        super().reset()
        for run in range(1, self.runs):
            self.state.load(run, self.weights, None)
        self.courses = [self.course, *(self.course_from(k) for k in range(1, self.runs))]

    def step_many(self, n: int) -> Array:
        return np.array([losses[0] for losses in self.state.train(self.courses, n)], np.float32)


def prepare(problem: Problem) -> Training:
    return Training(problem)


def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    return microgpt_peer.generate(weights, n_tokens, seed)
