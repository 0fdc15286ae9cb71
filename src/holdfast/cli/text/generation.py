"""What a model that writes is worth, and what its answers show, as lines of a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.wording import p_words, way_words


def worth_lines(block: Mapping[str, Any]) -> list[str]:
    """The answer first, then what it rests on."""
    lines = [f"  {block['because']}"]
    for name, one in block["start"].items():
        way = way_words(name, one)
        if not one.get("n"):
            lines.append(f"  The start model, {way}: not asked, for {one['why']}.")
            continue
        gap = one["difference"]
        if gap["value"] is not None and gap["low"] is not None:
            lines.append(
                f"  The start model, {way}: loss {gap['value']:+.3f} nats a token to it "
                f"({gap['low']:+.3f} to {gap['high']:+.3f}), {one['n']} rows."
            )
    for name, one in block["win_rate"].items():
        way = way_words(name, block["start"].get(name, {}))
        if one.get("value") is None:
            lines.append(f"  Answers against those {way}: {one['why']}.")
            continue
        verdict = {"wins": "better", "loses": "worse"}.get(one["verdict"], "no difference shown")
        more = f"; about {one['more_rows']:,} more rows would settle it" if one["more_rows"] else ""
        lines.append(
            f"  Answers against those {way}, by {block['judge']}: {one['wins']} win, {one['ties']} "
            f"tie, {one['losses']} lose ({verdict}{more})."
        )
    if block.get("general"):
        lines.append(f"  {block['general']['because']}")
    if block.get("false_alarms"):
        lines.append(f"  {block['false_alarms']}")
    return [*lines, *_left_out(block)]


def output_lines(block: Mapping[str, Any]) -> list[str]:
    """Shares of which one is not 0, a line each; then how often such a finding is false."""
    from holdfast.stats.paired_tests import MCNEMAR_EXACT

    lines = [f"  {block['because']}"]
    for one in block["shares"]:
        start = one["start"]
        if not one["n"] or not (one["tuned"]["value"] or (start and start["value"])):
            continue
        beside = "" if start is None else f", start model {100 * start['value']:.0f} %"
        mark = {"more": "! ", "fewer": "+ "}.get(one["verdict"], "  ")
        tail = ""
        if one["verdict"] in ("more", "fewer"):
            tail = f" ({one['verdict']}, {p_words(one['p_adjusted'], MCNEMAR_EXACT)})"
        elif one["more_rows"]:
            tail = f" (about {one['more_rows']:,} more rows would settle it)"
        lines.append(
            f"  {mark}{one['side']}, answers that {block['meaning'][one['mark']]}: "
            f"{100 * one['tuned']['value']:.0f} %{beside}{tail}"
        )
    return [*lines, f"  {block['false_alarms']}", *_left_out(block)]


def _left_out(block: Mapping[str, Any]) -> list[str]:
    return [f"  Not looked at ({name}): {why}." for name, why in block["left_out"].items()]
