"""The rows of ``benchmarks/forgetting.py``: what is tuned on, and what may be forgotten."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path

import numpy as np
from make_base_models import data_folder

from forgetting_parts.base import unseen_paragraphs

# Where the novels of the file that the base never saw begin, in lines: two by Blackmore, two by
# Doyle, one by Trollope.
DOYLE, TROLLOPE = 5268, 25825
NOVELIST_ROWS, INSTRUCTION_ROWS, TEST_ROWS = 640, 640, 150
LEAST = 200  # characters of a paragraph: a line of dialogue tells little
REPLAYED, PROBED, GENERAL_TEST = 500, 60, 150


@functools.cache
def _novels() -> dict[str, list[str]]:
    """Paragraphs of the three held-out authors."""
    with gzip.open(data_folder() / "novels_val.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    cuts = {
        "blackmore": (0, DOYLE - 1),
        "doyle": (DOYLE - 1, TROLLOPE - 1),
        "trollope": (TROLLOPE - 1, None),
    }
    return {
        name: [
            " ".join(part.split())
            for part in "\n".join(lines[first:last]).split("\n\n")
            if len(part) >= LEAST
        ]
        for name, (first, last) in cuts.items()
    }


def _drawn(texts: list[str], count: int, seed: int) -> list[str]:
    order = np.random.default_rng((seed, len(texts))).permutation(len(texts))
    return [texts[i] for i in order[:count]]


def general(folder: Path) -> dict[str, Path]:
    """Files of general rows: ``replay``, the ``probe`` and the ``test`` rows that no run sees. The
    first are of the authors that the base knows, the others of two that nobody trains on."""
    known = [text for text in unseen_paragraphs() if len(text) >= LEAST]
    novels = _novels()
    held = _drawn(novels["blackmore"] + novels["trollope"], PROBED + GENERAL_TEST, 0)
    lots = {"replay": _drawn(known, REPLAYED, 0), "probe": held[:PROBED], "test": held[PROBED:]}
    return {name: _text_file(folder / f"{name}.txt", texts) for name, texts in lots.items()}


def own(task: str, folder: Path, seed: int) -> tuple[Path, int]:
    """The file of a task's rows, and how many of its last are test rows."""
    if task == "novelist":
        texts = _drawn(_novels()["doyle"], NOVELIST_ROWS + TEST_ROWS, seed)
        return _text_file(folder / "novelist.txt", texts), TEST_ROWS
    path = data_folder().parent / "instructions" / "train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line for line in map(str.strip, file) if line]
    kept = [
        one
        for one in lines
        if len(json.loads(one)["instruction"]) + len(json.loads(one)["input"]) < 300
    ]
    out = folder / "instructions.jsonl"
    out.write_text("\n".join(_drawn(kept, INSTRUCTION_ROWS + TEST_ROWS, seed)) + "\n", "utf-8")
    return out, TEST_ROWS


def _text_file(path: Path, texts: list[str]) -> Path:
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path
