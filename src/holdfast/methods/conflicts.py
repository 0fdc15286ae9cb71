"""Methods that contradict each other, and pairs of which one does nothing: a table, a reason each.

What contradicts is refused when a recipe is read; what is merely useless is a finding before the
first step. What depends on the network alone (R-Drop without any dropout) is the method's own to
say (``Parts.prepares``). To add a pair is to add a line to ``TABLE``: the methods that must be on,
what else must hold, the reason, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.core.records import Finding
from holdfast.methods.balance import changes_losses

# Above it, decoupled decay pulls as much as a penalty that somebody sets on purpose.
LARGE_DECAY = 0.05


@dataclass(frozen=True, slots=True)
class ConflictQuery:
    """What a recipe asks for that the table reads: the ``methods`` that are on, with those of their
    settings that are known; ``enrich`` the enrichments that are on; ``head_learns``: in some phase
    the head learns by gradient."""

    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    enrich: frozenset[str] = frozenset()
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    head_learns: bool = True


def always(query: ConflictQuery) -> bool:
    """Of a pair that clashes whatever its settings."""
    return True


@dataclass(frozen=True, slots=True)
class MethodConflict:
    """``methods`` are names of methods that are all on; ``other_keys`` names other keys of a recipe
    that take part, of which ``condition`` tells. ``is_error``: they contradict; else one is
    useless."""

    methods: tuple[str, ...]
    because: str
    remedy: str = "Leave one of them out."
    is_error: bool = False
    condition: Callable[[ConflictQuery], bool] = always
    other_keys: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """As a recipe calls them."""
        return (*(f"methods.{name}" for name in self.methods), *self.other_keys)

    def applies(self, query: ConflictQuery) -> bool:
        """Whether the recipe asks for it."""
        return all(name in query.methods for name in self.methods) and self.condition(query)


def _of_head(name: str) -> Callable[[ConflictQuery], bool]:
    """The penalty pulls the head alone, and no phase moves the head by gradient."""
    return lambda asked: (
        asked.methods[name].get("place", "head") == "head" and not asked.head_learns
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


OTHER_LOSS = "each put another loss in the place of cross-entropy, of which mixup's would be left"

CONFLICTS: tuple[MethodConflict, ...] = (
    MethodConflict(
        ("elastic_net", "l1"),
        "pull the same weights by the same threshold: elastic_net has L1 in it",
        "Leave l1 out, and set methods.elastic_net.ratio.",
        is_error=True,
    ),
    MethodConflict(
        ("elastic_net", "l2"),
        "pull the same weights to zero twice: elastic_net has L2 in it",
        "Leave l2 out, and set methods.elastic_net.ratio.",
        is_error=True,
    ),
    MethodConflict(
        ("l2", "l2_sp"), "pull the same weights to two places, zero and the start", is_error=True
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
        "pull the same weights to two places: the decay to zero, away from the start",
        "Set train.weight_decay=0.",
        condition=_has_large_decay,
        other_keys=("train.weight_decay",),
    ),
    MethodConflict(
        ("l2",),
        "are the same thing: the decay of this optimizer is added to the gradient",
        "Set train.weight_decay alone.",
        condition=lambda asked: asked.optimizer != "adamw" and 0 < asked.weight_decay < LARGE_DECAY,
        other_keys=("train.weight_decay", "train.optimizer"),
    ),
    *(
        MethodConflict(
            (name,),
            "changes nothing: the head is refitted in every phase, and learns by gradient in none",
            f"Set methods.{name}.place=all, or methods.contrast=false.",
            condition=_of_head(name),
        )
        for name in ("l1", "elastic_net")
    ),
    MethodConflict(
        ("focal",),
        "do one thing twice: each makes answers less sure than the rows are",
        condition=_smooths_labels,
        other_keys=("train.label_smoothing",),
    ),
    MethodConflict(
        ("pairing",),
        "compares two forms of a row, and without enrich they differ by dropout alone",
        "Set enrich.counterfactual=true, or methods.rdrop in its place.",
        condition=lambda asked: not asked.enrich,
        other_keys=("enrich",),
    ),
    MethodConflict(
        ("ewc", "l2_sp"),
        "pull the same weights to the same start twice: l2_sp is ewc with every weight alike",
    ),
    MethodConflict(
        ("focal", "gce"),
        "undo each other: focal listens to rows that are wrong, gce passes over them",
        is_error=True,
    ),
    *(MethodConflict((name, "mixup"), OTHER_LOSS, is_error=True) for name in ("gce", "focal")),
    MethodConflict(
        ("kl_start", "mixup"),
        "do not add up: mixup's loss takes the place of the one that the divergence was added to",
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
        "each make the target softer, and mixup's loss takes the place of the smoothed one",
        "Set train.label_smoothing=0.",
        condition=_smooths_labels,
        other_keys=("train.label_smoothing",),
    ),
    MethodConflict(
        ("gce",),
        "pull two ways: smoothing has every row lean to all classes, gce lets doubted rows go",
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
            "change half of a mixed picture: its second label is learned by plain cross-entropy",
            condition=_mixes_pictures,
            other_keys=("enrich",),
        )
        for name in ("focal", "gce")
    ),
    MethodConflict(
        ("dropconnect", "dropout"),
        "drop the same signal twice, as connections and as units",
        condition=lambda asked: any(
            asked.methods["dropout"].get(place) not in (None, "model", 0)
            for place in ("hidden", "attention")
        ),
    ),
    MethodConflict(
        ("progressive", "unfreeze"),
        "each say which layers learn at a step, and say different things",
        is_error=True,
    ),
    MethodConflict(
        ("reinit", "reset_head"),
        "undo each other: the head that is put back was fitted to layers drawn anew since",
        is_error=True,
    ),
    MethodConflict(
        ("probe_first", "progressive"),
        "do one thing twice: a head that was fitted has nothing to learn alone, and steps are lost",
        "Set methods.probe_first=false, or leave progressive out.",
    ),
    MethodConflict(
        ("reinit", "wise"),
        "do not go together: between the start and layers drawn anew there is no valley to average",
        "Leave wise out.",
    ),
    *(
        MethodConflict(
            (name, "reinit"),
            "undo each other: the layers drawn anew are pulled back to what they were before",
        )
        for name in ("ewc", "l2_sp")
    ),
    *(
        MethodConflict(
            (name,),
            "changes nothing: in no phase of this plan does the head learn by gradient",
            "Set methods.contrast=false.",
            condition=lambda asked: not asked.head_learns,
        )
        for name in ("unfreeze", "progressive", "reset_head")
    ),
)


def check_conflicts(query: ConflictQuery) -> None:
    """Raise ``RecipeError`` for what contradicts itself."""
    for clash in CONFLICTS:
        if clash.is_error and clash.applies(query):
            raise RecipeError(" and ".join(clash.keys), clash.because, None, clash.remedy)


def useless_settings(query: ConflictQuery) -> tuple[Finding, ...]:
    """A finding for each pair of which one does nothing, or that pull against each other."""
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
