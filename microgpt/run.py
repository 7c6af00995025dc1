"""One training run: the only place where a source, data, weights and the order of documents meet.

The recipe is fixed for good, so that the page, the command and Python give the same numbers for the
same source, data and seed: one generator of random numbers first shuffles the training documents
and then makes the weights, and everything after that is decided.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from microgpt import data
from microgpt.errors import LeavesContract, MicrogptError
from microgpt.source import NEEDED, ORIGINAL, execute, explain

if TYPE_CHECKING:
    from microgpt.engines.rehearse import Rehearsal, Schedule

HELD_OUT = 200  # documents that a held-out loss is measured on, unless told otherwise
ASKED = 100  # documents of a task whose answers are asked for, unless told otherwise
MOST_WEIGHTS = (
    10_000_000  # more than this is beyond what lists of Python numbers can hold and train
)
GREEDY = (
    1e-9  # what temperature 0 is passed on as: the likeliest token then takes all the probability
)
ENGINES = ("fast", "reference")
SLICE = 0.05  # seconds that the fast engine is given at a time, so that it can be stopped
SIZES = ("n_layer", "n_head", "n_embd", "block_size")

Matrix = list[list[float]]


class ArgumentError(MicrogptError):
    """A size, a number or a prefix that no run can have: the caller's to mend."""


class DivergedError(MicrogptError):
    """The numbers of a run have left the range of what can be trained; its last weights are no
    good."""


@dataclass(frozen=True)
class _Moment:
    """The state of a run between two steps, copied."""

    step: int
    weights: list[Matrix]
    moments: list[tuple[Matrix, Matrix]]


