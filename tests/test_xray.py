"""The x-ray: what it records is what the program computed, for the file and for edits of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt import gpt, source
from microgpt.errors import MicrogptError
from microgpt.xray import finite, xray

ORIGINAL = source.ORIGINAL
VOCAB = ["\n", *"abcdefghijklmnopqrstuvwxyz"]
Record = dict[str, Any]


def edited(old: str, new: str) -> str:
    assert ORIGINAL.count(old) == 1, f"the file no longer has exactly one: {old}"
    return ORIGINAL.replace(old, new)


def fresh_run(doc: str, **sizes: int) -> tuple[Any, Any, Any]:
    """The same step by hand: params, logits and loss of the file itself, with gradients."""
    params = gpt.init(random.Random(42), len(VOCAB), **sizes)
    ids = gpt.encode(doc, VOCAB)[: params["wpe"].shape[-2] + 1]
    logits = gpt.gpt(ids[:-1], **params)
    loss = gpt.cross_entropy(
        logits, gpt.Tensor([[j == t for j in range(len(VOCAB))] for t in ids[1:]])
    )
    gpt.backward(loss)
    return params, logits, loss


@pytest.fixture(scope="module")
def anna() -> Record:
    return xray(ORIGINAL, "anna", vocab=VOCAB)


def test_loss_and_logits_are_those_of_the_file(anna: Record) -> None:
    _, logits, loss = fresh_run("anna")
    assert anna["loss"] == loss.data[0][0]
    recorded = [t for t in anna["tensors"] if t["function"] == "gpt" and t["op"] == "@"][-1]
    assert recorded["data"] == logits.data and recorded["grad"] == [
        list(row) for row in logits.grad
    ]


def test_every_weight_is_there_with_the_gradient_of_the_file(anna: Record) -> None:
    params, _, _ = fresh_run("anna")
    weights = {t["weight"]: t for t in anna["tensors"] if t["weight"]}
    assert len(weights) == len(gpt.leaves(params)) == 21
    for path, weight in weights.items():
        tensor: Any = params
        for key in path.split("."):
            tensor = tensor[int(key) if isinstance(tensor, list) else key]
        assert weight["data"] == tensor.data  # before Adam changed it
        assert weight["grad"] == [list(row) for row in tensor.grad]


def test_values_come_in_the_order_of_execution_with_their_lines(anna: Record) -> None:
    lines = ORIGINAL.splitlines()
    names = [v["name"] for v in anna["values"] if v["function"] == "attention" and v["call"] == 34]
    first = next(v["call"] for v in anna["values"] if v["function"] == "attention")
    names = [v["name"] for v in anna["values"] if v["call"] == first]
    assert names == [
        "x",
        "wq",
        "wk",
        "wv",
        "wo",
        "q",
        "k",
        "v",
        "scores",
        "future",
        "weights",
        "return",
    ]
    for value in anna["values"]:
        if value["name"] not in ("return",) and "[" not in value["name"]:
            assert value["name"] in lines[value["line"] - 1]
    assert [v["i"] for v in anna["values"]] == list(range(len(anna["values"])))


def test_every_assigned_name_outside_the_autograd_section_is_recorded(anna: Record) -> None:
    import ast

    part = next(s for s in source.sections(ORIGINAL) if s.name == "Autograd")
    main = next(s for s in source.sections(ORIGINAL) if s.name == "Main")
    wanted = set()
    for function in ast.parse(ORIGINAL).body:
        if isinstance(function, ast.FunctionDef) and not part.first <= function.lineno <= part.last:
            for node in ast.walk(function):
                if isinstance(node, ast.Assign | ast.AugAssign):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    for target in targets:
                        leaves = target.elts if isinstance(target, ast.Tuple) else [target]
                        wanted |= {
                            (function.name, node.lineno, ast.unparse(leaf)) for leaf in leaves
                        }
    wanted = {w for w in wanted if w[0] not in ("sample", "vocabulary") and w[1] < main.first}
    assert wanted <= {(v["function"], v["line"], v["name"]) for v in anna["values"]}


def test_the_graph_is_the_one_that_the_run_built(anna: Record) -> None:
    tensors = anna["tensors"]
    for tensor in tensors:
        assert all(parent < tensor["id"] for parent in tensor["parents"])
        assert tensor["shape"] == [len(tensor["data"]), len(tensor["data"][0])]
        if tensor["grad"] is not None:
            assert [len(tensor["grad"]), len(tensor["grad"][0])] == tensor["shape"]
    by_name = {}
    for tensor in tensors:
        by_name.setdefault((tensor["function"], tensor["name"]), tensor)
    weights = by_name["softmax", "weights"]
    assert weights["op"] == "*" and weights["via"] == "/"
    scores = by_name["attention", "scores"]
    assert ORIGINAL.splitlines()[scores["line"] - 1].strip().startswith("scores = q @")


def test_matrix_products_of_the_graph_hold(anna: Record) -> None:
    """An independent check: multiply again what the graph says was multiplied."""
    products = 0
    for tensor in anna["tensors"]:
        if tensor["op"] == "@":
            a, b = (anna["tensors"][p]["data"] for p in tensor["parents"])
            again = [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]
            flat = [(x, y) for r, s in zip(again, tensor["data"]) for x, y in zip(r, s)]
            assert all(abs(x - y) < 1e-12 for x, y in flat)
            products += 1
    assert products == 4 * 6 + 2 + 1


def test_calls_are_nested_and_labelled(anna: Record) -> None:
    labels = [c["label"] for c in anna["calls"]]
    assert [f"attention {i}" in labels for i in (1, 2, 3, 4)] == [True] * 4
    calls = {c["id"]: c for c in anna["calls"]}
    softmax = next(c for c in anna["calls"] if c["function"] == "softmax")
    assert calls[softmax["parent"]]["function"] == "attention"
    assert calls[calls[softmax["parent"]]["parent"]]["function"] == "gpt"


def test_given_weights_are_used_and_left_alone() -> None:
    params = gpt.init(random.Random(5), len(VOCAB), n_embd=8, n_head=2)
    before = json.dumps([w.data for w in gpt.leaves(params)])
    record = xray(ORIGINAL, "bo", vocab=VOCAB, params=params)
    assert json.dumps([w.data for w in gpt.leaves(params)]) == before
    weight = next(t for t in record["tensors"] if t["weight"] == "wte")
    assert weight["data"] == params["wte"].data


def test_a_step_in_the_middle_of_training_is_that_step() -> None:
    params = gpt.init(random.Random(5), len(VOCAB))
    moments = [((w * 0).data, (w * 0).data) for w in gpt.leaves(params)]
    steps = gpt.train(params, ["bo", "li"], VOCAB, steps=10, moments=moments)
    next(steps)
    record = xray(ORIGINAL, "li", vocab=VOCAB, params=params, start=1, steps=10, moments=moments)
    assert record["loss"] == next(steps)


def test_only_plain_data_comes_out(anna: Record) -> None:
    assert json.loads(json.dumps(finite(anna), allow_nan=False))["doc"] == "anna"
    assert any(x == "-inf" for t in finite(anna)["tensors"] for row in t["data"] for x in row)


def test_limits_leave_values_out_and_say_how_many(anna: Record) -> None:
    short = xray(ORIGINAL, "anna", vocab=VOCAB, most=8, siblings=2)
    assert len(short["values"]) < len(anna["values"])
    dropped = sum(c["dropped"] for c in short["calls"])
    assert len(short["values"]) + dropped == len(anna["values"])
    assert len(short["calls"]) == len(anna["calls"])
    kept, all_of_them = (
        [(v["call"], v["line"], v["name"]) for v in record["values"] if v["kind"] == "tensor"]
        for record in (short, anna)
    )
    assert kept == all_of_them  # the values of the model are never left out


def test_the_inside_of_the_autograd_section_on_request() -> None:
    record = xray(ORIGINAL, "a", vocab=VOCAB, autograd=True)
    functions = {v["function"] for v in record["values"]}
    assert {"matmul", "backward", "__init__"} <= functions


# ---- Edited programs ----


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("x = x + attention(h, **head)", "x = x", -4 * 19),
        ("x = x + mlp(norm(x), ", "x = mlp(norm(x), ", None),
        ("(x @ fc).relu()", "(x @ fc).exp()", 0),
        ("n_layer=1", "n_layer=2", None),
        ("n_head=4", "n_head=8", None),
    ],
)
def test_another_architecture_gives_another_graph(
    old: str, new: str, difference: int | None, anna: Record
) -> None:
    record = xray(edited(old, new), "anna", vocab=VOCAB)
    assert record["error"] is None
    if difference == 0:
        assert [t["op"] for t in record["tensors"]].count("exp") == 1 + [
            t["op"] for t in anna["tensors"]
        ].count("exp")
    else:
        assert len(record["tensors"]) != len(anna["tensors"])


def test_a_new_operation_of_the_reader_is_recorded() -> None:
    text = edited(
        "    def relu(self): return",
        "    def tanh(self):\n"
        "        return self.cellwise(lambda a: (math.tanh(a), 1 - math.tanh(a) ** 2))\n"
        "    def relu(self): return",
    ).replace("(x @ fc).relu()", "(x @ fc).tanh()")
    record = xray(text, "anna", vocab=VOCAB)
    node = next(t for t in record["tensors"] if t["op"] == "tanh")
    assert node["name"] == "hidden" and node["function"] == "mlp" and node["grad"] is not None


def test_a_failure_half_way_keeps_all_before_it() -> None:
    text = edited("return weights @ v @ wo", "return weights @ wo")
    record = xray(text, "anna", vocab=VOCAB)
    assert record["error"]["line"] == 1 + text.splitlines().index("    return weights @ wo")
    assert "do not fit" in record["error"]["message"]
    assert any(v["name"] == "weights" for v in record["values"])
    assert record["loss"] is None


def test_the_first_nan_is_named_at_its_line() -> None:
    text = edited(
        "    hidden = (x @ fc).relu()  # (T, 4C)", "    hidden = (x @ fc).relu() * math.nan"
    )
    record = xray(text, "anna", vocab=VOCAB)
    assert "nan" in record["error"]["message"] and "hidden" in record["error"]["message"]
    assert "math.nan" in text.splitlines()[record["error"]["line"] - 1]


def test_a_broken_source_is_refused_with_its_line() -> None:
    with pytest.raises(MicrogptError) as caught:
        xray("x = (", "anna", vocab=VOCAB)
    assert caught.value.line == 1


def test_a_character_that_was_never_seen_is_named() -> None:
    with pytest.raises(MicrogptError, match="'é' is not in the vocabulary"):
        xray(ORIGINAL, "rené", vocab=VOCAB)


@settings(max_examples=8, deadline=None)
@given(st.text("abcxyz", max_size=30))
def test_any_text_of_the_vocabulary_even_empty_or_too_long(doc: str) -> None:
    record = xray(ORIGINAL, doc, vocab=VOCAB, most=8, siblings=2)
    assert record["error"] is None
    assert record["tokens"] == ["\n", *doc][:16]


def test_recording_leaves_the_program_unchanged() -> None:
    """The same training, with and without an x-ray between its steps, gives the same losses."""

    def losses(look: bool) -> list[float]:
        params = gpt.init(random.Random(5), len(VOCAB), n_embd=8, n_head=2)
        steps = gpt.train(params, ["anna", "bo", "li"], VOCAB, steps=6)
        found = []
        for _ in range(6):
            if look:
                xray(ORIGINAL, "anna", vocab=VOCAB, params=params, most=4, siblings=1)
            found.append(next(steps))
        return found

    assert losses(True) == losses(False)
