"""Ten sets of nine kinds, cut short: opinions (CR, MR), types of question (TREC), intents
(BANKING77), human or machine (pairs on one side), sections of packages, authors of paragraphs,
tasks that an instruction sets, what a question asks of a table, topics of a doctor's dialogue. And
five on which no default was chosen (``FRESH_SETS``).

Texts are cut to their first words, so that a run takes seconds; the groups of a set (pairs,
sources, novels) never stand on both sides of the division into labelled and test rows.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import Any

import numpy as np

from holdfast.core.seeds import generator
from peers.rows import (
    LEAST,
    Counts,
    Parts,
    Rows,
    clean_set,
    data_folder,
    draw,
    stratified,
    without_copies,
)

# The first words of a text that are kept; on fewer, machines cannot be told from humans.
WORDS, MACHINE_WORDS, NOVEL_WORDS = 20, 48, 36
TEST_ROWS = 600
INTENTS, SECTIONS = 10, 8
AGGREGATE = re.compile("SELECT (COUNT|MAX|MIN|SUM|AVG|)")
NOVELS = {
    "barclay": ("THE ROSARY", "Through the Postern Gate"),
    "bennett": ("Imperial Palace", "Helen with the high hand"),
    "braddon": ("LADY AUDLEY'S SECRET.", "PHANTOM FORTUNE"),
    "eliot": ("FELIX HOLT,", "DANIEL DERONDA"),
}
# Texts that begin alike for so many words are taken for one.
ALIKE_WORDS = 12
# No novel of these is shorter; the first lines are titles, contents and a preface.
NOVEL_LINES = slice(100, 2000)
PLAIN = ("cr", "mr", "trec")
SEVEN = (*PLAIN, "banking77", "ai_text", "packages", "novels")
SETS = (*SEVEN, "instructions", "queries", "clinic")
# Sets on which no default was chosen.
FRESH_SETS = ("essays", "databases", "conditions", "passages", "kinds")
# The fewest and the most labelled rows, for sets that cannot give 50 to 1,600.
ROWS_OF_SET = {
    "banking77": (100, 400),
    "packages": (50, 400),
    "instructions": (100, 1600),
    "queries": (50, 400),
    "clinic": (50, 400),
    "databases": (50, 100),
}
# All intents: many classes, for questions that few classes do not pose.
MANY_CLASSES = "intents"
TASKS, TOPICS = 10, 8
# Three of four questions ask for no aggregate: so many of them are kept.
MOST_OF_CLASS = 600
# Of the fresh sets: words of an essay or a passage, databases, most conditions.
LONG_WORDS, DATABASES, MOST_CONDITIONS = 64, 13, 3
# Sets with fewer test rows than the others.
TESTED = {"databases": 250}
PASSAGES = (
    "A Little Princess",
    "CLARA VAUGHAN",
    "Jane Eyre",
    "NIGHT AND DAY",
    "THE MAN OF PROPERTY",
    "WIVES AND DAUGHTERS.",
)


def parts_of(name: str, labelled: Counts, seed: int, tested: int = TEST_ROWS) -> Parts:
    """Training, validation and test rows; the test rows are the same for every size and seed."""
    if name in PLAIN:
        return draw(cut(clean_set(name)), seed=seed, **labelled, test=slice(0, tested))
    if name in GROUPED:
        return GROUPED[name](labelled, seed, tested)
    return draw(WHOLE[name](), seed=seed, **labelled, pool=min(tested, TESTED.get(name, tested)))


def spare_texts(name: str, parts: Parts, most: int) -> list[str]:
    """Texts of the set that are in none of the ``parts``, in a fixed random order."""
    texts = (cut(clean_set(name)) if name in PLAIN else WHOLE[name]()).texts
    used = {text for side in parts.named().values() for text in side.texts}
    order = generator(0, "benchmark", "spare").permutation(len(texts))
    return [texts[i] for i in order if texts[i] not in used][:most]


def cut(rows: Rows) -> Rows:
    """The first words of each text; texts that are the same by then are left out but for one."""
    return without_copies(Rows(tuple(first_words(text) for text in rows.texts), rows.labels))


def first_words(text: str, count: int = WORDS) -> str:
    return " ".join(text.split()[:count])


@functools.cache
def banking(intents: int = INTENTS) -> Rows:
    """So many intents of 77, drawn once, of the training and the test file."""
    rows = [row for file in ("train.csv", "test.csv") for row in _table(f"banking77/{file}")]
    names = sorted({row["label"] for row in rows})
    order = generator(0, "benchmark", "intents").permutation(len(names))
    chosen = {names[i] for i in order[:intents]}
    found = [(first_words(row["text"]), row["label"]) for row in rows if row["label"] in chosen]
    return without_copies(_rows(found))


@functools.cache
def packages() -> Rows:
    """One package of each source, of the eight largest sections: the demo's table."""
    with (
        files("holdfast.demo").joinpath("packages.csv.gz").open("rb") as file,
        gzip.open(file, "rt", encoding="utf-8", newline="") as lines,
    ):
        one = {row["source"]: row for row in csv.DictReader(lines)}
    largest = {
        name for name, _ in Counter(r["section"] for r in one.values()).most_common(SECTIONS)
    }
    found = [
        (first_words(r["text"]), r["section"]) for r in one.values() if r["section"] in largest
    ]
    return without_copies(_rows(found))


