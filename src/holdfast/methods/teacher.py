"""Knowledge distillation: learning from a teacher's predictions in addition to labels (1503.02531).

    ℓ = (1 − α) · CE(y) + α · T² · KL( p_T ‖ q_T )        p_T = mean over teachers of softmax(z ÷ T)

for a row that has a label, with z a teacher's logits and q the student's; only T² · KL for a row
without one. T² keeps the gradient of the same size whatever the temperature. For several labels it
is the mean over the labels of the KL between the two predictions, as their own loss is; for tags
and target tokens the mean over those of a row that the teachers predicted; for numbers the squared
difference, in standard deviations of the training rows. ``logits`` in place of ``probabilities``:
the mean squared difference of the logits from the teachers' mean, each table of logits minus its
mean over the classes, on which no probability depends; it is the limit of a high temperature.

Value and gradient are those of the closed form: a student with its teacher's predictions has a loss
of exactly 0, and a gradient of exactly 0.

Inner states may be matched to the teacher's too (``InnerStateLoss``): hidden states and relations.
The states of a block are compared directly, by the mean squared difference over tokens and width
(1412.6550, 1909.10351). Where teacher and student have different widths, the similarities of tokens
are compared, the cosines of all pairs of a text (1907.09682), which needs no learned projection.
The relations of a block are, by head, softmax(x xᵀ ÷ √d) of its queries, its keys and its values;
they are matched to the teacher's by their divergence, whatever the widths (2012.15828).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from holdfast.core.errors import Defect
from holdfast.core.updates import ForwardPass, logits_of
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch
    from torch import nn


Problem = Literal["class", "several", "number"]
Compared = Literal["probabilities", "logits"]


def soft_targets(
    logits: Sequence[torch.Tensor], temperature: float, problem: Problem
) -> torch.Tensor:
    """The mean of the teachers' probabilities [n, outputs] at this temperature, from their
    ``logits`` [n, outputs] each; for numbers the mean of their predictions."""
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
    """T² · KL(p ‖ q) [n] in nats of the probabilities ``taught`` [n, outputs], as ``soft_targets``
    gives them, and those of ``logits`` [n, outputs]; for several labels the mean over them.

    The gradient by the logits is T · (q − p), ÷ the number of labels where there are several.
    """
    import torch

    scaled_logits = logits.float() / temperature
    if problem == "several":
        logsigmoid, student_probabilities = (
            torch.nn.functional.logsigmoid,
            torch.sigmoid(scaled_logits),
        )
        value = torch.special.entr(taught) + torch.special.entr(1 - taught)
        value = -(
            value + taught * logsigmoid(scaled_logits) + (1 - taught) * logsigmoid(-scaled_logits)
        )
        value, outputs = value.mean(dim=-1), logits.shape[-1]
    else:
        student_probabilities, outputs = torch.softmax(scaled_logits, dim=-1), 1
        value = -(torch.special.entr(taught) + taught * scaled_logits.log_softmax(dim=-1)).sum(
            dim=-1
        )
    # Cancelling sums leave the last digit; where the two are equal there is nothing to learn.
    value = torch.where(
        (student_probabilities == taught).all(dim=-1), torch.zeros_like(value), value
    )
    slope = (temperature / outputs) * (student_probabilities - taught).detach()
    logit_gradient = logits.float() - logits.float().detach()
    exact: torch.Tensor = temperature**2 * value.detach() + (slope * logit_gradient).sum(dim=-1)
    return exact


def squared(taught: torch.Tensor, logits: torch.Tensor, centred: bool) -> torch.Tensor:
    """The mean squared difference [n] of two tables [n, outputs]; ``centred``: each row of both
    minus its mean."""
    first, second = taught.float(), logits.float()
    if centred:
        first, second = (one - one.mean(dim=-1, keepdim=True) for one in (first, second))
    return ((second - first) ** 2).mean(dim=-1)


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """The teachers' predictions for a pass: ``logits`` of each teacher [n, outputs], n rows or
    tokens; ``known`` [n] says which of them were predicted (all, where ``None``)."""

    logits: Sequence[torch.Tensor]
    known: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DistillationLoss:
    """The loss term. ``query_teacher`` gives the teachers' predictions for a pass; rows from
    ``labelled`` on have no label of their own, and those from ``rows`` on no teacher (general rows
    in the same pass). ``weight`` is α, ``temperature`` T; ``further_losses`` gives further losses
    [batch] of a pass."""

    query_teacher: Callable[[ForwardPass], TeacherOutputs]
    labelled: int
    rows: int
    weight: float
    temperature: float
    problem: Problem = "class"
    compared: Compared = "probabilities"
    further_losses: Callable[[ForwardPass], torch.Tensor] | None = None
    name: ClassVar[str] = "taught"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if len(passed.rows) and int(min(passed.rows)) >= self.rows:
            return losses
        teacher_losses = self.distance_from_teacher(passed)
        rows = torch.as_tensor(passed.rows, device=losses.device)
        mixed = (1 - self.weight) * losses + self.weight * teacher_losses
        combined = torch.where(rows < self.labelled, mixed, teacher_losses)
        return combined if self.further_losses is None else combined + self.further_losses(passed)

    def distance_from_teacher(self, passed: ForwardPass) -> torch.Tensor:
        """The distance of the student from its teachers, for each row [batch]."""
        import torch

        teacher = self.query_teacher(passed)
        logits = logits_of(passed.output)
        if self.problem == "number":
            each = squared(soft_targets(teacher.logits, 1.0, "number"), logits, centred=False)
        elif self.compared == "logits":
            mean = torch.stack([one.float() for one in teacher.logits]).mean(dim=0)
            each = squared(mean, logits, centred=self.problem == "class")
        else:
            p = soft_targets(teacher.logits, self.temperature, self.problem)
            each = divergence(p, logits, self.temperature, self.problem)
        counts: Any = passed.batch.get("counts")
        if teacher.known is not None:
            each = torch.where(teacher.known, each, torch.zeros_like(each))
        if counts is None or teacher.known is None:
            return row_means(each, counts)
        total = torch.segment_reduce(each, "sum", lengths=counts)
        number = torch.segment_reduce(teacher.known.float(), "sum", lengths=counts)
        return total / number.clamp(min=1)


NOWHERE = -1e30


def hidden_state_distance(
    teacher: torch.Tensor, student: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The distance of hidden states, for each text [B]: the mean squared difference of ``teacher``
    [B, T, H] and ``student`` [B, T, H'] over real tokens (``mask`` [B, T]) and width; for different
    widths that of the cosines of all pairs of tokens."""
    first, second, real = teacher.float(), student.float(), mask.float()
    if first.shape[-1] == second.shape[-1]:
        each = ((second - first) ** 2).mean(dim=-1)
        mean: torch.Tensor = (each * real).sum(dim=1) / real.sum(dim=1)
        return mean
    pairs = real[:, :, None] * real[:, None, :]
    cosines = [_cosines(one) for one in (first, second)]
    gap = (cosines[1] - cosines[0]) ** 2
    difference: torch.Tensor = (gap * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))
    return difference


