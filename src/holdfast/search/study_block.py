"""The block ``study`` of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.search.bench import Bench
from holdfast.search.importance import importance
from holdfast.search.pareto import Footing, alike, footing, front
from holdfast.search.rules.winner import LEVEL
from holdfast.search.search_loop import Searching, TrialFold
from holdfast.search.space_request import key_of
from holdfast.search.study import TrialResult
from holdfast.search.study_verdict import Judged
from holdfast.search.trial_plan import Planned

if TYPE_CHECKING:
    from holdfast.core.records import Floats


# Settings of a model's form that change how long an answer takes; of those that a search prepares
# anew, dropout does not.
SHAPES = ("model.pooling", "model.max_length", "model.adapter", "model.quantize")


def block(
    search: Searching, found: Judged, how: Planned, bench: Bench, where: str
) -> dict[str, Any]:
    """Everything that a search found, in plain values."""
    tried, expected = search.tried, found.expected
    rises = search.metric == "accuracy"
    forms = _footings(bench, [one for one in tried if one.whole])
    best, top = found.winner, found.top
    return {
        "trials": len(tried),
        "best": best.number,
        "metric": search.metric,
        "higher_is_better": rises,
        "expected_test": _interval(expected.value, expected.low, expected.high),
        "optimism": _interval(found.optimism.value, found.optimism.low, found.optimism.high),
        "noise": found.noise,
        "evidence": {
            "trial": found.looked_best.number,
            "expected_gain": found.gain,
            "p_value": found.p_value,
            "p_average": found.p_average,
            "level": LEVEL,
            "test": "one-sided paired t-tests, Holm's correction for all trials and their average",
        },
        "because": found.because,
        "settings": dict(best.settings),
        "seen": _number(search.value(best)),
        "default": _of(search, found.default),
        "top": _of(search, top),
        "judged_by": judged_by(search.folds),
        "stopped_because": search.stopped,
        "sampler": how.sampler.to_json(),
        "pruner": how.pruner.to_json(),
        "storage": where,
        "space": how.space.to_json(),
        "own_space": how.space.own,
        "trials_table": [
            _line(search, one, forms.get(_form_key(one.settings)), _known(found, one))
            for one in tried
        ],
        "importance": importance(
            search.trials.study.get_trials(deepcopy=False), how.seed
        ).to_json(),
        "pareto": _pareto(search, found, forms, rises),
        "seconds": round(sum(one.seconds for one in tried), 3),
    }


def judged_by(folds: Sequence[TrialFold]) -> dict[str, int]:
    """How many rows judge a trial, in how many fits."""
    return {"rows": sum(len(one.valid) for one in folds), "folds": len(folds)}


def _of(search: Searching, one: TrialResult | None) -> dict[str, Any] | None:
    """A trial in short."""
    return None if one is None else {"trial": one.number, "seen": _number(search.value(one))}


def _line(
    search: Searching, one: TrialResult, form: Footing | None, expected: float | None
) -> dict[str, Any]:
    return {
        "trial": one.number,
        "origin": one.origin,
        "state": one.state,
        "settings": dict(one.settings),
        "seen": _number(search.value(one)),
        "expected": expected,
        "loss": _number(_mean(one.losses)),
        "metrics": {name: _number(value) for name, value in one.metrics.items()},
        "verdict": one.verdict,
        "best_step": one.best_step,
        "last_step": one.last_step,
        "planned_steps": one.planned,
        "rows_passed": one.cost,
        "seconds": one.seconds,
        "parameters": one.parameters,
        "latency_ms": None if form is None else round(form.latency_ms, 3),
        "ended": one.because,
    }


def _pareto(
    search: Searching, found: Judged, forms: Mapping[str, Footing], rises: bool
) -> dict[str, Any]:
    """The trials that nobody beats in score, time of an answer and size at once."""
    whole = [one for one in search.tried if one.whole]
    sign = -1.0 if rises else 1.0
    times = alike([forms[_form_key(one.settings)].latency_ms for one in whole])
    points = [
        (sign * search.value(one), time, one.parameters)
        for one, time in zip(whole, times, strict=True)
    ]
    places = front(points)
    several = len({(point[1], point[2]) for point in points}) > 1
    return {
        "trials": [
            {
                "trial": whole[i].number,
                "seen": _number(search.value(whole[i])),
                "latency_ms": round(points[i][1], 3),
                "size_mb": round(whole[i].parameters * 4 / 1e6, 2),
            }
            for i in places
        ],
        "several_forms": several,
        "kept_is_on_it": found.winner.number in {whole[i].number for i in places},
    }


def _footings(bench: Bench, whole: Sequence[TrialResult]) -> dict[str, Footing]:
    """The cost of every form of the model among the trials, each measured once."""
    found: dict[str, Footing] = {}
    for one in whole:
        key = _form_key(one.settings)
        if key not in found:
            found[key] = footing(bench, _form(one.settings))
    return found


def _known(found: Judged, one: TrialResult) -> float | None:
    value = found.each.get(one.number)
    return None if value is None else _number(value)


def _form(settings: Mapping[str, object]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key.startswith(SHAPES)}


def _form_key(settings: Mapping[str, object]) -> str:
    return key_of(_form(settings))


def _interval(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": _number(value), "low": _number(low), "high": _number(high), "level": 0.95}


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _mean(losses: Floats) -> float:
    known = losses[np.isfinite(losses)]
    return float(known.mean()) if len(known) else float("nan")