@functools.cache
def instructions() -> Rows:
    """What kind of task an instruction sets: the collection of prompts that it comes from, without
    the name of the template."""
    found = []
    for file in ("train", "val"):
        for row in _objects(f"instructions/{file}.jsonl.gz"):
            collection, _, template = row["source"].partition("/")
            name = template.split("_")[0] if template else collection.removesuffix("_seed")
            found.append((first_words(row["instruction"]), name.removesuffix("_user")))
    return without_copies(_rows(_largest(found, TASKS)))


@functools.cache
def queries() -> Rows:
    """Which aggregate a question about a table needs: COUNT, MAX, MIN, SUM, AVG or none."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file in ("train", "val", "test"):
        for row in _objects(f"text2code/wikisql_{file}.jsonl.gz"):
            asked = AGGREGATE.match(row["sql"])
            name = (asked and asked[1]) or "none"
            found.setdefault(name, []).append((first_words(row["question"]), name))
    return without_copies(_rows([row for rows in found.values() for row in rows[:MOST_OF_CLASS]]))


@functools.cache
def clinic() -> Rows:
    """Which section of the record a doctor's dialogue belongs to."""
    found = [
        (first_words(row["dialogue"], MACHINE_WORDS), row["section"])
        for file in ("train", "val", "test1", "test2")
        for row in _objects(f"mts_dialog/{file}.jsonl.gz")
    ]
    return without_copies(_rows(_largest(found, TOPICS)))


@functools.cache
def essays() -> Rows:
    """Whether a human (one of five) or a machine wrote an essay."""
    found = [
        (first_words(row["text"], LONG_WORDS), row["label"])
        for row in _table("ai_text/essays.csv.gz")
    ]
    return without_copies(_rows(found))


@functools.cache
def databases() -> Rows:
    """Which database a question can be answered from; of those with one answer the first."""
    one = {
        (row["db_id"], row["sql"]): row["question"]
        for row in reversed(list(_objects("text2code/spider_dev.jsonl.gz")))
    }
    found = [(first_words(question), database) for (database, _), question in one.items()]
    return without_copies(_rows(_largest(found, DATABASES)))


@functools.cache
def conditions() -> Rows:
    """How many conditions a question sets: one, two, or three and more."""
    found = [
        (first_words(row["question"]), str(min(MOST_CONDITIONS, 1 + row["sql"].count(" AND "))))
        for row in _objects("text2code/wikisql_train.jsonl.gz")
        if " WHERE " in row["sql"]
    ]
    return without_copies(_rows(found))


@functools.cache
def passages() -> Rows:
    """Which of six novels a paragraph is from."""
    lines = _corpus()
    found = [
        (first_words(line, LONG_WORDS), title)
        for title in PASSAGES
        for line in lines[lines.index(title) :][NOVEL_LINES]
        if len(line.split()) >= LONG_WORDS // 2
    ]
    return without_copies(_rows(found))


