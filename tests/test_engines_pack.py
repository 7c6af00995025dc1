"""Packs: given to the kernel they are the fast engine's runs, whatever was packed before."""

from __future__ import annotations

import ctypes
import json
import struct
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from engines import edited, library, refused

from microgpt import bridge, data
from microgpt.data import Corpus
from microgpt.engines.kernel import Functions
from microgpt.engines.pack import MAGIC
from microgpt.engines.program import SLACK
from microgpt.errors import LeavesContract, MicrogptError
from microgpt.live import Packer
from microgpt.run import Run
from microgpt.source import ORIGINAL

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
st = hypothesis.strategies

DOCS = ["anna", "emma", "noor", "li", "ada", "otto", "mia", "ravi", "zoe", "ken", "ulla", "ida"]
TEXT = Corpus("text", "A few names", DOCS)
CODES = {"Uint8Array": "B", "Uint16Array": "H", "Int32Array": "i", "Float32Array": "f",
         "Float64Array": "d"}  # fmt: skip
NUMBERS = {"steps": "steps=1000", "batch": "batch=1", "lr": "lr=0.01", "std": "std=0.08",
           "n_embd": "n_embd=16", "n_head": "n_head=4", "n_layer": "n_layer=1",
           "block_size": "block_size=16"}  # fmt: skip


def numbered(source: str = ORIGINAL, **values: float) -> str:
    """The file with other numbers in its signatures."""
    for name, value in values.items():
        assert source.count(NUMBERS[name]) == 1
        source = source.replace(NUMBERS[name], f"{name}={value!r}")
    return source


class Opened:
    """A pack, read as the page reads it."""

    def __init__(self, content: bytes) -> None:
        assert content[:4] == MAGIC
        (length,) = struct.unpack("<I", content[4:8])
        self.facts: dict[str, Any] = json.loads(content[8 : 8 + length])
        self._arrays = content[8 + length :]

    def read(self, place: Sequence[Any]) -> array[Any]:
        kind, at, count = place
        assert at % 8 == 0
        found = array(CODES[kind])
        found.frombytes(self._arrays[at : at + count * found.itemsize])
        assert len(found) == count
        return found

    def floats(self, count: int, content: Sequence[float] = ()) -> Any:
        return (ctypes.c_float * count)(*content)

    def program(self, name: str, lanes: int) -> tuple[Any, ...]:
        """Its code, and the memory that only it uses."""
        told = self.facts[name]
        fixed, numbers = self.read(told["fixed"]), self.read(told["numbers"])
        return (
            array("i", self.read(told["code"])), self.floats(told["own"]),
            self.floats(len(fixed) + SLACK * lanes, fixed),
            self.floats(len(numbers) + SLACK, numbers),
        )  # fmt: skip

    def documents(self, name: str) -> tuple[Any, ...]:
        told = self.facts[name]
        starts = array("q", [0])
        for length in self.read(told["lengths"]):
            starts.append(starts[-1] + length)
        return array("i", self.read(told["tokens"])), starts, array("i", self.read(told["order"]))


def execute(content: bytes, functions: Functions, single: Functions) -> tuple[list[float], Any]:
    """The losses of all steps, and the held-out loss of the first run at the end."""
    pack = Opened(content)
    facts = pack.facts
    lanes, steps = facts["lanes"], facts["steps"]
    keep: list[Any] = []

    def at(thing: Any) -> int:
        keep.append(thing)
        return thing.buffer_info()[0] if isinstance(thing, array) else ctypes.addressof(thing)

    weights = pack.read(facts["weights"])
    shared = pack.floats(3 * facts["parameters"] * lanes + SLACK, weights)
    code, *own = pack.program("train", lanes)
    losses = array("d", bytes(8 * steps * lanes))
    stop, meetings = ctypes.c_int32(0), array("i", [0] * 6)
    partial = array("d", bytes(8 * (lanes + 1)))
    done = functions.train(
        at(code), at(shared), *map(at, own), *map(at, pack.documents("documents")), 0, steps,
        facts["batch"], at(array("d", pack.read(facts["scalars"]))), at(losses), at(stop), 0, 1,
        facts["train"]["own"], at(meetings), at(partial), None,
    )  # fmt: skip
    assert done == steps
    if "measure" not in facts or not facts["held_out"]["count"]:
        return losses.tolist(), None
    if lanes > 1:
        one = list(shared)[0 : facts["parameters"] * lanes : lanes]
        shared = pack.floats(facts["parameters"] + SLACK, one)
    code, *own = pack.program("measure", 1)
    found = array("d", [0.0])
    count = single.measure(
        at(code), at(shared), *map(at, own), *map(at, pack.documents("held_out")),
        facts["held_out"]["count"], at(found), at(stop),
    )  # fmt: skip
    return losses.tolist(), found[0] / count


