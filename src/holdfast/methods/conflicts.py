"""Methods that contradict each other, and pairs of which one has no effect: a table with reasons.

Contradictions are refused when a recipe is read; useless settings are a finding before the first
step. What depends only on the network (R-Drop without any dropout) is checked by the method itself
(``Parts.prepares``). To add a pair, add a line to ``TABLE``: the methods that must be on, what else
must hold, the reason, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.core.records import Finding
from holdfast.methods.balance import changes_losses

# Above it, decoupled decay pulls as much as a penalty that is set on purpose.
LARGE_DECAY = 0.05


@dataclass(frozen=True, slots=True)
class ConflictQuery:
    """What the table reads of a recipe: the ``methods`` that are on, with those of their settings
    that are known; ``enrich`` the enrichments that are on; ``head_learns``: in some phase the head
    is trained by gradient."""

    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    enrich: frozenset[str] = frozenset()
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    head_learns: bool = True


def always(query: ConflictQuery) -> bool:
    """The condition of a pair that conflicts with any settings."""
    return True


@dataclass(frozen=True, slots=True)
class MethodConflict:
    """``methods`` are names of methods that are all on; ``other_keys`` are other recipe keys
    involved, which ``condition`` checks. ``is_error``: they contradict each other; else one has no
    effect."""

    methods: tuple[str, ...]
    because: str
    remedy: str = "Leave one of them out."
    is_error: bool = False
    condition: Callable[[ConflictQuery], bool] = always
    other_keys: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys as written in a recipe."""
        return (*(f"methods.{name}" for name in self.methods), *self.other_keys)

    def applies(self, query: ConflictQuery) -> bool:
        """Whether the recipe has this conflict."""
        return all(name in query.methods for name in self.methods) and self.condition(query)


def _of_head(name: str) -> Callable[[ConflictQuery], bool]:
    """The penalty acts only on the head, and no phase trains the head by gradient."""
    return lambda query: (
        query.methods[name].get("place", "head") == "head" and not query.head_learns
    )


def _has_large_decay(query: ConflictQuery) -> bool:
    return query.weight_decay >= LARGE_DECAY


def _mixes_pictures(query: ConflictQuery) -> bool:
    return bool(query.enrich & {"mixup", "cutmix"})


def _smooths_labels(query: ConflictQuery) -> bool:
    return query.label_smoothing > 0


def _balances_losses(query: ConflictQuery) -> bool:
    balance = query.methods["balance"]
    return changes_losses(balance.get("by", "draw"), balance.get("target", "drawn"))


OTHER_LOSS = "each replace cross-entropy by another loss, and only mixup's would be used"

