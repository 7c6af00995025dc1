"""Compare the peers with one another and with the file.

    python -m benchmarks.peers.check [--peers numpy torch ...] [--sizes tiny small ...]

The first five losses of every installed peer must agree with those of the first one, to 1e-4
relative. At medium 1e-3 is asked: the first step, at the file's learning rate, throws the loss from
4.4 to 7.3, and what float32 rounds off grows with it. At tiny, and on a model of two layers with
three documents a step, they must also agree with the file itself (`microgpt.Run`, on Python's
lists of float64). From weights four times as large, so that attention is sharp, every peer must
draw the same tokens.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from benchmarks import peers

if TYPE_CHECKING:
    from benchmarks.peers import Peer, Problem
    from microgpt.run import Run

STEPS = 5
TOLERANCE = {"medium": 1e-3}  # of a loss, relative; 1e-4 where nothing else is said
TOKENS = 300


def two_layers() -> Run:
    """A run of the file that is small enough for lists, with all that the large sizes have."""
    from microgpt.data import Corpus
    from microgpt.run import Run

    docs = Corpus(name="text", title="Text", docs=peers.text(8, 200))
    return Run(corpus=docs, batch=3, n_layer=2, n_head=2, n_embd=12, block_size=8)


def first_losses(peer: Peer, problem: Problem) -> list[float]:
    run = peer.prepare(problem)
    found = run.step_many(STEPS).tolist()
    run.reset()
    again = run.step_many(STEPS).tolist()
    if found != again:
        print(f"  reset() does not return to the start: {found} and then {again}")
    return found if found == again else [float("nan")] * STEPS


def agree(name: str, found: list[float], expected: list[float], tolerance: float) -> bool:
    """Print the losses and the largest relative difference; whether it is small enough."""
    apart = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
    good = apart <= tolerance
    losses = " ".join(f"{loss:.6f}" for loss in found)
    print(f"  {name:14} {losses}   {apart:.1e}{'' if good else '   DIFFERS'}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    sizes = ("two-layers", *peers.SIZES)
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, default=peers.PEERS)
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=sizes)
    options = parser.parse_args()

    peers.limit_threads(1)
    installed: dict[str, Peer] = {}
    for name in options.peers:
        try:
            installed[name] = peers.load(name)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    good = True
    for size in options.sizes:
        expected: list[float] | None = None
        tolerance = TOLERANCE.get(size, 1e-4)
        if size == "two-layers":
            run = two_layers()
            problem = peers.of_run(run)
            expected = [run.advance() for _ in range(STEPS)]
        else:
            problem = peers.problem(size)
            if size == "tiny":
                from microgpt.run import Run

                run = Run()
                expected = [run.advance() for _ in range(STEPS)]
        print(f"{size}: the first losses, and how far apart")
        if expected is not None:
            agree("gpt.py", expected, expected, tolerance)
        for name, peer in installed.items():
            found = first_losses(peer, problem)
            good &= agree(name, found, expected or found, tolerance)
            expected = expected or found
        if size == "medium":
            continue
        sharp = {name: 4 * w for name, w in problem.weights.items()}
        drawn = {name: peer.generate(sharp, TOKENS, 0) for name, peer in installed.items()}
        for name, tokens in drawn.items():
            first = next(iter(drawn.values()))
            same = int((tokens == first).sum())
            good &= same == TOKENS
            print(f"  {name:14} {same} of {TOKENS} tokens are the same")
    raise SystemExit(None if good else "The peers do not agree.")


if __name__ == "__main__":
    main()
