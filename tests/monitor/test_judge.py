"""Histories in, labels out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from holdfast.core.records import Floats, Ints, Snapshot, Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.detectors.progress import better_than_chance
from holdfast.monitor.detectors.rates import nothing_learned
from holdfast.monitor.evidence import Bools
from holdfast.monitor.history import History
from holdfast.monitor.inconclusive import rows_needed
from holdfast.monitor.judge import judge
from holdfast.monitor.limits import RAW_ROSE
from holdfast.stats.temperature import losses_at

CHANCE = float(np.log(2))
FALLING = [CHANCE, 0.55, 0.45, 0.38, 0.33, 0.28]
TABLE = [
    ("learning", FALLING, [CHANCE, 0.58, 0.50, 0.45, 0.41, 0.37]),
    ("learning", [CHANCE, 0.5], [CHANCE, 0.55]),
    ("healthy", [CHANCE, 0.5, 0.40, 0.36, 0.35, 0.35, 0.35], [CHANCE, 0.5, 0.42] + [0.40] * 4),
    ("overfit", [CHANCE, 0.4, 0.3, 0.2, 0.1, 0.05], [CHANCE, 0.45, 0.40, 0.44, 0.52, 0.60]),
    ("overfit", [CHANCE, 0.3, 0.1, 0.02], [CHANCE, 0.40, 0.44, 0.50]),
    ("diverging", [CHANCE, 0.4, 0.9, 1.5], [CHANCE, 0.45, 0.9, 1.5]),
    ("diverging", [CHANCE, 0.3, 0.2, 0.69, 0.69], [CHANCE, 0.4, 0.35, 0.69, 0.69]),
    ("inconclusive", [CHANCE] * 6, [CHANCE] * 6),
]


def planned(looks: int) -> RunFacts:
    return RunFacts(planned_looks=looks)


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
def test_the_table_of_histories(history, label: str, train: list, valid: list) -> None:
    for seed in range(3):
        for known in [True, False]:
            verdict = judge(
                history(train, valid, seed=seed), planned(len(train)) if known else None
            )
            assert verdict.label == label, verdict.because


def test_a_loss_above_its_lowest_is_not_still_falling(history) -> None:
    """As of a language model after three epochs: of so few rows the rise is not significant."""
    train, valid = [1.16, 0.56, 0.50, 0.48], [1.63, 1.364, 1.39, 1.416]
    for seed in range(3):
        seen = history(train, valid, n=40, noise=0.3, seed=seed)
        assert judge(seen[:2]).label == "learning"
        assert judge(seen).label == "inconclusive"


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
def test_every_verdict_is_one_sentence_with_evidence_and_a_confidence(
    history, label, train, valid
) -> None:
    verdict = judge(history(train, valid))
    assert verdict.because.endswith(".")
    assert verdict.because[0].isupper()
    assert 0 <= verdict.confidence <= 1
    assert (verdict.confidence == 0) == (label == "inconclusive")
    assert verdict.evidence


def test_too_few_rows_say_how_many_would_be_needed(history) -> None:
    train, valid = [CHANCE, 0.4, 0.3, 0.25], [CHANCE, 0.50, 0.42, 0.43]
    verdict = judge(history(train, valid, n=15, noise=0.4, seed=3))
    assert verdict.label == "inconclusive"
    assert "validation rows would decide" in verdict.because
    needed = {e.name: e.value for e in verdict.evidence}["validation_rows_needed"]
    assert needed is not None
    assert needed > 15


@pytest.mark.parametrize(
    ("n", "noise", "end", "helps"), [(15, 0.4, 0.43, False), (36, 0.05, 0.41, True)]
)
def test_another_split_is_advised_only_if_it_has_the_rows_that_would_decide(
    history, n, noise, end, helps
) -> None:
    train, valid = [CHANCE, 0.4, 0.3, 0.25], [CHANCE, 0.50, 0.42, end]
    verdict = judge(history(train, valid, n=n, noise=noise, seed=3 * (not helps)))
    assert verdict.label == "inconclusive"
    (needed,) = (e.value for e in verdict.evidence if e.name == "validation_rows_needed")
    assert (n < needed <= n * 25 / 15) == helps
    assert any("data.split.valid=0.25" in remedy.set for remedy in verdict.remedies) == helps


def test_overfit_names_the_step_after_the_best_its_cause_and_runnable_remedies(history) -> None:
    verdict = judge(history(*TABLE[3][1:]))
    assert verdict.since_step == 300
    assert verdict.cause == "trained too long for this much data"
    settings = [line for remedy in verdict.remedies for line in remedy.set]
    assert "train.epochs=2" in settings


def test_a_bad_look_early_is_not_divergence(history) -> None:
    verdict = judge(history([CHANCE, 0.9], [CHANCE, 0.9]))
    assert verdict.label != "diverging" or "validation got worse too" in verdict.because


def test_one_early_peak_that_recovers_is_forgotten(history) -> None:
    verdict = judge(history([CHANCE, 1.0, 0.5, 0.4], [CHANCE, 1.0, 0.55, 0.45]))
    assert verdict.label == "learning"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_snapshots_claim_nothing(history, count: int) -> None:
    verdict = judge(history(FALLING, FALLING)[:count])
    assert verdict.label == "inconclusive"
    assert verdict.confidence == 0
    assert "needs at least 2" in verdict.because


def test_no_validation_rows_claim_nothing(snapshot) -> None:
    empty = [snapshot(i, np.full(20, 1.0 - i / 10), np.zeros(0)) for i in range(4)]
    verdict = judge(empty)
    assert verdict.label == "inconclusive"
    assert "no validation rows" in verdict.because


def test_an_empty_train_probe_still_gives_a_verdict(history, snapshot) -> None:
    full = history(*TABLE[3][1:])
    bare = [snapshot(s.step, np.zeros(0), s.valid_losses) for s in full]
    assert judge(bare).label == "overfit"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_loss_that_is_no_number_is_diverging(snapshot, value: float, part: str) -> None:
    train, valid = np.ones(20), np.ones(20)
    broken = np.where(np.arange(20) == 7, value, 1.0)
    last = snapshot(100, broken, valid) if part == "train" else snapshot(100, train, broken)
    verdict = judge([snapshot(0, train, valid), last])
    assert verdict.label == "diverging"
    assert verdict.since_step == 100


SURER = [0.5, 1, 3, 8, 20]


def test_growing_confidence_alone_is_miscalibration_where_the_answers_hold(classified) -> None:
    verdict = judge(classified(SURER, [0.0, 2.0, 2.0, 2.0, 2.0]))
    assert (verdict.label, verdict.harm) == ("miscalibrated", "certainty"), verdict.because
    assert verdict.since_step == 300
    assert "temperature" in verdict.because


def test_growing_confidence_with_a_wide_gap_is_overfitting_of_certainty_alone(classified) -> None:
    verdict = judge(classified(SURER, [0.0, 1.5, 1.5, 1.5, 1.5]))
    assert (verdict.label, verdict.harm) == ("overfit", "certainty"), verdict.because
    assert "only the predicted probabilities" in verdict.because
    assert "gap 12 points, 95 % CI 9 to 15" in verdict.because


def test_a_gap_that_few_rows_cannot_place_is_told_apart_by_what_was_given_back(classified) -> None:
    """A gap of 11 points whose interval holds 10; the losses rose by much, and by little."""
    much = judge(classified(SURER, [0.0] + [1.6] * 4))
    little = judge(classified([0.5, 1, 2, 3, 4], [0.0] + [1.6] * 4))
    assert much.label == "overfit", much.because
    assert little.label == "inconclusive", little.because
    assert "too few to decide whether its predictions got worse" in little.because
    assert {"validation_rows_needed", "share_of_the_gain_given_back"} <= {
        one.name for one in little.evidence
    }


def test_a_wide_gap_at_the_floor_that_few_rows_cannot_prove_is_not_healthy(classified) -> None:
    verdict = judge(classified([0.5, 1, 2, 3, 4], [0.0] + [1.5] * 4, n=50))
    assert "accuracy is 100 % on training rows and 86 % on validation rows" in verdict.because
    assert verdict.label == "inconclusive"
    assert "would decide" in verdict.because


def test_losing_knowledge_is_overfitting_of_the_answers(classified) -> None:
    verdict = judge(classified([1, 1, 1, 1], [0.0, 1.5, 1.0, 0.7]))
    assert (verdict.label, verdict.harm) == ("overfit", "answers")
    both = judge(classified([1, 1, 8, 20], [0.0, 1.5, 1.0, 0.7]))
    assert (both.label, both.harm) == ("overfit", "both")


def with_answers(snapshots: list, train: list[float], valid: list[float]) -> list:
    """The same histories with these shares of right answers."""
    return [
        dataclasses.replace(
            s,
            train_correct=np.arange(s.train_losses.size) < round(t * s.train_losses.size),
            valid_correct=np.arange(s.valid_losses.size) < round(v * s.valid_losses.size),
        )
        for s, t, v in zip(snapshots, train, valid, strict=True)
    ]


@pytest.mark.parametrize(
    "valid", [[CHANCE, 0.5, 0.45, 0.45, 0.45, 0.45, 0.45], [CHANCE, 0.5, 0.45, 0.52, 0.6, 0.7, 0.8]]
)
@pytest.mark.parametrize("n", [60, 200])
def test_98_percent_in_training_and_75_in_validation_is_overfit_or_memorizing(
    history, valid: list[float], n: int
) -> None:
    """By the metrics alone, whether the loss rises or stays."""
    train = [CHANCE, 0.4, 0.2, 0.1, 0.05, 0.04, 0.03]
    flat = [0.5, 0.7, 0.74, 0.75, 0.75, 0.75, 0.75]
    made = history(train, valid, n=n, m=200, noise=0.05)
    verdict = judge(with_answers(made, [0.5, 0.8, 0.95, *[0.98] * 4], flat))
    assert verdict.label == ("overfit" if valid[-1] > 0.7 else "memorizing"), verdict.because
    assert "accuracy is 98 % on training rows and 75 % on validation rows" in verdict.because
    settings = [line for remedy in verdict.remedies for line in remedy.set]
    assert "train.epochs=12" not in settings


def test_a_rise_that_few_rows_cannot_prove_is_not_denied(history) -> None:
    train = [CHANCE, 0.3, 0.1, 0.05, 0.03, 0.02]
    made = history(train, [CHANCE, 0.5, 0.6, 0.7, 0.6, 0.7], n=12, m=60, noise=0.6)
    verdict = judge(with_answers(made, [0.5, *[1.0] * 5], [0.5] * 6))
    assert verdict.label == "memorizing", verdict.because
    because = verdict.because
    assert "not significant with 12 validation rows (test over all evaluations, p = " in because
    assert "hardly rose" not in because


def test_memory_beside_answers_that_still_gain_blames_no_length_of_training(history) -> None:
    """The loss falls at every look, and training is all right from the third one on."""
    train = [CHANCE, 0.3, 0.08, 0.04, 0.02, 0.01]
    made = history(train, [0.69, 0.66, 0.63, 0.60, 0.57, 0.54], n=200, m=100, noise=0.05)
    right = [0.5, 0.8, *[1.0] * 4]
    verdict = judge(with_answers(made, right, [0.5, 0.6, 0.66, 0.7, 0.72, 0.74]), kept_step=500)
    assert verdict.label == "memorizing", verdict.because
    assert verdict.cause == "too few rows"
    assert verdict.since_step == 200
    assert not any("train.epochs" in s for remedy in verdict.remedies for s in remedy.set)


def test_a_run_that_saved_an_earlier_checkpoint_is_not_advised_to_train_less(history) -> None:
    made = with_answers(history(*TABLE[3][1:]), [0.5, *[1.0] * 5], [0.5, *[0.7] * 5])
    kept = judge(made, kept_step=300)
    assert kept.remedies[0].do.startswith("use the saved model")
    assert not kept.remedies[0].set
    assert kept.remedies[1].do.startswith("if you want to save time")
    assert kept.remedies[1].set == ("train.epochs=3",)
    last = judge(made, kept_step=500)
    assert not any("best checkpoint" in r.do for r in last.remedies)


def test_nothing_healthy_stands_at_the_share_of_the_commonest_class(classified) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.1).astype(int)
    snapshots = []
    for k, scale in enumerate([0.0, 1.5, 2.2, 2.2, 2.2, 2.2]):
        logits = np.stack([np.full(400, scale / 2), np.full(400, -scale / 2)], axis=1)
        logits += rng.normal(size=logits.shape) * 1e-3
        base = classified([1.0], [0.0])[0]
        snapshots.append(
            dataclasses.replace(
                base,
                step=100 * k,
                valid_logits=logits,
                valid_losses=losses_at(logits, labels, 1.0),
                valid_correct=logits.argmax(axis=1) == labels,
                train_losses=np.full(50, 0.3),
                train_correct=np.arange(50) < 45,
            )
        )
    verdict = judge(snapshots)
    assert "no better than the majority class" in verdict.because
    assert verdict.label != "healthy"


@pytest.mark.parametrize(("rows", "label"), [(600, "healthy"), (60, "inconclusive")])
def test_skewed_classes_are_judged_by_the_loss(classified, rows: int, label: str) -> None:
    """With 8 % of one class a good model may have the accuracy of the other class alone."""
    rng = np.random.default_rng(0)
    labels = (np.arange(rows) % 12 == 0).astype(int)
    # The log odds of two normal distributions with a distance of 1.5.
    evidence = 1.5 * (1.5 * labels + rng.normal(size=rows)) - 1.5**2 / 2
    snapshots = []
    for k, scale in enumerate([0.0, 0.5, 1.0, 1.0, 1.0, 1.0]):
        # No row is predicted to be of the rare class.
        margin = np.minimum(scale * evidence + np.log(1 / 11), -0.01)
        logits = np.stack([-margin / 2, margin / 2], axis=1)
        snapshots.append(
            dataclasses.replace(
                classified([1.0], [0.0])[0],
                step=100 * k,
                valid_logits=logits,
                valid_losses=losses_at(logits, labels, 1.0),
                valid_correct=logits.argmax(axis=1) == labels,
                temperature=1.0,
                train_losses=np.full(50, 0.2),
                train_correct=np.arange(50) < 46,
            )
        )
    verdict = judge(snapshots)
    assert verdict.label == label
    assert "no better than the majority class" not in verdict.because
    if label == "inconclusive":
        assert verdict.remedies[0].do == "label more rows"


def answered(
    base: Snapshot, logits: Floats, labels: Ints, correct: Bools, probe: Sequence[tuple[float, int]]
) -> list[Snapshot]:
    """A look for each loss of the train probe and how many of its 60 rows were right; the answers
    to the validation rows stay as they are."""
    return [
        dataclasses.replace(
            base,
            step=100 * look,
            valid_logits=logits,
            valid_losses=losses_at(logits, labels, 1.0),
            valid_correct=correct,
            train_losses=np.full(60, loss),
            train_correct=np.arange(60) < right,
        )
        for look, (loss, right) in enumerate(probe)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_being_as_good_as_a_probe_that_knows_nothing_is_not_healthy(classified, seed: int) -> None:
    """Five classes at random: the model learns its training rows and validation stays at chance,
    now and then a row above the commonest class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(120) % 5)
    logits, base = rng.normal(size=(120, 5)) * 0.1, classified([1.0], [0.0])[0]
    losses = [(1.56, 17), (1.5, 30), (1.4, 35), (1.2, 51)]
    made = answered(base, logits, labels, np.arange(120) < 27, losses)
    probe = RunFacts(probe_valid_losses=losses_at(logits * 0.9, labels, 1.0))
    verdict = judge(made, probe)
    assert verdict.label == "inconclusive"
    assert "better than the class frequencies" in verdict.because


