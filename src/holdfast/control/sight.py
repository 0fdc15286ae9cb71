"""What a policy sees at a look: numbers and words, no model and no row; all that it may decide by.

It is written to ``events.jsonl`` at every look, so what a policy decided can be worked out again
from the file alone (``control/replay.py``), by the same policy or by another one.
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


@dataclass(frozen=True, slots=True)
class LossDifference:
    """A mean difference of validation losses (after each look's best temperature), row by row, with
    its 95 % interval; ``above`` is the one-sided chance that it is above 0, by Student's t. All are
    ``None`` where it is undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None

    @property
    def worse(self) -> bool:
        """Above 0 beyond chance: the whole interval."""
        return self.low is not None and self.low > 0

    @property
    def better(self) -> bool:
        """Below 0 beyond chance."""
        return self.high is not None and self.high < 0


@dataclass(frozen=True, slots=True)
class Can:
    """What can be done in this run: ``actions`` by their class's name, ``methods`` that could be
    switched on with their usual settings, by how many ``notches`` rows could be enriched more,
    whether they are ``pictures``, the names of the ``layers`` that learn, those next to the rows
    first, whether others are ``frozen`` that could learn, and whether the schedule ``falls`` to
    nothing by the end of the plan."""

    actions: tuple[str, ...] = ("Stop",)
    methods: Mapping[str, Any] = field(default_factory=dict)
    notches: int = 0
    frozen: bool = False
    pictures: bool = False
    layers: tuple[str, ...] = ()
    falls: bool = True

    def does(self, *names: str) -> bool:
        """Whether all actions of these names can be done."""
        return set(names) <= set(self.actions)


@dataclass(frozen=True, slots=True)
class RemedyTrial:
    """A change on trial, or one that has ended: the ``name`` of the remedy, the look at which it
    was begun (``step`` of the branch ``branch``), ``from_step`` from which it went on, what was
    ``done`` (records of actions), whether the run was ``over`` without it; whether a state of
    it is ``kept``, by the paired test against the state that was kept before; and whether it must
    have something to show ``in_time``, while the plan as it was can be finished."""

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
    """One look.

    ``planned`` is the step at which the run ends as things stand, ``spent`` the updates taken so
    far in all branches, ``most`` those that it may take in all; ``apart`` those between two looks.
    ``label``, ``cause``, ``because``, ``harm`` and ``confidence`` are the verdict's. ``over`` is
    the record of the ``Stop`` by which the policy ``stop`` would end the run here; ``end`` whether
    its plan ends here. ``kept_step`` is the state that would be kept now, ``kept_before`` the one
    that was kept when the present trial began. ``loss`` is the
    validation loss after the best temperature, ``train_loss`` the train probe's, ``first_train``
    that of the first look; ``at_floor`` whether the training rows have nothing left to teach.
    ``against_first``, ``against_kept`` and ``against_before`` compare this look with the first,
    with the kept one and with the one kept before the present trial, of which ``trial_looks`` looks
    were taken. ``chance`` is the loss of always giving the class frequencies, where rows have one.
    ``rate`` is the peak rate of the plan as it stands, ``usual`` the least and the largest that are
    known to work. ``silent`` is the share of the classes of the validation rows that no answer
    names, ``skew`` how many times as many training rows the commonest class has as the rarest.
    ``points`` are the steps to which the run can go back, ``plans`` the steps at which it would end
    from each; ``epoch`` the updates of a pass over the rows. ``tried`` are trials that have ended,
    ``trial`` the present one, ``trials_left`` how many may yet begin. ``rows`` are training or
    validation rows that findings of leaks name.
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
    valid_rows: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run ends at this look if nothing is done."""
        return self.end or self.over is not None

    @property
    def failing(self) -> bool:
        """Whether the present trial, which goes on from the state that was kept or from a later
        one, is worse than that state at its second look or a later one; or has nothing to show in
        time."""
        trial, before = self.trial, self.kept_before
        if trial is None or trial.kept or before is None or trial.from_step < before:
            return False
        worse = self.trial_looks > 1 and self.against_before.worse
        needed = self.first_planned - trial.step
        return worse or (trial.in_time and self.room - self.apart < needed)

    @property
    def left(self) -> float | None:
        """What is left to learn of the training rows: the loss of the train probe as a part of that
        of knowing nothing."""
        most = max(self.first_train or 0.0, self.chance or 0.0)
        return None if self.train_loss is None or not most > 0 else self.train_loss / most

    @property
    def room(self) -> int:
        """Updates that may yet be taken."""
        return max(0, self.most - self.spent)

    def planned_from(self, step: int) -> int:
        """Where the run would end if it went back to this point: a plan goes back with its run."""
        return dict(zip(self.points, self.plans, strict=False)).get(step, self.first_planned)

    def tries(self, name: str) -> int:
        """How often the remedy of this name has been tried, the present trial counted."""
        trials = (*self.tried, *([self.trial] if self.trial is not None else []))
        return sum(past.name == name for past in trials)

    def to_record(self) -> dict[str, Any]:
        """In JSON's types."""
        record: dict[str, Any] = to_json(self)
        return record

    @classmethod
    def from_record(cls, record: Record) -> Sight:
        """The sight of a record; fields of a later version are passed over."""
        sight: Sight = from_json(cls, record)
        return sight


def from_json(value_type: object, value: Any) -> Any:
    """A value of the type ``value_type``, a dataclass of this room or what its fields hold, from
    what ``to_json`` made of it."""
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
