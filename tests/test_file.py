"""The rules of the file: its size, its order, what it may import, read, call, and its output."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import re
import subprocess
import symtable
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TEXT = (Path(__file__).resolve().parent.parent / "microgpt" / "gpt.py").read_text(encoding="utf-8")
LINES = TEXT.splitlines()
TREE = ast.parse(TEXT)
SECTIONS = ["Tokenizer", "Autograd", "Model", "Training", "Sampling"]
PORTABLE = ["softmax", "norm", "attention", "mlp", "gpt", "cross_entropy"]
SHORT = 100  # steps; every hundredth line stays on a terminal


def function(name: str) -> ast.FunctionDef:
    return next(n for n in TREE.body if isinstance(n, ast.FunctionDef) and n.name == name)


# ---- Size and shape ----


def test_at_most_150_lines_counted_with_comments_and_docstrings() -> None:
    written = [line for line in LINES if line.strip()]
    assert len(written) <= 150, f"{len(written)} lines are not blank"


def test_at_most_88_columns_in_plain_characters() -> None:
    wide = [f"{n}: {len(line)}" for n, line in enumerate(LINES, 1) if len(line) > 88]
    assert not wide, f"lines wider than 88 columns: {wide}"
    assert TEXT.isascii()
    assert "\t" not in TEXT
    assert all(line == line.rstrip() for line in LINES)
    assert TEXT.endswith("\n")
    assert not TEXT.endswith("\n\n")


def test_the_docstring_states_the_true_size() -> None:
    stated = re.search(r"in (\d+) lines", ast.get_docstring(TREE) or "")
    assert stated, "the docstring says how many lines there are"
    assert sum(1 for line in LINES if line.strip()) <= int(stated[1]) == 150


def test_one_statement_a_line() -> None:
    starts = Counter(n.lineno for n in ast.walk(TREE) if isinstance(n, ast.stmt))
    one_liners = {
        n.lineno
        for n in ast.walk(TREE)
        if isinstance(n, ast.FunctionDef) and n.lineno == n.end_lineno
    }
    crowded = [n for n, count in starts.items() if count > (2 if n in one_liners else 1)]
    assert not crowded, f"lines with more than one statement: {crowded}"


def test_no_hints_no_globals_and_one_class() -> None:
    assert not [n for n in ast.walk(TREE) if isinstance(n, ast.AnnAssign)]
    for node in ast.walk(TREE):
        assert not isinstance(node, (ast.Global, ast.Nonlocal, ast.NamedExpr)), ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            hints = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)]
            assert not any([*hints, node.returns]), node.name
    assert [n.name for n in ast.walk(TREE) if isinstance(n, ast.ClassDef)] == ["Tensor"]


def test_every_line_can_be_pointed_at_by_its_scope_and_its_words() -> None:
    scopes = [(n.lineno, n.end_lineno or n.lineno) for n in ast.walk(TREE)
              if isinstance(n, (ast.FunctionDef, ast.ClassDef))]  # fmt: skip
    repeated = []
    for number, line in enumerate(LINES, 1):
        around = [(first, last) for first, last in scopes if first <= number <= last]
        first, last = max(around, default=(1, len(LINES)))
        inside = [other.strip() for other in LINES[first - 1 : last]]
        if line.strip() and inside.count(line.strip()) != 1:
            repeated.append(f"{number}: {line.strip()}")
    assert not repeated, f"lines that stand more than once in their scope: {repeated}"


# ---- Order ----


def headers() -> list[tuple[int, str]]:
    found = [(n, re.match(r"# ---- (\w+): .+ ----$", line)) for n, line in enumerate(LINES, 1)]
    return [(n, match[1]) for n, match in found if match]


def test_the_sections_stand_in_reading_order_and_main_comes_last() -> None:
    assert [name for _, name in headers()] == SECTIONS
    assert sum(line.startswith("# ----") for line in LINES) == len(SECTIONS)
    assert ast.unparse(TREE.body[-1]).startswith("if __name__ == '__main__':")
    assert TREE.body[-1].lineno > headers()[-1][0]


def bound(node: ast.stmt) -> set[str]:
    """The names that a statement of the module brings into being."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in node.names}
    return {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from tables(child)


def globals_read(code: str) -> set[str]:
    """The names that the functions and classes of some code look up in the module."""
    inner = tables(symtable.symtable(code, "gpt.py", "exec"))
    return {
        s.get_name() for t in inner for s in t.get_symbols() if s.is_global() and s.is_referenced()
    }


def test_everything_uses_only_what_stands_above_it() -> None:
    known = set(dir(builtins)) | {"__file__", "__name__"}
    everything = {name for node in TREE.body for name in bound(node)}
    for node in TREE.body:
        known |= bound(node)  # its own name too: a function may call itself
        loaded = {
            n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
        free = globals_read(ast.unparse(node))
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            free |= loaded & everything
        assert free <= known, f"line {node.lineno} uses {free - known} before it is defined"


def test_functions_read_no_data_but_their_arguments(gpt: Any) -> None:
    """What a function finds in the module is a function, a class or a module: never a number."""
    for name in globals_read(TEXT) - set(dir(builtins)):
        value = getattr(gpt, name)
        assert callable(value) or isinstance(value, ModuleType), (
            f"a function reads the global {name}"
        )


def test_only_the_standard_three_are_imported() -> None:
    imported = [n for n in ast.walk(TREE) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert all(isinstance(n, ast.Import) for n in imported)
    assert {a.name for n in imported for a in n.names} <= {"math", "random", "itertools"}
    assert all(n in TREE.body for n in imported), "imports stand at the top"
    called = {
        n.func.id
        for n in ast.walk(TREE)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not called & {
        "__import__",
        "eval",
        "exec",
        "globals",
        "locals",
        "setattr",
        "vars",
        "input",
    }


# ---- The contract: the model is written in operations that every engine has ----


def outside_the_contract(node: ast.AST) -> str | None:
    """What another engine might not understand in a node of the model; None when nothing."""
    text = ast.unparse(node) if isinstance(node, (ast.expr, ast.stmt)) else type(node).__name__
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return None if node.func.id in PORTABLE else text
        if not isinstance(node.func, ast.Attribute):
            return text
        given = [ast.unparse(argument) for argument in (*node.args, *node.keywords)]
        written = f".{node.func.attr}({', '.join(given)})"
        exact = {
            ".exp()",
            ".log()",
            ".relu()",
            ".sum(-1, keepdim=True)",
            ".amax(-1, keepdim=True)",
            ".transpose(-2, -1)",
            ".triu(1)",
        }
        filled = re.fullmatch(r"\.new_full\(\w+\.shape, -?math\.inf\)", written)
        return None if written in exact or filled else text
    if isinstance(node, ast.Attribute):
        methods = {"exp", "log", "relu", "sum", "amax", "transpose", "triu", "new_full", "shape"}
        known = node.attr in methods or text == "math.inf"
        return None if known else text
    if isinstance(node, ast.Subscript):
        if isinstance(node.value, ast.Attribute):
            return None if re.fullmatch(r"\w+\.shape\[-[12]\]", text) else text
        index = node.slice
        rows = isinstance(index, ast.Slice) and index.lower is None and index.step is None
        part = isinstance(index, ast.Constant) and isinstance(index.value, str)
        return None if rows or part or isinstance(index, ast.Name) else text
    if isinstance(node, ast.BinOp):
        allowed = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.MatMult)
        return None if isinstance(node.op, allowed) else text
    if isinstance(node, ast.UnaryOp):
        number = ast.unparse(node.operand)
        return None if re.fullmatch(r"[\d.e-]+|math\.inf", number) else text
    plain = (
        ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.Return, ast.For, ast.Name,
        ast.Constant, ast.Tuple, ast.Slice, ast.keyword, ast.operator, ast.unaryop,
        ast.expr_context,
    )  # fmt: skip
    return None if isinstance(node, plain) else text


@pytest.mark.parametrize("name", PORTABLE)
def test_the_model_keeps_to_the_contract(name: str) -> None:
    strange = [said for node in ast.walk(function(name)) if (said := outside_the_contract(node))]
    assert not strange, f"{name} asks an engine for {strange}"


def test_the_model_section_defines_what_is_portable() -> None:
    first, last = (next(n for n, name in headers() if name == s) for s in ("Model", "Training"))
    inside = [
        n.name for n in TREE.body if isinstance(n, ast.FunctionDef) and first < n.lineno < last
    ]
    assert inside == ["softmax", "norm", "attention", "mlp", "gpt", "init", "leaves"]


@pytest.mark.parametrize(
    "line",
    [
        "x.sum(0, keepdim=True)",
        "x.sum(-2, keepdim=True)",
        "x.sum(-1)",
        "x.mean(-1)",
        "x.transpose(0, 1)",
        "x.triu(2)",
        "x.data",
        "x.shape[0]",
        "x[1:]",
        "x[0]",
        "-x",
        "x // 2",
        "len(x)",
        "[y for y in x]",
        "x if y else z",
    ],
)
def test_the_contract_check_would_notice(line: str) -> None:
    assert any(
        outside_the_contract(node)
        for node in ast.walk(ast.parse(f"def f(x, y):\n    return {line}").body[0])
    )


# ---- What it does when imported, and when run ----

IMPORTER = """
import json, math, random, sys, time
seen = []
sys.addaudithook(lambda event, args: seen.append([event, str(args[:1])]))
sys.path.insert(0, sys.argv[1])
start = time.process_time()
import gpt
spent = time.process_time() - start
print(json.dumps([seen, spent, sorted(vars(gpt))]))
"""


def test_importing_does_no_work(path: Path) -> None:
    command = [sys.executable, "-B", "-I", "-c", IMPORTER, str(path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    seen, spent, defined = json.loads(done.stdout)  # nothing else was printed
    opened = [args for event, args in seen if event == "open"]
    assert all("gpt" in args for args in opened), f"files opened: {opened}"
    others = {event.split(".")[0] for event, _ in seen} - {
        "open", "import", "compile", "exec", "marshal", "object", "os", "code", "sys",
    }  # fmt: skip
    assert not others, f"importing did more than import: {others}"
    assert not {event for event, _ in seen if event.startswith("os.")} - {"os.listdir"}
    assert spent < 0.5, f"{spent} s of CPU"
    assert "train" in defined
    assert not {"rng", "docs", "vocab", "params"} & set(defined)


def on_a_terminal(output: str) -> list[str]:
    """What stays readable: after a carriage return the line is written over."""
    rows = []
    for row in output.split("\n"):
        cells: list[str] = []
        for part in row.split("\r"):
            cells[: len(part)] = part
        rows.append("".join(cells).rstrip())
    return rows


def last_lines(output: str) -> list[str]:
    """The 20 names, which stand at the end of what a run prints."""
    return [
        line.rstrip(" ") for line in output.replace("\r", "\n").removesuffix("\n").split("\n")[-20:]
    ]


@pytest.fixture(scope="module")
def short_run(path: Path) -> str:
    """What the file prints as main, with nothing changed but the number of its steps."""
    assert TEXT.count("steps=1000") == 1
    short = TEXT.replace("steps=1000", f"steps={SHORT}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # it leaves the closing of a file to Python
        exec(compile(short, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})
    return printed.getvalue()


def test_a_shortened_run_trains_and_prints_20_names(short_run: str) -> None:
    steps = [int(n) for n in re.findall(r"step +(\d+) \| loss \d+\.\d{4}\b", short_run)]
    assert steps == list(range(1, SHORT + 1))
    found = last_lines(short_run)
    assert all(re.fullmatch(r"[a-z]{0,16}", name) for name in found), found


def test_the_names_can_be_read_on_a_terminal(short_run: str) -> None:
    readable = on_a_terminal(short_run.removesuffix("\n"))
    assert readable[-20:] == last_lines(short_run)


@pytest.mark.slow
def test_the_real_run_learns_and_prints_20_names(path: Path) -> None:
    command = [sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert done.stderr == ""
    losses = [float(x) for x in re.findall(r"\| loss (\d+\.\d{4})", done.stdout)]
    assert len(losses) == 1000
    assert sum(losses[:10]) / 10 > 3.0  # 3.12 when written
    assert sum(losses[-100:]) / 100 < 2.7  # 2.56 when written
    found = last_lines(done.stdout)
    assert all(re.fullmatch(r"[a-z]{0,16}", name) for name in found), found
    assert len(set(found)) >= 15
