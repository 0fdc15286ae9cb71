"""Run every applicable check."""

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
from holdfast.quality.views import TableRows, image_sample

SEVERITY_ORDER = {"error": 0, "warn": 1, "info": 2}
# The order in which an audit lists its checks; checks that are missing here come last, by name.
_CHECK_ORDER = """
label_slices identity_rates start_model_bias boilerplate label_variants missing_as_class
conflicting_labels contained_rows control_characters refusals cut_answers low_diversity
domain_mismatch echoed_answers encoding_damage exact_duplicates label_giveaway hidden_giveaway
image_artefacts class_imbalance label_problems leaks loose_copies off_topic_rows machine_filler
markup mixed_scripts model_phrases names_against_rows conflicting_near_duplicates near_duplicates
overlapping_classes personal_data image_giveaway image_source near_images image_conflicts
image_leaks blank_images repetition semantic_copies semantic_conflicts semantic_leaks
opposite_labels shared_groups shift split_leaks telling_columns template_rows text_lengths
thin_classes time_order too_few_rows truncated_texts typing_errors undividable_classes
unnamed_groups wordless_texts wrong_language
"""
_CHECK_POSITION = {name: place for place, name in enumerate(_CHECK_ORDER.split())}


@dataclass(frozen=True, slots=True)
class AuditResults:
    """The results of all checks. ``results``: the most severe first, then by name. ``seconds``: the
    time of each check that ran. ``skipped``: the checks without a view, or with the reason why
    there was nothing to check. ``not_applicable``: the checks that do not apply to the table.
    ``failed``: the errors of the checks that raised one."""

    results: tuple[CheckResult, ...]
    seconds: dict[str, float]
    skipped: Mapping[str, str] = field(default_factory=dict)
    not_applicable: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


def run_checks(
    table: Table,
    views: Sequence[object],
    on_start: Callable[[str], None] = lambda _: None,
    *,
    continue_on_error: bool = False,
) -> AuditResults:
    """Run every check whose view is among ``views``; ``on_start`` is called with its name. No check
    runs on an empty table. With ``continue_on_error``, a check that raises an error is recorded in
    ``failed`` and the others still run."""
    checks = sorted(all_checks().values(), key=_sort_key) if len(table) else ()
    results, seconds, not_applicable = [], {}, []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for check in checks:
        matching_views = [view for view in views if isinstance(view, check.view_type)]
        if not check.applies_to(table):
            not_applicable.append(check.name)
        elif not any(check.skip_reason(view) == "" for view in matching_views):
            skipped[check.name] = next((check.skip_reason(view) for view in matching_views), "")
        else:
            on_start(check.name)
            start = time.perf_counter()
            try:
                results += [one for view in matching_views if (one := check(view)) is not None]
            except Exception as error:
                # An error for the user is not a defect, nor is a lack of memory.
                if not continue_on_error or isinstance(error, (HoldfastError, MemoryError)):
                    raise
                failed[check.name] = f"{type(error).__name__}: {error}"
                continue
            seconds[check.name] = time.perf_counter() - start
    sorted_results = sorted(
        results, key=lambda one: (SEVERITY_ORDER[one.finding.severity], one.finding.check)
    )
    return AuditResults(tuple(sorted_results), seconds, skipped, tuple(not_applicable), failed)


def _sort_key(check: Check[Any]) -> tuple[int, str]:
    return _CHECK_POSITION.get(check.name, len(_CHECK_POSITION)), check.name


def audit_table(table: Table) -> tuple[Finding, ...]:
    """The findings of the checks that need only the table and, for images, the pixels of a sample.
    The table's own findings (missing values, rare classes) are not repeated."""
    rows = TableRows(table)
    pixels = [image_sample(rows)] if "path" in table.rows.column_names else []
    return tuple(
        check_result.finding for check_result in run_checks(table, [rows, *pixels]).results
    )