@pytest.mark.parametrize("knows", [True, False])
def test_a_model_of_balanced_rows_knows_something_of_a_rare_class(classified, knows: bool) -> None:
    """200 rows, one in twenty of the class that balanced training rows hold half of. Answers at
    even odds cost more there than the class frequencies do, and are right less often than always
    giving the common class: neither says that nothing was learned."""
    rng = np.random.default_rng(3)
    labels = (np.arange(200) % 20 == 0).astype(np.int64)
    told = labels if knows else rng.permutation(labels)
    margin = np.where(told == 1, 1.0, -1.0) + rng.normal(size=200)
    logits = np.stack([-margin / 2, margin / 2], axis=1)
    base = classified([1.0], [0.0])[0]
    probe = [(loss, 48) for loss in (0.69, 0.44, 0.42, 0.41)]
    made = answered(base, logits, labels, logits.argmax(axis=1) == labels, probe)
    seen = History(tuple(made), RunFacts(planned_steps=300))
    assert seen.chance == pytest.approx(0.1985, abs=1e-3)
    assert nothing_learned(seen) == (not knows)
    assert better_than_chance(seen) == knows
    verdict = judge(made, RunFacts(planned_steps=300))
    assert ("class frequencies" in verdict.because) == (not knows)


def test_rows_that_would_decide_are_those_for_the_difference_that_was_seen(classified) -> None:
    """Eight rows, of which two are wrong: clearly below ln 2, and not shown to be."""
    labels = np.arange(8) % 2
    right = np.arange(8) < 6
    logits = np.zeros((8, 2))
    logits[np.arange(8), labels] = np.where(right, 2.0, -2.0)
    base = classified([1.0], [0.0])[0]
    probe = [(loss, 45) for loss in (0.66, 0.65, 0.64)]
    made = answered(base, logits, labels, right, probe)
    verdict = judge(made)
    assert "better than the class frequencies" in verdict.because
    (needed,) = (one.value for one in verdict.evidence if one.name == "validation_rows_needed")
    gap = History(tuple(made)).valid[:, -1] - math.log(2)
    assert abs(gap.mean()) > 0.05, "the margin is 0.03"
    assert needed == rows_needed(gap, abs(float(gap.mean())))


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_correct": None, "train_correct": None},
        {"train_correct": None},
        {"train_losses": np.zeros(0), "train_correct": None},
        {"epoch": math.nan},
    ],
)
def test_what_a_history_lacks_breaks_no_verdict(classified, changes: dict) -> None:
    for scales in (SURER, [1, 1, 1, 1, 1]):
        made = classified(scales, [0.0, 1.5, 1.5, 1.5, 1.5])
        verdict = judge([dataclasses.replace(one, **changes) for one in made])
        assert verdict.because.endswith(".")
        assert "nan" not in verdict.because


