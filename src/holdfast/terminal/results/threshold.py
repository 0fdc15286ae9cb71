"""The text of ``holdfast threshold``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.wording import about
from holdfast.terminal.layout import entries


def threshold_text(document: Mapping[str, Any], columns: int) -> str:
    """The threshold, its guarantee, and its effect on the test rows."""
    lines: list[tuple[str, str]] = []
    if document["rule"] is None:
        lines += _no_promise_lines(document)
    else:
        value = "by cost" if document["threshold"] is None else f"{document['threshold']:.4g}"
        lines.append(("Threshold", value))
        lines.append(("Guarantee", f"{document['promise']}, if {document['assumes']}"))
        if document["why"]:
            lines.append(("Warning", document["why"]))
        if document["broken_in"]:
            broken = (
                f"at most {100 * document['broken_in']:g} % of 1,000 resamplings of each of four "
                "data sets (a resampling without a guarantee counts as kept)"
            )
            lines.append(("Error rate", f"measured: broken in {broken}"))
    for name, split in (("Validated", "valid"), ("Test", "test")):
        if document[split] and "coverage" in document[split]:
            chosen = "; the threshold was chosen on these rows" if split == "valid" else ""
            lines.append((name, _split_text(document[split]) + chosen))
    if document["kept_on_test"] is False:
        lines.append(("!!", "the test rows contradict the guarantee: do not rely on it"))
    classes = _classes((document["test"] or {}).get("per_class") or [])
    return "\n".join([*entries(lines, columns), *classes])


def _no_promise_lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Why nothing is guaranteed, and the best possible guarantee."""
    before = document.get("unchanged")
    stays = f"; {before} stays in force" if before else ""
    lines = [
        ("Threshold", f"none: nothing can be guaranteed, and nothing was written{stays}"),
        ("Reason", str(document["why"])),
    ]
    if document["by"] == "cost":
        plain = document["valid"]["cost_without"]
        without = f"{plain:.4g} per row on the validation rows" if plain is not None else "unknown"
        limit = f"at most {document['limit_without']:.4g} in 95 % of samples"
        lines.append(("No threshold", f"costs {without}, {limit}"))
    else:
        more = document["rows_needed"]
        rows = "at this error rate, more rows would not be enough"
        rows = rows if more is None else f"{about(more)} validation rows like these are needed"
        lines.append(("Rows", rows))
    highest = document["highest"]
    if highest is None:
        return [*lines, ("Best", "these validation rows guarantee nothing")]
    share, answered_rows = f"{100 * highest['asked']:.1f} %", f"{highest['answered']:,}"
    most = (
        f"{highest['by']} {share}, with a prediction for {answered_rows} of {highest['n']:,} "
        "validation rows"
    )
    return [*lines, ("Best", most), ("To use it", highest["command"])]


def _split_text(block: dict[str, Any]) -> str:
    answered_rows = f"{block['answered']:,} of {block['n']:,} rows get a prediction"
    if "cost" in block:
        return (
            f"{answered_rows}; cost per row {block['cost']:.4g}, without the threshold "
            f"{block['cost_without']:.4g}"
        )
    return f"{answered_rows}: {_rate(block['coverage'])}; precision {_rate(block['precision'])}"


def _rate(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return "none"
    low, high = (f"{100 * rate[end]:.1f}" for end in ("low", "high"))
    return f"{100 * rate['value']:.1f} % (95 % CI {low}–{high})"


def _classes(lines: list[dict[str, Any]]) -> list[str]:
    """The classes with the lowest precision: the guarantee holds for all classes together."""
    if len(lines) < 2:
        return []
    worst = [f"  {line['class'][:30]:30} {_rate(line['precision'])}" for line in lines[:3]]
    return [
        "\nThe guarantee holds for all classes together. Lowest precision on the test rows:",
        *worst,
    ]
