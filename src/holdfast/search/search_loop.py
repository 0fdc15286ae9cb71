"""The loop of a search: which fits it asks for, what it makes of them, and when it ends.

It is a lazy sequence of jobs beside a receiver of what came of them, so that it is the same with
one worker and with many: the next trial is chosen when a worker is free, by what was told until
then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.records import Decision, Floats
from holdfast.core.wording import count_phrase
from holdfast.search.job import FitJob, FitResult
from holdfast.search.space import shown
from holdfast.search.space_request import key_of
from holdfast.search.study import Origin, State, TrialResult, Trials, TrialStart
from holdfast.search.trial_plan import Pruning, TrialPlan

# Of proposals in a row that were tried already, after which the space counts as searched.
REPEATS = 50
# Whole trials before a search may end because another is not worth its price.
LEAST_TRIALS = 8


@dataclass(slots=True)
class _Open:
    """A trial under way: its folds that are done."""

    begun: TrialStart
    done: dict[int, FitResult] = field(default_factory=dict)
    dropped: str | None = None


@dataclass(eq=False)
class SearchLoop:
    """One search, as it was planned (``how``).

    ``seconds`` bound it. ``ends`` says after a trial why there should be no other, ``behind`` after
    a fold why a trial should have no other. ``stopped`` is why it came to its end.
    """

    trials: Trials
    how: TrialPlan
    pruning: Pruning
    seconds: float | None = None
    ends: Callable[[Sequence[TrialResult]], str | None] | None = None
    behind: Callable[[TrialResult, Sequence[TrialResult]], str | None] | None = None
    stopped: str = ""
    _open: dict[str, _Open] = field(default_factory=dict)
    _tried: dict[int, TrialResult] = field(default_factory=dict)
    _keys: set[str] = field(default_factory=set)
    _sizes: dict[int, int] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for one in self.trials.finished():
            self._remember(one)

    @property
    def tried(self) -> tuple[TrialResult, ...]:
        """Every trial that has come to its end, by number."""
        return tuple(self._tried[number] for number in sorted(self._tried))

    def jobs(self) -> Iterator[FitJob]:
        """The fits, as they are asked for."""
        for begun in self.trials.open():
            yield from self._jobs_of(begun)
        while (asked := self._next()) is not None:
            yield from self._jobs_of(asked)

    def take(self, done: FitResult) -> None:
        """What came of a fit."""
        name, _, fold = done.key.partition("-f")
        of = self._open.get(name)
        if of is None:
            # A fold that another worker had begun when its trial was dropped.
            return
        of.done[int(fold or 0)] = done
        tried = self._assembled(of)
        of.dropped = done.failed or done.stopped
        if of.dropped is None and len(of.done) < len(self.how.folds):
            of.dropped = self.behind(tried, self.tried) if self.behind else None
            if of.dropped is None:
                return
        tried = self._assembled(of)
        self.trials.tell(of.begun, tried)
        self._remember(tried)
        del self._open[name]
        self._report(tried)

    def _remember(self, tried: TrialResult) -> None:
        self._tried[tried.number] = tried
        if tried.whole:
            self._sizes |= dict(enumerate(tried.sizes))
        self._keys.add(key_of(tried.settings))

    def _jobs_of(self, begun: TrialStart) -> Iterator[FitJob]:
        name = key_of(begun.settings)
        if name in self._keys or name in self._open:
            self.trials.again(begun)
            return
        self._open[name] = _Open(begun)
        whole = len(self.how.folds) == 1
        for number, fold in enumerate(self.how.folds):
            if name not in self._open or self._open[name].dropped:
                return
            key = name if whole else f"{name}-f{number}"
            self.pruning.follow(
                key, begun.handle if whole else None, spared=begun.origin == "default"
            )
            yield fold.job(key, begun.settings)

    def _next(self) -> TrialStart | None:
        for _ in range(REPEATS):
            # What other runs of the study have finished since is compared like one's own.
            for one in () if self.trials.alone else self.trials.finished():
                if one.number not in self._tried:
                    self._remember(one)
            because = self._over()
            begun = self._asked() if because is None else None
            if begun is None:
                self.stopped = because or self._grid_over()
                # The default, where another run began it and has not finished it, or never will:
                # all trials are held against it.
                defaults = [point for origin, point in self.how.points if origin == "default"]
                if self.trials.alone or not defaults or self._is_known({}):
                    return None
                return self.trials.ask("default", 0, defaults[0])
            if not self._is_known(begun.settings):
                return begun
            self.trials.again(begun)
        self.stopped = f"{REPEATS} proposals in a row had been tried already"
        return None

    def _is_known(self, settings: Mapping[str, object]) -> bool:
        """Whether they were tried, or are under way."""
        key = key_of(settings)
        return key in self._keys or key in self._open

    def _grid_over(self) -> str:
        default = next((point for origin, point in self.how.points if origin == "default"), None)
        grid = self.how.grid or ()
        if all(self._is_known({} if point == default else point) for point in grid):
            return "every point of the grid was tried"
        return "the points of the grid that are left were begun by other runs of the study"

    def _asked(self) -> TrialStart | None:
        """The next trial of the first origin that has one left."""
        queue: list[tuple[Origin, Mapping[str, Any] | None]] = list(self.how.points)
        queue += [("grid", point) for point in self.how.grid or ()]
        places: dict[str, int] = {}
        for origin, point in queue:
            place = places.get(origin, 0)
            places[origin] = place + 1
            if place not in self.trials.started(origin):
                return self.trials.ask(origin, place, point)
        return None if self.how.grid is not None else self.trials.ask("sampler")

    def _over(self) -> str | None:
        """Why there is no other trial."""
        count = len(self._tried) + len(self._open)
        if self.how.most is not None and count >= self.how.most:
            return f"{count_phrase(count, 'trial')}, as many as asked for"
        if self.seconds is not None and self._tried:
            spent = time.monotonic() - self._since
            usual = float(np.median([one.seconds for one in self.tried]))
            if spent + usual > self.seconds:
                return (
                    f"{self.seconds / 60:g} minutes: another trial of about {usual:.0f} s does "
                    "not fit"
                )
        if self.ends is None or sum(one.whole for one in self.tried) < LEAST_TRIALS:
            return None
        return self.ends(self.tried)

    def _assembled(self, of: _Open) -> TrialResult:
        """A trial of those of its folds that are done."""
        done = [of.done[number] for number in sorted(of.done)]
        fitted = {number: one for number, one in of.done.items() if not one.failed}
        for number, one in fitted.items():
            self._sizes.setdefault(number, len(one.losses))
        sizes = tuple(self._sizes.get(number, 0) for number in range(len(self.how.folds)))
        losses, correct = (
            np.concatenate([_of_fold(fitted.get(i), name, size) for i, size in enumerate(sizes)])
            for name in ("losses", "correct")
        )
        failed = next((one.failed for one in done if one.failed), None)
        if any(len(one.losses) != sizes[i] for i, one in fitted.items()):
            failed = "its rows are cut into other pieces, which no other trial was judged by"
        stopped = next((one.stopped for one in done if one.stopped), None)
        state: State = "complete"
        if failed is not None:
            state = "failed"
        elif stopped is not None or of.dropped is not None or len(done) < len(sizes):
            state = "pruned"
        metrics = [of.done[number].metrics for number in sorted(fitted)]
        last = done[-1]
        return TrialResult(
            number=of.begun.number,
            settings=of.begun.settings,
            origin=of.begun.origin,
            state=state,
            losses=losses,
            correct=correct if np.isfinite(correct).any() else None,
            metrics={
                name: float(np.mean([one[name] for one in metrics if name in one]))
                for name in dict.fromkeys(name for one in metrics for name in one)
            },
            cost=float(sum(one.examples_seen for one in done)),
            seconds=round(sum(one.seconds for one in done), 3),
            parameters=max(one.parameters for one in done),
            verdict=", ".join(dict.fromkeys(str(one.verdict.get("label", "none")) for one in done)),
            best_step=last.best_step,
            last_step=last.last_step,
            planned=last.planned,
            because=failed or of.dropped or stopped or last.ended,
            sizes=sizes,
        )

    def _report(self, tried: TrialResult) -> None:
        # Trials are numbered from 0, the default.
        of = f" ({tried.number + 1} of {self.how.most})" if self.how.most else ""
        value = tried.value(self.how.metric)
        score = f"{self.how.metric} {value:.3f}" if value == value else "no score"
        why = ""
        if tried.state != "complete":
            score = f"{tried.state}, {score}" if value == value else tried.state
            why = f"; {tried.because}"
        because = f"{tried.origin}: {shown(tried.settings)} ({tried.seconds:.0f} s){why}"
        notify(Decision(f"trial {tried.number}{of}", score, because, prominent=True))


def _of_fold(one: FitResult | None, name: str, size: int) -> Floats:
    """What one fold said of its rows; NaN where it is not done, or said of other ones."""
    found = None
    if one is not None:
        found = one.correct if name == "correct" else one.refined
        found = one.losses if found is None and name == "losses" else found
    fits = found is not None and len(found) == size
    return np.asarray(found) if fits else np.full(size, np.nan)
