"""A search's trials as Optuna keeps them: which were requested, what came of each.

Whatever a trial was and gave lies in the study, so that another process, or the same after a crash,
goes on from there. The settings of trial n follow from the seed, n and the finished trials alone:
the sampler is made again for each, since its generator is not stored. A trial is requested, filled
with values, carried out and reported in separate writes; one that a crash has left in between is
taken up where it stands.
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
    cuts rows), fold by fold, at the best checkpoint; NaN for those that it was not scored on.
    ``sizes`` are how many each fold has.
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
    def is_fully_scored(self) -> bool:
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
        than the share of correct predictions (``rules/shrinkage.py``); over the rows that judged
        it."""
        known = self.losses[np.isfinite(self.losses)]
        return float(probabilities(known).mean()) if len(known) else float("nan")

    def value(self, metric: str) -> float:
        """Its accuracy or its loss, over all rows that judged it."""
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
        """Of what the study holds."""
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

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """A value for every key that has an effect."""
        settings: dict[str, Any] = {}
        for one in self.space:
            if one in self.space.active(settings):
                settings[one.key] = suggest_value(trial, one)
        return settings

    def to_stored(self, settings: Mapping[str, object]) -> dict[str, Any]:
        """The same as a trial has them (``suggested``)."""
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
        """Let go of the connections to a database."""
        close_storage(self._storage)

    def finished(self) -> tuple[TrialResult, ...]:
        """All trials that have come to their end, whoever did them, by number."""
        return tuple(
            TrialResult.unpack(one.number, one.params, one.user_attrs[RESULT_ATTR])
            for one in self.study.get_trials(deepcopy=False)
            if one.state.is_finished() and RESULT_ATTR in one.user_attrs
        )

    def started_places(self, origin: Origin) -> set[int]:
        """The places of those of this origin that were begun, by anybody."""
        return {
            int(one.user_attrs[PLACE_ATTR])
            for one in self.study.get_trials(deepcopy=False)
            if one.user_attrs.get(ORIGIN_ATTR) == origin and PLACE_ATTR in one.user_attrs
        }

    def unfinished(self) -> Iterator[TrialStart]:
        """Those that this run began and did not finish."""
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
        """The next trial: at a ``fixed`` point of the space, or where the sampler goes. ``place``
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
        """What came of a trial: first what it gave, then that it is done. The sampler goes by its
        ``score``, more being better."""
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
        """Give a trial back whose settings were tried already: it is no trial of its own."""
        from optuna.trial import TrialState

        self.study.tell(start.number, state=TrialState.FAIL)

    def _propose(self) -> dict[str, Any]:
        """Where the sampler goes next, by the trials so far: proposed by a copy in memory."""
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
        """The trial with a value for every key that has an effect."""
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
    """The value of one dimension in a trial. Choices are texts there: a library of plain values
    takes true for 1, and knows no lists."""
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
    """The study of these trials in a storage: made, or found again. Raises ``RunError`` where a
    file holds the study of something else."""
    import hashlib

    import optuna

    identity = json.dumps(dict(about), sort_keys=True)
    name = f"holdfast-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
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
    """A file holds one study: that of something else is not added to."""
    for name, summary in existing.items():
        recorded = summary.user_attrs.get(SEARCH_ATTR)
        remedy = "Name another file, or repeat the command that began it."
        if not isinstance(recorded, Mapping):
            rule = "holds a study that Holdfast did not make"
            raise RunError(mask_password(where), rule, name, remedy)
        differs = [word for key, word in DIFFERENCES.items() if recorded.get(key) != about.get(key)]
        rule = f"holds the study of another search: {', '.join(differs) or 'of another version'}"
        keys = None
        if recorded.get("space") != about.get("space"):
            keys = ", ".join(str(one.get("key")) for one in recorded.get("space") or ()) or None
        raise RunError(mask_password(where), rule, keys, remedy)
