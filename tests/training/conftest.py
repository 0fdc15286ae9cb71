"""A network that trains in milliseconds, and the loop's job around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.control.choice import lowest
from holdfast.core.records import Snapshot, Verdict
from holdfast.methods.contrast import ClassBatches, ContrastTerm
from holdfast.methods.optimizers import build_optimizer, build_schedule
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.plan import Phase, Plan
from holdfast.training.run import Job

VOCABULARY = 30


class Toy(nn.Module):
    """The mean of word vectors, one hidden layer, dropout, a head; its words do not learn."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6)
        self.words.weight.requires_grad_(False)
        self.body = nn.Linear(6, 8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, classes)

    def features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask[..., None].float()
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return torch.tanh(self.body(self.dropout(mean)))


def make_toy(classes: int = 2, dropout: float = 0.0, seed: int = 0) -> Toy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Toy(classes, dropout)


def make_examples(n: int = 40, classes: int = 2, seed: int = 0) -> EncodedTexts:
    """Rows of 3 to 9 tokens, the label written into the first."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    lengths = rng.integers(3, 10, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, VOCABULARY, offsets[-1])
    ids[offsets[:-1]] = 1 + labels
    return EncodedTexts(
        ids.astype(np.int32), None, offsets, np.arange(n), labels, np.zeros(n, bool)
    )


def make_phase(**changes: Any) -> Phase:
    plain = Phase(
        name="finetune",
        steps=10,
        batch_size=8,
        learning_rate=0.05,
        head_learning_rate=0.05,
        warmup=0.0,
        weight_decay=0.0,
    )
    return replace(plain, **changes)


def make_contrast(**changes: Any) -> Phase:
    """A phase that compares rows, and leaves the head to be refitted."""
    shape = {"source": ClassBatches(), "terms": (ContrastTerm(0.1),), "head": "refit"}
    return make_phase(name="contrast", **{**shape, **changes})


def learning(history: Any, kept: int | None = None) -> Verdict:
    return Verdict("learning", "a test says so", 0.5)


def groups_of(network: Any, phase: Phase) -> list[dict[str, Any]]:
    head = list(network.head.parameters())
    body = list(network.body.parameters())
    groups = [{"params": body, "lr": phase.learning_rate, "weight_decay": phase.weight_decay}]
    if phase.head == "train":
        groups.append(
            {"params": head, "lr": phase.head_learning_rate, "weight_decay": phase.weight_decay}
        )
    return groups


def refined(snapshot: Snapshot) -> float:
    return snapshot.refined_loss


def build_job(
    folder: Path | None = None,
    *,
    phases: tuple[Phase, ...] | None = None,
    dropout: float = 0.0,
    evaluate_at: tuple[int, ...] | None = None,
    max_minutes: float | None = None,
    every_s: float = 0.0,
    classes: int = 2,
    rows: int = 40,
    criterion: Callable[[Snapshot], float] = refined,
    **changes: Any,
) -> Job:
    phases = phases or (make_phase(),)
    steps = sum(phase.steps for phase in phases)
    at = evaluate_at or tuple(sorted({0, steps // 2, steps}))
    task = TextClassification(0, ("a", "b", "c")[:classes])
    settings: dict[str, Any] = {
        "network": make_toy(classes, dropout),
        "task": task,
        "train": make_examples(rows, classes),
        "valid": make_examples(16, classes, seed=1),
        "plan": Plan(phases, at, 12, 0, max_minutes),
        "accelerator": make_accelerator("float32"),
        "groups": groups_of,
        "optimizer": build_optimizer,
        "schedule": build_schedule,
        "choose": lowest(criterion),
        "monitor": learning,
        "journal": Journal(folder),
        "store": CheckpointStore(folder / "checkpoints" if folder else None, every_s),
    }
    return Job(**(settings | changes))


@pytest.fixture(scope="session")
def job() -> Callable[..., Job]:
    """Builds a job; keywords change its parts."""
    return build_job


@pytest.fixture(scope="session")
def phase() -> Callable[..., Phase]:
    return make_phase


@pytest.fixture(scope="session")
def contrast_phase() -> Callable[..., Phase]:
    return make_contrast


@pytest.fixture(scope="session")
def examples() -> Callable[..., EncodedTexts]:
    return make_examples


class Recorder:
    """Hears every event, and can act at one of them."""

    name = "recorder"

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.at: dict[str, Callable[[Any], None]] = {}

    def __getattr__(self, event: str) -> Callable[[Any], None]:
        from holdfast.core.events import EVENTS

        if event not in EVENTS:
            raise AttributeError(event)

        def hear(run: Any) -> None:
            self.heard.append(event)
            self.at.get(event, lambda _: None)(run)

        return hear


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
