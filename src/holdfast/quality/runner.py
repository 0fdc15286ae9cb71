"""Every check that has something to see."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.errors import HoldfastError
from holdfast.core.records import Finding
from holdfast.data.table import Table
from holdfast.quality.check import Check, CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.views import TableRows, pixels_of

ORDER = {"error": 0, "warn": 1, "info": 2}
# As an audit lists what it looked at; checks that are not named here come last, by name.
_NAMES = """
label_slices identity_rates start_model_bias boilerplate label_variants missing_as_class
conflicting_labels contained_rows control_characters refusals cut_answers low_diversity
domain_mismatch echoed_answers encoding_damage exact_duplicates label_giveaway hidden_giveaway
image_artefacts class_imbalance label_problems leaks loose_copies off_topic_rows machine_filler
markup mixed_scripts model_phrases names_against_rows conflicting_near_duplicates near_duplicates
overlapping_classes personal_data image_giveaway image_source near_images image_conflicts
image_leaks blank_images repetition semantic_copies semantic_conflicts semantic_leaks
shared_groups shift split_leaks telling_columns template_rows text_lengths thin_classes time_order
too_few_rows truncated_texts typing_errors undividable_classes unnamed_groups wordless_texts
wrong_language
"""
_PLACES = {name: place for place, name in enumerate(_NAMES.split())}


@dataclass(frozen=True, slots=True)
class AuditResults:
    """What a look through all checks gave: ``found`` the worst first, then by name; ``seconds`` of
    each check that ran; ``blind`` those that had no view or nothing to see in it, which is then
    said; ``idle`` those that mean nothing for the
    table; ``broken`` what those said that fell over."""

    found: tuple[CheckResult, ...]
    seconds: dict[str, float]
    blind: Mapping[str, str] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)


def look(
    table: Table,
    views: Sequence[object],
    started: Callable[[str], None] = lambda _: None,
    *,
    go_on: bool = False,
) -> AuditResults:
    """Run every check that sees one of these views; ``started`` hears its name. An empty table has
    nothing to be seen. With ``go_on`` a check that falls over is named in ``broken`` and the others
    look all the same."""
    checks = sorted(all_checks().values(), key=_place) if len(table) else ()
    found, seconds, idle = [], {}, []
    blind: dict[str, str] = {}
    broken: dict[str, str] = {}
    for check in checks:
        seen = [view for view in views if isinstance(view, check.sees)]
        if not check.holds_for(table):
            idle.append(check.name)
        elif not any(check.nothing(view) == "" for view in seen):
            blind[check.name] = next((check.nothing(view) for view in seen), "")
        else:
            started(check.name)
            begun = time.perf_counter()
            try:
                found += [one for view in seen if (one := check(view)) is not None]
            except Exception as error:
                # What a user is told of is no defect, nor is a lack of memory.
                if not go_on or isinstance(error, (HoldfastError, MemoryError)):
                    raise
                broken[check.name] = f"{type(error).__name__}: {error}"
                continue
            seconds[check.name] = time.perf_counter() - begun
    ranked = sorted(found, key=lambda one: (ORDER[one.finding.severity], one.finding.check))
    return AuditResults(tuple(ranked), seconds, blind, tuple(idle), broken)


def _place(check: Check[Any]) -> tuple[int, str]:
    return _PLACES.get(check.name, len(_PLACES)), check.name


def audit_table(table: Table) -> tuple[Finding, ...]:
    """What the checks found that look at the table alone, and of images at the pixels of a sample.
    The table's own findings (missing values, rare classes) are not repeated."""
    rows = TableRows(table)
    pixels = [pixels_of(rows)] if "path" in table.rows.column_names else []
    return tuple(found.finding for found in look(table, [rows, *pixels]).found)