def test_logits_that_stop_half_way_break_no_verdict(classified) -> None:
    made = classified(SURER, [0.0, 1.5, 1.5, 1.5, 1.5])
    assert judge([*made[:3], *(dataclasses.replace(o, valid_logits=None) for o in made[3:])])


def test_a_gap_before_the_floor_is_named_and_is_no_memory(history) -> None:
    valid = [CHANCE, 0.5, 0.42] + [0.40] * 4
    made = history([CHANCE, 0.5, 0.40, 0.36, 0.35, 0.35, 0.35], valid)
    verdict = judge(with_answers(made, [0.5, 0.8, *[0.9] * 5], [0.5, 0.7, *[0.75] * 5]))
    assert verdict.label == "healthy"
    assert "gap 15 points" in verdict.because


def test_nine_rows_all_right_by_luck_are_not_healthy(history) -> None:
    made = history([CHANCE, 0.3, 0.1, 0.05, 0.05, 0.05], [CHANCE, 0.2, 0.1, 0.1, 0.1, 0.1], n=9)
    verdict = judge(with_answers(made, [0.5] + [1.0] * 5, [0.5] + [1.0] * 5))
    assert verdict.label == "inconclusive"
    assert "36" in verdict.because


def test_a_score_no_better_than_the_commonest_class_is_said_first(classified) -> None:
    verdict = judge(classified([0.5, 1, 3, 8, 20], [0.0] * 5), kept_step=200)
    right = verdict.because.split(";")[0]
    assert "no better than the majority class" in right
    assert verdict.because.startswith("The best checkpoint")


