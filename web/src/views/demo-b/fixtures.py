"""Runs the file and writes fixtures.json for the story page: every number on it is computed here.

python web/src/views/demo-b/fixtures.py
"""

from __future__ import annotations

import datetime
import hashlib
import html.entities
import json
import math
import platform
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = next(p / "microgpt/gpt.py" for p in HERE.parents if (p / "microgpt/gpt.py").exists())
SOURCE = FILE.read_text(encoding="utf-8")
NAMES = (FILE.parent / "data/names.txt").read_text(encoding="utf-8").split()


def plain(x: Any) -> Any:
    if isinstance(x, float) and not math.isfinite(x):
        return "nan" if x != x else "inf" if x > 0 else "-inf"
    if isinstance(x, float):
        return round(x, 5)
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return [plain(v) for v in x] if isinstance(x, (list, tuple)) else x


def split(docs: list[str]) -> tuple[list[str], list[str]]:
    held = {d for d in docs if hashlib.sha256(d.encode()).digest()[0] < 13}
    return [d for d in docs if d not in held], [d for d in docs if d in held]


def project(rows: list[list[float]], before: list[list[float]]) -> tuple[Any, Any, Any]:
    """The two directions of largest spread, by power iteration; signs follow the last picture."""
    means = [sum(c) / len(rows) for c in zip(*rows, strict=True)]
    x = [[a - m for a, m in zip(r, means, strict=True)] for r in rows]
    total = sum(a * a for r in x for a in r)
    axes: list[list[float]] = []
    shares: list[float] = []
    for k in range(2):
        v = before[k] if before else [random.Random(k).gauss(0, 1) for _ in means]
        size = 0.0
        for _ in range(300):
            for a in axes:
                d = sum(p * q for p, q in zip(a, v, strict=True))
                v = [q - d * p for p, q in zip(a, v, strict=True)]
            s = [sum(p * q for p, q in zip(r, v, strict=True)) for r in x]
            v = [sum(a * b for a, b in zip(s, c, strict=True)) for c in zip(*x, strict=True)]
            size = math.sqrt(sum(a * a for a in v))
            v = [a / size for a in v]
        axes.append(v)
        shares.append(size / total)
    points = [[sum(p * q for p, q in zip(r, a, strict=True)) for a in axes] for r in x]
    return points, shares, axes


