"""Variants: small edits of the file with a hypothesis, alone, together, and as ladders.

A variant is a Python file that holds functions and numbers of `gpt.py` written anew. Its docstring
says what it is, what is expected of it, and where it comes from. What a reader asks for is a
*recipe*: names of variants, numbers and files, joined by plus signs, such as `rope+swiglu+lr=0.02`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from microgpt import source as file
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.files import read
from microgpt.run import Run
from microgpt.source import ORIGINAL, ConflictError

COLLECTION = Path(__file__).with_name("collection")
GROUPS = {
    "removals": "A part is taken out",
    "replacements": "A part is another",
    "training": "The same model, learnt otherwise",
    "sizes": "More or less of it",
    "ladder": "Rungs that lead to published models",
}
LADDERS: dict[str, tuple[str, ...]] = {
    "gpt-2": (
        "gelu", "layer-norm", "norm-gain", "biases", "tied-embeddings", "scaled-init", "adamw",
        "warmup-cosine",
    ),
    "llama": ("norm-gain", "rope", "swiglu", "grouped-query", "adamw", "warmup-cosine"),
    "deepseek": (
        "norm-gain", "rope", "latent-attention", "mixture-of-experts", "shared-expert", "adamw",
        "warmup-cosine",
    ),
}  # fmt: skip
VERDICTS = ("worse", "better", "alike")
_FEW = Corpus("few", "Two names", ("anna", "bea"))  # enough to try a program on
_FIELD = re.compile(r"^(Hypothesis|Reference|Builds on|Expected): ", re.MULTILINE)
_PLUS = re.compile(r"(?<![\d.][eE])\+")  # but not the one in 1e+30
_NUMBER = re.compile(r"(?P<name>[A-Za-z_][\w.]*)=(?P<value>\S+)")


@dataclass(frozen=True)
class Variant:
    """An edit of the file, with what it says of itself.

    Attributes:
        name: such as `no-attention`.
        group: one of `GROUPS`, or "own" for one that is not of the collection.
        title: a few words.
        about: what is changed, in a sentence or two.
        hypothesis: what is expected of it.
        reference: where it comes from.
        builds_on: variants that it is written on top of.
        expected: by task, whether it will do "worse", "better" or "alike".
        text: the Python that it consists of.
    """

    name: str
    group: str
    title: str
    about: str
    hypothesis: str
    reference: str
    builds_on: tuple[str, ...]
    expected: dict[str, str]
    text: str


def parse(text: str, name: str, group: str = "own") -> Variant:
    """A variant from its text.

    Raises:
        MicrogptError: it is not Python, has no title, or expects what nothing can be.
    """
    try:
        told = ast.get_docstring(ast.parse(text)) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        _redefined(ORIGINAL, text, name, numbers=False)  # says what is wrong with it
        raise
    title, _, rest = told.partition("\n")
    if not title.strip():
        raise MicrogptError(
            f"The variant {name} does not say what it is: begin it with a docstring whose first "
            "line is its title.", line=1,
        )  # fmt: skip
    about, *fields = _FIELD.split(rest)
    found = {key: " ".join(value.split()) for key, value in zip(fields[::2], fields[1::2])}
    expected = {}
    for part in filter(None, re.split(r", *", found.get("Expected", ""))):
        verdict, _, task = part.partition(" on ")
        if verdict not in VERDICTS or not task:
            raise MicrogptError(
                f"The variant {name} expects {part!r}: write worse, better or alike, and on which "
                "data, such as: worse on recall.", line=1,
            )  # fmt: skip
        expected[task] = verdict
    return Variant(
        name, group, title.strip().rstrip("."), " ".join(about.split()),
        found.get("Hypothesis", ""), found.get("Reference", ""),
        tuple(filter(None, re.split(r", *", found.get("Builds on", "")))), expected, text,
    )  # fmt: skip


@functools.cache
def collection() -> dict[str, Variant]:
    """All variants that come with the package, by name, group by group."""
    found = {}
    for group in GROUPS:
        for path in sorted((COLLECTION / group).glob("*.py")):
            name = path.stem.replace("_", "-")
            found[name] = parse(path.read_text(encoding="utf-8"), name, group)
    return found


def variant(name: str) -> Variant:
    """The variant of this name, or of this path.

    Raises:
        MicrogptError: there is none.
    """
    known = collection()
    if name in known:
        return known[name]
    if name.endswith(".py"):
        return parse(_text(name), Path(name).stem.replace("_", "-"))
    if name in GROUPS or name in LADDERS:
        what = "a group" if name in GROUPS else "a ladder"
        advice = f"it is {what} of variants, and stands alone."
    else:
        near = difflib.get_close_matches(name, [*known, *LADDERS, *GROUPS], n=1, cutoff=0.6)
        advice = f"did you mean {near[0]}?" if near else "microgpt variants lists them."
    raise MicrogptError(f"There is no variant {name!r}: {advice}")


def _text(path: str) -> str:
    return read(Path(path), file.LARGEST, "variant")


# ---- Recipes ----


@dataclass(frozen=True)
class Program:
    """A source and what it is called.

    Attributes:
        name: the recipe that it was made by.
        source: its text.
        whole: whether it is a file of its own, and no edit of a base.
    """

    name: str
    source: str
    whole: bool = False

    @property
    def diff(self) -> str:
        """How it differs from the file."""
        return file.diff(ORIGINAL, self.source)


def program(recipe: str, base: str = ORIGINAL) -> Program:
    """The program that a recipe describes.

    Args:
        recipe: parts joined by plus signs, each the name of a variant, the path of one, a number
            of the file (`lr=0.02`) or the path of an edited `gpt.py`, which can only stand alone.
            An empty one is the base itself.
        base: an edit of the file that all of it is added to.

    Raises:
        MicrogptError: a part does not exist or does not apply, or two change the same words.
    """
    parts = [part.strip() for part in _PLUS.split(recipe)] if recipe.strip() else []
    if "" in parts:
        raise MicrogptError(f"The recipe {recipe!r} has an empty part between its plus signs.")
    numbers: dict[str, tuple[float, str]] = {}  # of the recipe itself, which has the last word
    own: dict[str, tuple[float, str]] = {}  # of its variants
    done: list[Variant] = []
    source = base
    for part in parts:
        if found := _NUMBER.fullmatch(part):
            _set(numbers, found["name"], value(part, found["value"]), part)
        elif part.endswith(".py") and len(parts) == 1 and _whole(text := _text(part)):
            return Program(Path(part).stem, text, whole=True)
        else:
            try:
                source = _with(source, variant(part), done)
            except RecursionError:
                raise MicrogptError(f"The variant {part} builds on itself.") from None
    for new in done:
        for name, number in _numbers(new).items():
            _set(own, name, number, new.name)
    for name, (number, part) in (own | numbers).items():
        try:
            source = file.set_knob(source, name, number)
        except MicrogptError as error:
            whose = "" if name in numbers else f"The variant {part} does not apply: "
            raise MicrogptError(whose + error.message) from None
    if len(done) > 1:
        _try(source, done)
    names = [Path(part).stem if part.endswith(".py") else part for part in parts]
    return Program("+".join(names) or "gpt.py", source)


def parts(recipe: str) -> list[Variant]:
    """The variants that a recipe names, its numbers left out."""
    return [variant(p) for part in _PLUS.split(recipe) if not _NUMBER.fullmatch(p := part.strip())]


def _whole(text: str) -> bool:
    """Whether a text is a whole program, and not a variant of one."""
    return {"Tensor", "gpt", "train"} <= {f.name for f in file.functions(text)}


def value(part: str, text: str) -> float:
    """The number that a part of a recipe sets.

    Raises:
        MicrogptError: it is none.
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise MicrogptError(f"{part} does not set a number: {text!r} is none.")