CONFLICTS: tuple[MethodConflict, ...] = (
    MethodConflict(
        ("elastic_net", "l1"),
        "pull the same weights with the same threshold: elastic_net includes L1",
        "Leave l1 out, and set methods.elastic_net.ratio.",
        is_error=True,
    ),
    MethodConflict(
        ("elastic_net", "l2"),
        "pull the same weights to zero twice: elastic_net includes L2",
        "Leave l2 out, and set methods.elastic_net.ratio.",
        is_error=True,
    ),
    MethodConflict(
        ("l2", "l2_sp"),
        "pull the same weights to two places, zero and the base model",
        is_error=True,
    ),
    MethodConflict(
        ("l2",),
        "pull the same weights to zero twice, coupled and decoupled",
        "Set train.weight_decay=0, or leave l2 out.",
        condition=_has_large_decay,
        other_keys=("train.weight_decay",),
    ),
    MethodConflict(
        ("l2_sp",),
        "pull the same weights to two places: the decay to zero, away from the base model",
        "Set train.weight_decay=0.",
        condition=_has_large_decay,
        other_keys=("train.weight_decay",),
    ),
    MethodConflict(
        ("l2",),
        "are the same: this optimizer adds the decay to the gradient",
        "Set only train.weight_decay.",
        condition=lambda query: query.optimizer != "adamw" and 0 < query.weight_decay < LARGE_DECAY,
        other_keys=("train.weight_decay", "train.optimizer"),
    ),
    *(
        MethodConflict(
            (name,),
            "has no effect: every phase refits the head, and none trains it by gradient",
            f"Set methods.{name}.place=all, or methods.contrast=false.",
            condition=_of_head(name),
        )
        for name in ("l1", "elastic_net")
    ),
    MethodConflict(
        ("focal",),
        "have the same effect twice: each makes predictions less confident than the rows are",
        condition=_smooths_labels,
        other_keys=("train.label_smoothing",),
    ),
    MethodConflict(
        ("pairing",),
        "compares two forms of a row, and without augment they differ only by dropout",
        "Set augment.counterfactual=true, or use methods.rdrop instead.",
        condition=lambda query: not query.enrich,
        other_keys=("enrich",),
    ),
    MethodConflict(
        ("ewc", "l2_sp"),
        "pull the same weights to the base model twice: l2_sp is ewc with all weights alike",
    ),
    MethodConflict(
        ("focal", "gce"),
        "cancel each other: focal weights wrong rows more, gce weights them less",
        is_error=True,
    ),
    *(MethodConflict((name, "mixup"), OTHER_LOSS, is_error=True) for name in ("gce", "focal")),
    MethodConflict(
        ("kl_start", "mixup"),
        "do not combine: mixup's loss replaces the loss to which the divergence was added",
        is_error=True,
    ),
    MethodConflict(
        ("balance", "mixup"),
        OTHER_LOSS,
        "Set methods.balance.by=draw and methods.balance.target=drawn, or leave mixup out.",
        is_error=True,
        condition=_balances_losses,
    ),
    MethodConflict(
        ("mixup",),
        "each make the targets softer, and mixup's loss replaces the smoothed one",
        "Set train.label_smoothing=0.",
        condition=_smooths_labels,
        other_keys=("train.label_smoothing",),
    ),
    MethodConflict(
        ("gce",),
        "act against each other: smoothing pulls rows to all classes, gce ignores doubtful rows",
        "Set train.label_smoothing=0.",
        condition=_smooths_labels,
        other_keys=("train.label_smoothing",),
    ),
    MethodConflict(
        ("mixup",),
        "mix rows twice, as pixels and as features",
        condition=_mixes_pictures,
        other_keys=("enrich",),
    ),
    *(
        MethodConflict(
            (name,),
            "change half of a mixed image: its second label is learned by plain cross-entropy",
            condition=_mixes_pictures,
            other_keys=("enrich",),
        )
        for name in ("focal", "gce")
    ),
    MethodConflict(
        ("dropconnect", "dropout"),
        "drop the same signal twice, as connections and as units",
        condition=lambda query: any(
            query.methods["dropout"].get(place) not in (None, "model", 0)
            for place in ("hidden", "attention")
        ),
    ),
    MethodConflict(
        ("progressive", "unfreeze"),
        "each set which layers are trained at a step, and disagree",
        is_error=True,
    ),
    MethodConflict(
        ("reinit", "reset_head"),
        "cancel each other: the head that is reset was fitted to layers reinitialized since",
        is_error=True,
    ),
    MethodConflict(
        ("probe_first", "progressive"),
        "have the same effect twice: training only a fitted head gains nothing and takes steps",
        "Set methods.probe_first=false, or leave progressive out.",
    ),
    MethodConflict(
        ("reinit", "wise"),
        "do not combine: averaging the base model with reinitialized layers gives no useful model",
        "Leave wise out.",
    ),
    *(
        MethodConflict(
            (name, "reinit"),
            "cancel each other: reinitialized layers are pulled back to their pretrained weights",
        )
        for name in ("ewc", "l2_sp")
    ),
    *(
        MethodConflict(
            (name,),
            "has no effect: no phase of this plan trains the head by gradient",
            "Set methods.contrast=false.",
            condition=lambda query: not query.head_learns,
        )
        for name in ("unfreeze", "progressive", "reset_head")
    ),
)


def check_conflicts(query: ConflictQuery) -> None:
    """Raise ``RecipeError`` for methods that contradict each other."""
    for clash in CONFLICTS:
        if clash.is_error and clash.applies(query):
            raise RecipeError(" and ".join(clash.keys), clash.because, None, clash.remedy)


def useless_settings(query: ConflictQuery) -> tuple[Finding, ...]:
    """A finding for each pair of which one has no effect, or that act against each other."""
    return tuple(
        Finding(
            "useless_setting",
            "warn",
            0.4,
            1,
            (),
            f"{' and '.join(clash.keys)} {clash.because}",
            clash.remedy,
        )
        for clash in CONFLICTS
        if not clash.is_error and clash.applies(query)
    )
