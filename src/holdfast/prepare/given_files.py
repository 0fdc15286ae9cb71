"""The validation and test rows that are given: by the recipe, the source's folder, or the hub."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.records import Decision
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.data.images.folders import given_splits
from holdfast.data.readers.hub import HubName, parse_hub_name, split_names
from holdfast.recipe import DataPart


def given_files(data: DataPart, task: str | None) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """The given validation and test rows: named by the recipe, else provided by a folder of images
    or the hub data set."""
    given = {name: path for name, path in (("valid", data.valid), ("test", data.test)) if path}
    from_source, reasons = given_splits(str(data.path)) if task in IMAGE_TASKS else ({}, ())
    if from_source:
        reasons_kept = tuple(r for r in reasons if r.what.partition(" ")[0] not in given)
        return {**from_source, **given}, reasons_kept
    hub = parse_hub_name(str(data.path))
    if hub is None or Path(str(data.path)).exists() or hub.split not in (None, "train"):
        return given, ()
    decisions = []
    for split_name, split in hub_splits(hub, data.config).items():
        if split_name not in given:
            given[split_name] = split
            because = "the hub data set has its own split of this name"
            decisions.append(Decision(f"{split_name} rows", split, because))
    return given, tuple(decisions)


def hub_splits(hub: HubName, config: str | None) -> dict[str, str]:
    """The data set's own validation and test splits, as ``name:config@split``."""
    config = config or hub.config
    names = split_names(HubName(hub.name, config))
    stem = hub.name + (f":{config}" if config else "")
    candidates = {"valid": ("validation", "valid", "dev"), "test": ("test",)}
    names_found = {
        split_name: next((n for n in options if n in names), None)
        for split_name, options in candidates.items()
    }
    return {split_name: f"{stem}@{name}" for split_name, name in names_found.items() if name}