def test_a_head_that_begins_with_zeros_hides_no_labels(classified) -> None:
    snapshots = classified([0, 1, 1, 1], [0.0, 1.5, 1.5, 1.5])
    assert "no better than" not in judge(snapshots).because
    assert "no better than" not in judge(snapshots, kept_step=300).because


def test_the_kept_states_gap_is_named_and_changes_no_label(classified) -> None:
    snapshots = classified(SURER, [0.0, 1.5, 1.5, 1.5, 1.5])
    alone, kept = judge(snapshots), judge(snapshots, kept_step=100)
    assert "at the best checkpoint (step 100)" in kept.because
    assert (alone.label, alone.evidence) == (kept.label, kept.evidence)


def test_no_remedy_pushes_on_where_the_training_rows_are_at_their_floor(history) -> None:
    made = history([CHANCE, 0.3, 0.1, 0.05], [CHANCE] * 4, n=12, m=60, noise=0.3)
    right = judge(with_answers(made, [0.5] + [1.0] * 3, [0.5] + [0.9] * 3))
    assert right.label == "inconclusive", right.because
    for remedy in right.remedies:
        assert not any(s.startswith(("train.epochs", "train.learning_rate")) for s in remedy.set)
    open_yet = judge(with_answers(made, [0.5] + [0.7] * 3, [0.5] + [0.6] * 3))
    settings = [s for remedy in open_yet.remedies for s in remedy.set]
    assert any(s.startswith("train.epochs") for s in settings), open_yet


