"""The real data sets as a user has them: files on disk, and a recipe that names them.

Each maker writes into a folder and gives the recipe's parts beside the model, and the test rows as
plain values for a check that does not use Holdfast.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.seeds import generator
from peers.rows import data_folder

Row = Mapping[str, Any]
SIDES = ("train", "valid", "test")
LONGEST_WORDS = 120


@dataclass(frozen=True)
class Made:
    """``data`` of a recipe, and for the check the test rows in the order of their file; without
    ``test`` the check reads the test rows of the source by their place."""

    data: Mapping[str, Any]
    rows: Sequence[Row]


@dataclass(frozen=True)
class RealSet:
    """A data set, the task and model it is for, and how many rows of it are taken."""

    make: Callable[[Path, Sequence[int]], Made]
    task: str
    model: str
    sizes: tuple[int, int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    killed: bool = False


def ai_text(folder: Path, sizes: Sequence[int]) -> Made:
    """Whole pairs of a human's and a machine's text; Holdfast divides them by pair."""
    text = gzip.decompress((data_folder() / "ai_text" / "paired_texts.csv.gz").read_bytes())
    lines = list(csv.DictReader(io.StringIO(text.decode("utf-8"))))
    pairs = sorted({line["pair_id"] for line in lines})
    kept = set(_drawn(pairs, sum(sizes) // 2))
    rows = [
        {key: line[key] for key in ("text", "label", "pair_id")}
        for line in lines
        if line["pair_id"] in kept
    ]
    path = _write_csv(folder / "ai_text.csv", rows)
    return Made({"path": path, "text": "text", "label": "label", "group": "pair_id"}, rows)


def banking77(folder: Path, sizes: Sequence[int]) -> Made:
    """Questions to a bank, its own test rows."""
    read = {
        side: list(
            csv.DictReader(
                (data_folder() / "banking77" / f"{side}.csv").open(encoding="utf-8", newline="")
            )
        )
        for side in ("train", "test")
    }
    train, test = _drawn(read["train"], sizes[0] + sizes[1]), _drawn(read["test"], sizes[2])
    data = {
        "path": _write_csv(folder / "train.csv", train),
        "text": "text",
        "label": "label",
        "test": _write_csv(folder / "test.csv", test),
    }
    return Made(data, test)


def samsum(folder: Path, sizes: Sequence[int]) -> Made:
    return _pairs(folder, "samsum/{}.jsonl.gz", sizes, {"text": "dialogue", "target": "summary"})


def text2code(folder: Path, sizes: Sequence[int]) -> Made:
    """A question and a table's columns to pandas code."""
    names = {"text": "source", "target": "pandas"}
    return _pairs(folder, "text2code/wikisql_{}.jsonl.gz", sizes, names)


def instructions(folder: Path, sizes: Sequence[int]) -> Made:
    """Questions with their answers, as chats."""
    rows = _lines("instructions/train.jsonl.gz")
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()},
                {"role": "assistant", "content": row["output"]},
            ]
        }
        for row in rows
        if row["output"].strip()
    ]
    made = _parts(folder, _drawn(chats, sum(sizes)), sizes, {"messages": "messages"})
    return Made({**made.data, "template": "plain"}, made.rows)


def corpus(folder: Path, sizes: Sequence[int]) -> Made:
    """Paragraphs of novels whose authors the base model never read."""
    text = gzip.decompress((data_folder() / "corpus" / "novels_val.txt.gz").read_bytes())
    lines = dict.fromkeys(line.strip() for line in text.decode("utf-8").splitlines())
    kept = [line for line in lines if 10 <= len(line.split()) <= LONGEST_WORDS]
    rows = [{"text": line} for line in _drawn(kept, sum(sizes))]
    return _parts(folder, rows, sizes, {"text": "text"})


def cifar10(folder: Path, sizes: Sequence[int]) -> Made:
    return _pictures(folder, "cifar10", sizes)


def mnist(folder: Path, sizes: Sequence[int]) -> Made:
    return _pictures(folder, "mnist", sizes)