def _cosines(states: torch.Tensor) -> torch.Tensor:
    unit = states / states.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    cosines: torch.Tensor = unit @ unit.transpose(1, 2)
    return cosines


def relation_distance(
    teacher: torch.Tensor, student: torch.Tensor, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    """KL(teacher ‖ student) [B] in nats of the relations among the tokens of a text, the mean over
    real tokens and ``heads``, into which the widths of ``teacher`` [B, T, D] and ``student``
    [B, T, D'] are split."""
    first, second = (_relations(one.float(), mask, heads) for one in (teacher, student))
    each, real = (first.exp() * (first - second)).sum(dim=-1).mean(dim=1), mask.float()
    relation_divergence: torch.Tensor = (each * real).sum(dim=1) / real.sum(dim=1)
    return relation_divergence


def _relations(x: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """Log probabilities [B, heads, T, T] of which token each is related to."""
    batch, tokens, width = x.shape
    parts = x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)
    similarity = parts @ parts.transpose(2, 3) / (width // heads) ** 0.5
    log_probabilities: torch.Tensor = similarity.masked_fill(
        ~mask.bool()[:, None, None, :], NOWHERE
    ).log_softmax(dim=-1)
    return log_probabilities


class ModuleOutputs:
    """The outputs of some modules of a network in the last pass, by name: in training mode, or
    ``always``."""

    def __init__(self, modules: Mapping[str, nn.Module], always: bool = False) -> None:
        self._outputs: dict[str, Any] = {}
        for name, module in modules.items():
            module.register_forward_hook(self._output_hook(name, always))

    def _output_hook(self, name: str, always: bool) -> Callable[..., None]:
        def keep_output(
            module: nn.Module,
            given: tuple[object, ...],
            output: torch.Tensor | tuple[torch.Tensor, ...],
        ) -> None:
            if always or module.training:
                self._outputs[name] = output[0] if isinstance(output, tuple) else output

        return keep_output

    def take(self) -> dict[str, torch.Tensor]:
        """The stored outputs, which are then dropped, since they hold the whole pass."""
        outputs, self._outputs = self._outputs, {}
        return outputs


@dataclass(frozen=True, slots=True, eq=False)
class InnerStateLoss:
    """Further losses [batch] of a pass: ``hidden`` times the distance of the states, the mean over
    ``pairs`` of names (the teacher's, the student's), and ``attention`` times that of the relations
    of ``relation_names``. ``query_teacher`` runs the teacher on the pass, whose module outputs
    ``teacher`` records."""

    query_teacher: Callable[[ForwardPass], None]
    teacher: ModuleOutputs
    student: ModuleOutputs
    hidden: float
    attention: float
    pairs: Sequence[tuple[str, str]]
    relation_names: Sequence[str]
    heads: int

    def __call__(self, passed: ForwardPass) -> torch.Tensor:
        import torch

        with torch.no_grad():
            self.query_teacher(passed)
        first, second, mask = self.teacher.take(), self.student.take(), passed.batch
        real = mask["attention_mask"]
        if not second:
            raise Defect("distill.hidden", "got no outputs of a pass of the student")
        total = torch.zeros(len(real), device=real.device)
        if self.hidden:
            apart = [hidden_state_distance(first[a], second[b], real) for a, b in self.pairs]
            total = total + self.hidden * torch.stack(apart).mean(dim=0)
        if self.attention:
            each = [
                relation_distance(first[n], second[n], real, self.heads)
                for n in self.relation_names
            ]
            total = total + self.attention * torch.stack(each).mean(dim=0)
        return total