@pytest.mark.parametrize(
    ("right", "last", "label"),
    [
        (8, 0.6, "memorizing"),
        (9, 0.6, "memorizing"),
        # One row of eleven may be luck, and so may two beside a loss that is at its best.
        (10, 0.5, "inconclusive"),
        (10, 1.2, "memorizing"),
        (9, 0.1, "learning"),
        (8, 0.1, "memorizing"),
    ],
)
def test_few_rows_name_what_is_likely_and_say_how_likely(history, right, last, label) -> None:
    """Eleven validation rows beside training rows that are all right."""
    made = history([CHANCE, 0.3, 0.1, 0.01], [CHANCE, 0.5, 0.4, last], n=11, m=60, noise=0.9)
    answers = [[0.5] + [1.0] * 3, [0.5] + [right / 11] * 3]
    verdict = judge(with_answers(made, *answers))
    assert verdict.label == label, verdict.because
    if (right, last) == (9, 0.6):
        assert "exceeds 10 points with a probability of 84 %, and the validation loss rose" in (
            verdict.because
        )
        assert verdict.confidence == pytest.approx(0.843, abs=0.001)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_validation_rows_that_are_all_correct_are_not_behind(history, count) -> None:
    """A large gap may be likely of so few rows; nobody sees one."""
    for last in (0.010, 0.0165, 0.2):
        made = history([CHANCE, 0.1, 0.01, 0.001], [CHANCE, 0.1, 0.010, last], n=count, m=256)
        verdict = judge(with_answers(made, [0.5, 1, 1, 1], [0.5, 1, 1, 1]))
        assert verdict.label not in ("memorizing", "overfit"), (last, verdict.because)


