"""The walk's instruments against other ways to the same numbers: PyTorch, finite differences, a
real run, sums that must be one."""

from __future__ import annotations

import base64
import json
import math
import random
from typing import Any

import pytest

from microgpt import bridge, checkpoint, source
from microgpt.errors import MicrogptError
from microgpt.lessons import instruments
from microgpt.lessons.instruments import Models, answer
from microgpt.run import Run
from microgpt.xray import finite, thin, xray

Plain = dict[str, Any]
TEXTS = ["anna", "", "z", "otto", "abcdefghijklmnop"]
STEPS = 80


@pytest.fixture(scope="module")
def models() -> Models:
    trained = Run(steps=STEPS)
    while not trained.done:
        trained.advance()
    return Models(Run(), trained)


def ask(models: Models, name: str, **arguments: Any) -> Plain:
    return answer(models, name, arguments)


def near(a: Any, b: Any, tolerance: float = 1e-9) -> bool:
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(near(x, y, tolerance) for x, y in zip(a, b))
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def torch_model(models: Models, model: str) -> tuple[Any, Any, list[Any]]:
    """torch, the weights of a model as torch tensors in float64, and the same in a row."""
    torch = pytest.importorskip("torch")
    run = models.run(model)
    row: list[Any] = []

    def copy(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: copy(part) for name, part in tree.items()}
        if isinstance(tree, list):
            return [copy(part) for part in tree]
        row.append(torch.tensor([list(r) for r in tree.data], dtype=torch.float64))
        return row[-1].requires_grad_()

    return torch, copy(run.params), row


def torch_loss(torch: Any, gpt: Any, params: Any, text: str, vocab: list[str]) -> Any:
    ids = gpt.encode(text, vocab)[: params["wpe"].shape[0] + 1]
    logits = gpt.gpt(ids[:-1], **params)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))


# ---- Tokens and values ----


def test_tokens_are_those_of_the_file(models: Models, gpt: Any, names: list[str]) -> None:
    vocab = gpt.vocabulary(names)
    for text in TEXTS:
        found = ask(models, "tokens", text=text)
        assert found["ids"] == gpt.encode(text, vocab) and found["vocab"] == vocab
        assert "".join(found["tokens"]) == f"\n{text}\n" and found["strange"] is None
    assert ask(models, "tokens", text="Anna!")["strange"] == "A"
    assert ask(models, "tokens", text="a\nb") == {
        "text": "a\nb", "tokens": [], "ids": [], "vocab": vocab, "strange": "\n",
    }  # fmt: skip


def test_a_matrix_is_the_value_that_the_name_means(models: Models, gpt: Any) -> None:
    run = models.run("trained")
    for path, weight in run.named_weights().items():
        found = ask(models, "matrix", value=path)
        assert found["rows"] == [list(row) for row in weight.data] and found["function"] == "init"
        assert found["code"] and found["shape"] == list(weight.shape)
    head = run.params["blocks"][0]["heads"]
    h = ask(models, "matrix", value="gpt.h")["rows"]
    for number in range(4):
        q = ask(models, "matrix", value=f"attention.q {number + 1}")
        expected = gpt.matmul(h, head[number]["wq"].data)
        assert near(q["rows"], expected) and q["shape"] == [5, 4]
        assert q["code"].startswith("q, k, v = ") and q["line"] == source.anchor(
            source.ORIGINAL, "attention", q["code"]
        )
        assert q["rowLabels"] == ["\n", "a", "n", "n", "a"] and q["columnLabels"] is None
        assert q["dimensions"] == ["tokens", "channels of a head"]
    assert ask(models, "matrix", value="attention.q 1") | {"value": ""} == ask(
        models, "matrix", value="attention.q"
    ) | {"value": ""}
    weights = ask(models, "matrix")
    assert (
        weights["columnLabels"] == weights["rowLabels"] and weights["dimensions"] == ["tokens"] * 2
    )
    assert ask(models, "matrix", value="wte")["rowLabels"] == run.vocab
    assert ask(models, "matrix", value="wpe")["rowLabels"] == [str(i) for i in range(16)]
    assert ask(models, "matrix", value="lm_head")["columnLabels"] == run.vocab
    for name in ("softmax.e 1", "softmax.return"):
        assert ask(models, "matrix", value=name)["columnLabels"] == weights["rowLabels"]
    assert ask(models, "matrix", value="softmax.e 5")["columnLabels"] == run.vocab
    assert ask(models, "matrix", value="gpt.return")["columnLabels"] == run.vocab
    assert ask(models, "matrix", value="adam.c1")["shape"] == [1, 1]