class Run:
    """A source, a corpus, a seed, and the weights that training them has made so far.

    Args:
        source: the text of `gpt.py`, or of an edit of it.
        corpus: the documents; the bundled names when None.
        seed: decides the first weights and the order of the documents.
        steps, batch, lr: training's own arguments; None leaves each at the source's default.
        vocab: the tokens, when they are known already (a checkpoint); read from the documents when
            None.
        engine: "reference" runs the source as Python does; "fast" compiles it, where it can be.
        sizes: arguments of the source's `init` (`n_layer`, `n_head`, `n_embd`, `block_size`,
            `std`).

    Attributes:
        source, corpus, seed: as given.
        namespace: every name that the source defined.
        vocab: list of V tokens.
        params: the weights as the source's `init` made them, trained in place.
        engine: what trains: "reference", or "fast", which gives the same but for rounding.
        engine_note: a sentence why the fast engine was asked for and is not used, or None.
        train_docs: the documents to learn from, in the order in which training reads them.
        held_out_docs: the documents that training never sees.
        step: steps done.
        losses: one loss a step, in nats a token.
        moments: Adam's two running means for each weight matrix; None when the source's `train`
            keeps its own.
        steps, batch, lr, sizes: what is in force, the source's defaults included; a number that the
            source does not have is None, or absent from `sizes`.

    Raises:
        ArgumentError: a size or number is impossible, or this source does not take it.
        MicrogptError: the source fails, or the data hold nothing to learn from.
    """

    def __init__(
        self,
        source: str = ORIGINAL,
        corpus: data.Corpus | None = None,
        *,
        seed: int = 42,
        steps: int | None = None,
        batch: int | None = None,
        lr: float | None = None,
        vocab: list[str] | None = None,
        engine: str = "reference",
        **sizes: float | None,
    ) -> None:
        if type(seed) is not int:
            raise ArgumentError(f"The seed must be a whole number, not {seed!r}.")
        self.source = source
        self.corpus = data.load("names") if corpus is None else corpus
        self.seed = seed
        self.data_problem: str | None = None  # why this run cannot train or measure, when it cannot
        self.origin: dict[str, Any] | None = (
            None  # what a checkpoint says about the data, when it came from one
        )
        self.namespace = execute(source)
        for name in NEEDED:
            if not callable(self.namespace.get(name)):
                raise MicrogptError(f"The program needs a function called {name}.")
        asked = _given(steps=steps, batch=batch, lr=lr)
        defaults = _defaults(self.namespace["train"])
        self._training = _checked(asked, defaults, "train", source)
        in_force = _numbers(defaults) | self._training
        self.steps = _whole(in_force.get("steps"))
        self.batch = _whole(in_force.get("batch"))
        self.lr = in_force.get("lr")
        defaults = _defaults(self.namespace["init"])
        self._given = _checked(_given(**sizes), defaults, "init", source)
        self._vocab = vocab
        self.sizes = _numbers(defaults) | self._given
        _possible(self.sizes)

        self._begin()
        self._documents = frozenset(self.corpus.docs)
        self._plain: bool | None = None  # whether its train is the file's, once that was asked
        self.use(engine)

    def _begin(self) -> None:
        """Order the documents, and make the first weights."""
        learn, self.held_out_docs = data.split(self.corpus.docs)
        rng = random.Random(self.seed)
        self.train_docs = list(learn)
        rng.shuffle(self.train_docs)
        try:
            self.vocab = self._tokens() if self._vocab is None else self._vocab
            _bearable(self.sizes, len(self.vocab))
            self._params: Any = self.namespace["init"](rng, len(self.vocab), **self._given)
            self._weights: list[Any] = self.namespace["leaves"](self._params)
            kept = "moments" in _parameters(self.namespace["train"])
            self._moments: list[tuple[Matrix, Matrix]] | None = (
                [((w * 0).data, (w * 0).data) for w in self._weights] if kept else None
            )
            self.parameters = sum(len(row) for w in self._weights for row in w.data)
        except (Exception, SystemExit) as error:
            raise self._in_words(error) from error
        self.step = 0
        self.losses: list[float] = []
        self._whole = True  # False only while a step is under way, or after a step that was torn
        self._generator: Iterator[Any] | None = None
        self._compiled: _Compiled | None = None

    def again(
        self,
        source: str | None = None,
        values: Mapping[tuple[str, str], float] | None = None,
        seed: int | None = None,
    ) -> Run:
        """The same program from its beginning, with other numbers.

        Args:
            source: its text, which differs from this one's in nothing but numeric defaults of
                `init`, and of `train` those that its schedule is told.
            values: those defaults by function and name. The functions of both runs have them then.
            seed: another seed.
        """
        run = copy.copy(self)
        run.source = self.source if source is None else source
        run.seed = self.seed if seed is None else seed
        for name in ("train", "init") if values else ():
            _redefine(
                self.namespace[name], {n: x for (f, n), x in (values or {}).items() if f == name}
            )
        in_force = _numbers(_defaults(run.namespace["train"])) | run._training
        run.steps, run.batch = _whole(in_force.get("steps")), _whole(in_force.get("batch"))
        run.lr = in_force.get("lr")
        run.sizes = _numbers(_defaults(run.namespace["init"])) | run._given
        _possible(run.sizes)
        run._begin()
        return run

    def _tokens(self) -> list[str]:
        tokens = self.namespace["vocabulary"](self.corpus.docs)
        if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
            raise MicrogptError("This source's vocabulary must return a list of texts, the tokens.")
        return tokens

    # ---- Facts ----

    @property
    def done(self) -> bool:
        """Whether every step has been done."""
        return self.steps is not None and self.step >= self.steps

    @property
    def baseline(self) -> float:
        """ln V: the loss of a guess in which all V tokens are equally likely, in nats a token."""
        return math.log(len(self.vocab))

    @property
    def context(self) -> int | None:
        """The most tokens that the model reads at once; None where the source has no such limit."""
        table = self.params.get("wpe") if isinstance(self.params, dict) else None
        if table is not None:
            return int(table.shape[-2])
        return _whole(self.sizes.get("block_size"))

    @property
    def resumable(self) -> bool:
        """Whether the source's `train` takes `start` and `moments`, so that a run can be continued
        exactly."""
        return self.moments is not None and "start" in _parameters(self.namespace["train"])

    @property
    def whole(self) -> bool:
        """Whether weights, moments and losses belong to one and the same step."""
        return self._whole

    def smoothed(self, last: int = 100, step: int | None = None) -> float:
        """The mean loss of the last steps before one, or of the last there are; nan before the
        first."""
        end = len(self.losses) if step is None else step
        recent = self.losses[max(0, end - last) : end]
        return sum(recent) / len(recent) if recent else math.nan

    def knows(self, text: str) -> bool:
        """Whether a text is one of the documents, learnt from or held out."""
        return text in self._documents

    def named_weights(self) -> dict[str, Any]:
        """Every weight tensor by its path, such as `blocks.0.heads.1.wq`, in the order of `leaves`.

        Raises:
            MicrogptError: `leaves` gives a weight that has no path in `params`.
        """
        paths = list(_walk(self.params, "", self.namespace["Tensor"]))
        if [id(w) for _, w in paths] == [id(w) for w in self._weights]:
            return dict(paths)
        names = {id(w): path for path, w in paths}
        if any(id(w) not in names for w in self._weights):
            raise MicrogptError(
                "This source's leaves() gives a weight that is not in params, so it has no name."
            )
        return {names[id(w)]: w for w in self._weights}

    # ---- Engines ----

    def use(self, engine: str) -> None:
        """Go on with another engine.

        Args:
            engine: "reference" or "fast".
        """
        if engine not in ENGINES:
            raise ArgumentError(f"There is no engine {engine!r}, only {' and '.join(ENGINES)}.")
        self._pull()
        self.engine = engine
        self.engine_note: str | None = None
        self._compiled = None

    def prepare(self) -> str | None:
        """Compile the program now, where that was asked for; the sentence why it cannot be."""
        self._fast()
        return self.engine_note

    @property
    def params(self) -> Any:
        """The tree of weights, as the source's `init` made it."""
        self._pull()
        return self._params

    @property
    def moments(self) -> list[tuple[Matrix, Matrix]] | None:
        """Adam's two running means for each weight matrix; None when the source's `train` keeps
        its own."""
        self._pull()
        return self._moments

    def _pull(self) -> None:
        """Weights and moments as they are in the fast engine."""
        compiled = getattr(self, "_compiled", None)
        if compiled is None or not compiled.ahead:
            return
        weights, moments = compiled.state.store()
        for w, rows in zip(self._weights, weights, strict=True):
            w.data, w.grad = rows, []
        for kept, new in zip(self._moments or [], moments, strict=self._moments is not None):
            for rows, fresh in zip(kept, new, strict=True):
                rows[:] = fresh
        compiled.ahead = False

    def _fast(self) -> _Compiled | None:
        """The compiled program, with this run's weights in it; None where there is none."""
        if self.engine == "fast" and self._compiled is None:
            try:
                self._compiled = _Compiled(self)
            except LeavesContract as why:
                self._fall_back(why)
        return self._compiled

    def schedule(self, ids: Callable[[str], tuple[int, ...]]) -> Schedule | Rehearsal:
        """What the training steps from here on are, for an engine that is not the source's own.

        Args:
            ids: a document's tokens, as many as the context holds and the next one.

        Raises:
            LeavesContract: they cannot be told without running the source.
        """
        from microgpt.engines.rehearse import Rehearsal, Schedule, plain

        if self.context is None:
            raise LeavesContract("it has no limit to the tokens that it reads at once")
        if self._plain is None:
            self._plain = plain(self.source)
        if self._plain:
            assert self.steps is not None and self.batch is not None and self.lr is not None
            return Schedule(self.train_docs, ids, self.batch, self.steps, self.lr, self.step)
        if self.step and not self.resumable:
            raise LeavesContract("its train takes no start and moments, so it cannot go on")
        return Rehearsal(
            self.source, self._params, self._weights, self.train_docs, self.vocab,
            self._training | ({"start": self.step} if self.step else {}), self._moments is not None,
        )  # fmt: skip

    def _fall_back(self, why: LeavesContract) -> None:
        self._pull()
        self._compiled, self.engine = None, "reference"
        what = "This program" if self.source == ORIGINAL else "This edit"
        self.engine_note = f"{what} runs on the reference engine: {why.message}."

    # ---- Training ----

    def advance(self) -> float:
        """One training step by the source's own `train`; its loss, in nats a token.

        A step that fails or is interrupted leaves no trace: weights, moments and losses are those
        before it, and the next call tries the same step again.

        Raises:
            MicrogptError: the run is finished or has no data; the source fails; or the loss is no
                longer a finite number.
        """
        if self._fast() is not None:
            self.advance_by(1)
            return self.losses[-1]
        self._need_steps()
        before = self._copy()
        self._whole = False
        try:
            if self._generator is None:
                self._generator = self._start()
            loss = self._number(next(self._generator))
            self.step += 1
            self.losses.append(loss)
        except (Exception, SystemExit) as error:
            self._return_to(before)
            raise self._in_words(error, training=True) from error
        except BaseException:  # Ctrl-C
            self._return_to(before)
            raise
        self._whole = True
        return loss

    def advance_by(self, most: int, seconds: float = math.inf) -> list[float]:
        """Several training steps, as many as are asked for and left.

        Like `advance`, it can be interrupted between any two steps, and within one.

        Args:
            most: how many, at least 1.
            seconds: when this time is over no further step is begun.

        Returns:
            their losses, in nats a token.

        Raises:
            MicrogptError: as `advance`. The steps before the one that failed are done.
        """
        self._need_steps()
        if self.steps is not None:
            most = min(most, self.steps - self.step)
        first, end = self.step, time.perf_counter() + seconds
        compiled = self._fast()
        if compiled is not None:
            try:
                compiled.advance(self, most, end)
            except LeavesContract as why:
                if self.step and not self.resumable:
                    raise MicrogptError(
                        f"This source's train changes its ways at step {self.step + 1:,}, and the "
                        "fast engine cannot follow; start again with the reference engine."
                    ) from why
                self._fall_back(why)
        while self._compiled is None and self.step < first + most:
            self.advance()
            if time.perf_counter() >= end:
                break
        return self.losses[first:]

    def _need_steps(self) -> None:
        if self.done:
            raise MicrogptError(f"This run is finished: all its {self.steps:,} steps are done.")
        self._need_data()

    def _start(self) -> Iterator[Any]:
        train = self.namespace["train"]
        if not inspect.isgeneratorfunction(train):
            raise MicrogptError(
                "This source's train must be a generator that yields the loss of each step."
            )
        more: dict[str, Any] = dict(self._training)
        if self.moments is not None:
            more["moments"] = self.moments
        if self.step:
            if not self.resumable:
                raise MicrogptError(
                    "This source's train takes no start and moments, so a run that was stopped "
                    "cannot go on; "
                    "start it again."
                )
            more["start"] = self.step
        steps: Iterator[Any] = train(self.params, self.train_docs, self.vocab, **more)
        return steps

    def _number(self, loss: Any) -> float:
        if isinstance(loss, bool) or not isinstance(loss, int | float):
            kind = type(loss).__name__
            raise MicrogptError(
                f"This source's train yielded a {kind}; it must yield a number, the loss of the "
                "step."
            )
        if not math.isfinite(loss):
            self._diverged(loss)
        return float(loss)

    def _diverged(self, loss: float, line: int | None = None) -> NoReturn:
        raise DivergedError(
            f"The loss became {loss} at step {self.step + 1:,}{self._lower()}.", line=line
        )

    def _lower(self) -> str:
        if self.lr is None:
            return ": a lower learning rate keeps it in range"
        return f": try a learning rate lower than {self.lr:g}"

    def take(
        self,
        step: int,
        losses: Sequence[float],
        weights: Sequence[Matrix],
        moments: Sequence[tuple[Matrix, Matrix]] | None,
    ) -> None:
        """Go on from where the same program was trained to elsewhere.

        Args:
            step: steps done there.
            losses: one for each of them.
            weights, moments: in the order of `leaves`.

        Raises:
            MicrogptError: they are of another shape than this program's.
        """
        shapes = [(len(w.data), len(w.data[0])) for w in self._weights]
        if [(len(rows), len(rows[0])) for rows in weights] != shapes or len(losses) != step:
            raise MicrogptError("These weights are of another program than this one.")
        self._generator = None
        self.step, self.losses = step, list(losses)
        for w, rows in zip(self._weights, weights):
            w.data, w.grad = [list(row) for row in rows], []
        for kept, new in zip(self._moments or [], moments or []):
            for rows, fresh in zip(kept, new, strict=True):
                rows[:] = [list(row) for row in fresh]

    def _copy(self) -> _Moment:
        weights = [[row[:] for row in w.data] for w in self._weights]
        moments = [([r[:] for r in m], [r[:] for r in v]) for m, v in self._moments or []]
        return _Moment(self.step, weights, moments)

    def _return_to(self, before: _Moment) -> None:
        self._generator = None
        self.step = before.step
        del self.losses[before.step :]
        for w, rows in zip(self._weights, before.weights, strict=True):
            w.data, w.grad = rows, []
        for kept, copied in zip(self._moments or [], before.moments, strict=True):
            for rows, old in zip(kept, copied, strict=True):
                rows[:] = old
        self._whole = True

    def _need_data(self) -> None:
        if self.data_problem is not None:
            raise MicrogptError(self.data_problem)
        if not self.train_docs:
            raise MicrogptError("The data hold no document to learn from.")

    # ---- Measuring and sampling ----

    def held_out_loss(self, limit: int | None = HELD_OUT) -> float:
        """The surprise at held-out documents, in nats a token: the mean over all their tokens.

        It is measured on the probabilities that sampling would draw from, scaled to add up to one,
        so it stays comparable when an edit changes the loss that training descends.

        Args:
            limit: the most documents to read, always the same ones; None reads all.

        Raises:
            MicrogptError: there are no held-out documents, or the source fails.
        """
        self._need_data()
        docs = self._held_out(limit)
        compiled = self._fast()
        if compiled is not None:
            with contextlib.suppress(LeavesContract):
                return compiled.held_out_loss(docs)
        return self.surprise(docs)

    def surprise(self, docs: Sequence[str]) -> float:
        """The mean surprise at all tokens of documents, by the source itself, in nats a token.

        Raises:
            MicrogptError: the source fails.
        """
        total, count = 0.0, 0
        try:
            for doc in docs:
                ids = self.namespace["encode"](doc, self.vocab)
                ids = ids if self.context is None else ids[: self.context + 1]
                for row, target in zip(self._probabilities(ids[:-1]), ids[1:], strict=False):
                    total -= math.log(row[target] / sum(row) + 1e-30)
                    count += 1
        except (Exception, SystemExit) as error:
            raise self._in_words(error) from error
        return total / count

    def exact_answers(self, limit: int | None = ASKED) -> float:
        """The share of held-out documents of a task that the model completes exactly, greedily.

        Args:
            limit: the most documents to ask, always the same ones; None asks all.

        Raises:
            MicrogptError: the data are no task with answers, nothing is held out, or the source
            fails.
        """
        self._need_data()
        if not self.corpus.separator:
            raise MicrogptError(f"The documents of {self.corpus.name} have no answers to score.")
        docs = self._held_out(limit)
        right = 0
        for doc in docs:
            question = self.corpus.question(doc)
            right += self.sample(1, temperature=0, prefix=question) == [doc]
        return right / len(docs)

    def _held_out(self, limit: int | None) -> list[str]:
        """The first held-out documents of an order that is always the same."""
        if limit is not None and limit < 1:
            raise ArgumentError("There must be at least one document to measure on.")
        docs = list(self.held_out_docs)
        if not docs:
            raise MicrogptError("The data are too few to hold any document out.")
        random.Random(0).shuffle(docs)
        return docs[:limit]

    def _probabilities(self, ids: list[int]) -> Matrix:
        """(T,) -> (T, V), by the source's own softmax where it has one."""
        logits = self.namespace["gpt"](ids, **self.params)
        softmax = self.namespace.get("softmax")
        if callable(softmax):
            rows: Matrix = softmax(logits).data
            return rows
        return [[math.exp(x - max(row)) for x in row] for row in logits.data]

    def sample(
        self, n: int = 10, *, temperature: float = 1.0, prefix: str = "", seed: int = 0
    ) -> list[str]:
        """New texts, each starting with the prefix.

        Args:
            n: how many.
            temperature: below 1 keeps to the likeliest, above 1 is more daring, 0 is greedy (the
                source is then given 1e-9).
            prefix: what each text begins with.
            seed: the same seed gives the same texts.

        Raises:
            ArgumentError: the temperature is negative, or the prefix cannot be read by this model.
            MicrogptError: the source fails.
        """
        if type(n) is not int or n < 0:
            raise ArgumentError(f"The number of samples must be a whole number, not {n!r}.")
        rng = random.Random(seed)
        texts = []
        compiled = self._fast()
        if compiled is not None:
            lowest = self._temperature(temperature)
            self._readable(prefix)
            with contextlib.suppress(LeavesContract):
                return [
                    text.removesuffix("\n")
                    for text in compiled.state.sample(rng, lowest, n, prefix)
                ]
        for _ in range(n):
            steps = list(self.sample_steps(prefix, temperature, rng))
            text = steps[-1][0] if steps else prefix
            texts.append(text.removesuffix("\n"))
        return texts

    def sample_steps(
        self, prefix: str = "", temperature: float = 1.0, rng: random.Random | None = None
    ) -> Iterator[tuple[str, list[float]]]:
        """One text, token by token: the text so far, and the V probabilities its last token was
        drawn from.

        A text ends with a line break when the model ended it, and without one when the context was
        full. The probabilities are read from the source's paused generator, from its variable
        `probs`; they are empty when an edited source has no such list.

        Raises:
            ArgumentError: at once, as `sample`.
            MicrogptError: the source fails.
        """
        temperature = self._temperature(temperature)
        self._readable(prefix)
        return self._drawn(prefix, temperature, random.Random(0) if rng is None else rng)

    def _drawn(
        self, prefix: str, temperature: float, rng: random.Random
    ) -> Iterator[tuple[str, list[float]]]:
        try:
            steps = self.namespace["sample"](self.params, self.vocab, rng, temperature, prefix)
            for text in steps:
                frame = getattr(steps, "gi_frame", None)
                probs = frame.f_locals.get("probs") if frame is not None else None
                yield str(text), list(probs) if isinstance(probs, list) else []
        except (Exception, SystemExit) as error:
            raise self._in_words(error) from error

    def _temperature(self, temperature: float) -> float:
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise ArgumentError(f"The temperature must be a number, not {temperature!r}.")
        if not math.isfinite(temperature) or temperature < 0:
            raise ArgumentError(
                f"The temperature must be 0 (always the likeliest token) or more, not "
                f"{temperature:g}."
            )
        return max(float(temperature), GREEDY)

    def _readable(self, prefix: str) -> None:
        if "\n" in prefix:
            raise ArgumentError(
                "The prefix has a line break, which marks the end of a document; leave it out."
            )
        known = set(self.vocab)
        if all(len(token) == 1 for token in known):
            strange = next((char for char in prefix if char not in known), None)
            if strange is not None:
                raise ArgumentError(
                    f"The prefix has {strange!r}, which is not in this model's vocabulary: "
                    f"{spelled(self.vocab)}."
                )
        if self.context is not None and len(prefix) >= self.context:
            raise ArgumentError(
                f"The prefix has {len(prefix)} characters, and a context of {self.context} leaves "
                "room for "
                f"{self.context - 1} before the next one; shorten it."
            )

    def _in_words(self, error: BaseException, *, training: bool = False) -> MicrogptError:
        if isinstance(error, SystemExit):
            return MicrogptError("The source asked Python to exit.")
        if training and isinstance(error, OverflowError):
            where = explain(error, self.source).line
            return DivergedError(
                f"A number became too large at step {self.step + 1:,}{self._lower()}.", line=where
            )
        if isinstance(error, StopIteration):
            return MicrogptError(f"This source's train ended by itself after step {self.step:,}.")
        return explain(error, self.source)


