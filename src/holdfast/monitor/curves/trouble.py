"""Rules for curves: broken, diverging, too short, too good to be true."""

from __future__ import annotations

from holdfast.core.records import Verdict
from holdfast.monitor.curves.facts import CurveFacts, first_broken
from holdfast.monitor.curves.words import (
    FEWEST,
    SETTLED,
    many,
    place,
    sureness,
    train_name,
    valid_name,
    verdict,
)


def broken(facts: CurveFacts) -> Verdict | None:
    """Losses that stop being numbers."""
    found = first_broken(facts.curves)
    if found is None:
        return None
    series, at = found
    none = "" if len(series.finite) else ", and no value of it is finite"
    cause = "the learning rate is too high, or the precision too low"
    tried = "diverging"
    # Every evaluation is broken while training goes on: not the run, the evaluation is at fault.
    if series is facts.curves.valid and facts.train is not None and none:
        cause = "evaluation overflows in low precision, or its rows have no answer to predict"
        tried = "broken evaluation"
    because = f"{series.name} is not a number from {place(facts, at)} on{none}"
    return verdict(facts, "diverging", because, 0.9, since=at, cause=cause, tried=tried)


def exploded(facts: CurveFacts) -> Verdict | None:
    """A training loss that ends well above its start, or gave back half of what it learned."""
    train = facts.train
    if train is None or len(train.cost) < FEWEST or not train.beyond_doubt:
        return None
    above = train.end > 1.1 * train.start
    if not above and not (train.given_back > 0.5 and train.rise_share > 0.1):
        return None
    than = "where it began" if above else "its lowest"
    because = f"{train_name(facts)} ends at {train.end:.3g}, well above {than}"
    return verdict(
        facts,
        "diverging",
        because,
        sureness(facts, train),
        since=train.since,
        cause="the learning rate is too high",
        tried="diverging",
    )


def no_validation(facts: CurveFacts) -> Verdict | None:
    """No validation series: nothing to judge by."""
    if facts.curves.valid is not None:
        return None
    because = "the log has no validation series, so nothing can be said about unseen data"
    return verdict(facts, "inconclusive", because, 0.0, tried="no validation")


def too_little(facts: CurveFacts) -> Verdict | None:
    """Too few evaluations to judge a course, in all or since a level shift."""
    assert facts.curves.valid is not None  # `no_validation` came before
    if facts.valid is not None and facts.valid.shifted_at is not None:
        return _too_little_since(facts)
    if facts.valid is None or facts.evaluations < FEWEST:
        because = (
            f"{many(facts.evaluations)} with a finite {facts.curves.valid.name} are too few; "
            f"{FEWEST} is the least, and about {2 * SETTLED} make a rise distinct from noise"
        )
        return verdict(facts, "inconclusive", because, 0.0, tried="few points")
    return None


def _too_little_since(facts: CurveFacts) -> Verdict | None:
    """A level shift with too few evaluations since."""
    assert facts.valid is not None
    assert facts.valid.shifted_at is not None
    if len(facts.valid.cost) >= FEWEST:
        return None
    because = (
        f"{valid_name(facts)} rose in one step at {place(facts, facts.valid.shifted_at)} and falls "
        "since, as after a resume with another scale of the loss or a restart of the rate; "
        f"{many(len(facts.valid.cost))} since then are too few, {FEWEST} is the least"
    )
    return verdict(facts, "inconclusive", because, 0.0, tried="shift")


def leaking(facts: CurveFacts) -> Verdict | None:
    """Better on validation by both measures: the level alone also differs with dropout, and where
    a trainer adds up the losses of accumulated batches."""
    ratio, gap = facts.level_ratio, facts.metric_gap
    if facts.evaluations < FEWEST or ratio is None or gap is None:
        return None
    if not (ratio > 2 and gap < -5 * facts.unit):
        return None
    assert facts.metric is not None
    assert facts.train_metric is not None
    half = len(facts.metric.smooth) // 2
    places = facts.metric.at[half:]
    theirs = [facts.train_metric.value_at(float(at)) for at in places]
    if not all(
        a - b > 5 * facts.unit for a, b in zip(theirs, facts.metric.smooth[half:], strict=True)
    ):
        return None
    because = (
        f"validation is far better than training throughout (loss {1 / ratio:.0%} of it, metric "
        f"{-gap / facts.unit:.0f} points better)"
    )
    return verdict(
        facts,
        "leaking",
        because,
        0.6,
        cause="copies of the training rows among the validation "
        "rows, a feature that gives the answer away, or very strong dropout or augmentation",
        tried="leak",
    )
