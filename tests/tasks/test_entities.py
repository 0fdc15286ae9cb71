"""Entity counts against seqeval's default mode, which reads tags as conlleval does."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

from holdfast.tasks.rates import f1_of
from holdfast.tasks.tags.entities import TagTable, entity_counts, spans_of

IOB = ["O", "B-A", "I-A", "B-BB", "I-BB"]
BIOES = [*IOB, "E-A", "S-A", "E-BB", "S-BB"]
BARE = ["O", "B", "I"]


def flat(sentences: list[list[str]], names: list[str]) -> np.ndarray:
    return np.array([names.index(tag) for line in sentences for tag in line], dtype=np.int64)


def random_sentences(names: list[str], seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Truth and answers of any tags in any order, half of the answers right."""
    rng = np.random.default_rng(seed)
    truth, answers = [], []
    for size in rng.integers(1, 9, size=40):
        line = rng.choice(names, size)
        other = np.where(rng.random(size) < 0.5, line, rng.choice(names, size))
        truth.append(line.tolist())
        answers.append(other.tolist())
    return truth, answers


@pytest.mark.parametrize("names", [IOB, BIOES, BARE, [*BARE, "E", "S"]])
def test_counts_are_seqevals_on_any_order_of_tags(names: list[str]) -> None:
    for seed in range(25):
        truth, answers = random_sentences(names, seed)
        table = TagTable.of(names)
        sizes = np.array([len(line) for line in truth])
        counts = entity_counts(flat(truth, names), flat(answers, names), sizes, table)
        found, said, real = counts.reshape(len(truth), 3, -1).sum(axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(truth, answers, output_dict=True)
            whole = [f(truth, answers) for f in (precision_score, recall_score, f1_score)]
        sums = found.sum(), said.sum(), real.sum()
        assert [sums[0] / sums[1], sums[0] / sums[2], float(f1_of(*map(np.asarray, sums)))] == (
            pytest.approx(whole)
        )
        for place, entity in enumerate(table.entities):
            assert real[place] == report[entity]["support"]
            assert f1_of(found, said, real)[place] == pytest.approx(report[entity]["f1-score"])


def test_counts_belong_to_their_sentence_and_no_entity_crosses_its_end() -> None:
    truth = [["O", "B-A"], ["I-A", "O"], ["B-A", "I-A"]]
    answers = [["O", "B-A"], ["O", "O"], ["B-A", "O"]]
    table = TagTable.of(IOB)
    counts = entity_counts(flat(truth, IOB), flat(answers, IOB), np.array([2, 2, 2]), table)
    # Columns: found A, BB; predicted A, BB; labelled A, BB.
    assert counts.tolist() == [[1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0]]


def test_bilou_is_read_as_bioes() -> None:
    tags = [["U-A", "B-A", "I-A", "L-A", "U-A", "O", "U-A", "U-A"]]
    names = sorted({tag for line in tags for tag in line})
    spans = spans_of(flat(tags, names), np.array([8]), TagTable.of(names))
    assert list(zip(spans.first, spans.last, strict=True)) == [
        (0, 0),
        (1, 3),
        (4, 4),
        (6, 6),
        (7, 7),
    ]


def test_tags_without_prefixes_make_an_entity_of_each_run() -> None:
    tags = [["PER", "PER", "LOC", "O", "PER"], ["PER", "O"]]
    names = ["O", "LOC", "PER"]
    spans = spans_of(flat(tags, names), np.array([5, 2]), TagTable.of(names))
    assert list(zip(spans.first, spans.last, spans.types, strict=True)) == [
        (0, 1, 1),
        (2, 2, 0),
        (4, 4, 1),
        (5, 5, 1),
    ]


def test_without_entities_f1_is_undefined() -> None:
    zero = np.zeros(1)
    assert np.isnan(f1_of(zero, zero, zero)[0])
    assert f1_of(zero, np.ones(1), zero)[0] == 0
