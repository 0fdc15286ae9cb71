"""Faults of public data sets that are known are found, against the files read another way."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from holdfast.analyses.audit.audit import Audit
from holdfast.api.commands import audit

LEXICAL = {"audit.rows": 0}


def texts(path: Path, column: str = "text") -> list[str]:
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line)[column] for line in lines]
    with path.open(encoding="utf-8", newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def repeats(found: list[str]) -> int:
    return len(found) - len(set(found))


def check(found: Audit, here: list[str], others: dict[Path, list[str]]) -> None:
    """Every equal pair of texts, found by comparing strings, is in a group or a leak."""
    group = {row: n for n, rows in enumerate(found.duplicate_groups) for row in rows}
    first: dict[str, int] = {}
    for row, text in enumerate(here):
        assert first.setdefault(text, row) == row or group[first[text]] == group[row]
    for path, there in others.items():
        leaked = {k.other_row for k in found.leaks if k.other_file == str(path)}
        assert {row for row, text in enumerate(there) if text in first} <= leaked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "column", "within", "between"),
    [
        ("trec/train.csv", "text", 71, {"trec/test.csv": 10}),
        ("banking77/train.csv", "text", 4, {"banking77/test.csv": 6}),
        ("cr/cr.csv", "text", 9, {}),
        (
            "samsum/train.jsonl.gz",
            "dialogue",
            318,
            {"samsum/test.jsonl.gz": 21, "samsum/val.jsonl.gz": 26},
        ),
    ],
    ids=["trec", "banking77", "cr", "samsum"],
)
def test_the_known_faults_of_a_set_are_found(
    shared_data: Path, name: str, column: str, within: int, between: dict[str, int]
) -> None:
    others = {shared_data / other: texts(shared_data / other, column) for other in between}
    here = texts(shared_data / name, column)
    assert repeats(here) == within
    known = [len({*here} & {*there}) for there in others.values()]
    assert known == list(between.values())
    found = audit(shared_data / name, against=list(others), settings=LEXICAL)
    check(found, here, others)
    told = {finding.check: finding for finding in found.findings}
    assert sum(len(group) - 1 for group in found.duplicate_groups) >= within
    # Of CR's, four rows have no text at all.
    empty = max(0, here.count("") - 1)
    assert f"{within - empty} of them character" in told["exact_duplicates"].because
    for path, there in others.items():
        held = Counter(text in set(here) for text in there)[True]
        if held:
            assert f"of {path}" in told["leaks"].because
            assert f"{held} of them character" in told["leaks"].because
