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

import warnings
from typing import TYPE_CHECKING, Any

from holdfast._version import __version__

if TYPE_CHECKING:
    from holdfast.api.commands import (
        audit,
        choose,
        compare,
        cv,
        distill,
        dry_run,
        errors,
        explain,
        fairness,
        lr,
        probe,
        threshold,
        train,
        tune,
    )
    from holdfast.api.trained_run import TrainedRun
    from holdfast.core.errors import InputError
    from holdfast.estimator.estimator import TextClassifier
    from holdfast.plugins.chat.api import chat
    from holdfast.plugins.drift.api import drift
    from holdfast.plugins.episodes.api import meta
    from holdfast.plugins.export.api import export
    from holdfast.plugins.logs.api import diagnose
    from holdfast.plugins.trainers.guard import Guard
    from holdfast.plugins.update.api import update

__all__ = [
    "Guard",
    "InputError",
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
    "dry_run",
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

# Plug-ins bring these, by their entry points; the others are the core's.
_PLUGINS = ("Guard", "chat", "diagnose", "drift", "export", "meta", "update")
_CLASSES = {
    "InputError": "holdfast.core.errors",
    "TextClassifier": "holdfast.estimator.estimator",
    "TrainedRun": "holdfast.api.trained_run",
}


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that ``import holdfast`` is cheap and silent."""
    # What tqdm says in every notebook without ipywidgets; Holdfast uses none.
    warnings.filterwarnings("ignore", message="IProgress not found")
    if name in _PLUGINS:
        from holdfast.core.discovery import load_entry_point

        return load_entry_point("holdfast.functions", name)
    if name in __all__:
        import importlib

        module = importlib.import_module(_CLASSES.get(name, "holdfast.api.commands"))
        return getattr(module, name)
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names alone, whatever has been imported meanwhile."""
    return sorted(__all__)