class _Compiled:
    """A run's program in the fast engine, with its weights there.

    Attributes:
        state: the weights.
        ahead: whether they have been trained since they were last written into the run.

    Raises:
        LeavesContract: the source cannot be compiled.
    """

    def __init__(self, run: Run) -> None:
        from microgpt.engines.fast import Fast

        self.schedule = run.schedule(lambda doc: self.fast.ids(doc))
        assert run.context is not None
        self.fast = Fast(
            run.source, run.namespace, run._params, run.vocab, run.context, self.schedule
        )
        self.state = self.fast.open()
        self.state.load(0, [w.data for w in run._weights], run._moments)
        self.ahead = False
        self._seconds = 0.0  # that a step takes

    def advance(self, run: Run, steps: int, until: float) -> None:
        """Train, in slices that are short enough to be stopped between; another thread does the
        work, because a thread that is in the kernel hears no Ctrl-C."""
        last = run.step + steps
        while run.step < last:
            count = int(SLICE / self._seconds) if self._seconds else 1
            self._slice(run, max(1, min(count, last - run.step)))
            if time.perf_counter() >= until:
                break

    def _slice(self, run: Run, count: int) -> None:
        losses: list[list[float]] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                losses.extend(self.state.perform(plan))
            except BaseException as error:
                failure.append(error)

        plan = self.state.plan([self.schedule], count)  # Python, which a Ctrl-C may interrupt
        started = time.perf_counter()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            thread.join()
        except BaseException:  # Ctrl-C: the step that is under way leaves no trace
            self.state.stop()
            thread.join()
            self._take(run, losses)
            raise
        if failure:
            raise failure[0]
        self._seconds = max(1e-7, (time.perf_counter() - started) / count)
        last = self._take(run, losses)
        if not math.isfinite(last):
            run._diverged(last, self.state.line_of_first_bad())

    def _take(self, run: Run, losses: list[list[float]]) -> float:
        """Write down what was done; the last loss, which may be no number."""
        self.ahead = True
        done = [loss for (loss,) in losses]
        last = done[-1] if done else 0.0
        if not math.isfinite(last):
            done.pop()
        run.losses += done
        run.step += len(done)
        return last

    def held_out_loss(self, docs: list[str]) -> float:
        total, count = self.state.surprise(docs)
        return total / count