@functools.cache
def kinds() -> Rows:
    """Where a human's text is from: stories, news, an encyclopedia, medical abstracts."""
    found = [
        (first_words(row["text"], MACHINE_WORDS), row["domain"])
        for row in _table("ai_text/paired_texts.csv.gz")
        if row["label"] == "human"
    ]
    return without_copies(_rows(found))


def _largest(found: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """The rows of the ``count`` most frequent labels."""
    kept = {label for label, _ in Counter(label for _, label in found).most_common(count)}
    return [(text, label) for text, label in found if label in kept]


def machine_text(labelled: Counts, seed: int, tested: int) -> Parts:
    """Whole pairs on one side: a human text, and a machine's on the same prompt."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for row in _table("ai_text/paired_texts.csv.gz"):
        pairs.setdefault(row["pair_id"], []).append(
            (first_words(row["text"], MACHINE_WORDS), row["label"])
        )
    whole = _without_alike(
        pair for pair in pairs.values() if len({label for _, label in pair}) == 2
    )
    held, rest = _divided(len(whole), tested // 2, seed)
    train, valid = -(-labelled["train"] // 2), -(-labelled["valid"] // 2)
    sides = rest[:train], rest[train : train + valid], held
    return Parts(*(_rows([row for place in side for row in whole[place]]) for side in sides))


def _without_alike(pairs: Iterable[list[tuple[str, str]]]) -> list[list[tuple[str, str]]]:
    """Those that share no text with an earlier pair, by letters and digits of the first words: a
    pair on the other side would say what the label is."""
    seen: set[str] = set()
    kept = []
    for pair in pairs:
        starts = {re.sub(r"\W+", "", first_words(text, ALIKE_WORDS).lower()) for text, _ in pair}
        if not starts & seen:
            kept.append(pair)
        seen |= starts
    return kept


def novels(labelled: Counts, seed: int, tested: int) -> Parts:
    """Paragraphs of four authors: labelled ones from one novel of each, test rows from another."""
    known, held = (without_copies(_rows(_paragraphs(place))) for place in (0, 1))
    order = generator(seed, "benchmark", "rows").permutation(len(known))
    count = labelled["train"] + labelled["valid"]
    chosen = stratified(known, order, count, sum(LEAST.values()))
    valid = stratified(known, chosen, labelled["valid"], LEAST["valid"])
    fixed = generator(0, "benchmark", "pool").permutation(len(held))
    test = stratified(held, fixed, min(tested, len(held)), 1)
    return Parts(known.take(chosen[~np.isin(chosen, valid)]), known.take(valid), held.take(test))


def _paragraphs(place: int) -> list[tuple[str, str]]:
    lines = _corpus()
    found = []
    for author, titles in NOVELS.items():
        start = lines.index(titles[place])
        for line in lines[start:][NOVEL_LINES]:
            if len(line.split()) >= NOVEL_WORDS // 2:
                found.append((first_words(line, NOVEL_WORDS), author))
    return found


@functools.cache
def _corpus() -> list[str]:
    with gzip.open(data_folder() / "corpus" / "novels_train.txt.gz", "rt", encoding="utf-8") as f:
        return [line.strip() for line in f]


def _divided(count: int, held: int, seed: int) -> tuple[Any, Any]:
    order = generator(0, "benchmark", "pool").permutation(count)
    rest = order[held:][generator(seed, "benchmark", "rows").permutation(count - held)]
    return order[:held], rest


def _rows(found: list[tuple[str, str]]) -> Rows:
    kept = [(text, label) for text, label in found if text]
    return Rows(tuple(text for text, _ in kept), tuple(label for _, label in kept))


def _objects(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(data_folder() / name, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _table(name: str) -> Iterator[dict[str, str]]:
    path = data_folder() / name
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


# Drawn row by row, or group by group.
WHOLE: dict[str, Callable[[], Rows]] = {
    "banking77": banking,
    MANY_CLASSES: functools.partial(banking, 77),
    "packages": packages,
    "instructions": instructions,
    "queries": queries,
    "clinic": clinic,
    "essays": essays,
    "databases": databases,
    "conditions": conditions,
    "passages": passages,
    "kinds": kinds,
}
GROUPED: dict[str, Callable[[Counts, int, int], Parts]] = {
    "ai_text": machine_text,
    "novels": novels,
}
