"""The Python API: what the commands do, as functions, and a finished run."""

from holdfast.api.commands import (
    audit,
    choose,
    compare,
    cv,
    distill,
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

__all__ = [
    "TrainedRun",
    "audit",
    "choose",
    "compare",
    "cv",
    "distill",
    "errors",
    "explain",
    "fairness",
    "lr",
    "probe",
    "threshold",
    "train",
    "tune",
]
