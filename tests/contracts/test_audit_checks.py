"""What every audit check promises, found by discovery."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from PIL import Image

import holdfast.quality.checks as room
from holdfast.core.seeds import generator
from holdfast.data.memory.texts import table_from_texts
from holdfast.duplicates.duplicates import combine_tables
from holdfast.duplicates.loose_duplicates import find_loose_duplicates
from holdfast.duplicates.words import RowTexts
from holdfast.quality.check import CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.views import (
    Embedded,
    Images,
    ImageSample,
    TableCopies,
    TableRows,
    ThoroughRows,
    Tokenized,
)


def pictures(table) -> Images:
    """A picture of each text: equal texts, equal pictures."""
    folder, paths = Path(mkdtemp()), []
    for at, text in enumerate(TableRows(table).texts):
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{at}.png")
        paths.append(str(folder / f"{at}.png"))
    return Images(TableRows(table), paths, lambda at: Image.open(paths[at]).convert("RGB"))


def copied(table) -> TableCopies:
    """Beside a file of other sentences, which holds some of the messy table's too."""
    other = table_from_texts(["quite another sentence stands in this file"] * 3, source="other")
    if len(table) > 310:
        other = table_from_texts([*other.column("text"), *table.column("text")[:40]])
    gathered = combine_tables(table, {"other": other}, 0)
    loose = find_loose_duplicates(RowTexts(*gathered.tables.values()))
    return TableCopies(TableRows(table), gathered, loose_copies=loose)


def embedded(table) -> Embedded:
    """In the geometry of a toy: each word a random direction, its own wherever it stands."""

    def embed(texts):
        found = np.array([sum(direction(word) for word in (*text.split(), "")) for text in texts])
        unit = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
        # A direction that no word has: that of the references.
        return np.pad(unit, ((0, 0), (0, 1)))

    rows = TableRows(table)
    own = embed(rows.texts)
    other = own[:30] * np.float32(0.1) + np.eye(25, dtype=np.float32)[24]
    known = dict.fromkeys(("general", "filler"), other)
    return Embedded(rows, own, "toy", embed, references=known)


@functools.cache
def direction(word: str):
    return generator(0, "direction", word).standard_normal(24)


def tokenized(table) -> Tokenized:
    words = np.array([len(text.split()) for text in table.column("text")])
    return Tokenized(TableRows(table), words + 2, np.zeros_like(words), words, 20, "a model")


# How a view of each kind is made of a table.
VIEWS = {
    TableRows: TableRows,
    ThoroughRows: lambda table: ThoroughRows(TableRows(table)),
    TableCopies: copied,
    Embedded: embedded,
    Tokenized: tokenized,
    Images: pictures,
    ImageSample: lambda table: ImageSample(TableRows(table), pictures(table).open),
}
ALL = [name for name, check in all_checks().items() if check.view_type in VIEWS]


def seen(name: str, table) -> CheckResult | None:
    check = all_checks()[name]
    return check(VIEWS[check.view_type](table)) if check.applies_to(table) else None


def clean(n: int = 300):
    """Sentences of common words with a faint hint of the class: nothing to report."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(400)])
    hints = [words[:40], words[40:80]]
    texts = [
        " ".join([*rng.choice(words, rng.integers(8, 16)), *rng.choice(hints[i % 2], 2)])
        for i in range(n)
    ]
    return table_from_texts(texts, [("no", "yes")[i % 2] for i in range(n)])


def messy():
    """One of everything: copies with other labels, marks, numbers, a thin and a big class."""
    texts = (
        ["the same words again and again"] * 6
        + ["1 2 3", "!!!", "x"]
        + [f"SECRET this one is number {i} of the good ones" for i in range(60)]
        + [f"that one is number {i} of the rest" for i in range(300)]
    )
    labels = ["a", "b"] * 3 + ["a", "b", "a"] + ["a"] * 60 + ["b"] * 300
    return table_from_texts([*texts, "odd one", "odd two", "odd three"], [*labels, *["B "] * 3])


def test_every_file_of_the_room_registers_a_check() -> None:
    files = {path.stem for path in Path(room.__file__).parent.rglob("*.py")} - {"__init__"}
    used = {check.run.__module__.rsplit(".", 1)[1] for check in all_checks().values()}
    assert files == used


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_it_is_silent_on_clean_rows(name: str) -> None:
    assert seen(name, clean()) is None


@pytest.mark.parametrize("name", ALL)
def test_it_survives_a_handful_of_rows(name: str) -> None:
    for n in [3, 4, 10]:
        texts = [f"text number {i} stands here" for i in range(n)]
        table = table_from_texts(texts, [("no", "yes")[i % 2] for i in range(n)], rare_below=1)
        found = seen(name, table)
        assert found is None or found.finding.count <= n


@pytest.mark.parametrize("name", ALL)
def test_what_it_finds_is_whole(name: str) -> None:
    table = messy()
    found = seen(name, table)
    if found is None:
        return
    finding = found.finding
    assert finding.check == name
    assert all(example.note for example in found.examples)
    assert finding.severity in ("info", "warn", "error")
    assert 0 <= finding.score <= 1
    assert finding.count >= 1
    assert set(finding.rows) <= {int(row) for row in table.column("row")}
    assert finding.because
    assert finding.remedy
    json.dumps(finding.to_json(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_twice_is_the_same(name: str) -> None:
    assert seen(name, messy()) == seen(name, messy())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_the_table_is_left_as_it_was(name: str) -> None:
    table = messy()
    before = table.rows.to_list()
    seen(name, table)
    assert table.rows.to_list() == before


@pytest.mark.parametrize("name", list(all_checks()))
def test_it_says_what_it_cannot_see_and_how_often_it_is_wrong(name: str) -> None:
    check = all_checks()[name]
    assert check.name == name
    assert check.cannot_see.endswith(".")
    assert check.error_rate.endswith(".")