def test_flat_histories_are_rarely_called_anything_bad_at_any_look(history) -> None:
    """Ten looks at converged, noisy models whose train probe keeps falling."""
    alarms, runs = 0, 40
    for seed in range(runs):
        train = [CHANCE, *np.linspace(0.4, 0.3, 9)]
        snapshots = history(train, [CHANCE] + [0.4] * 9, n=150, noise=0.3, seed=seed)
        looks: list[Verdict] = [judge(snapshots[: k + 1], planned(10)) for k in range(2, 10)]
        alarms += any(v.label not in ("learning", "healthy", "inconclusive") for v in looks)
    assert alarms / runs <= 0.1


def test_the_verdict_is_a_pure_function_of_the_history(history) -> None:
    snapshots = history(FALLING, FALLING)
    assert judge(snapshots) == judge(snapshots)


def test_the_rows_that_are_asked_for_find_what_matters_in_most_repetitions() -> None:
    """The two-sided paired test of SciPy on that many rows, against what one draw asks for."""
    from scipy import stats

    rng, small = np.random.default_rng(0), 0.1
    answers = [rows_needed(rng.normal(0.0, 0.4, 60), small) for _ in range(40)]
    known = [n for n in answers if n is not None]
    assert len(known) == len(answers)
    drawn = rng.normal(small, 0.4, size=(int(np.median(known)), 2000))
    assert np.mean(stats.ttest_1samp(drawn, 0).pvalue < 0.05) > 0.8
    assert rows_needed(rng.normal(0.0, 0.4, 5000), small) is None
    assert rows_needed(np.array([0.1]), small) is None
    assert rows_needed(rng.normal(0.0, 1e9, 50), small) is None