def test_a_matrix_has_its_place_in_the_pages_own_xray(models: Models) -> None:
    """The walk through the cells goes on in the recording that the bridge's xray gives."""
    run = models.run("first")
    record = xray(
        run.source, "anna", vocab=run.vocab, params=run.params, moments=run.moments,
        most=bridge.MOST, siblings=bridge.SIBLINGS,
    )  # fmt: skip
    for value in ("attention.weights 3", "gpt.x 2", "wte", "blocks.0.heads.1.wk", "train.loss"):
        found = ask(models, "matrix", model="first", value=value)
        tensor = record["tensors"][found["tensor"]]
        assert tensor["data"] == found["rows"] and tensor["grad"] == found["grad"]
    whole = ask(models, "xray", text="anna", model="first")
    assert whole["tensors"] == record["tensors"]


def test_gradients_of_every_weight_are_those_of_pytorch(models: Models, gpt: Any) -> None:
    for model in ("first", "trained"):
        torch, params, row = torch_model(models, model)
        vocab = models.first.vocab
        loss = torch_loss(torch, gpt, params, "anna", vocab)
        grads = torch.autograd.grad(loss, row)
        paths = models.run(model).named_weights()
        order = {
            step["name"]: step for step in ask(models, "backward", model=model)["order"]
        }  # fmt: skip
        assert near(ask(models, "backward", model=model)["loss"], loss.item())
        for weight, grad in zip(row, grads):
            path = next(p for p, w in paths.items() if w.data == weight.tolist())
            assert near(ask(models, "matrix", model=model, value=path)["grad"], grad.tolist())
            assert near(order[path]["grad"], grad.tolist())
            assert near(order[path]["size"], grad.square().mean().sqrt().item())


# ---- An expression ----


@pytest.mark.parametrize(
    "text",
    [
        "a * b + c", "(a * b + c).relu()", "a * b + a", "(a - b) / c", "a ** 3 * b", "a @ b",
        "(a * 0.5).exp() - (b ** 2).log()", "a", "2 + a * -3", "(a * a * a + a) * (a + c) * a",
        "((a * b).exp() / ((a * b).exp() + 1)).log()",
    ],
)  # fmt: skip
def test_an_expression_agrees_with_pytorch(models: Models, text: str) -> None:
    torch = pytest.importorskip("torch")
    values = {"a": 1.5, "b": 0.75, "c": -2.0}
    found = ask(models, "expression", text=text, values=values)
    leaves = {
        k: torch.tensor([[v]], dtype=torch.float64, requires_grad=True) for k, v in values.items()
    }
    result = eval(text, {}, leaves)
    assert found["error"] is None
    nodes = found["nodes"]
    assert near(nodes[-1]["value"], result.item()) and nodes[-1]["grad"] == 1
    result.backward()
    for node in nodes:
        if node["name"]:
            assert near(node["grad"], leaves[node["name"]].grad.item()), node
            assert node["op"] == "input" and not node["parents"]
    used = {node["name"] for node in nodes}
    assert all(leaf.grad is None for name, leaf in leaves.items() if name not in used)