def alike(source: str, corpus: Corpus, seed: int = 42, packer: Packer | None = None) -> None:
    """A pack, executed, gives what the fast engine gives, but for the lanes' order of adding."""
    kernel = library()
    content = (packer or Packer()).pack(source, corpus, [seed])
    assert content is not None
    losses, held_out = execute(content, kernel.functions(), kernel.functions())
    run = Run(source, corpus, seed=seed, engine="fast")
    assert run.steps is not None
    assert losses == pytest.approx(run.advance_by(run.steps), rel=1e-4)
    assert run.engine_note is None
    if held_out is not None:
        assert held_out == pytest.approx(run.held_out_loss(50), rel=1e-4)


EDITS = [
    numbered(steps=60),
    numbered(steps=40, batch=3, n_layer=2, n_embd=8, n_head=2, block_size=6),
    numbered(edited(("hidden = (x @ fc).relu()", "hidden = x @ fc * 0.5")), steps=30),
    numbered(edited(("lr * (1 - step / steps)", "lr if step < 20 else lr / 4")), steps=40),
    numbered(edited(("beta1=0.85", "beta1=0.0")), steps=30),
    numbered(edited(("docs[i % len(docs)]", "docs[-i % len(docs)]")), steps=30, batch=2),
]


@pytest.mark.parametrize("source", EDITS, ids=range(len(EDITS)))
def test_a_pack_trains_as_the_fast_engine_does(source: str) -> None:
    alike(source, TEXT, 7)


def test_the_original_is_packed_as_the_build_does() -> None:
    content = bridge.first()
    pack = Opened(content)
    assert (pack.facts["steps"], pack.facts["every"], pack.facts["lanes"]) == (1000, 100, 1)
    assert pack.facts["run"] == json.loads(json.dumps(bridge.about(Run())))
    kernel = library()
    losses, held_out = execute(content, kernel.functions(), kernel.functions())
    run = Run(engine="fast")
    assert losses == pytest.approx(run.advance_by(1000), rel=1e-3)
    assert held_out == pytest.approx(run.held_out_loss(50), rel=1e-3)


_packer = Packer()  # one for all examples: what it keeps of one must not show in another


@hypothesis.given(
    seed=st.integers(0, 5),
    steps=st.integers(1, 25),
    batch=st.integers(1, 3),
    lr=st.sampled_from([0.0, 0.001, 0.01, 0.5]),
    std=st.sampled_from([0.02, 0.08, 0.3]),
    heads=st.sampled_from([(4, 1), (4, 2), (8, 2)]),
    block_size=st.sampled_from([4, 16]),
    edit=st.sampled_from(
        [
            [],
            [("lr * (1 - step / steps)", "lr * (1 - step / steps) ** 2")],
            [("beta2=0.99", "beta2=0.9")],
            [("return norm(x) @ lm_head", "return x @ lm_head")],
        ]
    ),
)
@hypothesis.settings(max_examples=40)
def test_what_was_kept_gives_the_same_pack_as_what_is_made_anew(
    seed: int,
    steps: int,
    batch: int,
    lr: float,
    std: float,
    heads: tuple[int, int],
    block_size: int,
    edit: list[tuple[str, str]],
) -> None:
    source = numbered(
        edited(*edit), steps=steps, batch=batch, lr=lr, std=std, n_embd=heads[0], n_head=heads[1],
        block_size=block_size,
    )  # fmt: skip
    warm = _packer.pack(source, TEXT, [seed])
    assert warm == Packer().pack(source, TEXT, [seed])


