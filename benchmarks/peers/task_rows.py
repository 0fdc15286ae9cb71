"""The rows of the task comparisons: the same for every system, written out and tokenised once.

A system of ours gets ``raw`` (JSON lines, or folders of pictures); a peer gets ``encoded``, token
ids and labels or paths and classes, so that its tokenising is not measured. What is tokenised, and
where the loss is read, is what Holdfast itself makes of the rows.
"""

from __future__ import annotations

import gzip
import itertools
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.seeds import generator
from holdfast.duplicates.duplicates import find_duplicates
from peers.rows import data_folder

SIDES = ("train", "valid", "test")
LENGTH, TARGET_LENGTH = 256, 64
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TaskParts:
    """The rows of each side, as read (``raw``) and as a peer gets them (``encoded``)."""

    raw: Mapping[str, Sequence[Row]]
    encoded: Mapping[str, Sequence[Row]]

    @property
    def tokens_a_row(self) -> float | None:
        """Tokens of a mean training row, source and target; none for pictures."""
        rows = self.encoded["train"]
        if "input_ids" not in rows[0]:
            return None
        return float(np.mean([len(r["input_ids"]) + r.get("own_labels", 0) for r in rows]))


def summaries(model: Path, sizes: Sequence[int], seed: int) -> TaskParts:
    """Dialogues and their summaries, without the white space around these, as Holdfast reads a
    target."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [
        {"source": row["dialogue"], "target": row["summary"].strip()}
        for row in _lines("samsum/train.jsonl.gz", 3 * sum(sizes) + 500)
    ]
    raw = divided(rows, [row["source"] for row in rows], sizes, seed)

    def encoded(row: Row) -> Row:
        ids = tokenizer(row["source"], truncation=True, max_length=LENGTH)["input_ids"]
        labels = tokenizer(text_target=row["target"], truncation=True, max_length=TARGET_LENGTH)
        return {
            "input_ids": ids,
            "labels": labels["input_ids"],
            "own_labels": len(labels["input_ids"]),
        }

    return TaskParts(raw, {side: [encoded(row) for row in raw[side]] for side in SIDES})


def instructions(model: Path, sizes: Sequence[int], seed: int) -> TaskParts:
    """Instructions with their answers, of those whose whole chat has at most 256 tokens; of the
    labels the answers alone count."""
    rows = [
        {key: row[key] for key in ("instruction", "input", "output")}
        for row in _lines("instructions/train.jsonl.gz", 4210)
    ]
    asked = [f"{row['instruction']}\n{row['input']}" for row in rows]
    return language_parts(rows, asked, model, sizes, seed)


def dialogues(model: Path, sizes: Sequence[int], seed: int) -> TaskParts:
    """Dialogues with their summaries as instructions."""
    rows = [
        {
            "instruction": "Summarize the dialogue in one or two sentences.",
            "input": row["dialogue"],
            "output": row["summary"].strip(),
        }
        for row in _lines("samsum/train.jsonl.gz", 3 * sum(sizes) + 500)
    ]
    return language_parts(rows, [row["input"] for row in rows], model, sizes, seed)


def novel(model: Path, sizes: Sequence[int], seed: int) -> TaskParts:
    """Passages of one novel, 110 words each, as plain text."""
    path = data_folder() / "corpus" / "novels_train.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as text:
        words = text.read(600_000).split()
    rows = [{"text": " ".join(words[at : at + 110])} for at in range(5000, len(words) - 110, 110)]
    return language_parts(rows, [row["text"] for row in rows], model, sizes, seed)


def language_parts(
    rows: Sequence[Row], texts: Sequence[str], model: Path, sizes: Sequence[int], seed: int
) -> TaskParts:
    """Rows of whole chats of at most 256 tokens, as read and as Holdfast tokenises them, and
    general passages as it tokenises them."""
    chats = _chats(rows, model)
    short = [place for place, chat in enumerate(chats) if chat and len(chat["input_ids"]) <= LENGTH]
    kept = [{"raw": rows[place], "chat": chats[place]} for place in short]
    both = divided(kept, [texts[place] for place in short], sizes, seed)
    from holdfast.data.texts.general import passages

    general = _chats([{"text": text} for text in passages()], model)
    encoded = {side: [row["chat"] for row in both[side]] for side in SIDES}
    return TaskParts(
        {side: [row["raw"] for row in both[side]] for side in SIDES},
        {**encoded, "general": [row for row in general if row]},
    )


def _chats(rows: Sequence[Row], model: Path) -> list[Row | None]:
    """Each row as Holdfast tokenises it; ``None`` where it keeps nothing of it."""
    from transformers import AutoTokenizer

    from holdfast.data.chats.chat import form_of, load_chats
    from holdfast.data.chats.turns import choose_template
    from holdfast.tasks.lm.losses import encode

    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as name:
        table = load_chats(write_lines(Path(name) / "rows.jsonl", rows))
        tokenizer.chat_template, _ = choose_template(tokenizer, form_of(table), None)
        coded = encode(table, tokenizer, 4096)
    found: list[Row | None] = [None] * len(rows)
    for place, row in enumerate(coded.rows):
        piece = slice(coded.offsets[place], coded.offsets[place + 1])
        ids, own = coded.ids[piece].tolist(), coded.targets[piece]
        found[int(row)] = {
            "input_ids": ids,
            "completion_mask": own.astype(int).tolist(),
            "labels": np.where(own, coded.ids[piece], -100).tolist(),
        }
    return found


def pictures(model: Path, sizes: Sequence[int], seed: int) -> TaskParts:
    """Small photographs of ten classes (of two, where rows are few), unpacked once into the
    temporary folder."""
    folder = Path(tempfile.gettempdir()) / "holdfast-bench-cifar10"
    packed = zipfile.ZipFile(data_folder() / "cifar10" / "cifar10.zip")
    names = [name for name in packed.namelist() if name.endswith(".jpg")]
    rows = [
        {"path": str(folder / name), "label": name.split("/")[-2], "name": name} for name in names
    ]
    if sum(sizes) < 200:
        rows = [row for row in rows if row["label"] in ("cat", "ship")]
    raw = divided(rows, None, sizes, seed)
    for row in itertools.chain.from_iterable(raw.values()):
        if not Path(row["path"]).exists():
            packed.extract(row["name"], folder)
    return TaskParts(raw, raw)


def divided(
    rows: Sequence[Row], texts: Sequence[str] | None, sizes: Sequence[int], seed: int
) -> dict[str, list[Row]]:
    """Train, validation and test rows by seed. One row of each group of copies is left; the test
    rows come from a part of the rows that never trains, another piece of it for every seed."""
    order = generator(0, "benchmark", "tasks").permutation(len(rows))
    if texts is not None:
        groups = find_duplicates([texts[place] for place in order]).groups
        order = order[np.sort(np.unique(groups, return_index=True)[1])]
    train, valid, test = sizes
    pool = len(order) // 4
    start = (seed * test) % max(1, pool - test + 1)
    rest = order[pool:][generator(seed, "benchmark", "rows").permutation(len(order) - pool)]
    places = {
        "train": rest[:train],
        "valid": rest[train : train + valid],
        "test": order[start : start + test],
    }
    return {side: [rows[place] for place in places[side]] for side in SIDES}


def write_lines(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _lines(name: str, count: int) -> Iterator[dict[str, Any]]:
    with gzip.open(data_folder() / name, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in itertools.islice(lines, count))


MAKERS = {
    "summaries": summaries,
    "instructions": instructions,
    "pictures": pictures,
    "dialogues": dialogues,
    "novel": novel,
}
