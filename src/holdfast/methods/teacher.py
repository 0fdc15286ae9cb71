"""Learning from what a teacher says of a row beside its label: knowledge distillation (1503.02531).

    ℓ = (1 − α) · CE(y) + α · T² · KL( p_T ‖ q_T )        p_T = mean over teachers of softmax(z ÷ T)

of a row that has a label, z a teacher's logits and q the student's; T² · KL alone of one that has
none. T² keeps the gradient of the same size whatever the temperature. Of several labels it is the
mean over the labels of the KL between the two answers, as their own loss is; of tags and of target
tokens the mean over those of a row that the teachers said something of; of numbers the squared
difference, in deviations of the training rows. ``logits`` in place of ``probabilities``: the mean
squared difference of the logits from the teachers' mean, each table of logits less its mean over
the classes, which no probability depends on; it is the limit of a high temperature.

Value and gradient are those of the closed form: a student that says what its teacher says has a
loss of exactly 0, and moves by exactly nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from holdfast.core.updates import ForwardPass, logits_of
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch


Problem = Literal["class", "several", "number"]
Compared = Literal["probabilities", "logits"]


def softened(logits: Sequence[torch.Tensor], temperature: float, problem: Problem) -> torch.Tensor:
    """The mean of the teachers' probabilities [n, outputs] at this temperature, of their ``logits``
    [n, outputs] each; of numbers the mean of what they say."""
    import torch

    tables = [one.float() for one in logits]
    if problem == "number":
        return torch.stack(tables).mean(dim=0)
    if problem == "several":
        return torch.stack([torch.sigmoid(one / temperature) for one in tables]).mean(dim=0)
    return torch.stack([torch.softmax(one / temperature, dim=-1) for one in tables]).mean(dim=0)


def divergence(
    taught: torch.Tensor, logits: torch.Tensor, temperature: float, problem: Problem = "class"
) -> torch.Tensor:
    """T² · KL(p ‖ q) [n] in nats of the probabilities ``taught`` [n, outputs], as ``softened``
    gives them, and those of ``logits`` [n, outputs]; of several labels the mean over them.

    The gradient by the logits is T · (q − p), ÷ the number of labels where there are several.
    """
    import torch

    now = logits.float() / temperature
    if problem == "several":
        logsigmoid, said = torch.nn.functional.logsigmoid, torch.sigmoid(now)
        value = torch.special.entr(taught) + torch.special.entr(1 - taught)
        value = -(value + taught * logsigmoid(now) + (1 - taught) * logsigmoid(-now))
        value, outputs = value.mean(dim=-1), logits.shape[-1]
    else:
        said, outputs = torch.softmax(now, dim=-1), 1
        value = -(torch.special.entr(taught) + taught * now.log_softmax(dim=-1)).sum(dim=-1)
    # Sums that cancel leave the last digit; where the two are the same there is nothing to learn.
    value = torch.where((said == taught).all(dim=-1), torch.zeros_like(value), value)
    slope = (temperature / outputs) * (said - taught).detach()
    moved = logits.float() - logits.float().detach()
    exact: torch.Tensor = temperature**2 * value.detach() + (slope * moved).sum(dim=-1)
    return exact


def squared(taught: torch.Tensor, logits: torch.Tensor, centred: bool) -> torch.Tensor:
    """The mean squared difference [n] of two tables [n, outputs]; ``centred``: each row of either
    less its mean."""
    first, second = taught.float(), logits.float()
    if centred:
        first, second = (one - one.mean(dim=-1, keepdim=True) for one in (first, second))
    return ((second - first) ** 2).mean(dim=-1)


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """What the teachers say of a pass: ``logits`` of each teacher [n, outputs], n rows or tokens;
    ``known`` [n] whether they said something of it (of all, where ``None``)."""

    logits: Sequence[torch.Tensor]
    known: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """The loss term. ``ask`` gives what the teachers say of a pass; rows from ``labelled`` on have
    no label of their own, and those from ``rows`` on no teacher (general ones that pass beside
    them). ``weight`` is α, ``temperature`` T; ``beside`` gives further losses
    [batch] of a pass."""

    ask: Callable[[ForwardPass], TeacherOutputs]
    labelled: int
    rows: int
    weight: float
    temperature: float
    problem: Problem = "class"
    compared: Compared = "probabilities"
    beside: Callable[[ForwardPass], torch.Tensor] | None = None
    name: ClassVar[str] = "taught"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if len(passed.rows) and int(min(passed.rows)) >= self.rows:
            return losses
        taught = self.apart(passed)
        rows = torch.as_tensor(passed.rows, device=losses.device)
        mixed = (1 - self.weight) * losses + self.weight * taught
        found = torch.where(rows < self.labelled, mixed, taught)
        return found if self.beside is None else found + self.beside(passed)

    def apart(self, passed: ForwardPass) -> torch.Tensor:
        """How far the student is from its teachers, of each row [batch]."""
        import torch

        said = self.ask(passed)
        logits = logits_of(passed.output)
        if self.problem == "number":
            each = squared(softened(said.logits, 1.0, "number"), logits, centred=False)
        elif self.compared == "logits":
            mean = torch.stack([one.float() for one in said.logits]).mean(dim=0)
            each = squared(mean, logits, centred=self.problem == "class")
        else:
            p = softened(said.logits, self.temperature, self.problem)
            each = divergence(p, logits, self.temperature, self.problem)
        counts: Any = passed.batch.get("counts")
        if said.known is not None:
            each = torch.where(said.known, each, torch.zeros_like(each))
        if counts is None or said.known is None:
            return row_means(each, counts)
        total = torch.segment_reduce(each, "sum", lengths=counts)
        number = torch.segment_reduce(said.known.float(), "sum", lengths=counts)
        return total / number.clamp(min=1)
