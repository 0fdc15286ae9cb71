"""The evidence about a served model and a run that would replace it: the gate of an update, and
live comparisons of the two.

The gate decides before the run is finished, and a comparison needs a finished run, so any
comparison is later evidence. Of several comparisons, the one that reached its verdict last counts.
A verdict "better" for the new run replaces an inconclusive gate; a gate that rejected stays.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import InputError, RecipeError
from holdfast.core.wording import GATE_OUTCOMES
from holdfast.plugins.service.live.comparison import (
    LATEST,
    VERDICT,
    ComparisonState,
    update_comparison,
)
from holdfast.runs.threshold import served_name

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

ACCEPTED, REJECTED = "taken", "kept_aside"
# The verdict seen from the other model.
REVERSED = {"better": "worse", "worse": "better"}
FORCE_HINT = "or promote the run anyway with --force."


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """The evidence about replacing ``served`` by the run ``model``, both by name (``NAME@MARK``);
    ``served_run`` is the folder of the served model.

    ``gate`` is the update's gate with ``from`` (the run that was updated), ``None`` where the run
    is not an update. ``live`` is the comparison that counts, whose ``verdict`` and ``difference``
    are about the new run; ``None`` where the two were never compared in this store.
    """

    model: str
    served: str
    served_run: Path
    gate: Mapping[str, Any] | None
    live: Mapping[str, Any] | None

    @property
    def decision(self) -> str | None:
        """The gate's decision."""
        return None if self.gate is None else str(self.gate["decision"])

    @property
    def verdict(self) -> str | None:
        """The comparison's verdict: better, equivalent, worse or undecided."""
        return None if self.live is None else str(self.live["verdict"])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The evidence in sentences, the gate's first."""
        return *((self._gate_sentence(),) if self.gate else ()), self._live_sentence()

    def refuse(self, run: Path, store: str) -> None:
        """Raise ``RecipeError`` where the latest evidence is against the promotion, or missing."""
        if may_replace(self.decision, self.verdict):
            return
        because = (self.live or {}).get("because")
        if self.verdict == "worse":
            after = (
                "; this live comparison is more recent than the gate's decision"
                if self.decision == ACCEPTED
                else ""
            )
            rule = f"is shown to be worse than {self.served} ({because}){after}"
            raise RecipeError(self.model, rule, None, f"Keep the served model, {FORCE_HINT}")
        if self.decision == REJECTED:
            remedy = (
                "A live comparison cannot override a rejection. Keep the served model, "
                f"{FORCE_HINT}"
            )
            first, why = Path((self.gate or {})["from"]).name, (self.gate or {}).get("because")
            rule = f"was rejected by the gate as an update of {first}: {why}"
            raise RecipeError(self.model, rule, None, remedy)
        live = "this store has no live comparison of the two models"
        if self.live is not None:
            live = f"the live comparison did not show that it is better ({because})"
        serve = f"holdfast serve {shlex.quote(str(self.served_run))} --challenger "
        serve += f"{shlex.quote(str(run))} --store {shlex.quote(store)}"
        raise RecipeError(
            self.model,
            f"is not shown to be better than {self.served}: {self._gate_sentence()}; {live}",
            None,
            f"Compare the two live until the new model is shown to be better ({serve}), update "
            f"again with more feedback, {FORCE_HINT}",
        )

    def _gate_sentence(self) -> str:
        gate = self.gate or {}
        outcome = GATE_OUTCOMES.get(str(self.decision), str(self.decision))
        first = Path(gate["from"]).name
        return f"the gate's result for this update of {first} is {outcome}: {gate.get('because')}"

    def _live_sentence(self) -> str:
        other = self.served
        if self.live is None:
            none_found = f"this store has no live comparison with {other}"
            shown = self.decision == ACCEPTED and self._is_served(Path((self.gate or {})["from"]))
            return none_found if shown else f"{none_found}, so nothing shows that it is better"
        return {
            "better": f"it is shown to be better than {other}",
            "equivalent": f"it is shown to be equivalent to {other} within the margin, not better",
            "worse": f"it is shown to be WORSE than {other}, and promoted because of --force",
        }.get(
            str(self.verdict),
            f"it is not shown to be better than {other}: the comparison is inconclusive so far",
        )

    def _is_served(self, run: Path) -> bool:
        """Whether ``run`` is the served model, also where its folder was moved."""
        if run.resolve() == self.served_run.resolve():
            return True
        try:
            return served_name(run) == self.served
        except InputError:
            return False


def may_replace(decision: str | None, verdict: str | None) -> bool:
    """Whether a run may replace the served one without ``--force``, by its gate's decision
    (``None``: it is not an update) and the verdict of the live comparison that counts (``None``:
    there is none).

    >>> [may_replace("undecided", one) for one in (None, "equivalent", "better")]
    [False, False, True]
    """
    if decision == REJECTED or verdict == "worse":
        return False
    return decision in (None, ACCEPTED) or verdict == "better"


def pair_evidence(
    store: Store, served: str, served_run: Path, model: str, result: Mapping[str, Any], at: float
) -> PairEvidence:
    """The evidence at time ``at`` about the run ``model`` with this ``result.json``."""
    block = result.get("update") or {}
    gate = block.get("gate") or {}
    gate_with_parent = {**gate, "from": block.get("from")} if gate.get("decision") else None
    live = live_evidence(store, served, model, at)
    return PairEvidence(model, served, served_run, gate_with_parent, live)


def live_evidence(store: Store, served: str, model: str, at: float) -> Mapping[str, Any] | None:
    """The live comparison of two models that counts: the latest of those with a verdict, else the
    running one. Its verdict is about ``model``, also where ``model`` was the served one then
    (``reversed``)."""
    pair = {served, model}
    running = _running_comparison(store, pair, at)
    last = {}
    for event in store.events(VERDICT, limit=None):
        body = event.body
        if {body["shown"], body["challenger"]} == pair:
            # A verdict may be withdrawn, when users of one arm turn out not to be counted.
            last[body["shown"], body["way"]] = event
    decided = [one for one in last.values() if one.body["verdict"] != "undecided"]
    if not decided:
        return None if running is None else _from_side_of(model, running)
    latest_decided = max(decided, key=lambda one: one.id or 0).body
    same = ("shown", "way", "verdict")
    if running is not None and all(running[name] == latest_decided[name] for name in same):
        # The same verdict, with the latest numbers.
        return _from_side_of(model, running)
    return _from_side_of(model, latest_decided)


def _running_comparison(store: Store, pair: set[str], at: float) -> Mapping[str, Any] | None:
    """The store's latest comparison, updated, where it is of these two models."""
    latest = store.state(LATEST) or {}
    if {latest.get("shown"), latest.get("challenger")} != pair:
        return None
    stored = store.state(latest["key"])
    return (
        latest
        if stored is None
        else update_comparison(store, ComparisonState.of(stored).setup, at).summary()
    )


def _from_side_of(model: str, comparison: Mapping[str, Any]) -> Mapping[str, Any]:
    """The comparison seen from the side of ``model``."""
    if comparison["challenger"] == model:
        return comparison
    gap = comparison["difference"]
    reversed_gap = {
        name: None if gap.get(other) is None else -gap[other]
        for name, other in (("value", "value"), ("low", "high"), ("high", "low"))
    }
    return {
        **comparison,
        "verdict": REVERSED.get(comparison["verdict"], comparison["verdict"]),
        "difference": {**gap, **reversed_gap},
        "because": f"with {comparison['challenger']} as the challenger: {comparison['because']}",
        "reversed": True,
    }
