"""A search's trials in Optuna's storage: which were requested, and their results.

Everything about a trial is in the study, so that another process, or the same after a crash, can
continue. The settings of trial n follow only from the seed, n and the finished trials: the sampler
is made again for each, since its generator is not stored. A trial is requested, filled with values,
run and reported in separate writes; one that a crash interrupted is continued from its last write.
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
from holdfast.core.files import json_digest
from holdfast.core.records import Floats
from holdfast.data.database_url import mask_password
from holdfast.search.rules.shrinkage import probabilities
from holdfast.search.space import Dimension, Space, canonical_text
from holdfast.search.storage import close_storage, without_experimental_warnings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study as OptunaStudy
    from optuna.study import StudySummary
    from optuna.trial import Trial


SEARCH_ATTR, RESULT_ATTR, OWNER_ATTR, ORIGIN_ATTR, PLACE_ATTR = (
    "holdfast",
    "result",
    "owner",
    "origin",
    "place",
)
State = Literal["complete", "pruned", "failed"]
Origin = Literal["default", "grid", "sampler"]
DIFFERENCES = {
    "rows": "on other rows or with another recipe",
    "space": "in another space",
    "folds": "scored on other rows (search.folds)",
    "metric": "with another metric",
    "seed": "with another seed",
}


@dataclass(frozen=True, slots=True, eq=False)
class TrialResult:
    """A finished trial.

    ``losses`` [n], calibrated by the trial's temperature, and ``correct`` [n] (``None`` if a
    prediction is not correct or wrong) are of the scored rows (or pieces of them, where a task
    splits rows), fold by fold, at the best checkpoint; NaN for rows without a score. ``sizes`` are
    the numbers of rows per fold. ``metrics`` are those of the task, ``cost`` is the number of rows
    passed in training. ``because`` is why it stopped.
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
    def is_fully_scored(self) -> bool:
        """Whether it was scored on every row."""
        return self.state == "complete" and bool(np.isfinite(self.losses).all())

    @property
    def loss(self) -> float:
        """The mean loss of its scored rows."""
        known = self.losses[np.isfinite(self.losses)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def score(self) -> float:
        """The sampler's score: the mean predicted probability of the correct label over its scored
        rows, which is less noisy than accuracy (``rules/shrinkage.py``)."""
        known = self.losses[np.isfinite(self.losses)]
        return float(probabilities(known).mean()) if len(known) else float("nan")

    def value(self, metric: str) -> float:
        """Its accuracy or its loss, over all its scored rows."""
        if metric != "accuracy":
            return self.loss
        return float("nan") if self.correct is None else float(np.nanmean(self.correct))

    def pack(self) -> dict[str, Any]:
        """As plain values, for the study."""
        values = {name: getattr(self, name) for name in self.__slots__}
        del values["number"], values["params"]
        return values | {
            "settings": dict(self.settings),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "losses": _text(self.losses),
            "correct": None if self.correct is None else _text(self.correct),
        }

    @classmethod
    def unpack(
        cls, number: int, params: Mapping[str, object], values: Mapping[str, Any]
    ) -> TrialResult:
        """A trial from what the study holds."""
        decoded = {**values, "losses": _array(values["losses"]), "sizes": tuple(values["sizes"])}
        decoded["correct"] = None if values["correct"] is None else _array(values["correct"])
        return cls(number=number, params=params, **decoded)


def _text(array: Floats) -> str:
    raw = np.asarray(array, dtype="<f8").tobytes()
    return base64.b64encode(zlib.compress(raw, 6)).decode()


def _array(text: str) -> Floats:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f8").copy()


@dataclass(frozen=True, slots=True)
class TrialStart:
    """A trial that is to be run."""

    number: int
    settings: Mapping[str, Any]
    origin: Origin
    handle: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Proposals:
    """What a search may propose: its ``space``, the point of it that ``train`` would use
    (``default``, ``None``: outside), the factory of the ``sampler`` of trial n, and Optuna's
    ``pruner``."""

    space: Space
    default: Mapping[str, object] | None
    sampler: Callable[[int], BaseSampler]
    pruner: BasePruner

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """A value for every active key."""
        settings: dict[str, Any] = {}
        for one in self.space:
            if one in self.space.active(settings):
                settings[one.key] = suggest_value(trial, one)
        return settings

    def to_stored(self, settings: Mapping[str, object]) -> dict[str, Any]:
        """The same in the form of a stored trial (``suggested``)."""
        return {
            key: canonical_text(value) if self.space.by_key[key].value_type == "choice" else value
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
        self.study: OptunaStudy = _open_study(storage, where, about)
        self.study.pruner = proposals.pruner
        # Every value of a trial is given to it: nothing is left to the study's own sampler.
        self.study.sampler = optuna.samplers.RandomSampler(seed=0)

    def close(self) -> None:
        """Close the connections to a database."""
        close_storage(self._storage)

    def finished(self) -> tuple[TrialResult, ...]:
        """All finished trials, of every run that shares the study, by number."""
        return tuple(
            TrialResult.unpack(one.number, one.params, one.user_attrs[RESULT_ATTR])
            for one in self.study.get_trials(deepcopy=False)
            if one.state.is_finished() and RESULT_ATTR in one.user_attrs
        )

    def started_places(self, origin: Origin) -> set[int]:
        """The places of the started trials of this origin, of every run."""
        return {
            int(one.user_attrs[PLACE_ATTR])
            for one in self.study.get_trials(deepcopy=False)
            if one.user_attrs.get(ORIGIN_ATTR) == origin and PLACE_ATTR in one.user_attrs
        }

    def unfinished(self) -> Iterator[TrialStart]:
        """The trials that this run started and did not finish."""
        import optuna
        from optuna.trial import TrialState

        for one in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self.alone or one.user_attrs.get(OWNER_ATTR) == self._owner:
                with without_experimental_warnings():
                    trial = optuna.trial.Trial(self.study, one._trial_id)
                yield self._fill(trial)

    def ask(
        self, origin: Origin, place: int | None = None, fixed: Mapping[str, object] | None = None
    ) -> TrialStart:
        """The next trial: at a ``fixed`` point of the space, or as the sampler proposes. ``place``
        is its number among those of its origin."""
        from optuna.trial import TrialState

        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            attrs = {OWNER_ATTR: self._owner, ORIGIN_ATTR: origin}
            if place is not None:
                attrs[PLACE_ATTR] = str(place)
            # All of its values in one write: half a proposal could not be made again.
            point = self._propose() if origin == "sampler" else fixed or {}
            with without_experimental_warnings():
                self.study.enqueue_trial(self._proposals.to_stored(point), user_attrs=attrs)
        with without_experimental_warnings():
            trial = self.study.ask()
        if trial.user_attrs.get(OWNER_ATTR) != self._owner:
            # Another process has requested it and takes ours: a trial is done once either way.
            trial.set_user_attr(OWNER_ATTR, self._owner)
        return self._fill(trial)

    def tell(self, start: TrialStart, result: TrialResult) -> None:
        """Report the result of a trial: first its values, then that it is finished. The sampler
        uses its ``score``, higher is better."""
        from optuna.trial import TrialState

        start.handle.set_user_attr(RESULT_ATTR, result.pack())
        outside = start.origin == "default" and self._proposals.default is None
        with without_experimental_warnings():
            if result.state == "failed" or outside or not np.isfinite(result.score):
                # A default outside the space would teach the sampler nothing about the space.
                self.study.tell(start.number, state=TrialState.FAIL)
            elif result.state == "pruned":
                self.study.tell(start.number, state=TrialState.PRUNED)
            else:
                self.study.tell(start.number, result.score)

    def give_back(self, start: TrialStart) -> None:
        """Discard a trial whose settings were tried already: it does not count as a trial."""
        from optuna.trial import TrialState

        self.study.tell(start.number, state=TrialState.FAIL)

    def _propose(self) -> dict[str, Any]:
        """The sampler's next proposal, given the trials so far: made on a copy in memory."""
        import optuna
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        with without_experimental_warnings():
            copy = optuna.create_study(
                direction="maximize", sampler=self._proposals.sampler(len(trials))
            )
            copy.add_trials([one for one in trials if one.state in states])
            return self._proposals.suggest(copy.ask())

    def _fill(self, trial: Trial) -> TrialStart:
        """The trial with a value for every active key."""
        origin: Origin = trial.user_attrs.get(ORIGIN_ATTR, "sampler")
        default = self._proposals.default
        if origin == "default" and default is None:
            return TrialStart(trial.number, {}, origin, trial)
        with without_experimental_warnings():
            settings = self._proposals.suggest(trial)
        if origin == "default" or settings == default:
            # What ``train`` takes by default, to the last digit, whoever came upon it.
            settings, origin = {}, "default"
        return TrialStart(trial.number, settings, origin, trial)


def suggest_value(trial: Trial, dimension: Dimension) -> Any:
    """The value of one dimension in a trial. Choices are stored as texts: a library of plain values
    treats true as 1, and has no lists."""
    if dimension.value_type == "choice":
        return json.loads(
            trial.suggest_categorical(dimension.key, [canonical_text(c) for c in dimension.choices])
        )
    if dimension.value_type == "whole":
        step = 1 if dimension.log else int(dimension.step or 1)
        return int(
            trial.suggest_int(
                dimension.key, int(dimension.low), int(dimension.high), step=step, log=dimension.log
            )
        )
    stride = None if dimension.log or dimension.step is None else float(dimension.step)
    low, high = float(dimension.low), float(dimension.high)
    return float(trial.suggest_float(dimension.key, low, high, step=stride, log=dimension.log))


def _open_study(storage: BaseStorage, where: str, about: Mapping[str, object]) -> OptunaStudy:
    """The study of these trials in a storage: created, or found. Raises ``RunError`` if a file
    holds a different study."""
    import optuna

    name = f"holdfast-{json_digest(dict(about))[:12]}"
    existing = {one.study_name: one for one in optuna.get_all_study_summaries(storage)}
    if name not in existing and "://" not in where:
        _refuse_other(where, existing, about)
    study = optuna.create_study(
        storage=storage, study_name=name, load_if_exists=True, direction="maximize"
    )
    if SEARCH_ATTR not in study.user_attrs:
        study.set_user_attr(SEARCH_ATTR, dict(about))
    return study


def _refuse_other(
    where: str, existing: Mapping[str, StudySummary], about: Mapping[str, object]
) -> None:
    """A file holds one study; a different one is refused."""
    for name, summary in existing.items():
        recorded = summary.user_attrs.get(SEARCH_ATTR)
        remedy = "Name another file, or repeat the command that started the study."
        if not isinstance(recorded, Mapping):
            rule = "holds a study that Holdfast did not make"
            raise RunError(mask_password(where), rule, name, remedy)
        differs = [word for key, word in DIFFERENCES.items() if recorded.get(key) != about.get(key)]
        rule = f"holds the study of another search: {', '.join(differs) or 'by another version'}"
        keys = None
        if recorded.get("space") != about.get("space"):
            keys = ", ".join(str(one.get("key")) for one in recorded.get("space") or ()) or None
        raise RunError(mask_password(where), rule, keys, remedy)
