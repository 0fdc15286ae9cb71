"""Sentences with tagged names, places and amounts, made of words: quick to learn, not trivial."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FIRST = [
    "anna",
    "boris",
    "clara",
    "david",
    "elena",
    "farid",
    "greta",
    "hugo",
    "irene",
    "jonas",
    "karin",
    "liam",
    "maria",
    "nora",
    "omar",
]
LAST = [
    "novak",
    "schmidt",
    "tanaka",
    "silva",
    "kowalski",
    "haddad",
    "olsen",
    "moreau",
    "rossi",
    "baker",
    "fischer",
    "costa",
]
PLACES = [
    "paris",
    "new york",
    "lisbon",
    "cape town",
    "oslo",
    "tokyo",
    "buenos aires",
    "cairo",
    "rome",
    "san jose",
]
AMOUNTS = ["three", "forty two", "seven", "a dozen", "twelve", "one hundred"]
FRAMES = (
    "{PER} travelled from {LOC} to {LOC} last week .",
    "in {LOC} , {PER} bought {NUM} books .",
    "{NUM} people asked {PER} about the weather .",
    "nobody in {LOC} had seen {NUM} ships at once .",
    "{PER} and {PER} met again after {NUM} years .",
    "the baker said that the rain would stop .",
    "after lunch {PER} slept , and {LOC} was quiet .",
)

Sentence = tuple[list[str], list[str]]


def sentences(count: int, seed: int = 0) -> list[Sentence]:
    """Words and their IOB2 tags."""
    rng = np.random.default_rng(seed)

    def words_of(entity: str) -> list[str]:
        if entity == "PER":
            both = rng.random() < 0.5
            name = [str(rng.choice(FIRST))]
            return [*name, str(rng.choice(LAST))] if both else name
        return str(rng.choice(PLACES if entity == "LOC" else AMOUNTS)).split()

    made = []
    for _ in range(count):
        words: list[str] = []
        tags: list[str] = []
        for part in str(rng.choice(FRAMES)).split():
            entity = part.strip("{}") if part.startswith("{") else None
            new = words_of(entity) if entity else [part]
            words += new
            tags += [f"{'I' if i else 'B'}-{entity}" if entity else "O" for i in range(len(new))]
        made.append((words, tags))
    return made


def write_conll(path: Path, rows: list[Sentence], mark: str = "\t") -> Path:
    """The sentences as a file of words and tags."""
    blocks = ("".join(f"{w}{mark}{t}\n" for w, t in zip(*row, strict=True)) for row in rows)
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def write_lists(path: Path, rows: list[Sentence], **columns: list[object]) -> Path:
    """The sentences as JSON lines with the lists ``tokens`` and ``tags``."""
    lines = (
        {"tokens": words, "tags": tags, **{name: cells[i] for name, cells in columns.items()}}
        for i, (words, tags) in enumerate(rows)
    )
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path