def _pictures(folder: Path, name: str, sizes: Sequence[int]) -> Made:
    """Folders by class, the set's own test pictures in another."""
    packed = zipfile.ZipFile(data_folder() / name / f"{name}.zip")
    found: dict[str, list[str]] = {"train": [], "test": []}
    for path in packed.namelist():
        if path.endswith((".jpg", ".png")):
            found[path.split("/")[1]].append(path)
    chosen = [*_drawn(found["train"], sizes[0] + sizes[1]), *_drawn(found["test"], sizes[2])]
    packed.extractall(folder, chosen)
    test = sorted(path for path in chosen if path.split("/")[1] == "test")
    rows = [{"path": str(folder / path), "label": path.split("/")[2]} for path in test]
    return Made({"path": str(folder / name / "train"), "test": str(folder / name / "test")}, rows)


def _pairs(folder: Path, pattern: str, sizes: Sequence[int], names: Mapping[str, str]) -> Made:
    """The set's own three files, some rows of each."""
    sides = zip(SIDES, ("train", "val", "test"), sizes, strict=True)
    rows = {
        side: [_with_source(row) for row in _drawn(_lines(pattern.format(name)), count)]
        for side, name, count in sides
    }
    return _named(folder, rows, names)


def _with_source(row: Row) -> Row:
    if "columns" not in row:
        return row
    return {"source": f"{row['question']} <columns> {', '.join(row['columns'])}", **row}


def _parts(
    folder: Path, rows: Sequence[Row], sizes: Sequence[int], names: Mapping[str, str]
) -> Made:
    edges = np.cumsum([0, *sizes])
    sides = {side: rows[edges[i] : edges[i + 1]] for i, side in enumerate(SIDES)}
    return _named(folder, sides, names)


def _named(folder: Path, rows: Mapping[str, Sequence[Row]], names: Mapping[str, str]) -> Made:
    data: dict[str, Any] = dict(names)
    for side in SIDES:
        path = folder / f"{side}.jsonl"
        lines = (json.dumps({key: row[key] for key in names.values()}) for row in rows[side])
        path.write_text("\n".join(lines), encoding="utf-8")
        data["path" if side == "train" else side] = str(path)
    return Made(
        data, [{key: _read(key, row[name]) for key, name in names.items()} for row in rows["test"]]
    )


def _read(key: str, value: Any) -> Any:
    """Holdfast reads a target without the white space around it, and other texts as they are."""
    return value.strip() if key == "target" else value


def _drawn(rows: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the rows, the same every time."""
    order = generator(0, "end to end").permutation(len(rows))[:count]
    return [rows[place] for place in np.sort(order)]


def _lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(data_folder() / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _write_csv(path: Path, rows: Sequence[Row]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


FAST = {"train.matmul": "default"}
TEXTS = {**FAST, "generate.rows": 8, "model.max_length": 256}
PAIRS = {**TEXTS, "train.learning_rate": 1e-3, "train.epochs": 2}
PICTURES = {**FAST, "train.learning_rate": 2e-3, "methods.probe_first": False}
SETS: dict[str, RealSet] = {
    "ai_text": RealSet(
        ai_text,
        "text-classification",
        "embedded",
        (400, 100, 100),
        {**FAST, "model.max_length": 256, "train.epochs": 2},
    ),
    "banking77": RealSet(
        banking77,
        "text-classification",
        "embedded",
        (1600, 400, 400),
        {**FAST, "train.epochs": 4},
        killed=True,
    ),
    "samsum": RealSet(samsum, "seq2seq", "t5", (600, 100, 200), PAIRS, killed=True),
    "text2code": RealSet(text2code, "seq2seq", "t5", (800, 100, 200), PAIRS),
    "instructions": RealSet(
        instructions,
        "causal-lm",
        "llama",
        (600, 100, 200),
        {**TEXTS, "model.adapter.kind": "lora", "train.learning_rate": 3e-3, "train.epochs": 2},
        killed=True,
    ),
    "corpus": RealSet(
        corpus,
        "causal-lm",
        "llama",
        (800, 100, 200),
        {**TEXTS, "train.learning_rate": 5e-4, "train.epochs": 2},
    ),
    "cifar10": RealSet(
        cifar10,
        "image-classification",
        "resnet",
        (2000, 400, 500),
        {**PICTURES, "train.epochs": 8},
        killed=True,
    ),
    "mnist": RealSet(
        mnist, "image-classification", "resnet", (1200, 300, 500), {**PICTURES, "train.epochs": 5}
    ),
}
