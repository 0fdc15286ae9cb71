"""The list of analyses. The code that runs them (``analyses/analysis.py``) and the code that shows
them (``report/contents.py``) both read it here, so a page imports nothing that computes."""

from __future__ import annotations

# Modules of ``analyses/`` with an ``ANALYSIS``, in the order of their blocks in ``result.json``.
# One that the report has a section for is in a folder, whose ``section.py`` has its ``SECTIONS``.
ANALYSES = (
    "row_scores",
    "distillation.analysis",
    "errors.analysis",
    "fairness.analysis",
    "forgetting.analysis",
    "memory.analysis",
    "explain.class_words",
    "slices.analysis",
    "threshold.analysis",
)
FOLDERS = tuple(name.partition(".")[0] for name in ANALYSES if "." in name)
