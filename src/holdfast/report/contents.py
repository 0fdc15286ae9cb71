"""The sections of a run's report in reading order: the report's own, and those that the analyses
declare."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module

from holdfast.core.analyses import FOLDERS
from holdfast.report.section import Section
from holdfast.report.view import (
    base_model,
    calibration,
    capacity,
    division,
    episodes,
    examples,
    folds,
    generations,
    learning,
    mistakes,
    record,
    score,
    study,
    update,
)

# Where the sections of an analysis stand that has no place of its own below.
OTHER_ANALYSES = "other analyses"
# A name stands for the sections of that analysis (its folder in ``analyses/``).
ORDER: tuple[Section | str, ...] = (
    Section("folds", "How sure is the score?", folds.folds),
    Section("score", "The honest score", score.score_unless_folded),
    Section("update", "May it take over?", update.update_section),
    "distillation",
    Section("episodes", "New tasks", episodes.episodes),
    Section("worth", "Was it worth it?", base_model.worth, reliance=base_model.WORTH),
    Section("generations", "What it writes", generations.generations, own_texts=("generations",)),
    Section("outputs", "What its answers show", base_model.outputs, reliance=base_model.OUTPUTS),
    # Where it is right and wrong, and whom to ask; then what it holds; then how it was made.
    Section(
        "confusion",
        "What it confuses",
        mistakes.confusion_matrix,
        own_texts=("classes", "confusion"),
    ),
    Section("classes", "Class by class", mistakes.class_scores, own_texts=("per_class",)),
    Section("calibration", "Can its confidence be trusted?", calibration.calibration),
    "threshold",
    "slices",
    Section("hardest", "Hardest rows", mistakes.hardest, own_texts=("hardest",)),
    "errors",
    "fairness",
    "explain",
    "memory",
    "forgetting",
    OTHER_ANALYSES,
    Section("load", "Load the model", record.loading),
    Section("capacity", "Is it larger than it need be?", capacity.capacity),
    Section("study", "What the search found", study.study),
    Section("findings", "Findings in the data", record.findings, always=True),
    Section("division", "How the rows were divided", division.division, always=True),
    Section("learning", "How it learned", learning.learning, always=True),
    Section("gap", "The gap", learning.gap, always=True),
    Section("examples", "Row by row", examples.data_map),
    Section("decisions", "What was decided, and why", record.decisions, always=True),
    Section("timeline", "What happened when", record.timeline, always=True),
    Section("settings", "Settings", record.settings),
    Section("facts", "Model, versions and machine", record.facts),
)


@cache
def report_sections() -> tuple[Section, ...]:
    """Every section that a page may have."""
    return tuple(_sections())


def _sections() -> Iterator[Section]:
    for one in ORDER:
        if isinstance(one, Section):
            yield one
        elif one == OTHER_ANALYSES:
            for folder in (name for name in FOLDERS if name not in ORDER):
                yield from _analysis_sections(folder)
        else:
            yield from _analysis_sections(one)


def _analysis_sections(folder: str) -> tuple[Section, ...]:
    sections: tuple[Section, ...] = import_module(f"holdfast.analyses.{folder}.section").SECTIONS
    return sections
