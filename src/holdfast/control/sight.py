"""What a policy sees at an evaluation: numbers and words, no model and no rows; it must decide only
by these.

They are written to ``events.jsonl`` at every evaluation. So a policy's decisions can be reproduced
from the file (``control/replay.py``), with the same policy or another one.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.records import to_json

Record = Mapping[str, Any]


# Names of remedies in the events of older runs, and what they are called now.
RENAMED = {
    "more layers": "more trainable layers",
    "longer": "more steps",
    "a fresh last layer": "a reset last layer",
    "held near the start": "regularization towards the base model",
    "the rate brought down from the best state": "learning-rate decay from the best checkpoint",
    "rows in other forms": "stronger augmentation",
    "one notch of regularisation": "label smoothing",
}


@dataclass(frozen=True, slots=True)
class LossDifference:
    """A mean paired difference of calibrated validation losses with its 95 % interval; ``above`` is
    the one-sided probability that it is above 0, by Student's t. All are ``None`` where it is
    undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None

    @property
    def worse(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low is not None and self.low > 0

    @property
    def better(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high is not None and self.high < 0


@dataclass(frozen=True, slots=True)
class Can:
    """What can be done in this run: ``actions`` by their class's name; ``methods`` that can be
    switched on, with their usual settings; by how many ``notches`` augmentation can be
    strengthened; whether the rows are ``pictures`` (images); the names of the trainable ``layers``,
    those next to the input first; whether other layers are ``frozen`` and can be trained; and
    whether the schedule ``falls`` to zero by the end of the plan."""

    actions: tuple[str, ...] = ("Stop",)
    methods: Mapping[str, Any] = field(default_factory=dict)
    notches: int = 0
    frozen: bool = False
    pictures: bool = False
    layers: tuple[str, ...] = ()
    falls: bool = True

    def does(self, *names: str) -> bool:
        """Whether all actions of these names are possible."""
        return set(names) <= set(self.actions)


@dataclass(frozen=True, slots=True)
class RemedyTrial:
    """A trial in progress, or one that has ended: the ``name`` of the remedy; the evaluation at
    which it began (``step`` of the branch ``branch``); ``from_step`` from which it continued; what
    was ``done`` (records of actions); whether the run was ``over`` without it; whether a checkpoint
    of it is ``kept``, by the paired test against the checkpoint kept before; and whether it must
    show a gain ``in_time``, while the previous plan can still be finished."""

    name: str
    step: int
    branch: int
    from_step: int
    done: tuple[Record, ...] = ()
    over: bool = False
    kept: bool = False
    in_time: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known at one evaluation.

    ``planned`` is the step at which the run ends by its current plan, ``spent`` the updates taken
    so far in all branches, ``most`` the limit on them; ``apart`` the updates between two
    evaluations; ``first_end`` the first step of the last phase, before which no run can end.
    ``label``, ``cause``, ``because``, ``harm`` and ``confidence`` are the verdict's. ``over`` is
    the record of the ``Stop`` by which the policy ``stop`` would end the run here; ``end`` says
    whether its plan ends here. ``kept_step`` is the step of the checkpoint that would be kept now,
    ``kept_before`` of the one that was kept when the current trial began. ``loss`` is the
    calibrated validation loss, ``train_loss`` that of the training sample, ``first_train`` the
    latter at the first evaluation; ``at_floor`` says whether the training loss is near zero.
    ``against_first``, ``against_kept`` and ``against_before`` compare this evaluation with the
    first, with the kept one and with the one kept before the current trial, which has had
    ``trial_looks`` evaluations. ``chance`` is the loss of always predicting the class frequencies,
    where rows have a class. ``rate`` is the peak learning rate of the current plan, ``usual`` the
    smallest and the largest that are known to work. ``silent`` is the share of the classes of the
    validation rows that are never predicted, ``skew`` the ratio of training rows of the most
    frequent to the rarest class. ``points`` are the steps to which the run can go back, ``plans``
    the steps at which it would end from each; ``epoch`` the updates per epoch. ``tried`` are the
    trials that have ended, ``trial`` the current one, ``trials_left`` how many may still begin.
    ``findings`` are the sentences of findings that name leaking rows.
    """

    step: int
    look: int
    branch: int
    planned: int
    first_planned: int
    spent: int
    most: int
    apart: int
    label: str
    because: str
    confidence: float
    kept_step: int
    can: Can
    kept_before: int | None = None
    cause: str | None = None
    harm: str | None = None
    over: Record | None = None
    end: bool = False
    loss: float | None = None
    train_loss: float | None = None
    first_train: float | None = None
    at_floor: bool = False
    against_first: LossDifference = LossDifference()
    against_kept: LossDifference = LossDifference()
    against_before: LossDifference = LossDifference()
    chance: float | None = None
    trial_looks: int = 0
    rate: float | None = None
    usual: tuple[float, ...] | None = None
    silent: float | None = None
    skew: float | None = None
    points: tuple[int, ...] = ()
    plans: tuple[int, ...] = ()
    epoch: int | None = None
    tried: tuple[RemedyTrial, ...] = ()
    trial: RemedyTrial | None = None
    trials_left: int = 0
    first_end: int = 1
    valid_rows: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run ends at this evaluation if nothing is done."""
        return self.end or self.over is not None

    @property
    def failing(self) -> bool:
        """Whether the current trial shows no gain in time; or, where it continued from the kept
        checkpoint or from a later one, is worse than that at its second evaluation or later."""
        trial, before = self.trial, self.kept_before
        if trial is None or trial.kept or before is None:
            return False
        is_later = trial.from_step >= before
        worse = is_later and self.trial_looks > 1 and self.against_before.worse
        needed = self.first_planned - trial.step
        return worse or (trial.in_time and self.room - self.apart < needed)

    @property
    def left(self) -> float | None:
        """What is left to learn of the training rows: the training loss as a share of the larger of
        its first value and the loss of the class frequencies."""
        most = max(self.first_train or 0.0, self.chance or 0.0)
        return None if self.train_loss is None or not most > 0 else self.train_loss / most

    @property
    def room(self) -> int:
        """Updates that may still be taken."""
        return max(0, self.most - self.spent)

    def may_end_from(self, step: int) -> bool:
        """Whether the updates that may still be taken lead from this step to the last phase."""
        return step + self.room >= self.first_end

    def planned_from(self, step: int) -> int:
        """The step at which the run would end if it went back to ``step``: the plan goes back
        too."""
        return dict(zip(self.points, self.plans, strict=False)).get(step, self.first_planned)

    def tries(self, name: str) -> int:
        """How often the remedy of this name has been tried, including the current trial."""
        trials = (*self.tried, *([self.trial] if self.trial is not None else []))
        return sum(name in (past.name, RENAMED.get(past.name)) for past in trials)

    def to_record(self) -> dict[str, Any]:
        """The sight in JSON's types."""
        record: dict[str, Any] = to_json(self)
        return record

    @classmethod
    def from_record(cls, record: Record) -> Sight:
        """The sight of a record; fields of a later version are ignored."""
        sight: Sight = from_json(cls, record)
        return sight


def from_json(value_type: object, value: Any) -> Any:
    """A value of the type ``value_type``, a dataclass of this package or a type of its fields, from
    the result of ``to_json``."""
    if value is None:
        return None
    origin, arguments = typing.get_origin(value_type), typing.get_args(value_type)
    if origin in (types.UnionType, typing.Union):
        return from_json(next(one for one in arguments if one is not type(None)), value)
    if origin is tuple:
        return tuple(from_json(arguments[0], one) for one in value)
    if dataclasses.is_dataclass(value_type) and isinstance(value_type, type):
        hints = typing.get_type_hints(value_type)
        return value_type(**{k: from_json(hints[k], v) for k, v in value.items() if k in hints})
    return value
