"""The answer of a cross-validated run, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.report.answer.score import GUESSES
from holdfast.report.numbers import count, estimate, interval, metric_name, number

ADVICE = (
    "No baseline was cross-validated with it, and no test rows were set aside: holdfast evaluate "
    "scores the saved model on other labelled rows."
)


def answer_words(cv: Mapping[str, Any]) -> str:
    """The score with its interval, and of how many folds it is."""
    name = str(cv["metric"])
    found = estimate(cv["metrics"].get(name))
    times = f", repeated {cv['repeats']} times" if cv["repeats"] > 1 else ""
    of = f"{cv['folds']} folds of {count(cv['rows'])} rows{times}"
    if found.value is None:
        return f"{metric_name(name)} is undefined over {of}."
    span = interval(found, name)
    sure = f" ({100 * found.level:.0f} % CI {span})" if span else ""
    guess = cv.get("commonest")
    beside = f"; {GUESSES['majority class']} {number(guess, name)}" if guess else ""
    text = (
        f"{metric_name(name)} {number(found.value, name)}{sure}{beside}. Estimated on {of}, for a "
        "model trained on all rows in the same way."
    )
    return text.replace("\u00a0", " ")
