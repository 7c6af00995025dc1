"""Write the fixtures of the story page: real runs of the file and of edits of it, x-rayed.

    python web/src/views/demo/fixtures.py FOLDER

FOLDER then holds one JSON file for each story. Nothing in them is typed by hand.
"""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from microgpt import source as file
from microgpt.xray import finite, xray

FILE = Path(file.__file__).with_name("gpt.py").read_text(encoding="utf-8")
NAMES = Path(file.__file__).with_name("data") / "names.txt"

EDITS: dict[str, list[tuple[str, str]]] = {
    "heads8": [("n_head=4", "n_head=8")],
    "layers2": [("n_layer=1", "n_layer=2")],
    "noresidual": [
        ("x = x + attention(h, **head)", "x = attention(h, **head)"), ("x = x + mlp", "x = mlp"),
    ],
    "nomask": [("softmax(scores + future)", "softmax(scores)")],
    "square": [("(x @ fc).relu()", "(x @ fc) ** 2")],
    "tied": [("norm(x) @ lm_head", "norm(x) @ wte.transpose(-2, -1)")],
    "block": [
        ("    for block in blocks:\n", "    for block in blocks:\n        x = layer(x, **block)\n"),
        ("        h = norm(x)\n        for head in block[\"heads\"]:\n", ""),
        ("            x = x + attention(h, **head)\n", ""),
        ("        x = x + mlp(norm(x), block[\"fc\"], block[\"proj\"])\n", ""),
        ("def gpt(", "def layer(x, fc, proj, heads):\n    h = norm(x)\n    for head in heads:\n"
         "        x = x + attention(h, **head)\n    return x + mlp(norm(x), fc, proj)\n\ndef gpt("),
    ],
    "error": [("weights @ v @ wo", "weights @ k.transpose(-2, -1) @ wo")],
    "nan": [("softmax(scores + future)", "softmax(future + -math.inf)")],
}  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = NAMES.read_text(encoding="utf-8").split()
    random.Random(42).shuffle(names)
    namespace = file.execute(FILE)
    vocab = namespace["vocabulary"](names)
    params = namespace["init"](random.Random(42), len(vocab))
    for _ in namespace["train"](params, names, vocab):
        pass

    def write(name: str, source: str, doc: str, weights: object) -> None:
        start = 999 if weights else 0
        record = xray(source, doc, vocab=vocab, params=weights, start=start, most=60)
        text = json.dumps(finite({"source": source, "xray": record}), allow_nan=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        tensors, values = len(record["tensors"]), len(record["values"])
        print(f"{name:12}{tensors:5} tensors{values:6} values{len(text):9} bytes")

    write("anna", FILE, "anna", params)
    write("long", FILE, "maximiliana", params)
    write("single", FILE, "a", params)
    for name, edits in EDITS.items():
        source = FILE
        for old, new in edits:
            assert old in source, (name, old)
            source = source.replace(old, new)
        fresh = name in ("heads8", "layers2", "tied")
        write(name, source, "anna", None if fresh else params)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