def test_numbers_that_more_than_a_run_reads_are_not_taken_for_alike() -> None:
    """A program that asks for the defaults of its own functions is compiled anew for each."""
    packer = Packer()
    for std in (0.5, 2.0):
        source = numbered(
            edited(("return x * (mean_square", "return init.__defaults__[-1] * x * (mean_square")),
            std=std, steps=5,
        )  # fmt: skip
        assert packer.pack(source, TEXT, [1]) == Packer().pack(source, TEXT, [1])


def test_a_number_that_cannot_be_is_refused_after_one_that_can() -> None:
    packer = Packer()
    assert packer.pack(numbered(steps=20, lr=1.0), TEXT) is not None
    with refused("it is not trained for 1 to 200,000 steps"):
        packer.pack(numbered(steps=0, lr=1.0), TEXT)
    for source in (numbered(steps=20, lr=1), numbered(steps=20, batch=2), numbered(steps=21)):
        assert packer.pack(source, TEXT) == Packer().pack(source, TEXT)
    with pytest.raises(MicrogptError):
        packer.pack(numbered(steps=20, n_embd=0), TEXT)
    with pytest.raises(MicrogptError):
        packer.pack(numbered(steps=20, n_embd=16.0), TEXT)
    assert packer.pack(numbered(steps=20), TEXT) == Packer().pack(numbered(steps=20), TEXT)


def test_four_runs_in_lanes_are_four_runs() -> None:
    kernel = library()
    lanes = kernel.lanes[0]
    seeds = list(range(lanes))
    source = numbered(steps=30)
    content = Packer().pack(source, TEXT, seeds, lanes=lanes)
    assert content is not None
    losses, held_out = execute(content, kernel.functions(lanes), kernel.functions())
    for seed in seeds:
        run = Run(source, TEXT, seed=seed, engine="fast")
        assert losses[seed::lanes] == pytest.approx(run.advance_by(30), rel=1e-4)
        if seed == 0:
            assert held_out == pytest.approx(run.held_out_loss(50), rel=1e-4)


def test_a_large_model_is_packed_only_when_it_is_worth_it() -> None:
    assert Packer().pack(numbered(n_embd=256), TEXT, most=50_000) is None
    assert Packer().pack(ORIGINAL, TEXT, most=50_000) is not None


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (edited(("(a, b): return [[x + y for", "(a, b): return [[y + x for")),
         "it changes add, which the fast engine has a copy of"),
        (numbered(steps=200_001), "it is not trained for 1 to 200,000 steps"),
        (edited(("steps=1000, ", "steps=None, "), ("range(start, steps)", "range(start, 10)"),
                ("lr * (1 - step / steps)", "lr")),
         "its train does not say how many steps there are"),
        (edited(("lr * (1 - step / steps)", "lr if step < 7 else {} * lr")),
         "it cannot be recorded; unsupported operand type(s) for *: 'dict' and 'float'"),
    ],
    ids=["the autograd", "too long", "without an end", "a step that fails"],
)  # fmt: skip
def test_what_cannot_be_packed_is_refused_in_words(source: str, why: str) -> None:
    with refused(why, whole=False):
        Packer().pack(source, TEXT)


