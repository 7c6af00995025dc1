"""A whole GPT in one file of 150 lines, and what is derived from it.

>>> import microgpt
>>> model = microgpt.train("names", steps=1000)
>>> microgpt.sample(model, n=5)
>>> microgpt.save(model, "names.safetensors")
>>> model = microgpt.load("names.safetensors")

Importing this module imports nothing else: each function fetches what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from microgpt.data import Corpus
    from microgpt.errors import MicrogptError
    from microgpt.run import Run

    __version__: str

__all__ = ["Corpus", "MicrogptError", "Run", "__version__", "load", "sample", "save", "train"]


def train(
    data: str | Corpus = "names",
    *,
    source: str | None = None,
    seed: int = 42,
    steps: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    on_step: Callable[[Run], object] | None = None,
    engine: str = "fast",
    **sizes: float | None,
) -> Run:
    """Train a model from nothing.

    Args:
        data: the name of a data set (`names`, `sort`, ...), the path of a text file with one
            document a line, the text itself, or a `Corpus`.
        source: the text of an edited gpt.py; the one of this package when None.
        seed: decides the first weights and the order of the documents.
        steps, batch, lr: how many steps, documents a step, learning rate; None leaves the source's
            default.
        on_step: called with the run after every step, for example to print `run.step,
            run.losses[-1]`.
        engine: "fast" compiles the source, where it can; "reference" runs it as Python does.
        sizes: `n_layer`, `n_head`, `n_embd`, `block_size`, `std`.

    Returns:
        the run: `run.losses`, `run.held_out_loss()`, `run.sample()`, and all else of
            `microgpt.Run`.

    Raises:
        MicrogptError: the data or an argument cannot be used, the source fails, or the loss is no
            longer a finite number.
    """
    from microgpt import data as corpora
    from microgpt.run import Run
    from microgpt.source import ORIGINAL

    corpus = corpora.load(data) if isinstance(data, str) else data
    text = ORIGINAL if source is None else source
    run = Run(
        text, corpus, seed=seed, steps=steps, batch=batch, lr=lr, vocab=None, engine=engine, **sizes
    )
    while not run.done:
        if on_step is None:
            run.advance_by(run.steps or 1)
        else:
            run.advance()
            on_step(run)
    return run


def sample(
    model: Run, n: int = 10, *, temperature: float = 1.0, prefix: str = "", seed: int = 0
) -> list[str]:
    """New texts from a trained model.

    Args:
        model: what `train` or `load` returned.
        n: how many.
        temperature: below 1 keeps to the likeliest tokens, above 1 is more daring, 0 always takes
            the likeliest.
        prefix: what each text begins with.
        seed: the same seed gives the same texts.

    Raises:
        MicrogptError: the temperature is negative, or the prefix cannot be read by this model.
    """
    return model.sample(n, temperature=temperature, prefix=prefix, seed=seed)


def save(model: Run, path: str | os.PathLike[str]) -> None:
    """Write a model to a safetensors file, with all that is needed to go on training it.

    The file is replaced in one motion: an earlier one is never lost to a half-written new one.

    Raises:
        MicrogptError: the file is of another kind or cannot be written, or the weights are not
        finite.
    """
    from microgpt import checkpoint

    checkpoint.save(model, path)


def load(
    path: str | os.PathLike[str], *, data: str | Corpus | None = None, trust: bool = False
) -> Run:
    """Read a model that `save` or `microgpt train --out` wrote.

    Args:
        path: the file.
        data: what it was trained on, to go on training; a bundled data set is found by itself, and
            a model without its data can still sample.
        trust: whether to run the source inside the file when it is not this package's own gpt.py.

    Raises:
        MicrogptError: the file is foreign, cut short or damaged; its source differs and is not
        trusted; or
            the data are not those it was trained on.
    """
    from microgpt import checkpoint
    from microgpt import data as corpora

    corpus = corpora.load(data) if isinstance(data, str) else data
    return checkpoint.load(path, corpus=corpus, trust=trust)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "Run":
        from microgpt.run import Run

        return Run
    if name == "Corpus":
        from microgpt.data import Corpus

        return Corpus
    if name == "MicrogptError":
        from microgpt.errors import MicrogptError

        return MicrogptError
    raise AttributeError(f"module 'microgpt' has no attribute {name!r}")


def _version() -> str:
    """The version that was installed; in a checkout or in the browser, where none was, `0.0.0`."""
    from importlib import metadata

    try:
        return metadata.version("microgpt-explainer")
    except metadata.PackageNotFoundError:
        return "0.0.0"