def about(run: Run) -> dict[str, Any]:
    """What the page is told of a run."""
    return {
        "parameters": run.parameters, "train_docs": len(run.train_docs),
        "held_out_docs": len(run.held_out_docs),
        "vocab": run.vocab, "step": run.step, "steps": run.steps, "batch": run.batch, "lr": run.lr,
        "baseline": run.baseline, "data": run.corpus.name, "seed": run.seed, "context": run.context,
    }  # fmt: skip


def spelled(vocab: list[str], most: int = 60) -> str:
    """The tokens of a vocabulary in a row, for a sentence; the line break left out, a long one cut
    short."""
    tokens = [token for token in vocab if token != "\n"]
    cut = " and others" if len(tokens) > most else ""
    row = "".join("space " if token == " " else token for token in tokens[:most])
    return row.strip() + cut


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _defaults(function: Any) -> dict[str, Any]:
    """The parameters of a function that an argument may set by name, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in _parameters(function).items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def _redefine(function: Any, values: Mapping[str, float]) -> None:
    """Give parameters of a function other defaults."""
    names = [n for n, p in _parameters(function).items() if p.kind in _POSITIONAL]
    kept = function.__defaults__ or ()
    names = names[len(names) - len(kept) :]
    function.__defaults__ = tuple(values.get(n, x) for n, x in zip(names, kept, strict=True))


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _numbers(defaults: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in defaults.items() if type(value) in (int, float)}


def _whole(value: float | None) -> int | None:
    return value if isinstance(value, int) else None


def _checked(
    asked: dict[str, float], defaults: dict[str, Any], function: str, source: str
) -> dict[str, Any]:
    """The arguments that were asked for, each of a kind that the source's function takes."""
    for name, value in asked.items():
        if name not in defaults:
            owner = "gpt.py" if source == ORIGINAL else "This source"
            names = ", ".join(_numbers(defaults)) or "no numbers"
            raise ArgumentError(f"{owner} has no {name} to set: its {function} takes {names}.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArgumentError(f"{name} must be a number, not {value!r}.")
        if isinstance(defaults[name], int) or name in (*SIZES, "steps", "batch"):
            if not isinstance(value, int):
                raise ArgumentError(f"{name} must be a whole number, not {value!r}.")
            if value < 1:
                raise ArgumentError(f"{name} must be 1 or more, not {value}.")
        elif not math.isfinite(value) or value < 0 or (name == "lr" and value == 0):
            above = "above 0" if name == "lr" else "0 or more"
            raise ArgumentError(f"{name} must be a number {above}, not {value!r}.")
    return asked


def _possible(sizes: dict[str, float]) -> None:
    """Refuse sizes that no model has, whether they were given or are an edit of the source's
    defaults."""
    for name in SIZES:
        value = sizes.get(name, 1)
        if not isinstance(value, int):
            raise ArgumentError(f"{name} must be a whole number, not {value!r}.")
        if value < 1:
            raise ArgumentError(f"{name} must be 1 or more, not {value}.")
    heads, channels = sizes.get("n_head"), sizes.get("n_embd")
    if heads and channels and channels % heads:
        raise ArgumentError(
            f"n_head must divide n_embd, so that every head gets as many channels: {channels} "
            "channels "
            f"cannot be shared by {heads} heads."
        )


def expected_weights(sizes: dict[str, float], vocab_size: int) -> int | None:
    """How many weights the file's `init` makes of these sizes; None when a size is missing."""
    if any(name not in sizes for name in SIZES):
        return None
    layers, _, channels, block = (int(sizes[name]) for name in SIZES)
    return (2 * vocab_size + block) * channels + layers * 12 * channels**2


def _bearable(sizes: dict[str, float], vocab_size: int) -> None:
    weights = expected_weights(sizes, vocab_size)
    if weights is not None and weights > MOST_WEIGHTS:
        raise ArgumentError(
            f"These sizes make a model of {weights:,} weights; plain Python can hold up to "
            f"{MOST_WEIGHTS:,}."
        )


def _walk(tree: Any, path: str, kind: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, kind):
        yield path, tree
    elif isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, part in items:
            yield from _walk(part, f"{path}.{key}" if path else str(key), kind)