def test_the_bridge_packs_takes_and_looks_back() -> None:
    """What the page does with a run: it is packed, trained elsewhere, and given to Python."""
    source = numbered(steps=12)

    def ask(name: str, parcel: bytes | None = None, **arguments: Any) -> Any:
        answer = json.loads(bridge.call(name, json.dumps(arguments), parcel))
        assert "ok" in answer, answer
        return answer["ok"]

    assert ask("pack", source=source, data="\n".join(DOCS), seed=3) == {
        "refused": None, "large": False,
    }  # fmt: skip
    content = bridge.parcel()
    assert content is not None
    assert bridge.parcel() is None
    assert Opened(content).facts["run"]["seed"] == 3

    run = Run(source, data.load("\n".join(DOCS)), seed=3)
    losses = [run.advance() for _ in range(6)]
    assert run.moments is not None
    flat = array("f")
    for w, (m, v) in zip(run.named_weights().values(), run.moments, strict=True):
        for rows in (w.data, m, v):
            for row in rows:
                flat.extend(row)
    told = ask("take", flat.tobytes(), source=source, data="\n".join(DOCS), seed=3, step=6,
               losses=losses)  # fmt: skip
    assert (told["step"], told["steps"]) == (6, 12)
    expected = [run.advance() for _ in range(6)]
    assert ask("advance", budget_ms=0, max_steps=1)["losses"] == pytest.approx(
        expected[:1], rel=1e-5
    )
    assert ask("advance", budget_ms=1e6)["losses"] == pytest.approx(expected[1:], rel=1e-4)

    first = Run(source, data.load("\n".join(DOCS)), seed=3)
    weights = array("f", [x for w in first.named_weights().values() for row in w.data for x in row])
    peek = ask("peek", weights.tobytes(), doc="anna", step=0)
    assert peek["step"] == 0
    assert peek != ask("peek", doc="anna")
    assert ask("start", source=source, data="\n".join(DOCS), seed=3)["step"] == 0
    assert ask("peek", doc="anna")["attention"] == peek["attention"]

    answer = json.loads(bridge.call("take", json.dumps({
        "source": source, "data": "names", "seed": 3, "step": 6, "losses": losses,
    }), flat.tobytes()))  # fmt: skip
    assert "another program" in answer["error"]["message"]
    changed = source.replace("def flip(a):", "def flip(a, b=0):")
    told = ask("pack", source=changed, data="names", seed=3)
    assert told["refused"].startswith("This edit is trained by Python itself, which is slower: it")
    assert bridge.parcel() is None


def test_pairs_are_compared_by_their_differences() -> None:
    ours, theirs = [2.0, 2.2, 2.4, 2.6], [1.9, 2.0, 2.1, 2.2]
    found = json.loads(bridge.call("paired", json.dumps({"ours": ours, "theirs": theirs})))["ok"]
    assert found["ours"] == pytest.approx(2.3)
    assert found["theirs"] == pytest.approx(2.05)
    assert found["difference"] == pytest.approx(0.25)
    # by hand: differences 0.1, 0.2, 0.3, 0.4; deviation 0.1291, error 0.06455, times 3.182
    assert (found["low"], found["high"]) == pytest.approx((0.0446, 0.4554), abs=1e-4)


def test_a_source_that_fails_is_not_a_refusal() -> None:
    with pytest.raises(MicrogptError, match="n_head must divide n_embd") as caught:
        Packer().pack(numbered(n_head=3), TEXT)
    assert not isinstance(caught.value, LeavesContract)


def test_samples_are_drawn_as_a_run_draws_them() -> None:
    pack = Opened(bridge.first())
    kernel = library()
    told = pack.facts["sample"]
    code, own, fixed, numbers = pack.program("sample", 1)
    for row, value in told["slots"]:
        for i in range(told["width"]):
            numbers[row * told["width"] + i] = value
    shared = pack.floats(3 * pack.facts["parameters"] + SLACK, pack.read(pack.facts["weights"]))
    chances = array("d", pack.read(pack.facts["chances"]))
    most, n = 17, 6
    ids, lengths = array("i", [0] * (n * (most + 1))), array("q", [0] * n)
    ids[0], stop = pack.facts["mark"], array("i", [0])
    kernel.functions().sample(
        code.buffer_info()[0], *map(ctypes.addressof, (shared, own, fixed, numbers)),
        ids.buffer_info()[0], 1, most, pack.facts["mark"], chances.buffer_info()[0], n,
        lengths.buffer_info()[0], stop.buffer_info()[0],
    )  # fmt: skip
    texts = []
    for i, length in enumerate(lengths):
        text = ids[i * (most + 1) + 1 : i * (most + 1) + length]
        texts.append("".join(pack.facts["run"]["vocab"][i] for i in text).rstrip("\n"))
    assert texts == Run(engine="fast").sample(6, seed=0)
