"""How well the file learns each generated task: exact match on prompts that it never saw.

    python benchmarks/tasks.py                        # every task, seeds 0 and 1
    python benchmarks/tasks.py sort recall --seeds 5  # these tasks, seeds 0 to 4
    python benchmarks/tasks.py --without-attention --seeds 1

The file is trained with its default sizes on the training side of the split, with the settings
that the data set names. Then it answers every held-out prompt greedily (the likeliest token each
time), and an answer counts only when every character is right and the document ends there.
`--without-attention` does the same with one line of the file edited. A line is printed for each
run as it ends, and `--json FILE` keeps everything, after every run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from microgpt.data import DATASETS, Corpus, load, split  # noqa: E402

LINE = "x = x + attention(h, **head)"


def program(attention: bool) -> dict[str, Any]:
    """The file's functions, as they are or with the line of attention edited out."""
    source = (ROOT / "microgpt" / "gpt.py").read_text(encoding="utf-8")
    if source.count(LINE) != 1:
        sys.exit(f"The file no longer holds {LINE!r} once: this benchmark edits that line.")
    namespace: dict[str, Any] = {"__name__": "benchmarked"}
    exec(source if attention else source.replace(LINE, "x = x"), namespace)
    return namespace


def greedy(file: dict[str, Any], params: Any, vocab: list[str], text: str) -> str:
    """A text continued by the likeliest token each time, until it ends or fills the context."""
    question = text
    while not text.endswith("\n") and len(text) < params["wpe"].shape[0]:
        scores = file["gpt"](file["encode"](text, vocab)[:-1], **params).data[-1]
        text += vocab[scores.index(max(scores))]
    return text[len(question) :]


def run(
    corpus: Corpus, seed: int, attention: bool, steps: int, batch: int, lr: float
) -> dict[str, Any]:
    """Train once and answer every held-out prompt; what was measured, as plain data."""
    file = program(attention)
    learn, held_out = split(corpus.docs)
    rng, docs = random.Random(seed), list(learn)
    rng.shuffle(docs)
    vocab = file["vocabulary"](corpus.docs)
    params = file["init"](rng, len(vocab))
    started = time.process_time()
    losses = list(file["train"](params, docs, vocab, steps=steps, batch=batch, lr=lr))
    seconds = time.process_time() - started
    wrong = []
    for doc in held_out:
        given = greedy(file, params, vocab, corpus.question(doc))
        if given != corpus.answer(doc) + "\n":
            wrong.append([corpus.question(doc), corpus.answer(doc), given])
    return {
        "task": corpus.name,
        "attention": attention,
        "seed": seed,
        "accuracy": 1 - len(wrong) / len(held_out),
        "prompts": len(held_out),
        "train_docs": len(docs),
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "cpu_seconds": round(seconds, 1),
        "loss_of_last_100_steps": sum(losses[-100:]) / len(losses[-100:]),
        "wrong": wrong[:5],  # question, right answer, answer given
    }


def main() -> None:
    tasks = [name for name, about in DATASETS.items() if about["separator"]]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="task", help=f"of {', '.join(tasks)}")
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0 (default 2)")
    parser.add_argument("--steps", type=int, help="instead of what the data set names")
    parser.add_argument("--batch", type=int, help="documents a step, instead of the same")
    parser.add_argument("--lr", type=float, default=0.01, help="the learning rate (default 0.01)")
    parser.add_argument("--without-attention", action="store_true", help="edit that line out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(tasks):
        parser.error(f"no such task: {', '.join(sorted(unknown))} (of {', '.join(tasks)})")
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/tasks.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "runs": [],
    }
    print(f"Python {report['python']}, {report['machine']}, {report['date']}")
    print("task      attention  seed  exact match  prompts  steps  batch     lr  CPU seconds")
    for seed in range(given.seeds):
        for name in given.tasks or tasks:
            corpus, about = load(name), DATASETS[name]
            steps, batch = given.steps or about["steps"], given.batch or about["batch"]
            result = run(corpus, seed, not given.without_attention, steps, batch, given.lr)
            report["runs"].append(result)
            print(
                f"{name:9} {'yes' if result['attention'] else 'no':>9}  {seed:4}"
                f"  {result['accuracy']:10.1%}  {result['prompts']:7}  {steps:5}  {batch:5}"
                f"  {given.lr:5}  {result['cpu_seconds']:11}",
                flush=True,
            )
            if given.json:
                draft = given.json.with_suffix(".part")
                draft.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                draft.replace(given.json)


if __name__ == "__main__":
    main()
