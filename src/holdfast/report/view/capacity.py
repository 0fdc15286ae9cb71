"""The section "Model size": is a smaller model as good? Also printed by ``holdfast tune --set
search=capacity``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.wording import signed
from holdfast.report.document import Details, Document, DocumentTable, Passage
from holdfast.report.run_files import RunFiles

Block = Mapping[str, Any]


def capacity(run: RunFiles) -> Document | None:
    """``None`` where the run did not search for the model size."""
    block = run.part("capacity")
    return capacity_view(block) if block else None


def capacity_view(block: Block) -> Document:
    """The block ``capacity`` of ``result.json``: the answer, its basis, and the table of sizes."""
    is_accuracy = block["metric"] == "accuracy"
    points = 100 * block["margin"]
    margin = (
        f"{points:.2g} point{'' if points == 1 else 's'}" if is_accuracy else f"{points / 100:.2g}"
    )
    basis = (
        f"Based on {block['n']} rows, judged {block['judged']}. A size is as good where it is "
        f"shown to be less than {margin} worse. Times are those of the saved model, one row at a "
        "time, on the machine of this run"
    )
    names = {one["key"]: one["name"] for one in block["sizes"]}
    front = ", ".join(names[key] for key in block["pareto"])
    lines = tuple(_line(one, is_accuracy, block["chosen"]) for one in block["sizes"])
    columns = (
        "Size",
        str(block["metric"]).capitalize(),
        "Difference from the full model",
        "Verdict",
        "Parameters",
        "Time a row",
    )
    table = DocumentTable("All sizes", columns, lines, ("", "n", "n", "", "n", "n"), "region")
    best = Passage(f"No other size is better in both score and time than these: {front}.")
    return Document(
        (
            Passage(f"{block['because']}.", explained=True),
            Passage(f"{basis}."),
            Details("All sizes", (table, best)),
        )
    )


def _line(one: Block, by_rights: bool, chosen_key: str) -> tuple[str, ...]:
    name = f"{one['name']} (chosen)" if one["key"] == chosen_key else str(one["name"])
    if not one["tried"]:
        return (name, "", "", f"skipped: {one['why']}", "", "")
    scale = 100.0 if by_rights else 1.0
    value = f"{scale * one['value']:.1f} %" if by_rights else f"{one['value']:.4f}"
    gap, difference = "", one["difference"]
    if difference is not None:
        gap = signed(scale * difference["value"], "+.2g")
        if difference["low"] is not None:
            low, high = (signed(scale * difference[end], "+.2g") for end in ("low", "high"))
            gap += f" ({low} to {high})"
        gap += " points" if by_rights else ""
    speed = f"{one['latency_ms']:.2g} ms"
    if one["key"] != "whole":
        speed += f", {one['speed']:.1f} times as fast"
    return (name, value, gap, one["verdict"] or "", f"{one['parameters']:,}", speed)
