"""Smaller forms of one model: what shows in the time of an answer, and what a search keeps.

    python benchmarks/capacity.py                # everything
    python benchmarks/capacity.py --minutes 5    # start no new cell after this time

*Forms*: a plain BERT of MiniLM's shape (six blocks and the one that carries mean pooling), random
weights, 32 rows of 16 tokens one at a time: fewer blocks, fewer neurons a block, fewer heads.

*Search*: ``holdfast tune --set search=capacity`` on so many rows beside ``holdfast train`` of the
whole model on the same rows and division; 600 other rows score both.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cells import Cell, grid, run_cells
from claims import Claim, Lines, average, number, pick, table
from peers.script import options, results_path

NAME = "capacity"
FORMS = {
    "whole": {},
    "3 of 6 blocks": {"num_hidden_layers": 4},
    "2 of 6 blocks": {"num_hidden_layers": 3},
    "half the neurons": {"intermediate_size": 768},
    "half the heads": {"num_attention_heads": 6},
    "4 of 6 blocks, half the neurons": {"num_hidden_layers": 5, "intermediate_size": 768},
}
ROWS = {"trec": 240, "cr": 240, "banking77": 400}
TEST = 600


def forms(cell: Cell) -> dict[str, Any]:
    """How long each plain model takes for a row: the forms in turn, each row's quickest pass."""
    import torch

    models = {name: made(given) for name, given in FORMS.items()}
    rows = [torch.randint(1000, 30000, (1, 16)) for _ in range(16)]
    best = {name: [float("inf")] * len(rows) for name in models}
    with torch.inference_mode():
        for _, (place, row), (name, model) in itertools.product(
            range(20), enumerate(rows), models.items()
        ):
            start = time.perf_counter()
            model(input_ids=row)
            best[name][place] = min(best[name][place], time.perf_counter() - start)
    return {name: 1000 * sum(seconds) / len(rows) for name, seconds in best.items()}


def made(given: dict[str, int]) -> Any:
    """A plain BERT of MiniLM's shape but for what is ``given``; heads go with their width."""
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.models.bert.modeling_bert import BertAttention

    shape: dict[str, Any] = {
        "num_hidden_layers": 7,
        "intermediate_size": 1536,
        "num_attention_heads": 12,
        **given,
    }
    heads = shape.pop("num_attention_heads")
    config = BertConfig(vocab_size=30522, hidden_size=384, num_attention_heads=12, **shape)
    model = BertForSequenceClassification(config).eval()
    for module in model.modules() if heads < 12 else ():
        if isinstance(module, BertAttention):
            narrow(module, heads)
    return model


def narrow(attention: Any, heads: int) -> None:
    """Keep the first heads of an attention, in its matrices too."""
    from torch import nn

    own = attention.self
    width = heads * own.attention_head_size
    for name in ("query", "key", "value"):
        layer = getattr(own, name)
        setattr(own, name, nn.Linear(layer.in_features, width))
    own.num_attention_heads, own.all_head_size = heads, width
    attention.output.dense = nn.Linear(width, attention.output.dense.out_features)


def rows_of(name: str, seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    folder = Path(os.environ["HOLDFAST_DATA"]) / name
    found = folder / ("cr.csv" if name == "cr" else "train.csv")
    with found.open(encoding="utf-8", newline="") as file:
        pool = list(csv.DictReader(file))
    random.Random(99).shuffle(pool)
    test, pool = pool[:TEST], pool[TEST:]
    random.Random(seed).shuffle(pool)
    return pool[: ROWS[name]], test


def search(cell: Cell) -> dict[str, Any]:
    """A search, and the whole model beside it, on the same rows."""
    train, test = rows_of(cell["data"], cell["seed"])
    kept = Path(tempfile.gettempdir()) / f"capacity-{cell['data']}-{cell['seed']}"
    kept.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        with (kept / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    result: dict[str, Any] = {}
    for name, how in (("whole", ["train"]), ("search", ["tune", "--set", "search=capacity"])):
        out, start = kept / name, time.perf_counter()
        # A killed benchmark goes on where the run was.
        resume = ["--resume"] if (out / "checkpoints").exists() else []
        if not (out / "report.html").exists():
            command, *more = how
            holdfast(
                *[command, str(kept / "train.csv"), "--test", str(kept / "test.csv"), *more],
                *["--out", str(out), "--seed", str(cell["seed"]), "--quiet", *resume],
            )
        block = json.loads((out / "result.json").read_text("utf-8"))
        result[f"{name} s"] = block["timing"]["total_s"]
        result[f"{name} accuracy"] = block["test"]["metrics"]["accuracy"]["value"]
        result[f"{name} last s"] = time.perf_counter() - start
    found = block["capacity"]
    chosen = next(one for one in found["sizes"] if one["key"] == found["chosen"])
    result |= {"answer": found["answer"], "because": found["because"], "kept": chosen["name"]}
    return {**result, "speed": chosen["speed"], "fits": sum(s["tried"] for s in found["sizes"]) * 3}


def holdfast(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("holdfast")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def main() -> None:
    asked = options(__doc__ or "").parse_args()
    path = results_path(NAME, asked.threads, asked.quick)
    todo = grid(part=["forms"]) if asked.quick else cells()
    parts = {"forms": forms, "search": search}
    run_cells(NAME, todo, lambda cell: parts[cell["part"]](cell), path, minutes=asked.minutes)


def cells() -> list[dict[str, Any]]:
    return grid(part=["forms"]) + grid(part=["search"], data=list(ROWS), seed=range(2))


def finding(lines: Lines) -> str:
    forms = next(iter(pick(lines, part="forms")), None)
    searches = pick(lines, part="search")
    parts = []
    if forms:
        times = forms["3 of 6 blocks"] / forms["whole"]
        parts.append(f"A model of 3 of 6 blocks takes {times:.2f} times the time of the whole.")
    if searches:
        lost = [100 * (one["search accuracy"] - one["whole accuracy"]) for one in searches]
        low, high = number(min(lost), sign=True), number(max(lost), sign=True)
        parts.append(
            f"The model that the search keeps is {low} to {high} points of test accuracy from the "
            f"whole model ({len(searches)} runs)."
        )
    return " ".join(parts)


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "How large a model must be",
    """\
Smaller forms of MiniLM: milliseconds a row on one thread, with random weights; and the search for
the smallest model that is as good (`search=capacity`) on 240 or 400 labelled rows, next to the
whole model on the same rows. 600 other rows score both.""",
    cells,
    finding,
    [
        table(
            {},
            {name: average(name, 1, 2, limits=False) for name in FORMS},
            "Milliseconds a row:",
            part="forms",
        ),
        table(
            {"data": "Data", "seed": "Seed", "kept": "Kept"},
            {
                "Speed, times": average("speed", 1, 2, limits=False),
                "Accuracy of the kept model, %": average("search accuracy", 100, limits=False),
                "of the whole model": average("whole accuracy", 100, limits=False),
                "Search, s": average("search s", 1, 0, limits=False),
                "Training of the whole model, s": average("whole s", 1, 0, limits=False),
            },
            "The search:",
            part="search",
        ),
    ],
    "One draw of rows a seed; both scores are of the same 600 rows.",
)


if __name__ == "__main__":
    main()
