"""Every verdict that the judge can give, of every task: what each detector sees in constructed
histories, put together as the judge puts it together. A detector, label or cause that no case here
brings about fails ``every_verdict``, so that a new one comes with its case.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np

from holdfast.core.labels import Label
from holdfast.core.records import Verdict
from holdfast.core.run_facts import LabelNoise
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.judge import CAUSES, ORDER, symptoms_of, verdict_of
from holdfast.monitor.symptom import Symptom

TASKS = (
    "text-classification",
    "token-classification",
    "image-classification",
    "seq2seq",
    "causal-lm",
)
ROWS = 60
# What a task counts at each evaluation where a row as a whole is neither right nor wrong.
COUNTED = {"seq2seq": "token_accuracy", "causal-lm": "token_accuracy"}


def _load(name: str, *path: str) -> ModuleType:
    place = Path(__file__).parent.joinpath(*path)
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


kit = _load("holdfast_tests_detector_cases", "contracts", "test_detectors.py")
monitor = _load("holdfast_tests_monitor_histories", "monitor", "conftest.py")


def cases() -> Iterator[History]:
    """Histories that bring about each detector's symptom."""
    yield kit.good()
    for kind in kit.SHAPES:
        yield kit.shape(kind, ROWS)
    plain = kit.good()
    general = [
        dataclasses.replace(look, general_loss=1.0 + 0.3 * k)
        for k, look in enumerate(plain.snapshots)
    ]
    yield History(tuple(general), plain.run_facts)
    noise = LabelNoise(0.3, 0.2, 0.4, 0.8, 0.5, 200)
    yield History(plain.snapshots, dataclasses.replace(plain.run_facts, label_noise=noise))
    # The training rows are known by heart, and validation never moved.
    yield kit.course(np.linspace(0.7, 0.01, kit.STEPS), np.full(kit.STEPS, 0.6), ROWS)
    # Rows that were seen first are fitted most.
    primary = kit.course(np.linspace(0.7, 0.3, kit.STEPS), np.full(kit.STEPS, 0.6), ROWS)
    fall = primary.probe[:, -1] - primary.probe[:, 0]
    seen = fall.argsort().argsort() + 1
    yield History(primary.snapshots, dataclasses.replace(primary.run_facts, first_seen=seen))
    # A peak learning rate below the usual ones, and training rows that are far from learned.
    slow = kit.course(np.linspace(1.2, 1.1, kit.STEPS), np.full(kit.STEPS, 1.2), ROWS)
    rates = {"usual_rates": (1e-3, 1e-2), "peak_rate": 1e-6}
    yield History(slow.snapshots, dataclasses.replace(slow.run_facts, **rates))
    # Answers hold while certainty outgrows them.
    yield History(tuple(monitor.make_classified([0.5, 1, 3, 8, 20], [0.0, 2.0, 2.0, 2.0, 2.0])))


def of_task(history: History, task: str, refused: tuple[str, ...] = ()) -> History:
    """The same history as a task has it, which refuses these settings: a task that writes counts
    tokens, not rows."""
    known = dataclasses.replace(history.run_facts, task=task, refused=refused)
    name = COUNTED.get(task)
    if name is None:
        return History(history.snapshots, known)
    written = tuple(_written(look, name) for look in history.snapshots)
    return History(written, dataclasses.replace(known, classes=None))


def _written(look: Any, name: str) -> Any:
    def share(losses: Any) -> dict[str, float]:
        return {name: float(np.exp(-np.mean(losses)))}

    return dataclasses.replace(
        look,
        train_correct=None,
        valid_correct=None,
        valid_logits=None,
        train_metrics=share(look.train_losses),
        valid_metrics=share(look.valid_losses),
    )


def symptoms() -> dict[str, list[tuple[History, Symptom]]]:
    """Of each detector what it sees, each label and cause of it once, and where."""
    found: dict[str, dict[tuple[Any, Any], tuple[History, Symptom]]] = {}
    for history in cases():
        for name, symptom in symptoms_of(history).items():
            key = (symptom.label, symptom.cause)
            found.setdefault(name, {}).setdefault(key, (history, symptom))
    return {name: list(each.values()) for name, each in found.items()}


def every_verdict(task: str, refused: tuple[str, ...] = ()) -> list[tuple[History, Verdict]]:
    """The verdicts of a task that refuses these settings, each with its history: every label with
    every cause that explains it, and what is said where nothing can be."""
    found = symptoms()
    assert set(found) == set(DETECTORS), "a detector without a case that it sees"
    made: list[tuple[History, Verdict]] = []
    for history in cases():
        seen = of_task(history, task, refused)
        made.append((seen, verdict_of(seen, symptoms_of(seen))))
        for looks in (0, 1):
            short = History(seen.snapshots[:looks], seen.run_facts)
            made.append((short, verdict_of(short, symptoms_of(short))))
        made.append((seen, verdict_of(seen, {})))
    for name, label, _ in ORDER:
        for history, leading in found[name]:
            if leading.label != label:
                continue
            seen = of_task(history, task, refused)
            made.append((seen, verdict_of(seen, {name: leading})))
            for other in CAUSES:
                for _, blamed in found[other]:
                    if other != name and blamed.cause and label in blamed.explains:
                        surest = dataclasses.replace(blamed, label=None, blame=1.0)
                        made.append((seen, verdict_of(seen, {name: leading, other: surest})))
    assert {v.label for _, v in made} == set(get_args(Label)), "a label without a case"
    causes = {symptom.cause for name in CAUSES for _, symptom in found[name]} - {None}
    assert causes <= {v.cause for _, v in made}, causes - {v.cause for _, v in made}
    return made
