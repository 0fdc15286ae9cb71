"""Fine-tune pretrained models so that they hold up on data they have never seen.

>>> import holdfast
>>> run = holdfast.train("reviews.csv")                     # doctest: +SKIP
>>> run.result["test"]["metrics"]["accuracy"]               # doctest: +SKIP
>>> holdfast.audit("reviews.csv").findings                   # doctest: +SKIP
>>> holdfast.diagnose("trainer_state.json").label            # doctest: +SKIP
>>> holdfast.TextClassifier().fit(texts, labels)            # doctest: +SKIP
>>> holdfast.Guard().callback()                             # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._version import __version__

if TYPE_CHECKING:
    from holdfast.api import (
        TrainedRun,
        audit,
        chat,
        choose,
        compare,
        cv,
        diagnose,
        distill,
        drift,
        errors,
        explain,
        export,
        fairness,
        lr,
        meta,
        probe,
        threshold,
        train,
        tune,
        update,
    )
    from holdfast.estimator.estimator import TextClassifier
    from holdfast.plugins.trainers.guard import Guard

__all__ = [
    "Guard",
    "TextClassifier",
    "TrainedRun",
    "__version__",
    "audit",
    "chat",
    "choose",
    "compare",
    "cv",
    "diagnose",
    "distill",
    "drift",
    "explain",
    "export",
    "fairness",
    "errors",
    "lr",
    "meta",
    "probe",
    "threshold",
    "train",
    "tune",
    "update",
]

_HOMES = {
    "train": "holdfast.api",
    "tune": "holdfast.api",
    "audit": "holdfast.api",
    "compare": "holdfast.api",
    "cv": "holdfast.api",
    "diagnose": "holdfast.api",
    "distill": "holdfast.api",
    "drift": "holdfast.api",
    "explain": "holdfast.api",
    "export": "holdfast.api",
    "fairness": "holdfast.api",
    "lr": "holdfast.api",
    "meta": "holdfast.api",
    "probe": "holdfast.api",
    "chat": "holdfast.api",
    "choose": "holdfast.api",
    "errors": "holdfast.api",
    "threshold": "holdfast.api",
    "update": "holdfast.api",
    "TrainedRun": "holdfast.api",
    "TextClassifier": "holdfast.estimator.estimator",
    "Guard": "holdfast.plugins.trainers.guard",
}


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that ``import holdfast`` is cheap and silent."""
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names alone, whatever has been imported meanwhile."""
    return sorted(__all__)
