"""Between the start and the end of a run, the whole line of weights tried (WiSE-FT, 2109.01903).

    w(a) = (1 − a) · w_start + a · w_end,  a = 0, 1/n, … , 1

``w_start`` are the weights before the first step, with the head that was fitted to them where the
run began as a linear probe, ``w_end`` those of the state that is kept. Fine-tuning gains on rows
like the training rows and loses what the pretrained model knew of others; on the line between, the
paper finds 4 to 6 points of the second at little or no loss of the first. Every point is measured
on the validation rows, and the whole curve is written down: it is the trade-off of one run.

Validation rows are of the rows' own kind, so they tell the gain, and cannot tell what is kept of
the rest, which a general probe (``probes.forgetting``) measures: the curve then has its loss at
every point. ``lean`` says what to do about that: ``lowest`` offers the point of lowest validation
loss; ``start`` the one nearest to the start that validation does not tell from the best. ``within``
says how many nats of validation loss may be given up for what the model knew before: the point that
is best on the general probe within that, or without a probe the one nearest to the start.
Under an adapter the line is that of its factors, which is one from the start to the end too.
Siblings: ``ema``, ``swa`` and ``soup`` average the way, not its ends; against forgetting while it
trains see ``l2_sp``, ``kl_start`` and ``replay``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

    from holdfast.core.records import Floats, Snapshot
    from holdfast.training.run import Run

Tensors = Mapping[str, "torch.Tensor"]
LEANS = ("lowest", "start")


def between(start: Tensors, end: Tensors, share: float) -> dict[str, torch.Tensor]:
    """``share`` of the way from ``start`` to ``end``; of whole numbers those of ``end``."""
    import torch

    return {
        name: torch.lerp(start[name].to(last.device), last, share)
        if last.is_floating_point()
        else last
        for name, last in end.items()
    }


@dataclass(frozen=True, slots=True)
class Wise:
    """``points`` is n, the parts that the line is cut into: n − 1 points are tried between its ends
    (2: the half of the way alone). ``lean`` chooses one of them; ``within`` nats of validation
    loss, where above 0, does in its place."""

    points: int = setting(10, least=2, most=100, whole=True)
    lean: str = setting("lowest", words=LEANS)
    within: float = setting(0.0, most=10)


class LineSearch:
    """The listener; it has no state, since a run keeps its start and its end anyway."""

    name: ClassVar[str] = "wise"
    place: ClassVar[Place] = "change"

    def __init__(self, points: int, lean: str, within: float = 0.0) -> None:
        self._points, self._lean, self._within = points, lean, within

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        # A run that keeps its start still went somewhere.
        end, step = (run.best.tensors, run.best.step)
        if not step:
            end, step = run.previous, run.looked.step
        shares = [at / self._points for at in range(self._points + 1)]
        looks = [trial(between(run.start, end, share)) for share in shares]
        losses = np.array([look.refined_loss for look in looks])
        curve = [_point(share, look) for share, look in zip(shares, looks, strict=True)]
        if not np.isfinite(losses).all():
            return "the validation loss of a point between the start and the end is no number"
        if self._within > 0:
            place = self._allowed(losses, looks)
        else:
            place = self._chosen(losses, [trial.is_kept(look) for look in looks[1:-1]])
        shown = ", ".join(f"{s:.2g}: {loss:.4g}" for s, loss in zip(shares, losses, strict=True))
        if place is None:
            side = "the end" if losses[-1] <= losses[0] else "the start"
            return f"of the line from the start to the end (loss by share: {shown}) {side} is best"
        made_of = f"{shares[place]:.2g} of the way from the start to step {step} (loss by share: "
        tensors = between(run.start, end, shares[place])
        return Offer(tensors, step, f"{made_of}{shown})", curve, self._within)

    def _allowed(self, losses: Floats, looks: Sequence[Any]) -> int | None:
        """The place between the ends that is best on the general probe, or without one nearest to
        the start, of those within the limit above the end."""
        inner = range(1, len(losses) - 1)
        found = [place for place in inner if losses[place] <= losses[-1] + self._within]
        if not found or looks[0].general_loss is None:
            return next(iter(found), None)
        return min(found, key=lambda place: float(looks[place].general_loss))

    def _chosen(self, losses: Floats, kept: Sequence[bool]) -> int | None:
        """The place on the line; ``kept`` says of the points between its ends whether the run
        would keep them."""
        if self._lean == "start":
            return next((place for place, one in enumerate(kept, 1) if one), None)
        best = int(losses.argmin())
        return best if 0 < best < len(losses) - 1 else None


def _point(share: float, look: Snapshot) -> dict[str, float | None]:
    right = look.valid_correct
    rate = float(right.mean()) if right is not None and len(right) else None
    point = {"share": share, "valid_loss": float(look.refined_loss), "valid_right": rate}
    return point if look.general_loss is None else {**point, "general_loss": look.general_loss}


METHODS.add(
    "wise",
    Method(
        Wise,
        lambda asked: Parts(
            listeners=lambda: (LineSearch(asked.points, asked.lean, asked.within),)
        ),
    ),
)