def _looked(history, steps: list[int], plans: list[int | None]):
    made = history([CHANCE] * len(steps), [0.45, *[0.4] * (len(steps) - 1)], n=80, noise=0.3)
    return tuple(
        dataclasses.replace(one, step=step, planned_steps=plan)
        for one, step, plan in zip(made, steps, plans, strict=True)
    )


def test_a_run_whose_steps_are_planned_spends_its_error_by_them(history) -> None:
    """A foreign trainer knows its steps and not its looks."""
    looked = _looked(history, [0, 100, 200, 300, 400], [None] * 5)
    by_steps = History(looked, RunFacts(planned_steps=400)).rise
    evenly = History(looked, RunFacts(planned_looks=5)).rise
    assert by_steps.error_spent == evenly.error_spent == pytest.approx(RAW_ROSE)
    assert History(looked[:3], RunFacts(planned_steps=400)).rise.error_spent == pytest.approx(
        RAW_ROSE * 0.5**5
    )


@pytest.mark.parametrize(
    "known", [RunFacts(planned_steps=400), RunFacts(planned_looks=5), RunFacts()]
)
def test_a_look_that_nobody_planned_changes_no_earlier_one(history, known) -> None:
    looked = _looked(history, [100 * k for k in range(9)], [None] * 9)
    spent = [History(looked[:k], known).rise.error_spent for k in range(2, 10)]
    whole = History(looked, known)
    assert np.all(np.diff(spent) >= 0)
    _, times = whole.error_spending_times
    for k in range(2, 9):
        assert (
            History(tuple(looked[:k]), known).error_spending_times[1].tolist() == times[:k].tolist()
        )


def test_an_alarm_outlives_a_longer_plan(history) -> None:
    """Trained to its end, an alarm late, then resumed with three times as many steps."""
    train, valid = [CHANCE, 0.4, 0.3, 0.2, 0.1, 0.05], [CHANCE, 0.45, 0.40, 0.43, 0.45, 0.47]
    made = history(train + [0.04] * 3, valid + [0.47] * 3, n=80, noise=0.1)
    plans = [500] * 6 + [1500] * 3
    looked = tuple(
        dataclasses.replace(one, planned_steps=plan) for one, plan in zip(made, plans, strict=True)
    )
    first = History(looked[:6], RunFacts(planned_steps=500)).rise.alarm_at
    assert first is not None
    after = History(looked, RunFacts(planned_steps=1500))
    assert after.rise.alarm_at == first
    assert after.rise.error_spent > RAW_ROSE