class Story:
    def __init__(
        self,
        docs: list[str],
        data: str,
        seed: int = 42,
        sizes: dict[str, int] | None = None,
        **train: Any,
    ):
        self.ns: dict[str, Any] = {"__name__": "gpt"}
        exec(compile(SOURCE, "gpt.py", "exec"), self.ns)
        rng = random.Random(seed)
        self.known = set(docs)
        self.train, self.held = split(docs)
        order = list(self.train)
        rng.shuffle(order)
        self.vocab = self.ns["vocabulary"](docs)
        self.params = self.ns["init"](rng, len(self.vocab), **(sizes or {}))
        self.steps = train.get("steps", 1000)
        self.generator = self.ns["train"](self.params, order, self.vocab, **train)
        self.axes: list[list[float]] = []
        self.out: dict[str, Any] = {
            "run": {
                "parameters": sum(w.shape[0] * w.shape[1] for w in self.ns["leaves"](self.params)),
                "train_docs": len(self.train),
                "held_out_docs": len(self.held),
                "vocab": self.vocab,
                "step": 0,
                "steps": self.steps,
                "batch": train.get("batch", 1),
                "lr": train.get("lr", 0.01),
                "baseline": math.log(len(self.vocab)),
                "data": data,
                "seed": seed,
            },
            "losses": [],
            "held_out": [],
            "samples": [],
            "peeks": [],
        }

    def measure(self, step: int, limit: int = 60) -> None:
        ns, total, count = self.ns, 0.0, 0
        for doc in self.held[:limit]:
            ids = ns["encode"](doc, self.vocab)[: self.params["wpe"].shape[0] + 1]
            for row, t in zip(
                ns["softmax"](ns["gpt"](ids[:-1], **self.params)).data, ids[1:], strict=True
            ):
                total, count = total - math.log(row[t] + 1e-30), count + 1
        self.out["held_out"].append({"step": step, "held_out": total / count})

    def samples(self, step: int, n: int = 8) -> None:
        rng = random.Random(7)
        texts = [
            list(self.ns["sample"](self.params, self.vocab, rng))[-1].strip("\n") for _ in range(n)
        ]
        self.out["samples"].append(
            {"step": step, "texts": texts, "known": [t in self.known for t in texts]}
        )

    def peek(self, step: int, doc: str) -> None:
        ns, seen = self.ns, []
        softmax = ns["softmax"]

        def watched(x: Any) -> Any:
            y = softmax(x)
            seen.append(y.data)
            return y

        ns["softmax"] = watched
        ids = ns["encode"](doc, self.vocab)[:-1]
        ns["gpt"](ids, **self.params)
        ns["softmax"] = softmax
        heads = len(self.params["blocks"][0]["heads"])
        points, shares, self.axes = project(self.params["wte"].data, self.axes)
        self.out["peeks"].append(
            {
                "step": step,
                "tokens": [self.vocab[i] for i in ids],
                "attention": [
                    {"layer": i // heads, "head": i % heads, "weights": w}
                    for i, w in enumerate(seen)
                ],
                "embeddings": [
                    {"name": "wte", "labels": self.vocab, "rows": self.params["wte"].data}
                ],
                "projection": {
                    "name": "wte",
                    "labels": self.vocab,
                    "points": points,
                    "explained": shares,
                },
            }
        )

    def go(self, until: int, every: int, doc: str) -> Story:
        for step in range(until + 1):
            if step:
                loss = next(self.generator)
                self.out["losses"].append({"step": step, "loss": loss})
                self.out["run"]["step"] = step
                if not math.isfinite(loss):
                    break
            if step % every == 0:
                self.samples(step)
                self.peek(step, doc)
            if step % (every // 2 or 1) == 0:
                self.measure(step)
        return self

    def sampling(self, prefix: str, temperature: float, seed: int) -> list[dict[str, Any]]:
        steps = [{"text": prefix, "char": None, "probs": None, "vocab": self.vocab, "done": False}]
        limit = self.params["wpe"].shape[0]
        draw = self.ns["sample"](
            self.params, self.vocab, random.Random(seed), max(temperature, 1e-9), prefix
        )
        for text in draw:
            steps.append(
                {
                    "text": text,
                    "char": text[-1],
                    "probs": draw.gi_frame.f_locals["probs"],
                    "vocab": self.vocab,
                    "done": text.endswith("\n") or len(text) >= limit,
                }
            )
        return steps


def main() -> None:
    names = Story(NAMES, "names").go(1000, 100, "anna")
    stories: dict[str, Any] = {
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "names": names.out,
        "sampling": names.sampling("", 0.8, 3),
        "greedy": names.sampling("jo", 0.0, 1),
        "hot": names.sampling("", 2.0, 5),
        "others": [[names.sampling("", 0.8, s), 0.8, s] for s in range(20, 26)],
    }
    deep = Story(NAMES, "names", sizes={"n_layer": 3, "n_head": 8, "n_embd": 32}, steps=20000)
    stories["deep"] = deep.go(60, 20, "maximilianamaria"[:15]).out
    stories["diverged"] = Story(NAMES, "names", lr=300.0).go(60, 20, "anna").out
    odd = [f"{k}{v}" for k, v in html.entities.html5.items()]
    wide = Story(odd, "\n".join(odd[:200]), steps=100).go(12, 4, "<b>&amp;</b>")
    stories["wide"], stories["wide_sampling"] = wide.out, wide.sampling("<b>", 1.0, 1)
    text = json.dumps(plain(stories), ensure_ascii=False)
    (HERE / "fixtures.json").write_text(text, encoding="utf-8")
    print(len(text), "bytes;", names.out["held_out"][-1], names.out["samples"][-1])


if __name__ == "__main__":
    main()
