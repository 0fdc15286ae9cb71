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
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.wording import counted
from holdfast.search.job import Done, FitJob
from holdfast.search.pruning import Pruning
from holdfast.search.rules.shrinkage import probabilities
from holdfast.search.space import Space, shown
from holdfast.search.space_request import key_of
from holdfast.search.study import Origin, State, TrialResult, Trials, TrialStart

# Of proposals in a row that were tried already, after which the space counts as searched.
REPEATS = 50
# Whole trials before a search may end because another is not worth its price.
LEAST_TRIALS = 8


@dataclass(frozen=True, slots=True, eq=False)
class TrialFold:
    """One fit of a trial: the rows that it learns from, and those that judge it, as positions
    among the bench's rows."""

    train: Ints
    valid: Ints


@dataclass(slots=True)
class _Open:
    """A trial under way: its folds that are done."""

    begun: TrialStart
    done: dict[int, Done] = field(default_factory=dict)
    dropped: str | None = None


Ends = Callable[[Sequence[TrialResult]], str | None]
Behind = Callable[[TrialResult, Sequence[TrialResult]], str | None]


@dataclass(eq=False)
class Searching:
    """One search.

    ``folds`` are the fits of a trial. ``points`` come before the
    sampler's, by their origin; of a ``grid`` there is nothing after it. ``most`` trials and
    ``seconds`` bound it. ``ends`` says after a trial why there should be no other, ``behind`` after
    a fold why a trial should have no other.
    """

    trials: Trials
    space: Space
    folds: Sequence[TrialFold]
    pruning: Pruning
    metric: str
    points: Sequence[tuple[Origin, Mapping[str, Any] | None]] = ()
    grid: Sequence[Mapping[str, Any]] | None = None
    most: int | None = None
    seconds: float | None = None
    ends: Ends = lambda _: None
    behind: Behind = lambda _, __: None
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

    def take(self, done: Done) -> None:
        """What came of a fit."""
        name, _, fold = done.key.partition("-f")
        of = self._open[name]
        of.done[int(fold or 0)] = done
        tried = self._assembled(of)
        ended = done.failed or done.stopped
        over = len(of.done) == len(self.folds) or ended is not None
        if not over:
            of.dropped = self.behind(tried, self.tried)
            over = of.dropped is not None
        if over:
            of.dropped = of.dropped or ended
            self._finish(name, of)

    def _finish(self, name: str, of: _Open) -> None:
        tried = self._assembled(of)
        self.trials.tell(of.begun, tried, score_of(tried))
        self._remember(tried)
        del self._open[name]
        self._say(tried)

    def _remember(self, tried: TrialResult) -> None:
        self._tried[tried.number] = tried
        if tried.whole:
            self._sizes |= dict(enumerate(tried.sizes))
        self._keys.add(key_of(tried.settings))

    def value(self, tried: TrialResult) -> float:
        """The metric of a trial, over all rows that judged it."""
        if self.metric == "accuracy":
            if tried.correct is None:
                return float("nan")
            return float(np.nanmean(tried.correct))
        losses = tried.losses
        known = losses[np.isfinite(losses)]
        return float(known.mean()) if len(known) else float("nan")

    def _jobs_of(self, begun: TrialStart) -> Iterator[FitJob]:
        name = key_of(begun.settings)
        if name in self._keys or name in self._open:
            self.trials.again(begun)
            return
        self._open[name] = _Open(begun)
        whole = len(self.folds) == 1
        for number, fold in enumerate(self.folds):
            if name not in self._open or self._open[name].dropped:
                return
            key = name if whole else f"{name}-f{number}"
            self.pruning.follow(
                key, begun.handle if whole else None, spared=begun.origin == "default"
            )
            none = fold.train[:0]
            yield FitJob(key, fold.train, fold.valid, none, begun.settings, may_fail=True)

    def _next(self) -> TrialStart | None:
        for _ in range(REPEATS):
            self._hear()
            because = self._over()
            begun = self._asked() if because is None else None
            if begun is None:
                self.stopped = because or self._grid_over()
                # The default, where another run began it and has not finished it, or never will:
                # all trials are held against it.
                defaults = [point for origin, point in self.points if origin == "default"]
                if (
                    self.trials.alone
                    or not defaults
                    or key_of({}) in self._keys | self._open.keys()
                ):
                    return None
                return self.trials.ask("default", 0, defaults[0])
            if key_of(begun.settings) not in self._keys | self._open.keys():
                return begun
            self.trials.again(begun)
        self.stopped = f"{REPEATS} proposals in a row had been tried already"
        return None

    def _hear(self) -> None:
        """What other runs of the study have finished since: it is compared like one's own."""
        if not self.trials.alone:
            for one in self.trials.finished():
                if one.number not in self._tried:
                    self._remember(one)

    def _grid_over(self) -> str:
        default = next((point for origin, point in self.points if origin == "default"), None)
        keys = {key_of({} if point == default else point) for point in self.grid or ()}
        if keys <= self._keys | self._open.keys():
            return "every point of the grid was tried"
        return "the points of the grid that are left were begun by other runs of the study"

    def _asked(self) -> TrialStart | None:
        """The next trial of the first origin that has one left."""
        queue: list[tuple[Origin, Mapping[str, Any] | None]] = list(self.points)
        queue += [("grid", point) for point in self.grid or ()]
        places: dict[str, int] = {}
        for origin, point in queue:
            place = places.get(origin, 0)
            places[origin] = place + 1
            if place not in self.trials.started(origin):
                return self.trials.ask(origin, place, point)
        return None if self.grid is not None else self.trials.ask("sampler")

    def _over(self) -> str | None:
        """Why there is no other trial."""
        count = len(self._tried) + len(self._open)
        if self.most is not None and count >= self.most:
            return f"{counted(count, 'trial')}, as many as asked for"
        if self.seconds is not None and self._tried:
            spent = time.monotonic() - self._since
            usual = float(np.median([one.seconds for one in self.tried]))
            if spent + usual > self.seconds:
                return (
                    f"{self.seconds / 60:g} minutes: another trial of about {usual:.0f} s does "
                    "not fit"
                )
        whole = [one for one in self.tried if one.whole]
        return self.ends(self.tried) if len(whole) >= LEAST_TRIALS else None

    def _assembled(self, of: _Open) -> TrialResult:
        """A trial of those of its folds that are done."""
        done = [of.done[number] for number in sorted(of.done)]
        for number, one in of.done.items():
            if not one.failed:
                self._sizes.setdefault(number, len(one.losses))
        sizes = tuple(self._sizes.get(number, 0) for number in range(len(self.folds)))
        losses = np.concatenate([self._of_fold(of, i, "losses") for i in range(len(sizes))])
        correct = np.concatenate([self._of_fold(of, i, "correct") for i in range(len(sizes))])
        last, failed = done[-1], next((one.failed for one in done if one.failed), None)
        if any(not one.failed and len(one.losses) != sizes[i] for i, one in of.done.items()):
            failed = "its rows are cut into other pieces, which no other trial was judged by"
        stopped = next((one.stopped for one in done if one.stopped), None)
        state: State = "complete"
        if failed is not None:
            state = "failed"
        elif stopped is not None or of.dropped is not None or len(done) < len(self.folds):
            state = "pruned"
        judged = np.isfinite(correct).any()
        several = [one.metrics for one in done if not one.failed]
        names = dict.fromkeys(name for one in several for name in one)
        metrics = {
            name: float(np.mean([one[name] for one in several if name in one])) for name in names
        }
        return TrialResult(
            number=of.begun.number,
            settings=of.begun.settings,
            origin=of.begun.origin,
            state=state,
            losses=losses,
            correct=correct if judged else None,
            metrics=metrics,
            cost=float(sum(one.examples_seen for one in done)),
            seconds=round(sum(one.seconds for one in done), 3),
            parameters=max(one.parameters for one in done),
            verdict=_labels(done),
            best_step=last.best_step,
            last_step=last.last_step,
            planned=last.planned,
            because=failed or of.dropped or stopped or last.ended,
            sizes=sizes,
        )

    def _of_fold(self, of: _Open, number: int, name: str) -> Floats:
        """What one fold said of its rows; NaN where it is not done, or said of other ones."""
        one, size = of.done.get(number), self._sizes.get(number, 0)
        found = None
        if one is not None and not one.failed:
            found = one.correct if name == "correct" else one.refined
            found = one.losses if found is None and name == "losses" else found
        fits = found is not None and len(found) == size
        return np.asarray(found) if fits else np.full(size, np.nan)

    def _say(self, tried: TrialResult) -> None:
        # Trials are numbered from 0, the default.
        of = f" ({tried.number + 1} of {self.most})" if self.most else ""
        value = self.value(tried)
        score = f"{self.metric.replace('_', ' ')} {value:.3f}" if value == value else "no score"
        if tried.state != "complete":
            score = f"{tried.state}, {score}" if value == value else tried.state
        why = "" if tried.state == "complete" else f"; {tried.because}"
        because = f"{tried.origin}: {shown(tried.settings)} ({tried.seconds:.0f} s){why}"
        notify(Decision(f"trial {tried.number}{of}", score, because, prominent=True))


def score_of(tried: TrialResult) -> float:
    """What the sampler goes by: the mean probability of what was right, which is less noisy than
    the share of right answers (``rules/shrunken.py``); over the rows that judged the trial."""
    known = tried.losses[np.isfinite(tried.losses)]
    return float(probabilities(known).mean()) if len(known) else float("nan")


def _labels(done: Sequence[Done]) -> str:
    """The verdicts of a trial's folds, each once."""
    return ", ".join(dict.fromkeys(str(one.verdict.get("label", "none")) for one in done))
