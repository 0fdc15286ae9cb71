"""Wrong labels are told from labels that a model does not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import special

from holdfast.core.records import Snapshot
from holdfast.core.run_facts import LabelNoise, RunFacts
from holdfast.monitor.detectors.data import noisy_labels
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge
from holdfast.stats.temperature import best_temperature, losses_at

PLAN = RunFacts(classes=2, planned_steps=500)
NOISY = LabelNoise(rate=0.1, low=0.06, high=0.15, right=0.82, base=0.5, n=400)


def looks(snapshot, logits: Sequence[np.ndarray], labels: np.ndarray) -> list[Snapshot]:
    """A run whose validation answers are ``logits`` [n, 2] at each look."""
    return [
        snapshot(
            100 * k,
            np.full(len(labels), 0.6 / (1 + k)),
            losses_at(z, labels, 1.0),
            valid_logits=z,
            valid_correct=z.argmax(axis=1) == labels,
            train_correct=np.ones(len(labels), dtype=bool),
            temperature=best_temperature(z, labels)[0],
        )
        for k, z in enumerate(logits)
    ]


def knowing(snapshot, share: float, n: int = 400, seed: int = 0) -> list[Snapshot]:
    """Knowledge of the truth, and labels of which ``share`` are not the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    given = np.where(rng.random(n) < share, 1 - truth, truth)
    base = rng.normal(size=(n, 2))
    shown = [base + good * np.eye(2)[truth] for good in (0.0, 2.0, 3.0, 3.0, 3.0, 3.0)]
    return looks(snapshot, shown, given)


def overfitted(snapshot, seed: int, n: int = 200, width: int = 30) -> list[Snapshot]:
    """A logistic regression on 300 random ReLUs of features with a weak signal and true labels,
    fitted by 300 plain steps to the last of its training rows: sure, and often wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 2 * n)
    inputs = rng.normal(size=(2 * n, width)) + 0.08 * (2 * labels[:, None] - 1)
    hidden = np.maximum(0, inputs @ rng.normal(size=(width, 300)) / np.sqrt(width))
    hidden = (hidden - hidden[:n].mean(axis=0)) / hidden[:n].std(axis=0)
    weight, made = 0.01 * rng.normal(size=300), []
    for step in range(301):
        if step % 30 == 0:
            score = hidden @ weight
            made.append(np.stack([-score, score], axis=1) / 2)
        gap = special.expit(hidden[:n] @ weight) - labels[:n]
        weight -= 0.2 * hidden[:n].T @ gap / n
    assert ((made[-1][:n].argmax(axis=1) == labels[:n]).mean()) > 0.95
    return looks(snapshot, [z[n:] for z in made], labels[n:])


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_without_a_probe_the_runs_own_answers_contradict_wrong_labels(snapshot, share) -> None:
    verdict = judge(knowing(snapshot, share), PLAN)
    # Fewer are the cause of what the curves show.
    label = "noisy_labels" if share > 0.2 else "memorizing"
    assert (verdict.label, verdict.cause) == (label, "wrong labels")
    rate = {evidence.name: evidence for evidence in verdict.evidence}["share_of_wrong_labels"]
    assert rate.value == pytest.approx(share, abs=0.06)
    assert rate.low is not None
    assert rate.low > 0.02


def test_a_run_that_is_sure_and_wrong_from_ignorance_is_not_called_noisy(snapshot) -> None:
    """Twenty classifiers that were overfitted to clean labels: poor on validation, and certain."""
    runs = [overfitted(snapshot, seed) for seed in range(20)]
    accuracy = np.mean([run[-1].valid_correct.mean() for run in runs])
    sure = np.mean([special.softmax(run[-1].valid_logits, axis=1).max(axis=1) for run in runs])
    assert accuracy < 0.65
    assert sure - accuracy > 0.05
    # An interval of 95 % lies wholly above a true rate of nought in one of forty.
    assert sum(noisy_labels(History(tuple(run), PLAN)) is not None for run in runs) <= 1


def test_the_probes_word_is_reported_with_its_interval(snapshot, classified) -> None:
    run = classified([1] * 6, [0.0, 1.5, 2, 2, 2, 2])
    symptom = noisy_labels(History(tuple(run), dataclasses.replace(PLAN, label_noise=NOISY)))
    assert symptom is not None
    assert (
        "an estimated 10 % of the labels are wrong (6 % to 15 %), by the predictions of"
        in symptom.because
    )
    assert "a linear probe" in symptom.because
    evidence = {one.name: one for one in symptom.evidence}
    rate = evidence["share_of_wrong_labels"]
    assert (rate.value, rate.low, rate.high) == (0.1, 0.06, 0.15)
    assert evidence["labels_answered_right"].value == 0.82


@pytest.mark.parametrize(
    "change", [{"low": 0.015}, {"low": 0.0, "high": 0.3}, {"right": 0.53}, {"n": 39}]
)
def test_it_is_silent_where_nothing_is_sure_or_nothing_is_known(snapshot, change) -> None:
    """Both 2 and 10 % in the interval; a probe that answers no better than the commonest class."""
    noise = dataclasses.replace(NOISY, **change)
    run = knowing(snapshot, 0.0)
    assert noisy_labels(History(tuple(run), dataclasses.replace(PLAN, label_noise=noise))) is None


def test_a_run_that_still_gets_better_is_left_alone(classified) -> None:
    run = tuple(classified([1] * 5, [0.0, 1.0, 1.5, 2.0, 2.5]))
    known = RunFacts(classes=2, planned_steps=5000, label_noise=NOISY)
    assert noisy_labels(History(run, known)) is None
    ended = dataclasses.replace(known, planned_steps=400)
    assert noisy_labels(History(run, ended)) is not None


def test_few_rows_and_losses_without_logits_say_nothing(snapshot, raw) -> None:
    assert noisy_labels(History(tuple(knowing(snapshot, 0.3, n=39)), PLAN)) is None
    assert noisy_labels(History(tuple(raw(knowing(snapshot, 0.3))), PLAN)) is None


@pytest.mark.parametrize(
    ("right", "base", "said"),
    [
        (0.26, 0.13, False),  # pictures by a net with random weights: ignorance
        (0.32, 0.14, True),
        (0.62, 0.53, False),
        (0.82, 0.5, True),
    ],
)
def test_answers_near_the_commonest_class_contradict_nothing(
    right: float, base: float, said: bool
) -> None:
    from holdfast.monitor.detectors.data import telling

    noise = LabelNoise(rate=0.2, low=0.06, high=0.36, right=right, base=base, n=400)
    assert telling(noise) is said
