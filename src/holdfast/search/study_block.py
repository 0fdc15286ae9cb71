"""The block ``study`` of ``result.json``: every trial with its cost, the Pareto front (score,
prediction time, size), and the importance of each setting.

Importance is functional ANOVA by Optuna (Hutter et al. 2014), compared with the result on the same
trials with permuted scores, because a forest finds something in any dozen trials. A setting counts
as important only if its share exceeds the largest share of any setting in 19 of 20 permutations.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.seeds import derive_seed, generator
from holdfast.core.wording import count_phrase
from holdfast.search.context import SearchContext, judging_counts, timing_batches
from holdfast.search.rules.winner import LEVEL, ScoreRange
from holdfast.search.search_loop import SearchLoop
from holdfast.search.storage import without_experimental_warnings
from holdfast.search.study import TrialResult
from holdfast.search.study_verdict import SearchVerdict

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Settings of a model's form that change how long an answer takes; of those that a search prepares
# again, dropout does not.
SHAPES = ("model.pooling", "model.max_length", "model.adapter", "model.quantize")
TIMED_ROWS, WARMUP_ROWS, ROUNDS = 16, 4, 3
# Times that differ by less are one: a clock on a machine in use is no more precise.
SAME_TIME_FACTOR = 1.2
# Whole trials below which nothing is said of settings; and at least as many as there are settings.
LEAST_COMPLETE = 12
PERMUTATIONS, TREES = 19, 16


def study_block(
    search: SearchLoop, search_verdict: SearchVerdict, context: SearchContext, where: str
) -> dict[str, Any]:
    """All results of a search as plain values; ``where`` is the location of its study."""
    results, plan, best = search.results, search.plan, search_verdict.winner
    scored = [result for result in results if result.is_fully_scored]
    times = _form_times(context, scored)
    stored = search.trials.study.get_trials(deepcopy=False)
    return {
        "trials": len(results),
        "best": best.number,
        "metric": plan.metric,
        "higher_is_better": plan.metric == "accuracy",
        "expected_test": _interval(search_verdict.expected),
        "optimism": _interval(search_verdict.optimism),
        "noise": search_verdict.noise,
        "evidence": _evidence(search_verdict),
        "because": search_verdict.because,
        "settings": dict(best.settings),
        "seen": _number(best.value(plan.metric)),
        "default": search_verdict.default and _trial_summary(search_verdict.default, plan.metric),
        "top": _trial_summary(search_verdict.top, plan.metric),
        "judged_by": judging_counts(plan.folds),
        "stopped_because": search.stop_reason,
        "sampler": plan.sampler.to_json(),
        "pruner": plan.pruner.to_json(),
        "storage": where,
        "space": plan.space.to_json(),
        "own_space": plan.space.user_defined,
        "trials_table": [
            _trial_row(
                result,
                plan.metric,
                times.get(str(_model_settings(result))),
                search_verdict.expected_by_number.get(result.number),
            )
            for result in results
        ],
        "importance": importance(stored, plan.seed),
        "pareto": _pareto(scored, search_verdict, plan.metric, times),
        "seconds": round(sum(result.seconds for result in results), 3),
    }


def _form_times(context: SearchContext, scored: Sequence[TrialResult]) -> dict[str, float]:
    """The prediction time of every model form among the complete trials, each measured once."""
    forms = {str(_model_settings(one)): _model_settings(one) for one in scored}
    return {form: latency_ms(context, settings) for form, settings in forms.items()}


def _evidence(search_verdict: SearchVerdict) -> dict[str, Any]:
    """Whether any trial is better than the default, and by which test."""
    return {
        "trial": search_verdict.most_promising.number,
        "expected_gain": search_verdict.gain,
        "p_value": search_verdict.p_value,
        "p_average": search_verdict.p_average,
        "level": LEVEL,
        "test": "one-sided paired t-tests, Holm's correction for all trials and their average",
    }


def _trial_summary(one: TrialResult, metric: str) -> dict[str, Any]:
    return {"trial": one.number, "seen": _number(one.value(metric))}


def _trial_row(
    one: TrialResult, metric: str, latency: float | None, expected: float | None
) -> dict[str, Any]:
    return {
        "trial": one.number,
        "origin": one.origin,
        "state": one.state,
        "settings": dict(one.settings),
        "seen": _number(one.value(metric)),
        "expected": None if expected is None else _number(expected),
        "loss": _number(one.loss),
        "metrics": {name: _number(value) for name, value in one.metrics.items()},
        "verdict": one.verdict,
        "best_step": one.best_step,
        "last_step": one.last_step,
        "planned_steps": one.planned,
        "rows_passed": one.cost,
        "seconds": one.seconds,
        "parameters": one.parameters,
        "latency_ms": None if latency is None else round(latency, 3),
        "ended": one.because,
    }


def _pareto(
    scored: Sequence[TrialResult],
    search_verdict: SearchVerdict,
    metric: str,
    times: Mapping[str, float],
) -> dict[str, Any]:
    """The trials on the Pareto front of score, prediction time and size."""
    sign = -1.0 if metric == "accuracy" else 1.0
    merged_times = merge_close_times([times[str(_model_settings(one))] for one in scored])
    points = [
        (sign * one.value(metric), latency, one.parameters)
        for one, latency in zip(scored, merged_times, strict=True)
    ]
    places = pareto_front(points)
    return {
        "trials": [
            {
                **_trial_summary(scored[i], metric),
                "latency_ms": round(points[i][1], 3),
                "size_mb": round(scored[i].parameters * 4 / 1e6, 2),
            }
            for i in places
        ],
        "several_forms": len({point[1:] for point in points}) > 1,
        "kept_is_on_it": search_verdict.winner.number in {scored[i].number for i in places},
    }


def _model_settings(one: TrialResult) -> dict[str, Any]:
    """The settings of a trial that change the prediction time, in the order of their keys."""
    return {key: one.settings[key] for key in sorted(one.settings) if key.startswith(SHAPES)}


def _interval(one: ScoreRange) -> dict[str, Any]:
    ends = {"low": _number(one.low), "high": _number(one.high)}
    return {"value": _number(one.value), **ends, "level": 0.95}


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def latency_ms(context: SearchContext, settings: Mapping[str, object]) -> float:
    """The prediction time in ms, one row at a time on this machine, of the network as these
    settings prepare it, on rows of medium length: the fastest of three rounds, since other load
    only slows a machine down. Training settings do not change it."""
    import torch

    from holdfast.models.network_copy import copy_network
    from holdfast.training.machine.machine import use_threads

    prepared = context.prepared(settings)
    use_threads(prepared.machine.threads)
    network = copy_network(prepared.loaded.network).eval()
    task, batches = timing_batches(prepared, TIMED_ROWS)
    best = float("inf")
    with torch.inference_mode():
        for batch in batches[:WARMUP_ROWS]:
            task.forward(network, batch)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for batch in batches:
                task.forward(network, batch)
            best = min(best, (time.perf_counter() - start) / len(batches))
    return 1000 * best


def pareto_front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the points that no other point dominates (at least as good in everything and
    better in something); in each coordinate less is better. Of equal points the first."""
    rows = np.array(points)

    def beaten(place: int) -> bool:
        as_good = (rows <= rows[place]).all(axis=1)
        better = (rows < rows[place]).any(axis=1)
        better[:place] = True
        return bool((as_good & better).any())

    return [place for place in range(len(points)) if not beaten(place)]