def _set(numbers: dict[str, tuple[float, str]], name: str, number: float, part: str) -> None:
    name = name.rpartition(".")[2]  # no two numbers of the file have one name
    before = numbers.get(name)
    if before is not None and before[0] != number:
        raise MicrogptError(
            f"{before[1]} and {part} set the same number, {name}: leave one of them out."
        )
    numbers[name] = number, part


def _with(source: str, new: Variant, done: list[Variant]) -> str:
    """A source with the functions of a variant more, and of those that it builds on.

    Args:
        source: an edit of the file, with all of `done` in it.
        new: the variant, which is written as an edit of the file itself.
        done: is added to.
    """
    if new in done:
        return source
    for name in new.builds_on:
        try:
            source = _with(source, variant(name), done)
        except MicrogptError as error:
            raise MicrogptError(f"{error.message} {new.title} builds on {name}.") from None
    under = _under(new)
    try:
        merged = file.merge(under, source, applied(under, new, numbers=False))
    except ConflictError as conflict:
        other = next((v.title for v in done if not _together(v, new)), "The baseline")
        raise MicrogptError(
            f"{other} and {new.title} cannot be put together: both change the line "
            f"{conflict.text!r}. Choose one of them, or write a variant that builds on the other.",
        ) from None
    done.append(new)
    return merged


