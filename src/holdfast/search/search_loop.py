"""The loop of a search: which fits it requests, how it uses their results, and when it stops.

It is a lazy sequence of jobs with a receiver of their results, so that it is the same with one
worker and with many: the next trial is chosen when a worker is free, by the results so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.records import Decision, Floats
from holdfast.core.wording import count_phrase
from holdfast.search.job import FitJob, FitResult
from holdfast.search.space import format_settings
from holdfast.search.space_request import settings_key
from holdfast.search.study import State, TrialResult, Trials, TrialStart
from holdfast.search.trial_plan import Pruning, TrialPlan

# Of proposals in a row that were tried already, after which the space counts as searched.
MAX_REPEATED_PROPOSALS = 50
# Whole trials before a search may end because another is not worth its price.
LEAST_TRIALS = 8


@dataclass(slots=True)
class _OpenTrial:
    """A trial in progress: its finished folds."""

    start: TrialStart
    results: dict[int, FitResult] = field(default_factory=dict)
    drop_reason: str | None = None


@dataclass(eq=False)
class SearchLoop:
    """One search, as it was planned (``plan``).

    ``seconds`` bound it. ``search_stop_rule`` says after a trial why there should be no further
    trial, ``trial_stop_rule`` after a fold why a trial should have no further fold. ``stop_reason``
    is why the search stopped.
    """

    trials: Trials
    plan: TrialPlan
    pruning: Pruning
    seconds: float | None = None
    search_stop_rule: Callable[[Sequence[TrialResult]], str | None] | None = None
    trial_stop_rule: Callable[[TrialResult, Sequence[TrialResult]], str | None] | None = None
    stop_reason: str = ""
    _open: dict[str, _OpenTrial] = field(default_factory=dict)
    _results: dict[int, TrialResult] = field(default_factory=dict)
    _keys: set[str] = field(default_factory=set)
    _fold_sizes: dict[int, int] = field(default_factory=dict)
    _started_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for one in self.trials.finished():
            self._remember(one)

    @property
    def results(self) -> tuple[TrialResult, ...]:
        """Every finished trial, by number."""
        return tuple(self._results[number] for number in sorted(self._results))

    def jobs(self) -> Iterator[FitJob]:
        """The fits, as they are requested."""
        for start in self.trials.unfinished():
            yield from self._jobs_of(start)
        while (next_start := self._next_trial()) is not None:
            yield from self._jobs_of(next_start)

    def add(self, fit_result: FitResult) -> None:
        """Record the result of a fit."""
        name, _, fold = fit_result.key.partition("-f")
        trial = self._open.get(name)
        if trial is None:
            # A fold that another worker had begun when its trial was dropped.
            return
        trial.results[int(fold or 0)] = fit_result
        result = self._assemble(trial)
        trial.drop_reason = fit_result.failed or fit_result.stopped
        if trial.drop_reason is None and len(trial.results) < len(self.plan.folds):
            trial.drop_reason = (
                self.trial_stop_rule(result, self.results) if self.trial_stop_rule else None
            )
            if trial.drop_reason is None:
                return
        result = self._assemble(trial)
        self.trials.tell(trial.start, result)
        self._remember(result)
        del self._open[name]
        self._report(result)

    def _remember(self, result: TrialResult) -> None:
        self._results[result.number] = result
        if result.is_fully_scored:
            self._fold_sizes |= dict(enumerate(result.sizes))
        self._keys.add(settings_key(result.settings))

    def _jobs_of(self, start: TrialStart) -> Iterator[FitJob]:
        name = settings_key(start.settings)
        if name in self._keys or name in self._open:
            self.trials.give_back(start)
            return
        self._open[name] = _OpenTrial(start)
        single_fold = len(self.plan.folds) == 1
        for number, fold in enumerate(self.plan.folds):
            if name not in self._open or self._open[name].drop_reason:
                return
            key = name if single_fold else f"{name}-f{number}"
            self.pruning.follow(
                key, start.handle if single_fold else None, spared=start.origin == "default"
            )
            yield fold.job(key, start.settings)

    def _next_trial(self) -> TrialStart | None:
        for _ in range(MAX_REPEATED_PROPOSALS):
            # What other runs of the study have finished since is compared like one's own.
            for one in () if self.trials.alone else self.trials.finished():
                if one.number not in self._results:
                    self._remember(one)
            reason = self._limit_reason()
            start = self._ask_next() if reason is None else None
            if start is None:
                self.stop_reason = reason or self._grid_stop_reason()
                # The default, where another run began it and has not finished it, or never will:
                # all trials are compared with it.
                if self.trials.alone or self._is_known({}):
                    return None
                return self.trials.ask("default", 0, self.plan.default)
            if not self._is_known(start.settings):
                return start
            self.trials.give_back(start)
        self.stop_reason = f"the last {MAX_REPEATED_PROPOSALS} proposals had all been tried before"
        return None

    def _is_known(self, settings: Mapping[str, object]) -> bool:
        """Whether these settings were tried, or are in progress."""
        key = settings_key(settings)
        return key in self._keys or key in self._open

    def _grid_stop_reason(self) -> str:
        default, grid = self.plan.default, self.plan.grid or ()
        if all(self._is_known({} if point == default else point) for point in grid):
            return "every point of the grid was tried"
        return "other runs of the study have started the remaining points of the grid"

    def _ask_next(self) -> TrialStart | None:
        """The next trial: the default, then those of the grid or of the sampler."""
        if not self.trials.started_places("default"):
            return self.trials.ask("default", 0, self.plan.default)
        if self.plan.grid is None:
            return self.trials.ask("sampler")
        started = self.trials.started_places("grid")
        for place, point in enumerate(self.plan.grid):
            if place not in started:
                return self.trials.ask("grid", place, point)
        return None

    def _limit_reason(self) -> str | None:
        """Why there is no further trial."""
        count = len(self._results) + len(self._open)
        if self.plan.max_trials is not None and count >= self.plan.max_trials:
            return f"{count_phrase(count, 'trial')}, the requested number"
        if self.seconds is not None and self._results:
            elapsed = time.monotonic() - self._started_at
            typical_seconds = float(np.median([one.seconds for one in self.results]))
            if elapsed + typical_seconds > self.seconds:
                return (
                    f"time limit of {self.seconds / 60:g} minutes: another trial of about "
                    f"{typical_seconds:.0f} s does not fit"
                )
        if (
            self.search_stop_rule is None
            or sum(one.is_fully_scored for one in self.results) < LEAST_TRIALS
        ):
            return None
        return self.search_stop_rule(self.results)

    def _assemble(self, trial: _OpenTrial) -> TrialResult:
        """A trial from its finished folds."""
        fit_results = [trial.results[number] for number in sorted(trial.results)]
        fitted = {number: one for number, one in trial.results.items() if not one.failed}
        for number, one in fitted.items():
            self._fold_sizes.setdefault(number, len(one.losses))
        sizes = tuple(self._fold_sizes.get(number, 0) for number in range(len(self.plan.folds)))
        losses, correct = (
            np.concatenate(
                [_fold_values(fitted.get(i), name, size) for i, size in enumerate(sizes)]
            )
            for name in ("losses", "correct")
        )
        failed = next((one.failed for one in fit_results if one.failed), None)
        if any(len(one.losses) != sizes[i] for i, one in fitted.items()):
            failed = "it splits rows into other pieces than the other trials"
        stopped = next((one.stopped for one in fit_results if one.stopped), None)
        state: State = "complete"
        if failed is not None:
            state = "failed"
        elif stopped is not None or trial.drop_reason is not None or len(fit_results) < len(sizes):
            state = "pruned"
        metrics = [trial.results[number].metrics for number in sorted(fitted)]
        last_fit = fit_results[-1]
        return TrialResult(
            number=trial.start.number,
            settings=trial.start.settings,
            origin=trial.start.origin,
            state=state,
            losses=losses,
            correct=correct if np.isfinite(correct).any() else None,
            metrics={
                name: float(np.mean([one[name] for one in metrics if name in one]))
                for name in dict.fromkeys(name for one in metrics for name in one)
            },
            cost=float(sum(one.examples_seen for one in fit_results)),
            seconds=round(sum(one.seconds for one in fit_results), 3),
            parameters=max(one.parameters for one in fit_results),
            verdict=", ".join(
                dict.fromkeys(str(one.verdict.get("label", "none")) for one in fit_results)
            ),
            best_step=last_fit.best_step,
            last_step=last_fit.last_step,
            planned=last_fit.planned,
            because=failed or trial.drop_reason or stopped or last_fit.ended,
            sizes=sizes,
        )

    def _report(self, result: TrialResult) -> None:
        # Trials are numbered from 0, the default.
        progress = (
            f" ({result.number + 1} of {self.plan.max_trials})" if self.plan.max_trials else ""
        )
        value = result.value(self.plan.metric)
        score = f"{self.plan.metric} {value:.3f}" if value == value else "no score"
        reason = ""
        if result.state != "complete":
            score = f"{result.state}, {score}" if value == value else result.state
            reason = f"; {result.because}"
        details = (
            f"{result.origin}: {format_settings(result.settings)} ({result.seconds:.0f} s){reason}"
        )
        notify(Decision(f"trial {result.number}{progress}", score, details, prominent=True))


def _fold_values(result: FitResult | None, name: str, size: int) -> Floats:
    """The values of one fold's rows; NaN if it is not finished, or was scored on other rows."""
    values = None
    if result is not None:
        values = result.correct if name == "correct" else result.refined
        values = result.losses if values is None and name == "losses" else values
    has_size = values is not None and len(values) == size
    return np.asarray(values) if has_size else np.full(size, np.nan)