def merge_close_times(times: Sequence[float]) -> list[float]:
    """Times as far as a clock can distinguish them: each is replaced by the smallest of those
    within a fifth of one another."""
    least: list[float] = []
    for one in sorted(times):
        if not least or one > SAME_TIME_FACTOR * least[-1]:
            least.append(one)
    return [max(one for one in least if one <= time) for time in times]


def importance(trials: Sequence[FrozenTrial], seed: int) -> dict[str, Any]:
    """Importance of each setting. ``shares`` of the variance of the scores by setting, the largest
    first, over the trials that have a score; ``chance`` the largest share in random permutations;
    which settings ``matter``; ``why`` there is no result. A setting that only some trials have (one
    that depends on another) is left out: the forest needs all of them."""
    import optuna
    from optuna.trial import TrialState

    def none(why: str) -> dict[str, Any]:
        return {"shares": {}, "chance": None, "matter": [], "why": why}

    complete = [one for one in trials if one.state == TrialState.COMPLETE and one.params]
    shared = set.intersection(*(set(one.params) for one in complete)) if complete else set()
    varied = [key for key in shared if len({repr(one.params[key]) for one in complete}) > 1]
    required = max(LEAST_COMPLETE, len(varied))
    if len(complete) < required:
        count = count_phrase(len(complete), "complete trial")
        return none(f"not enough evidence: {count}, {required} are needed")
    values = np.array([one.value for one in complete], dtype=np.float64)
    if not varied or np.ptp(values) == 0:
        return none("not enough evidence: all trials scored the same")

    def shares(of: Sequence[float]) -> dict[str, float]:
        with without_experimental_warnings():
            study = optuna.create_study(direction="maximize")
            for one, value in zip(complete, of, strict=True):
                study.add_trial(
                    optuna.trial.create_trial(
                        value=float(value),
                        params={key: one.params[key] for key in varied},
                        distributions={key: one.distributions[key] for key in varied},
                    )
                )
            evaluator = optuna.importance.FanovaImportanceEvaluator(
                n_trees=TREES, seed=derive_seed(seed, "forest")
            )
            found = evaluator.evaluate(study, params=sorted(varied))
        return {key: float(value) for key, value in found.items()}

    observed, rng = shares(list(values)), generator(seed, "importance")
    chance = max(max(shares(list(rng.permutation(values))).values()) for _ in range(PERMUTATIONS))
    ranked = dict(sorted(observed.items(), key=lambda one: (-one[1], one[0])))
    return {
        "shares": {key: round(share, 4) for key, share in ranked.items()},
        "chance": round(chance, 4),
        "matter": [key for key, share in ranked.items() if share > chance],
    }
