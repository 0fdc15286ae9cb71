"""Scores of tagged sentences: against seqeval, and resampled by sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest
from seqeval.metrics import f1_score, precision_score, recall_score

from holdfast.core.records import Outputs
from holdfast.stats.temperature import losses_at
from holdfast.tasks.tags.scores import TagOutputs, hardest_sentences, score_tags, take_sentences

NAMES = ("O", "B-X", "I-X", "B-Y", "I-Y")


def made(
    truth: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    groups: Sequence[str] | None = None,
    unread: Sequence[tuple[int, int]] = (),
) -> TagOutputs:
    """Outputs of a model that is 0.8 sure of each answer; ``unread`` words (row, word) are not
    read."""
    counts = np.array([len(line) for line in truth])
    labels, said = (np.concatenate([np.array(x) for x in xs]) for xs in (truth, answers))
    begins = np.cumsum(counts) - counts
    read = np.ones(len(labels), dtype=bool)
    for row, word in unread:
        read[begins[row] + word] = False
    chances = np.full((len(labels), len(NAMES)), 0.05)
    chances[np.arange(len(labels)), said] = 0.8
    logits = np.log(chances[read]).astype(np.float32)
    each = losses_at(logits, labels[read], 1.0)
    sentence = np.repeat(np.arange(len(counts)), counts)[read]
    size = np.bincount(sentence, minlength=len(counts))
    with np.errstate(invalid="ignore"):
        losses = np.bincount(sentence, each, len(counts)) / size
    kept = np.asarray(groups, dtype=object) if groups is not None else None
    units = sentence.astype(str).astype(object) if kept is None else kept[sentence]
    words = Outputs(sentence, labels[read], logits, each, units)
    sure = np.where(read, 0.8, np.nan)
    return TagOutputs(np.arange(len(counts)), counts, labels, said, sure, losses, words, kept)


def random(seed: int, n: int = 60) -> tuple[list[list[int]], list[list[int]]]:
    rng = np.random.default_rng(seed)
    truth = [rng.integers(0, 5, size).tolist() for size in rng.integers(1, 9, n)]
    answers = [
        [tag if rng.random() < 0.7 else int(rng.integers(0, 5)) for tag in line] for line in truth
    ]
    return truth, answers


def spelled(lines: Sequence[Sequence[int]]) -> list[list[str]]:
    return [[NAMES[tag] for tag in line] for line in lines]


@pytest.mark.parametrize("seed", range(4))
def test_the_averages_are_seqevals(seed: int) -> None:
    truth, answers = random(seed)
    found = score_tags(made(truth, answers), NAMES, resamples=50).metrics
    for name, function in (
        ("entity_f1", f1_score),
        ("entity_precision", precision_score),
        ("entity_recall", recall_score),
    ):
        assert found[name].value == pytest.approx(function(spelled(truth), spelled(answers)))
    assert found["loss"].value is not None


def test_the_interval_is_that_of_sentences_drawn_again() -> None:
    """A bootstrap written out: sentences drawn with replacement, F1 of all their entities."""
    truth, answers = random(7, 80)
    found = score_tags(made(truth, answers), NAMES).metrics["entity_f1"]
    rng = np.random.default_rng(1)
    real, said = spelled(truth), spelled(answers)
    draws = []
    for _ in range(400):
        rows = rng.integers(0, len(real), len(real))
        draws.append(f1_score([real[i] for i in rows], [said[i] for i in rows]))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_sentences_that_repeat_widen_no_interval_by_their_words() -> None:
    """The same sentences as ten groups: the interval is that of ten units, not of hundreds of
    words."""
    truth, answers = random(3, 10)
    groups = [f"g{i % 10}" for i in range(100)]
    alone = score_tags(made(truth * 10, answers * 10), NAMES).metrics["entity_f1"]
    grouped = score_tags(made(truth * 10, answers * 10, groups), NAMES).metrics["entity_f1"]
    assert grouped.value == alone.value
    assert grouped.high is not None
    assert alone.high is not None
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_without_entities_f1_says_why_it_is_undefined() -> None:
    found = score_tags(made([[0, 0], [0]], [[0, 0], [0]]), NAMES).metrics
    assert found["entity_f1"].value is None
    assert "no entity" in str(found["entity_f1"].why)
    assert found["accuracy"].value == 1
    one_side = score_tags(made([[1, 0], [0]], [[0, 0], [0]]), NAMES).metrics
    assert [one_side[f"entity_{name}"].value for name in ("f1", "precision", "recall")] == [0, 0, 0]
    empty = score_tags(made([[0]], [[0]]), NAMES)
    nothing = score_tags(take_sentences(made([[0]], [[0]]), np.array([], dtype=np.int64)), NAMES)
    assert (empty.n, nothing.n) == (1, 0)
    assert nothing.metrics["entity_f1"].why == "there are no rows"


def test_words_that_are_not_read_count_in_scores_and_in_no_loss() -> None:
    truth, answers = [[0, 1, 2], [1]], [[0, 0, 0], [0]]
    outputs = made(truth, answers, unread=[(0, 1), (0, 2), (1, 0)])
    scores = score_tags(outputs, NAMES)
    assert scores.metrics["accuracy"].value == pytest.approx(1 / 4)
    assert scores.metrics["loss"].value == pytest.approx(-np.log(0.8), rel=1e-5)
    assert (scores.extra["words"], scores.extra["unread_words"]) == (4, 3)
    assert np.isnan(outputs.confidence[1])


def test_some_sentences_are_scored_as_if_they_were_all() -> None:
    truth, answers = random(5, 20)
    outputs = made(truth, answers, unread=[(4, 0), (9, 0)])
    chosen = np.array([9, 2, 4])
    some = take_sentences(outputs, chosen)
    places = [(0, 0), (2, 0)]
    fresh = made([truth[i] for i in chosen], [answers[i] for i in chosen], unread=places)
    assert score_tags(some, NAMES).metrics == score_tags(fresh, NAMES).metrics


def test_words_are_confused_by_type_whatever_their_prefix() -> None:
    scores = score_tags(made([[1, 2, 0, 3]], [[2, 1, 3, 0]]), NAMES)
    assert scores.extra["confusion"] == {
        "classes": ["X", "Y", "no entity"],
        "counts": [[2, 0, 0], [0, 0, 1], [0, 1, 0]],
    }


def test_the_hardest_sentences_show_which_words_are_wrong() -> None:
    words = [["in", "new", "york"], ["ann", "ran"], ["it", "rained"]]
    outputs = made([[0, 1, 2], [3, 0], [0, 0]], [[0, 1, 0], [3, 0], [0, 0]])
    found = hardest_sentences(outputs, words, NAMES)
    first = found["loss"][0]
    assert first["text"] == "in new [york]"
    assert (first["label"], first["prediction"]) == ("new york (X)", "new (X)")
    assert [row["row"] for row in found["confidently_wrong"]] == [0]
    assert {row["label"] for row in found["loss"]} == {"new york (X)", "ann (Y)", "no entity"}


def test_a_perfect_tagger_has_a_limit_by_the_sentences_that_hold_entities() -> None:
    truth = [[1, 2, 0]] * 10 + [[0, 0, 0]] * 23
    found = score_tags(made(truth, truth), NAMES).metrics["entity_f1"]
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(binomtest(10, 10).proportion_ci(method="exact").low)
    assert "Clopper" in str(found.note)
