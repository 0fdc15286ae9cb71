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
from holdfast.data.database_url import masked
from holdfast.search.space import Dimension, Space, plain
from holdfast.search.storage import calm, close_storage

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study as OptunaStudy
    from optuna.study import StudySummary
    from optuna.trial import FrozenTrial, Trial


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

    def packed(self) -> dict[str, Any]:
        """As plain values, for the study."""
        own = ("losses", "correct", "settings", "metrics", "number", "params")
        kept = {name: getattr(self, name) for name in self.__slots__ if name not in own}
        return {
            **kept,
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


class Trials:
    """The study of one search.

    Parameters
    ----------
    storage : of Optuna; ``where`` names it in messages.
    about : what the trials have in common (``rows``, ``space``, ``folds``, ``metric``, ``seed``),
        in plain values. A study of something else is refused.
    owner : names this run among others that share the study.
    space, default : the space, and the point of it that ``train`` would take (``None``: outside).
    sampler : makes the sampler of trial n.
    pruner : of Optuna.
    alone : whether no other process writes to the storage, so that every open trial is this run's.
    """

    def __init__(
        self,
        storage: BaseStorage,
        where: str,
        about: Mapping[str, object],
        owner: str,
        space: Space,
        default: Mapping[str, object] | None,
        sampler: Callable[[int], BaseSampler],
        pruner: BasePruner,
        alone: bool,
    ) -> None:
        self._space, self._default, self._sampler = space, default, sampler
        self._owner, self._alone = owner, alone
        import optuna

        self._storage = storage
        self._study = _study(storage, where, about)
        self._study.pruner = pruner
        # Every value of a trial is given to it: nothing is left to the study's own sampler.
        self._study.sampler = optuna.samplers.RandomSampler(seed=0)

    def close(self) -> None:
        """Let go of the connections to a database."""
        close_storage(self._storage)

    @property
    def alone(self) -> bool:
        """Whether nobody else writes to the study."""
        return self._alone

    @property
    def study(self) -> OptunaStudy:
        """As Optuna has it, for its pruners and importances."""
        return self._study

    def finished(self) -> tuple[TrialResult, ...]:
        """All trials that have come to their end, whoever did them, by number."""
        return tuple(
            TrialResult.unpacked(one.number, one.params, one.user_attrs[RESULT])
            for one in self._study.get_trials(deepcopy=False)
            if one.state.is_finished() and RESULT in one.user_attrs
        )

    def started(self, origin: Origin) -> set[int]:
        """The places of those of this origin that were begun, by anybody."""
        return {
            int(one.user_attrs[PLACE])
            for one in self._study.get_trials(deepcopy=False)
            if one.user_attrs.get(ORIGIN) == origin and PLACE in one.user_attrs
        }

    def open(self) -> Iterator[TrialStart]:
        """Those that this run began and did not finish."""
        from optuna.trial import TrialState

        for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._alone or one.user_attrs.get(OWNER) == self._owner:
                yield self._taken_up(one)

    def ask(
        self, origin: Origin, place: int | None = None, fixed: Mapping[str, object] | None = None
    ) -> TrialStart:
        """The next trial: at a ``fixed`` point of the space, or where the sampler goes. ``place``
        is its number among those of its origin."""
        from optuna.trial import TrialState

        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            attrs = {OWNER: self._owner, ORIGIN: origin}
            if place is not None:
                attrs[PLACE] = str(place)
            # All of its values in one write: half a proposal could not be made again.
            point = self._proposed() if origin == "sampler" else fixed or {}
            with calm():
                self._study.enqueue_trial(self._stored(point), user_attrs=attrs)
        with calm():
            trial = self._study.ask()
        if trial.user_attrs.get(OWNER) != self._owner:
            # Another process has asked for it and takes ours: a trial is done once either way.
            trial.set_user_attr(OWNER, self._owner)
        return self._filled(trial)

    def tell(self, begun: TrialStart, tried: TrialResult, value: float) -> None:
        """What came of a trial: first what it gave, then that it is done. ``value`` is what the
        sampler goes by, more being better; it is not asked for of a failed one."""
        from optuna.trial import TrialState

        begun.handle.set_user_attr(RESULT, tried.packed())
        outside = begun.origin == "default" and self._default is None
        with calm():
            if tried.state == "failed" or outside or not np.isfinite(value):
                # A default outside the space would teach the sampler nothing about the space.
                self._study.tell(begun.number, state=TrialState.FAIL)
            elif tried.state == "pruned":
                self._study.tell(begun.number, state=TrialState.PRUNED)
            else:
                self._study.tell(begun.number, value)

    def again(self, begun: TrialStart) -> None:
        """Give a trial back whose settings were tried already: it is no trial of its own."""
        from optuna.trial import TrialState

        self._study.tell(begun.number, state=TrialState.FAIL)

    def _taken_up(self, frozen: FrozenTrial) -> TrialStart:
        import optuna

        with calm():
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
        return self._filled(trial)

    def _proposed(self) -> dict[str, Any]:
        """Where the sampler goes next, by the trials so far: asked of a copy in memory."""
        import optuna
        from optuna.trial import TrialState

        so_far = self._study.get_trials(deepcopy=False)
        seen = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        with calm():
            copy = optuna.create_study(direction="maximize", sampler=self._sampler(len(so_far)))
            copy.add_trials([one for one in so_far if one.state in seen])
            return self._chosen(copy.ask())

    def _filled(self, trial: Trial) -> TrialStart:
        """The trial with a value for every key that has an effect."""
        origin: Origin = trial.user_attrs.get(ORIGIN, "sampler")
        if origin == "default" and self._default is None:
            return TrialStart(trial.number, {}, origin, trial)
        with calm():
            chosen = self._chosen(trial)
        if origin == "default" or chosen == self._default:
            # What ``train`` takes when it is told nothing, to the last digit, whoever came upon it.
            chosen, origin = {}, "default"
        return TrialStart(trial.number, chosen, origin, trial)

    def _chosen(self, trial: Trial) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for one in self._space:
            if one in self._space.active(chosen):
                chosen[one.key] = suggested(trial, one)
        return chosen

    def _stored(self, settings: Mapping[str, object]) -> dict[str, Any]:
        return {
            key: plain(value) if self._space.by_key[key].kind == "choice" else value
            for key, value in settings.items()
        }


def suggested(trial: Trial, one: Dimension) -> Any:
    """The value of one dimension in a trial. Choices are texts there: a library of plain values
    takes true for 1, and knows no lists."""
    if one.kind == "choice":
        return json.loads(trial.suggest_categorical(one.key, [plain(c) for c in one.choices]))
    if one.kind == "whole":
        step = int(one.step or 1)
        return int(
            trial.suggest_int(
                one.key, int(one.low), int(one.high), step=1 if one.log else step, log=one.log
            )
        )
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
            raise RunError(masked(where), rule, name, remedy)
        differs = [word for key, word in WORDS.items() if kept.get(key) != about.get(key)]
        rule = f"holds the study of another search: {', '.join(differs) or 'of another version'}"
        found = None
        if kept.get("space") != about.get("space"):
            found = ", ".join(str(one.get("key")) for one in kept.get("space") or ()) or None
        raise RunError(masked(where), rule, found, remedy)
