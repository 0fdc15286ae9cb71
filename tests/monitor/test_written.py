"""Verdicts on models that write: by tokens, with rows as the units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.core.records import Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.evidence import accuracy_gap_of, is_at_floor
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge
from holdfast.stats.intervals import rate_gap
from holdfast.stats.paired_tests import loss_rows, ratio_rows

PLAN = RunFacts(task="causal-lm", planned_steps=500, planned_looks=6)
Made = Callable[..., list[Snapshot]]


def written(
    history: Made,
    train: Sequence[float],
    valid: Sequence[float],
    shares: Sequence[tuple[float, float]],
    n: int = 12,
    m: int = 42,
    seed: int = 0,
) -> list[Snapshot]:
    """Looks of a language model: mean losses, and the shares of right tokens of both sides."""
    rng = np.random.default_rng(seed)
    tokens = {"train": rng.integers(5, 120, m), "valid": rng.integers(5, 120, n)}

    def right(side: str, share: float) -> np.ndarray:
        own = np.clip(share + rng.normal(0, 0.08, len(tokens[side])) * (share < 0.95), 0, 1)
        return np.asarray(rng.binomial(tokens[side], own), dtype=np.float64)

    return [
        dataclasses.replace(
            look,
            train_tokens=tokens["train"],
            valid_tokens=tokens["valid"],
            train_right=right("train", one),
            valid_right=right("valid", other),
        )
        for look, (one, other) in zip(history(train, valid, n=n, m=m), shares, strict=True)
    ]


def test_a_model_that_knows_its_rows_by_heart_is_said_to_however_few_validate(
    history: Made,
) -> None:
    losses = [2.6, 1.6, 0.8, 0.3, 0.1, 0.03], [2.62, 1.3, 1.21, 1.4, 1.6, 1.71]
    shares = [(0.5, 0.5), (0.65, 0.69), (0.8, 0.71), (0.93, 0.7), (0.98, 0.7), (0.99, 0.7)]
    looked = written(history, *losses, shares)
    verdict = judge(looked, PLAN)
    assert verdict.label in ("overfit", "memorizing"), verdict.because
    assert "token accuracy is 99 % on training rows and 7" in verdict.because
    given = [setting.split("=") for remedy in verdict.remedies for setting in remedy.set]
    epochs = [float(value) for key, value in given if key == "train.epochs"]
    assert all(one < looked[-1].epoch for one in epochs), "it is told to train longer"


def reciting(looks: list[Snapshot], train: int, valid: int, n: int) -> list[Snapshot]:
    """The looks of a model that completes so many of ``n`` answers of each side to the word."""
    shares = {
        side: {"verbatim": count / n, "verbatim_n": float(n)}
        for side, count in (("train", train), ("valid", valid))
    }
    return [*looks[:-1], dataclasses.replace(looks[-1], outputs=shares)]


def test_answers_that_are_recited_are_memorized_before_every_token_is_known(history: Made) -> None:
    losses = [2.6, 1.6, 1.0, 0.7, 0.5, 0.4], [2.62, 1.5, 1.35, 1.33, 1.34, 1.33]
    shares = [(0.5, 0.5), (0.65, 0.66), (0.75, 0.68), (0.84, 0.68), (0.89, 0.68), (0.91, 0.68)]
    looks = written(history, *losses, shares, n=40, m=60)
    assert judge(looks, PLAN).label != "memorizing"
    verdict = judge(reciting(looks, 9, 0, 40), PLAN)
    assert verdict.label == "memorizing", verdict.because
    said = "the best checkpoint completes verbatim is 22 % on training rows"
    assert said in verdict.because
    (found,) = (one for one in verdict.evidence if one.name.startswith("completed_verbatim"))
    nine, none = (stats.binomtest(k, 40).proportion_ci(method="wilson") for k in (9, 0))
    low = 0.225 - np.hypot(0.225 - nine.low, none.high)
    assert (found.value, found.low) == pytest.approx((0.225, low))


@pytest.mark.parametrize(("train", "valid"), [(1, 0), (20, 17), (0, 6)])
def test_answers_that_all_go_on_alike_are_not_recited(
    history: Made, train: int, valid: int
) -> None:
    losses = [2.6, 1.6, 1.0, 0.7, 0.5, 0.4], [2.62, 1.5, 1.35, 1.33, 1.34, 1.33]
    shares = [(0.5, 0.5), (0.65, 0.66), (0.75, 0.68), (0.84, 0.68), (0.89, 0.68), (0.91, 0.68)]
    looks = written(history, *losses, shares, n=40, m=60)
    assert judge(reciting(looks, train, valid, 40), PLAN) == judge(looks, PLAN)


def test_a_sound_run_of_a_language_model_is_not_accused(history: Made) -> None:
    losses = [2.6, 2.2, 2.0, 1.9, 1.85, 1.83], [2.62, 2.25, 2.06, 1.97, 1.93, 1.92]
    shares = [(0.5, 0.5), (0.55, 0.54), (0.58, 0.56), (0.6, 0.58), (0.61, 0.59), (0.61, 0.59)]
    verdict = judge(written(history, *losses, shares, n=60, m=200), PLAN)
    assert verdict.label not in ("overfit", "memorizing", "leaking"), verdict.because


def test_losses_and_their_tests_are_those_of_tokens(history: Made) -> None:
    looks = written(history, [2.0, 1.0], [2.0, 1.5], [(0.5, 0.5)] * 2)
    seen = History(tuple(looks), PLAN)
    for place, look in enumerate(looks):
        whole = np.average(look.valid_losses, weights=look.valid_tokens)
        assert seen.raw[:, place].mean() == pytest.approx(whole)
        assert look.valid_loss == pytest.approx(whole)
        assert seen.probe_means[place] == pytest.approx(look.train_loss)
    rows = [loss_rows(look.valid_losses, look.valid_tokens) for look in looks]
    assert seen.above_best.value == pytest.approx((rows[1] - rows[seen.best]).mean())
    assert seen.gain_over_first.low == pytest.approx(
        stats.ttest_rel(rows[seen.best], rows[0]).confidence_interval(0.95).low
    )


def test_the_gap_of_tokens_is_welchs_of_rows(history: Made) -> None:
    (look,) = written(history, [0.1], [1.0], [(0.97, 0.7)])
    gap = accuracy_gap_of(look)
    assert gap is not None
    assert is_at_floor(look) == (look.train_right.sum() / look.train_tokens.sum() >= 0.95)
    sides: list[Any] = []
    for right, tokens in (
        (look.train_right, look.train_tokens),
        (look.valid_right, look.valid_tokens),
    ):
        sides.append(ratio_rows(right, tokens.astype(float)))
    assert (gap.train, gap.valid) == pytest.approx(
        (look.train_right.sum() / look.train_tokens.sum(), sides[1].mean())
    )
    oracle = stats.ttest_ind(*sides, equal_var=False)
    span = oracle.confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((span.low, min(1.0, span.high)))
    above = stats.ttest_ind(sides[0] - 0.1, sides[1], equal_var=False, alternative="greater")
    assert gap.beyond == pytest.approx(1 - above.pvalue)


def test_the_interval_of_the_gap_holds_where_tokens_of_a_row_belong_together(
    snapshot: Callable[..., Snapshot],
) -> None:
    """Whole rows that are known or not: as many independent answers as rows, not as tokens."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        sides = []
        for n, share in ((60, 0.9), (30, 0.6)):
            tokens = rng.integers(5, 60, n)
            own = rng.beta(8 * share, 8 * (1 - share), n)
            sides.append((rng.binomial(tokens, own).astype(float), tokens))
        (right_t, tokens_t), (right_v, tokens_v) = sides
        look = dataclasses.replace(
            snapshot(0, np.ones(60), np.ones(30)),
            train_tokens=tokens_t,
            valid_tokens=tokens_v,
            train_right=right_t,
            valid_right=right_v,
        )
        gap = accuracy_gap_of(look)
        assert gap is not None
        held += gap.low <= 0.3 <= gap.high
    assert held / 400 > 0.92


def test_each_side_is_asked_its_own_number_of_answers(history: Made) -> None:
    from holdfast.monitor.evidence import completions_gap

    look = history([1.0], [1.0])[0]

    def seen(**sides: dict[str, float]) -> Any:
        return completions_gap(dataclasses.replace(look, outputs=sides))

    train = {"verbatim": 0.5, "verbatim_n": 40.0}
    found = seen(train=train, valid={"verbatim": 0.5, "verbatim_n": 10.0})
    assert (found.low, found.high) == pytest.approx(rate_gap(20, 40, 5, 10, 0.95))
    assert seen(train=train, valid={"empty": 0.0}) is None
    assert seen(train=train) is None
    assert seen(valid=train) is None
