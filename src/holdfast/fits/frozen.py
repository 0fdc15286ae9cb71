"""Are the outputs of the frozen first layers kept? Whether it can be, and whether it pays."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.errors import RecipeError
from holdfast.core.machine import processes
from holdfast.core.records import Decision
from holdfast.models.compute.prefix import Prefix, frozen_prefix
from holdfast.training.plan import Plan
from holdfast.training.prefix.entry import PrefixEntry, ask_model

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.training.task import Examples, Task


SETTING = "train.cache_frozen"
# Unasked, no more than this, nor more than half of what the disk has left.
MOST_BYTES = 4_000_000_000
DISK_SHARE = 0.5
WRITTEN_BYTES_A_SECOND = 200e6
MB = 1e6


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """``setting`` is ``train.cache_frozen`` resolved; ``prefix`` what is kept, if anything."""

    setting: str
    prefix: Prefix | None
    decisions: tuple[Decision, ...]


def keep_prefix(
    wanted: str,
    network: Network,
    task: Task,
    train: Examples,
    valid: Examples,
    plan: Plan,
    precision: str,
    folder: Path | None = None,
    enriched: bool = False,
) -> KeptPrefix:
    """Resolve ``train.cache_frozen``, with the reason.

    Where rows are ``enriched`` what is learnt from is another form each time, so that ``auto`` is
    off; ``on`` keeps the outputs of the rows as they are, for the looks.

    ``auto`` is on where the passes that are saved take longer than the filling, and the files are
    small: at most 4 GB and half of the free disk at ``folder`` (the system's temporary folder where
    there is none). Nothing frozen leaves ``auto`` as it is, without a word.

    Raises
    ------
    RecipeError : it is ``on``, and there is nothing to keep, no way to, or no room for it.
    """
    layers = frozen_prefix(network)
    if not layers and wanted == "on":
        raise RecipeError(
            SETTING,
            "has nothing to keep: the embeddings and first blocks are not frozen",
            wanted,
            "Set model.freeze to a number of layers, or leave it out.",
        )
    if not layers or wanted == "off":
        because = "set by you: frozen layers are computed in every pass"
        return KeptPrefix(wanted, None, (Decision(SETTING, "off", because),) if layers else ())
    if enriched and wanted == "auto":
        because = (
            f"{len(layers)} first layers are frozen, but rows are learnt from in other forms "
            "(enrich), whose outputs nobody asks for twice"
        )
        return KeptPrefix("off", None, (Decision(SETTING, "off", because),))
    prefix = Prefix(layers)
    entry = _refusal(task) or ask_model(prefix, network, task, train, precision)
    size = entry.bytes_of(train) + entry.bytes_of(valid)
    why_not = entry.why_not or _no_room(size, wanted, folder)
    if why_not and wanted == "on":
        raise RecipeError(SETTING, f"is not possible here: {why_not}", wanted, "Leave it out.")
    # Seconds that are saved, those of filling taken off.
    rows = len(train) + len(valid)
    saved = (passes_of(plan, len(train), len(valid)) - rows) * entry.saved_s
    gain = saved - size / WRITTEN_BYTES_A_SECOND
    on = why_not is None and (wanted == "on" or gain > 0)
    because = f"{len(layers)} first layers are frozen; " + (
        why_not or _reckoned(entry, train, valid, plan, size, gain)
    )
    said = f"set by you: {because}" if wanted == "on" else because
    setting = "on" if on else "off"
    return KeptPrefix(setting, prefix if on else None, (Decision(SETTING, setting, said),))


def passes_of(plan: Plan, train_rows: int, valid_rows: int) -> int:
    """Rows that pass the frozen layers in the whole run: steps, looks, and refitted heads."""
    rows = len(plan.evaluate_at) * (plan.probe_rows + valid_rows)
    start = 0
    for phase in plan.phases:
        end = start + phase.steps
        rows += phase.rows_passed
        if phase.head == "refit":
            rows += train_rows * sum(start < at <= end for at in plan.evaluate_at)
        start = end
    return rows


def _refusal(task: Task) -> PrefixEntry | None:
    if processes() > 1:
        return PrefixEntry("several processes train together, and each would fill files of its own")
    if getattr(task, "pack", False):
        return PrefixEntry("rows share a line (train.pack), in company that changes")
    return None


def _no_room(size: int, wanted: str, folder: Path | None) -> str | None:
    """Why ``size`` bytes are too many. What a run that is continued has written already is free
    for it."""
    place = folder or Path(tempfile.gettempdir())
    held = sum(path.stat().st_size for path in place.glob("prefix-*.rows"))
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free + held
    most = min(MOST_BYTES, DISK_SHARE * free) if wanted == "auto" else free
    if size <= most:
        return None
    return (
        f"their outputs take {size / MB:,.0f} MB, and {most / MB:,.0f} MB are allowed "
        f"({free / MB:,.0f} MB of disk are free)"
    )


def _reckoned(
    entry: PrefixEntry, train: Examples, valid: Examples, plan: Plan, size: int, gain: float
) -> str:
    rows = len(train) + len(valid)
    times = passes_of(plan, len(train), len(valid)) / rows
    verdict = f"about {gain:,.1f} s are saved" if gain > 0 else "keeping them would not pay"
    return (
        f"each row passes them {times:.1f} times, and {1000 * entry.saved_s:.2f} ms a pass are "
        f"saved (probed); {size / MB:,.1f} MB are kept: {verdict}"
    )