def test_the_way_back_is_told_as_it_goes(models: Models) -> None:
    found = ask(models, "expression", text="(a * b + c) ** 2 * a")
    nodes = {node["id"]: node for node in found["nodes"]}
    depths = [nodes[step["node"]]["depth"] for step in found["backward"]]
    assert depths == sorted(depths, reverse=True)
    totals: dict[int, float] = {found["nodes"][-1]["id"]: 1.0}
    for step in found["backward"]:
        assert nodes[step["node"]]["grad"] == totals[step["node"]], "all of it has arrived"
        assert [give["parent"] for give in step["gives"]] == nodes[step["node"]]["parents"]
        for give in step["gives"]:
            assert near(give["amount"], give["slope"] * totals[step["node"]])
            totals[give["parent"]] = totals.get(give["parent"], 0.0) + give["amount"]
            assert near(give["total"], totals[give["parent"]])
    assert all(near(totals[i], node["grad"]) for i, node in nodes.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read"), ("a +", "cannot read"), ("a\x00", "cannot"), ("(" * 150, "cannot"),
        ("a" * 300, "longer than"), ("d", "no value called d"), ("1 + 1", "plain numbers"),
        ("3", "at least one"), ("9**9**9*a", "plain number"), ("-a", "sign in front"),
        ("2 - a", "left of"), ("2 / a", "left of"), ("2 ** a", "power must"), ("a @ 2", "Only a"),
        ("a ** b", "power must"), ("a.data", "An expression has"), ("a[0]", "An expression has"),
        ("a.exp(1)", "An expression"), ("exp(a)", "An expression"), ("'a' * a", "An ex"),
        ("a if b else c", "An expression has"), ("a and b", "An expression"), ("a < b", "An expr"),
        ("__import__('os')", "An expression has"), ("(lambda: a)()", "An expression has"),
        ("(c ** 0.5)", "negative number"), ("(a * 0).log()", "logarithm of zero"),
        ("(a - a) ** -1", "divided by zero"), ("(a * 1e6).exp()", "large"), ("a // b", "An ex"),
        ("a * True", "An expression has"), ("a; b", "cannot read"), ("a.relu", "An expression has"),
        ("a.relu + b", "An expression has"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_expression_is_told(models: Models, text: str, words: str) -> None:
    found = ask(models, "expression", text=text)
    assert found["error"] and words in found["error"]
    assert found["nodes"] == [] and found["backward"] == []


# ---- Inside the model ----


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("model", ["first", "trained"])
def test_attention_is_the_softmax_of_the_scores_that_may_be_read(
    models: Models, text: str, model: str
) -> None:
    found = ask(models, "attention", text=text, model=model)
    assert [(h["layer"], h["head"]) for h in found["heads"]] == [(0, i) for i in range(4)]
    for head in found["heads"]:
        for i, (scores, weights) in enumerate(zip(head["scores"], head["weights"], strict=True)):
            exps = [math.exp(s - max(scores[: i + 1])) for s in scores[: i + 1]]
            assert near(weights[: i + 1], [e / sum(exps) for e in exps])
            assert near(sum(weights), 1.0) and set(weights[i + 1 :]) <= {0.0}
            again = ask(
                models, "softmax", scores=[*scores[: i + 1], *["-inf"] * (len(scores) - i - 1)]
            )
            assert near(again["weights"], weights)


def test_softmax_shows_its_steps(models: Models) -> None:
    scores = [3.0, -1.0, 700.0, "-inf", 0.5]
    found = ask(models, "softmax", scores=scores)
    assert found["shifted"] == [-697.0, -701.0, 0.0, -math.inf, -699.5]
    assert near(found["exps"], [math.exp(x) for x in found["shifted"]])
    assert near(sum(found["weights"]), 1.0) and found["weights"][3] == 0


@pytest.mark.parametrize("text", TEXTS)
def test_the_stream_ends_with_the_models_own_probabilities(models: Models, text: str) -> None:
    for model in ("first", "trained"):
        found = ask(models, "stream", text=text, model=model)
        labels = ["token", "+ position", "+ head 1", "+ head 2", "+ head 3", "+ head 4"]
        assert [s["label"] for s in found["stages"]] == [*labels, "+ feed-forward"]
        surprise = ask(models, "surprise", text=text, model=model)
        assert near(found["stages"][-1]["probs"], [p["probs"] for p in surprise["places"]])
        table = models.run(model).params["wte"].data
        ids = ask(models, "tokens", text=text)["ids"][: len(found["tokens"])]
        assert found["stages"][0]["x"] == [list(table[i]) for i in ids]
        for before, stage in zip([None, *found["stages"]], found["stages"]):
            for i, row in enumerate(stage["x"]):
                assert near(sum(stage["probs"][i]), 1.0)
                assert near(stage["size"][i], math.sqrt(sum(x * x for x in row) / len(row)))
                added = [x - y for x, y in zip(row, before["x"][i] if before else [0.0] * len(row))]
                size = math.sqrt(sum(x * x for x in added) / len(added))
                assert near(stage["added"][i], size)


@pytest.mark.parametrize("text", TEXTS)
def test_surprise_is_the_loss_of_pytorch(models: Models, gpt: Any, text: str) -> None:
    for model in ("first", "trained"):
        torch, params, _ = torch_model(models, model)
        loss = torch_loss(torch, gpt, params, text, models.first.vocab).item()
        found = ask(models, "surprise", text=text, model=model)
        assert near(found["loss"], loss) and near(found["choices"], math.exp(loss))
        for i, place in enumerate(found["places"]):
            assert place["after"] == text[:i]
            assert place["next"] == (f"{text}\n")[i]
            assert near(place["surprise"], -math.log(place["prob"]))
            assert near(place["choices"], 1 / place["prob"])
            assert place["prob"] == place["probs"][models.first.vocab.index(place["next"])]
        assert near(sum(p["surprise"] for p in found["places"]) / len(found["places"]), loss)
        assert found["baseline"] == math.log(27)


def test_embeddings_and_how_alike_they_are(models: Models) -> None:
    numpy = pytest.importorskip("numpy")
    for table, size in (("wte", 27), ("wpe", 16)):
        found = ask(models, "neighbours", table=table)
        for model in ("first", "trained"):
            rows = numpy.array(models.run(model).params[table].data)
            units = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
            assert numpy.allclose(found[model], units @ units.T)
        centred = rows - rows.mean(0)
        _, sizes, axes = numpy.linalg.svd(centred, full_matrices=False)
        expected = numpy.abs(centred @ axes[:2].T)
        assert numpy.allclose(numpy.abs(found["points"]), expected, atol=2e-3)
        assert numpy.allclose(found["explained"], (sizes**2 / (sizes**2).sum())[:2], atol=1e-3)
        assert len(found["labels"]) == len(found["points"]) == size


# ---- Gradients and training ----


def test_backward_is_told_in_the_order_in_which_it_happens(models: Models) -> None:
    """The order that the file's own `backward` goes, watched on the graph of a real step."""
    run = models.run("trained")
    n = run.namespace
    done: list[list[list[float]]] = []
    plain = n["backward"]

    def watched(loss: Any) -> None:
        todo, seen = [loss], {id(loss): loss}
        while todo:
            for parent, _ in todo.pop().parents:
                if id(parent) not in seen:
                    seen[id(parent)] = parent
                    todo.append(parent)
        for tensor in seen.values():
            first = True

            def told(parent: Any, back: Any, tensor: Any = tensor) -> Any:
                def along(g: Any) -> Any:
                    nonlocal first
                    if not done or done[-1] is not tensor.data:
                        done.append(tensor.data)
                    return back(g)

                return along

            tensor.parents = tuple((p, told(p, b)) for p, b in tensor.parents)
        plain(loss)

    n["backward"] = watched
    try:
        instruments.one_step(n, run.params, run.vocab, "anna")
    finally:
        n["backward"] = plain
    record = models.record("anna", "trained")
    order = instruments.completed(record)
    results = [record["tensors"][i] for i in order if record["tensors"][i]["parents"]]
    assert [[list(map(float, row)) for row in rows] for rows in done] == [
        t["data"] for t in results
    ]
    complete = {i: place for place, i in enumerate(order)}
    for i, tensor in enumerate(record["tensors"]):
        if i in complete:
            assert all(complete[i] < complete[parent] for parent in tensor["parents"])


def test_backward_shows_what_the_file_names(models: Models) -> None:
    found = ask(models, "backward")
    names = [step["name"] for step in found["order"]]
    assert names[0] == "loss" and names[-1] in ("wte", "wpe")
    assert set(models.first.named_weights()) <= set(names)
    assert not {"targets", "future"} & set(names), "constants have no way back"
    for step in found["order"]:
        flat = [x for row in step["grad"] for x in row]
        assert near(step["size"], math.sqrt(sum(x * x for x in flat) / len(flat)))
        assert step["line"] and step["function"]


def test_a_nudge_really_recomputes_the_loss(models: Models, gpt: Any) -> None:
    chance = random.Random(0)
    for model in ("first", "trained"):
        torch, params, row = torch_model(models, model)
        run = models.run(model)
        kept = [[list(r) for r in w.data] for w in run.named_weights().values()]
        for weight, shape in [(w["name"], w["shape"]) for w in ask(models, "nudge")["weights"]]:
            i, j = chance.randrange(shape[0]), chance.randrange(shape[1])
            found = ask(models, "nudge", model=model, weight=weight, row=i, column=j, by=1e-4)
            tensor = row[list(run.named_weights()).index(weight)]
            sides = []
            for by in (0, 1e-4, -1e-4):
                with torch.no_grad():
                    tensor[i, j] += by
                sides.append(torch_loss(torch, gpt, params, "anna", run.vocab).item())
                with torch.no_grad():
                    tensor[i, j] -= by
            assert near([found["loss"], found["up"], found["down"]], sides, 1e-12)
            assert found["measured"] == (found["up"] - found["down"]) / 2e-4
            assert found["relative"] < 1e-5 or abs(found["gradient"]) < 1e-6
        assert kept == [[list(r) for r in w.data] for w in run.named_weights().values()]
        assert not any(w.grad for w in run.named_weights().values())


def test_a_coarse_nudge_shows_that_a_gradient_is_true_for_small_changes_only(
    models: Models,
) -> None:
    errors = [ask(models, "nudge", by=by)["relative"] for by in (1.0, 0.1, 0.01, 0.001)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 < errors[0]


def test_moments_are_those_of_a_real_run(models: Models) -> None:
    run = Run()
    names = list(run.named_weights())
    for weight, row, column in (("wte", 1, 0), ("blocks.0.heads.2.wv", 3, 1)):
        run = Run()
        found = ask(models, "moments", weight=weight, row=row, column=column, steps=7)
        assert [w["name"] for w in found["weights"]] == names
        tensor, (m, v) = run.named_weights()[weight], (run.moments or [])[names.index(weight)]
        for i, step in enumerate(found["steps"]):
            before = tensor.data[row][column]
            assert step["step"] == i + 1 and step["doc"] == run.train_docs[i]
            assert step["loss"] == run.advance()
            assert (step["m"], step["v"]) == (m[row][column], v[row][column])
            assert step["value"] == tensor.data[row][column]
            assert step["move"] == step["value"] - before
            old = found["steps"][i - 1]["m"] if i else 0.0
            assert near(step["m"], 0.85 * old + 0.15 * step["gradient"])
    assert models.first.step == 0 and not models.first.losses


def test_training_is_a_run_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut to 60 steps; the build does all of them."""
    text = source.set_knob(source.ORIGINAL, "steps", 60)
    found = ask(Models(Run(text)), "training")
    run = Run(text)
    assert [m["step"] for m in found["moments"]] == [0, 1, 3, 7, 12, 19, 27, 36, 47, 60]
    for moment in found["moments"]:
        while run.step < moment["step"]:
            run.advance()
        assert moment["heldOut"] == run.held_out_loss(50)
        assert moment["wte"] == [list(row) for row in run.params["wte"].data]
        texts = run.sample(6, seed=moment["step"])
        assert moment["samples"] == [{"text": t, "known": run.knows(t)} for t in texts]
        assert len(moment["attention"]) == 4 and len(moment["points"]) == 27
        for head in moment["attention"]:
            assert all(near(sum(row), 1.0) for row in head["weights"])
    assert found["losses"] == run.losses and found["tokens"] == ["\n", "a", "n", "n", "a"]


# ---- Sampling and scale ----


def test_temperatures_count_what_is_known(models: Models) -> None:
    run = models.run("trained")
    found = ask(models, "temperatures", temperatures=[0.1, 1.0], n=40, seed=3)
    assert found["n"] == 40 and found["trainDocs"] == len(run.train_docs)
    for row in found["rows"]:
        texts = run.sample(40, temperature=row["temperature"], seed=3)
        assert row["known"] == sum(text in set(run.train_docs) for text in texts)
        assert row["heldOut"] == sum(text in set(run.held_out_docs) for text in texts)
        assert row["read"] == sum(text in run.train_docs[: run.step] for text in texts)
        assert row["distinct"] == len(set(texts))
        assert [example["text"] for example in row["examples"]] == texts[:8]
    alone = ask(models, "temperatures", temperatures=[1.0], n=40, seed=3)
    assert alone["rows"] == found["rows"][1:], "a row does not depend on the others"


def test_writing_is_what_a_run_samples(models: Models) -> None:
    for model, temperature in (("trained", 0.5), ("first", 1.0), ("trained", 0)):
        run = models.run(model)
        found = ask(models, "writing", prefix="a", temperature=temperature, seed=5, model=model)
        steps = list(run.sample_steps("a", temperature, random.Random(5)))
        assert [(s["text"], s["probs"]) for s in found["steps"]] == steps
        text = found["steps"][-1]["text"]
        assert "a" + "".join(s["char"] for s in found["steps"]) == text
        for step in found["steps"]:
            assert near(sum(step["plain"]), 1.0) and near(sum(step["probs"]), 1.0)
            cooled = [p ** (1 / temperature) if temperature else float(p == max(step["plain"]))
                      for p in step["plain"]]  # fmt: skip
            assert near(step["probs"], [c / sum(cooled) for c in cooled], 1e-6)
        assert found["known"] == run.knows(text.strip("\n"))


def test_the_probability_of_the_next_character(models: Models) -> None:
    found = instruments.next_probabilities(models, "ann")
    place = ask(models, "surprise", text="anna")["places"][3]
    assert near(found["a"], place["prob"]) and near(list(found.values()), place["probs"])


def test_the_sizes_of_published_models_give_their_published_parameters(models: Models) -> None:
    """What the papers say: 117M (GPT), 124M and 1558M (GPT-2, as released), 175B (GPT-3)."""
    found = {m["name"]: m for m in ask(models, "scale")["models"]}
    published = {"GPT": 117e6, "GPT-2, small": 124e6, "GPT-2, XL": 1558e6, "GPT-3": 175e9}
    for name, parameters in published.items():
        assert math.isclose(found[name]["parameters"], parameters, rel_tol=0.01), name
        assert found[name]["n_embd"] % found[name]["n_head"] == 0 and found[name]["reference"]
    here = found["This file"]
    weights = models.first.named_weights().values()
    assert here["parameters"] == sum(w.shape[0] * w.shape[1] for w in weights)
    counted = instruments.count_parameters(1, 16, 16, 27)
    assert here["parameters"] == counted and here["n_head"] == 4


# ---- What cannot be asked, and the bridge ----

REFUSED: list[tuple[str, Plain, str]] = [
    ("nonsense", {}, "no instrument called 'nonsense'"),
    ("matrix", {"texts": "anna"}, "takes no 'texts'"),
    ("matrix", {"text": 3}, "text must be a text, not 3"),
    ("matrix", {"text": "Anna"}, "'A' is not in the vocabulary"),
    ("matrix", {"text": "a\n"}, "is not in the vocabulary"),
    ("matrix", {"text": "a" * 17}, "17 characters, and this model reads at most 16"),
    ("matrix", {"model": "best"}, "no model called 'best'"),
    ("matrix", {"value": "attention.foo"}, "no 'foo' in attention; it has:"),
    ("matrix", {"value": "attention.weights 5"}, "has 4 of attention.weights"),
    ("matrix", {"value": "attention.weights 0"}, "has 4 of attention.weights"),
    ("matrix", {"value": "foo"}, "no value called 'foo'"),
    ("matrix", {"value": ""}, "no value called ''"),
    ("matrix", {"value": "train.docs"}, "no matrix of numbers"),
    ("tokens", {"text": "a" * 1000}, "1,000 characters"),
    ("neighbours", {"table": "lm_head"}, "wte or wpe"),
    ("softmax", {"scores": []}, "1 to 64 scores"),
    ("softmax", {"scores": ["-inf", "-inf"]}, "At least one"),
    ("softmax", {"scores": [1, "x"]}, "number or -inf, not 'x'"),
    ("softmax", {"scores": [True]}, "number or -inf"),
    ("softmax", {"scores": 3}, "must be a list"),
    ("nudge", {"weight": "wq"}, "no weight called 'wq'; there are: wte"),
    ("nudge", {"row": 27}, "27 rows and 16 columns"),
    ("nudge", {"column": -1}, "no cell"),
    ("nudge", {"row": 1.5}, "row must be a whole number, not 1.5"),
    ("nudge", {"by": 0}, "nudge must be from"),
    ("nudge", {"by": True}, "must be a number"),
    ("moments", {"steps": 0}, "steps must be from 1 to"),
    ("moments", {"steps": 10**9}, "steps must be from 1 to"),
    ("moments", {"weight": "x"}, "no weight called"),
    ("temperatures", {"n": 0}, "n must be from 1"),
    ("temperatures", {"temperatures": []}, "1 to 8 temperatures"),
    ("temperatures", {"temperatures": [-1]}, "temperature must be from 0"),
    ("temperatures", {"temperatures": ["hot"]}, "list of numbers"),
    ("writing", {"prefix": "É"}, "not in this model's vocabulary"),
    ("writing", {"prefix": "a" * 16}, "shorten it"),
    ("writing", {"temperature": -0.5}, "from 0 to 100"),
    ("expression", {"values": {"a": "x"}}, "numbers by name"),
    ("scale", {"text": "a"}, "takes no 'text'; it takes: no arguments"),
]


@pytest.mark.parametrize(("name", "arguments", "words"), REFUSED)
def test_what_cannot_be_is_refused_in_words(
    models: Models, name: str, arguments: Plain, words: str
) -> None:
    with pytest.raises(MicrogptError) as refusal:
        answer(models, name, arguments)
    assert words in refusal.value.message and refusal.value.message.endswith((".", "z"))


def test_without_a_trained_model_the_first_is_there(models: Models) -> None:
    alone = Models(models.first)
    assert ask(alone, "surprise", model="first") == ask(models, "surprise", model="first")
    with pytest.raises(MicrogptError, match="no trained model here yet"):
        ask(alone, "surprise")


def test_only_the_last_recordings_are_kept(models: Models) -> None:
    for char in "abcdefghijklmnopqrst":
        ask(models, "surprise", text=char)
    assert len(models.records) <= instruments.KEPT
    assert models.record("t", "trained") is models.record("t", "trained")


def call(name: str, /, **arguments: Any) -> Plain:
    found: Plain = json.loads(bridge.call(name, json.dumps(arguments)))
    return found


def test_the_bridge_answers_as_python_does(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_session", bridge.Session())
    assert "no trained model" in call("instrument", name="stream", arguments={})["error"]["message"]
    trained = base64.b64encode(checkpoint.dumps(models.run("trained"))).decode()
    assert call("adopt", base64_text=trained)["ok"]["step"] == STEPS
    for name in instruments.INSTRUMENTS:
        if name == "training":
            continue
        arguments: Plain = {"n": 3} if name == "temperatures" else {}
        full = answer(models, name, arguments)
        found = call("instrument", name=name, arguments=arguments)["ok"]
        expected = full if name in instruments.EXACT else thin(full, 6)
        assert found == json.loads(json.dumps(finite(expected))), name
    check = call("instrument", name="nudge", arguments={"by": 1e-5})["ok"]
    assert abs(check["measured"] - (check["up"] - check["down"]) / 2e-5) < 1e-15
    assert check["relative"] < 1e-6
    wrong = call("instrument", name="stream", arguments={"text": "É"})["error"]
    assert "not in the vocabulary" in wrong["message"] and wrong["kind"] == "user"
    assert "by its name" in call("instrument", name=3, arguments=[])["error"]["message"]
    done = call("exercise", id="squared-relu", source=source.ORIGINAL)["ok"]
    assert done["done"] is False and "not its square" in done["results"][0]["message"]
    assert "no exercise" in call("exercise", id="x", source="")["error"]["message"]


def test_training_on_leaves_the_trained_model_as_it_was(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "_session", bridge.Session())
    run = Run(steps=5)
    for _ in range(3):
        run.advance()
    call("adopt", base64_text=base64.b64encode(checkpoint.dumps(run)).decode())
    before = call("instrument", name="surprise", arguments={})
    assert call("advance", budget_ms=1e6)["ok"]["step"] == 5
    assert call("instrument", name="surprise", arguments={}) == before
    call("start", source=source.ORIGINAL)
    call("advance", max_steps=1)
    assert call("instrument", name="surprise", arguments={}) == before
    assert call("peek", doc="anna")["ok"]["step"] == 1, "and the running one is still there"
