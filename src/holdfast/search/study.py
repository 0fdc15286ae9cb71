"""A search's trials as Optuna keeps them: which were asked for, what came of each.

Whatever a trial was and gave lies in the study, so that another process, or the same after a crash,
goes on from there. The settings of trial n follow from the seed, n and the finished trials alone:
the sampler is made anew for each, since its generator is not stored. A trial is asked for, filled
with values, carried out and told in separate writes; one that a crash has left in between is taken
up where it stands.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdfast.core.errors import RunError
from holdfast.core.records import Floats
from holdfast.data.database_url import mask_password
from holdfast.search.rules.shrinkage import probabilities
from holdfast.search.space import Dimension, Space, plain
from holdfast.search.storage import calm, close_storage

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study as OptunaStudy
    from optuna.study import StudySummary
    from optuna.trial import Trial


ABOUT, RESULT, OWNER, ORIGIN, PLACE = "holdfast", "result", "owner", "origin", "place"
State = Literal["complete", "pruned", "failed"]
Origin = Literal["default", "grid", "sampler"]
WORDS = {
    "rows": "on other rows, or by another recipe",
    "space": "in another space",
    "folds": "judged by other rows (search.folds)",
    "metric": "by another metric",
    "seed": "from another seed",
}


@dataclass(frozen=True, slots=True, eq=False)
class TrialResult:
    """A trial that has come to its end.

    ``losses`` [n], after the temperature that suits the trial best, and ``correct`` [n] (``None``:
    an answer is not right or wrong) are of the rows that judge (or pieces of them, where a task
    cuts rows), fold by fold, at the kept state; NaN for those that it was not asked of. ``sizes``
    are how many each fold has.
    ``metrics`` are those of the task, ``cost`` the rows that were passed to train it. ``because``
    is why it ended.
    """

    number: int
    settings: Mapping[str, Any]
    origin: Origin
    state: State
    losses: Floats
    correct: Floats | None
    metrics: Mapping[str, float]
    cost: float
    seconds: float
    parameters: int
    verdict: str
    best_step: int
    last_step: int
    planned: int
    because: str
    sizes: tuple[int, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it was judged by every row."""
        return self.state == "complete" and bool(np.isfinite(self.losses).all())

    @property
    def loss(self) -> float:
        """The mean loss of the rows that judged it."""
        known = self.losses[np.isfinite(self.losses)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def score(self) -> float:
        """What the sampler goes by: the mean probability of what was right, which is less noisy
        than the share of right answers (``rules/shrinkage.py``); over the rows that judged it."""
        known = self.losses[np.isfinite(self.losses)]
        return float(probabilities(known).mean()) if len(known) else float("nan")

    def value(self, metric: str) -> float:
        """Its accuracy or its loss, over all rows that judged it."""
        if metric != "accuracy":
            return self.loss
        return float("nan") if self.correct is None else float(np.nanmean(self.correct))

    def packed(self) -> dict[str, Any]:
        """As plain values, for the study."""
        kept = {name: getattr(self, name) for name in self.__slots__}
        del kept["number"], kept["params"]
        return kept | {
            "settings": dict(self.settings),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "losses": _text(self.losses),
            "correct": None if self.correct is None else _text(self.correct),
        }

    @classmethod
    def unpacked(
        cls, number: int, params: Mapping[str, object], kept: Mapping[str, Any]
    ) -> TrialResult:
        """Of what the study holds."""
        own = {**kept, "losses": _array(kept["losses"]), "sizes": tuple(kept["sizes"])}
        own["correct"] = None if kept["correct"] is None else _array(kept["correct"])
        return cls(number=number, params=params, **own)


def _text(array: Floats) -> str:
    raw = np.asarray(array, dtype="<f8").tobytes()
    return base64.b64encode(zlib.compress(raw, 6)).decode()


def _array(text: str) -> Floats:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f8").copy()


@dataclass(frozen=True, slots=True)
class TrialStart:
    """A trial that is to be carried out."""

    number: int
    settings: Mapping[str, Any]
    origin: Origin
    handle: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Proposals:
    """Where a search may go: its ``space``, the point of it that ``train`` would take (``default``,
    ``None``: outside), what makes the ``sampler`` of trial n, and Optuna's ``pruner``."""

    space: Space
    default: Mapping[str, object] | None
    sampler: Callable[[int], BaseSampler]
    pruner: BasePruner

    def drawn(self, trial: Trial) -> dict[str, Any]:
        """A value for every key that has an effect."""
        chosen: dict[str, Any] = {}
        for one in self.space:
            if one in self.space.active(chosen):
                chosen[one.key] = suggested(trial, one)
        return chosen

    def stored(self, settings: Mapping[str, object]) -> dict[str, Any]:
        """The same as a trial has them (``suggested``)."""
        return {
            key: plain(value) if self.space.by_key[key].kind == "choice" else value
            for key, value in settings.items()
        }


class Trials:
    """The study of one search.

    Parameters
    ----------
    storage : of Optuna; ``where`` names it in messages.
    about : what the trials have in common (``rows``, ``space``, ``folds``, ``metric``, ``seed``),
        in plain values. A study of something else is refused.
    owner : names this run among others that share the study.
    proposals : where it goes.
    alone : whether no other process writes to the storage, so that every open trial is this run's.
    """

    def __init__(
        self,
        storage: BaseStorage,
        where: str,
        about: Mapping[str, object],
        owner: str,
        proposals: Proposals,
        alone: bool,
    ) -> None:
        import optuna

        self._owner, self._proposals, self.alone = owner, proposals, alone
        self._storage = storage
        # As Optuna has it, for its pruners and importances.
        self.study: OptunaStudy = _study(storage, where, about)
        self.study.pruner = proposals.pruner
        # Every value of a trial is given to it: nothing is left to the study's own sampler.
        self.study.sampler = optuna.samplers.RandomSampler(seed=0)

    def close(self) -> None:
        """Let go of the connections to a database."""
        close_storage(self._storage)

    def finished(self) -> tuple[TrialResult, ...]:
        """All trials that have come to their end, whoever did them, by number."""
        return tuple(
            TrialResult.unpacked(one.number, one.params, one.user_attrs[RESULT])
            for one in self.study.get_trials(deepcopy=False)
            if one.state.is_finished() and RESULT in one.user_attrs
        )

    def started(self, origin: Origin) -> set[int]:
        """The places of those of this origin that were begun, by anybody."""
        return {
            int(one.user_attrs[PLACE])
            for one in self.study.get_trials(deepcopy=False)
            if one.user_attrs.get(ORIGIN) == origin and PLACE in one.user_attrs
        }

    def open(self) -> Iterator[TrialStart]:
        """Those that this run began and did not finish."""
        import optuna
        from optuna.trial import TrialState

        for one in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self.alone or one.user_attrs.get(OWNER) == self._owner:
                with calm():
                    trial = optuna.trial.Trial(self.study, one._trial_id)
                yield self._filled(trial)

    def ask(
        self, origin: Origin, place: int | None = None, fixed: Mapping[str, object] | None = None
    ) -> TrialStart:
        """The next trial: at a ``fixed`` point of the space, or where the sampler goes. ``place``
        is its number among those of its origin."""
        from optuna.trial import TrialState

        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            attrs = {OWNER: self._owner, ORIGIN: origin}
            if place is not None:
                attrs[PLACE] = str(place)
            # All of its values in one write: half a proposal could not be made again.
            point = self._proposed() if origin == "sampler" else fixed or {}
            with calm():
                self.study.enqueue_trial(self._proposals.stored(point), user_attrs=attrs)
        with calm():
            trial = self.study.ask()
        if trial.user_attrs.get(OWNER) != self._owner:
            # Another process has asked for it and takes ours: a trial is done once either way.
            trial.set_user_attr(OWNER, self._owner)
        return self._filled(trial)

    def tell(self, begun: TrialStart, tried: TrialResult) -> None:
        """What came of a trial: first what it gave, then that it is done. The sampler goes by its
        ``score``, more being better."""
        from optuna.trial import TrialState

        begun.handle.set_user_attr(RESULT, tried.packed())
        outside = begun.origin == "default" and self._proposals.default is None
        with calm():
            if tried.state == "failed" or outside or not np.isfinite(tried.score):
                # A default outside the space would teach the sampler nothing about the space.
                self.study.tell(begun.number, state=TrialState.FAIL)
            elif tried.state == "pruned":
                self.study.tell(begun.number, state=TrialState.PRUNED)
            else:
                self.study.tell(begun.number, tried.score)

    def again(self, begun: TrialStart) -> None:
        """Give a trial back whose settings were tried already: it is no trial of its own."""
        from optuna.trial import TrialState

        self.study.tell(begun.number, state=TrialState.FAIL)

    def _proposed(self) -> dict[str, Any]:
        """Where the sampler goes next, by the trials so far: asked of a copy in memory."""
        import optuna
        from optuna.trial import TrialState

        so_far = self.study.get_trials(deepcopy=False)
        seen = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        with calm():
            copy = optuna.create_study(
                direction="maximize", sampler=self._proposals.sampler(len(so_far))
            )
            copy.add_trials([one for one in so_far if one.state in seen])
            return self._proposals.drawn(copy.ask())

    def _filled(self, trial: Trial) -> TrialStart:
        """The trial with a value for every key that has an effect."""
        origin: Origin = trial.user_attrs.get(ORIGIN, "sampler")
        default = self._proposals.default
        if origin == "default" and default is None:
            return TrialStart(trial.number, {}, origin, trial)
        with calm():
            chosen = self._proposals.drawn(trial)
        if origin == "default" or chosen == default:
            # What ``train`` takes when it is told nothing, to the last digit, whoever came upon it.
            chosen, origin = {}, "default"
        return TrialStart(trial.number, chosen, origin, trial)


def suggested(trial: Trial, one: Dimension) -> Any:
    """The value of one dimension in a trial. Choices are texts there: a library of plain values
    takes true for 1, and knows no lists."""
    if one.kind == "choice":
        return json.loads(trial.suggest_categorical(one.key, [plain(c) for c in one.choices]))
    if one.kind == "whole":
        step = 1 if one.log else int(one.step or 1)
        return int(trial.suggest_int(one.key, int(one.low), int(one.high), step=step, log=one.log))
    stride = None if one.log or one.step is None else float(one.step)
    low, high = float(one.low), float(one.high)
    return float(trial.suggest_float(one.key, low, high, step=stride, log=one.log))


def _study(storage: BaseStorage, where: str, about: Mapping[str, object]) -> OptunaStudy:
    """The study of these trials in a storage: made, or found again. Raises ``RunError`` where a
    file holds the study of something else."""
    import hashlib

    import optuna

    told = json.dumps(dict(about), sort_keys=True)
    name = f"holdfast-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    there = {one.study_name: one for one in optuna.get_all_study_summaries(storage)}
    if name not in there and "://" not in where:
        _refuse_other(where, there, about)
    made = optuna.create_study(
        storage=storage, study_name=name, load_if_exists=True, direction="maximize"
    )
    if ABOUT not in made.user_attrs:
        made.set_user_attr(ABOUT, dict(about))
    return made


def _refuse_other(
    where: str, there: Mapping[str, StudySummary], about: Mapping[str, object]
) -> None:
    """A file holds one study: that of something else is not added to."""
    for name, summary in there.items():
        kept = summary.user_attrs.get(ABOUT)
        remedy = "Name another file, or repeat the command that began it."
        if not isinstance(kept, Mapping):
            rule = "holds a study that Holdfast did not make"
            raise RunError(mask_password(where), rule, name, remedy)
        differs = [word for key, word in WORDS.items() if kept.get(key) != about.get(key)]
        rule = f"holds the study of another search: {', '.join(differs) or 'of another version'}"
        found = None
        if kept.get("space") != about.get("space"):
            found = ", ".join(str(one.get("key")) for one in kept.get("space") or ()) or None
        raise RunError(mask_password(where), rule, found, remedy)
