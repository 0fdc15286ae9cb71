"""Tiny trainers of other people: random models, rows that a model of this size can learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STEPS_AN_EPOCH = 4


def tiny_classifier(seed: int = 0, dropout: float = 0.1) -> Any:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=50,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=24,
                max_position_embeddings=32,
                num_labels=2,
                hidden_dropout_prob=dropout,
                initializer_range=0.2,
            )
        )


def marked(n: int, seed: int = 0, noise: float = 0.1) -> Any:
    """Ten random tokens a row, one of them the mark of its class (or, at times, of the other)."""
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        label = index % 2
        tokens = rng.integers(5, 45, 10).tolist()
        tokens[int(rng.integers(10))] = 45 + (label if rng.random() > noise else 1 - label)
        rows.append({"input_ids": tokens, "attention_mask": [1] * 10, "labels": label})
    return Dataset.from_list(rows)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Any]:
    """A ``transformers.Trainer`` of 3 epochs of 4 steps on 32 rows, evaluated each epoch."""
    from transformers import Trainer, TrainingArguments

    def make(*callbacks: Any, kind: type = Trainer, out: str = "out", **changes: Any) -> Any:
        given: dict[str, Any] = {
            "model": tiny_classifier(),
            "train_dataset": marked(32),
            "eval_dataset": marked(24, 1),
        }
        given |= {name: changes.pop(name) for name in list(changes) if name in given}
        own = {n: changes.pop(n) for n in ("data_collator", "compute_loss_func") if n in changes}
        settings: dict[str, Any] = {
            "num_train_epochs": 3,
            "per_device_train_batch_size": 8,
            "learning_rate": 5e-3,
            "eval_strategy": "epoch",
            "save_strategy": "no",
            "logging_steps": 5,
            "seed": 3,
            "lr_scheduler_type": "constant",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": [],
        }
        arguments = TrainingArguments(output_dir=str(tmp_path / out), **(settings | changes))
        made = kind(args=arguments, callbacks=list(callbacks), **given, **own)
        made.pop_callback(_printer())
        return made

    return make


def _printer() -> type:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., Any]:
    return marked


@pytest.fixture(scope="session")
def classifier() -> Callable[..., Any]:
    return tiny_classifier


@pytest.fixture
def lines() -> list[str]:
    """Where a test's guard says its lines."""
    return []
