"""The sections of a run's report in reading order: the report's own, and those of the analyses."""

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

# The place of the sections of an analysis that ``ORDER`` does not name.
OTHER_ANALYSES = "other analyses"
# A name stands for the sections of that analysis (its folder in ``analyses/``).
ORDER: tuple[Section | str, ...] = (
    Section("folds", "Cross-validation", folds.folds),
    Section("score", "Test score", score.score_unless_folded),
    Section("update", "Update decision", update.update_section),
    "distillation",
    Section("episodes", "Test score on new tasks", episodes.episodes),
    Section("worth", "Comparison with the base model", base_model.worth, reliance=base_model.WORTH),
    Section("generations", "Generated text", generations.generations, own_texts=("generations",)),
    Section("outputs", "Output quality", base_model.outputs, reliance=base_model.OUTPUTS),
    # Where the model is wrong and when to check it; what it learned; how it was trained.
    Section(
        "confusion",
        "Confusion matrix",
        mistakes.confusion_matrix,
        own_texts=("classes", "confusion"),
    ),
    Section("classes", "Metrics by class", mistakes.class_scores, own_texts=("per_class",)),
    Section("calibration", "Calibration", calibration.calibration),
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
    Section("capacity", "Model size", capacity.capacity),
    Section("study", "Hyperparameter search", study.study),
    Section("findings", "Data quality findings", record.findings, always=True),
    Section("division", "Data splits", division.division, always=True),
    Section("learning", "Learning curves", learning.learning, always=True),
    Section("gap", "Generalization gap", learning.gap, always=True),
    Section("examples", "Data map of the training rows", examples.data_map),
    Section("decisions", "Decisions and reasons", record.decisions, always=True),
    Section("timeline", "Timeline", record.timeline, always=True),
    Section("settings", "Settings", record.settings),
    Section("facts", "Model, versions and machine", record.facts),
)


@cache
def report_sections() -> tuple[Section, ...]:
    """Every section that a report can have."""
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