def _under(new: Variant) -> str:
    """The file with all that a variant builds on."""
    source, below = ORIGINAL, list[Variant]()
    for name in new.builds_on:
        source = _with(source, variant(name), below)
    return source


def _try(source: str, parts: Sequence[Variant]) -> None:
    """Take one step with a program that was put together: that each part applies does not mean that
    they fit one another."""
    try:
        Run(source, _FEW, seed=0, steps=1).advance()
    except MicrogptError as error:
        names = " and ".join(part.title for part in parts)
        line = source.split("\n")[error.line - 1].strip() if error.line else ""
        where = f" (at {line!r})" if line else ""
        raise MicrogptError(
            f"{names} do not fit together: {error.message.rstrip('.')}{where}."
        ) from None


def _together(a: Variant, b: Variant) -> bool:
    try:
        file.merge(
            ORIGINAL, applied(_under(a), a, numbers=False), applied(_under(b), b, numbers=False)
        )
    except MicrogptError:
        return False
    return True


def applied(source: str, new: Variant, *, numbers: bool = True) -> str:
    """A source with the functions of a variant in place of its own, and its numbers.

    Raises:
        MicrogptError: it does not apply; with the variant's name.
    """
    return _redefined(source, new.text, new.name, numbers=numbers)


def _redefined(source: str, text: str, name: str, *, numbers: bool) -> str:
    try:
        return file.redefine(source, text, numbers=numbers)
    except MicrogptError as error:
        where = f", line {error.line}" if error.line else ""
        raise MicrogptError(f"The variant {name} does not apply{where}: {error.message}") from None


def _numbers(new: Variant) -> dict[str, float]:
    """The numbers that a variant sets, be it in a signature that it writes anew."""
    under = {knob.name: knob.value for knob in file.knobs(_under(new))}
    made = file.knobs(applied(_under(new), new, numbers=False))
    changed = {k.name: k.value for k in made if k.name in under and k.value != under[k.name]}
    return changed | file.numbers(new.text)


def recipes(asked: Sequence[str]) -> list[str]:
    """Recipes with groups and ladders written out.

    Args:
        asked: recipes, names of groups (`removals`), or of ladders (`gpt-2`), which become one
            recipe for each rung, all rungs below it included.
    """
    found: list[str] = []
    for name in asked:
        if name in GROUPS:
            found += [v.name for v in collection().values() if v.group == name]
        elif name in LADDERS:
            rungs = LADDERS[name]
            found += ["+".join(rungs[: i + 1]) for i in range(len(rungs))]
        else:
            found.append(name)
    return list(dict.fromkeys(found))
