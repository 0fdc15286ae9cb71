"""What lies between a text and its answer, held to the teacher's: hidden states and relations.

The states of a block are compared as they are, by the mean squared difference over tokens and width
(1412.6550, 1909.10351); where teacher and student are of different widths by how alike tokens are,
the cosines of all pairs of a text (1907.09682), which no projection has to be learned for. The
relations of a block are, by head, softmax(x xᵀ ÷ √d) of its queries, its keys and its values; they
are held to the teacher's by their divergence, whatever the widths (2012.15828).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import Defect
from holdfast.core.updates import ForwardPass

if TYPE_CHECKING:
    import torch
    from torch import nn


NOWHERE = -1e30


def states_apart(teacher: torch.Tensor, student: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How far hidden states are apart, of each text [B]: the mean squared difference of
    ``teacher`` [B, T, H] and ``student`` [B, T, H'] over real tokens (``mask`` [B, T]) and width;
    of other widths that of the cosines of all pairs of tokens."""
    first, second, real = teacher.float(), student.float(), mask.float()
    if first.shape[-1] == second.shape[-1]:
        each = ((second - first) ** 2).mean(dim=-1)
        mean: torch.Tensor = (each * real).sum(dim=1) / real.sum(dim=1)
        return mean
    pairs = real[:, :, None] * real[:, None, :]
    cosines = [_cosines(one) for one in (first, second)]
    gap = (cosines[1] - cosines[0]) ** 2
    found: torch.Tensor = (gap * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))
    return found


def _cosines(states: torch.Tensor) -> torch.Tensor:
    unit = states / states.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    found: torch.Tensor = unit @ unit.transpose(1, 2)
    return found


def relations_apart(
    teacher: torch.Tensor, student: torch.Tensor, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    """KL(teacher ‖ student) [B] in nats of the relations among the tokens of a text, the mean over
    real tokens and ``heads``, into which the widths of ``teacher`` [B, T, D] and ``student``
    [B, T, D'] are cut."""
    first, second = (_relations(one.float(), mask, heads) for one in (teacher, student))
    each, real = (first.exp() * (first - second)).sum(dim=-1).mean(dim=1), mask.float()
    found: torch.Tensor = (each * real).sum(dim=1) / real.sum(dim=1)
    return found


def _relations(x: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """Log probabilities [B, heads, T, T] of which token each is related to."""
    batch, tokens, width = x.shape
    parts = x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)
    alike = parts @ parts.transpose(2, 3) / (width // heads) ** 0.5
    found: torch.Tensor = alike.masked_fill(~mask.bool()[:, None, None, :], NOWHERE).log_softmax(
        dim=-1
    )
    return found


class ModuleOutputs:
    """What some modules of a network put out in the last pass, by name: while they learn, or
    ``always``."""

    def __init__(self, modules: Mapping[str, nn.Module], always: bool = False) -> None:
        self._said: dict[str, Any] = {}
        for name, module in modules.items():
            module.register_forward_hook(self._hearing(name, always))

    def _hearing(self, name: str, always: bool) -> Callable[..., None]:
        def hear(
            module: nn.Module,
            given: tuple[object, ...],
            said: torch.Tensor | tuple[torch.Tensor, ...],
        ) -> None:
            if always or module.training:
                self._said[name] = said[0] if isinstance(said, tuple) else said

        return hear

    def take(self) -> dict[str, torch.Tensor]:
        """What was heard; it is not kept, for it holds the whole pass."""
        said, self._said = self._said, {}
        return said


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """Further losses [batch] of a pass: ``hidden`` times how far the states are apart, the mean
    over ``pairs`` of names (the teacher's, the student's), and ``attention`` times the relations of
    ``related`` names. ``ask`` has the teacher read the pass, whose inside ``teacher`` hears."""

    ask: Callable[[ForwardPass], None]
    teacher: ModuleOutputs
    student: ModuleOutputs
    hidden: float
    attention: float
    pairs: Sequence[tuple[str, str]]
    related: Sequence[str]
    heads: int

    def __call__(self, passed: ForwardPass) -> torch.Tensor:
        import torch

        with torch.no_grad():
            self.ask(passed)
        first, second, mask = self.teacher.take(), self.student.take(), passed.batch
        real = mask["attention_mask"]
        if not second:
            raise Defect("distill.hidden", "heard nothing of a pass of the student")
        total = torch.zeros(len(real), device=real.device)
        if self.hidden:
            apart = [states_apart(first[a], second[b], real) for a, b in self.pairs]
            total = total + self.hidden * torch.stack(apart).mean(dim=0)
        if self.attention:
            each = [relations_apart(first[n], second[n], real, self.heads) for n in self.related]
            total = total + self.attention * torch.stack(each).mean(dim=0)
        return total
