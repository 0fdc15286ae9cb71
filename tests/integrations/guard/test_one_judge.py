"""One run, one label: through ``train``, ``Guard``, and ``diagnose`` of what was stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import holdfast
from holdfast import Guard
from holdfast.plugins.trainers.rows import MAX_COMPARED, count_copied_rows, hold_out
from holdfast.training.evaluation_file import EVALUATIONS_FILE, read_evaluations

EPOCHS, RATE, BATCH = 40, 3e-3, 16


@pytest.fixture(scope="module")
def rows(marked_rows: Any) -> dict[str, list[tuple[str, str]]]:
    """60 training, 100 validation and 20 test rows whose labels know nothing of their texts."""
    texts = [text for text, _ in marked_rows(180, seed=5)]
    labels = np.random.default_rng(0).permutation(["no", "yes"] * 90)
    both = list(zip(texts, labels.tolist(), strict=True))
    return {"train": both[:60], "valid": both[60:160], "test": both[160:]}


@pytest.fixture(scope="module")
def run(rows: Any, tiny_model: Path, write_csv: Any, tmp_path_factory: Any) -> Path:
    """The folder of the run of ``train``."""
    folder = tmp_path_factory.mktemp("one-judge")
    for side, found in rows.items():
        write_csv(folder / f"{side}.csv", found)
    settings = {
        "data.valid": str(folder / "valid.csv"),
        "data.test": str(folder / "test.csv"),
        "model.name": str(tiny_model),
        "methods.probe_first": False,
        "train.epochs": EPOCHS,
        "train.learning_rate": RATE,
        "train.batch_size": BATCH,
        "train.schedule": "constant",
        "train.precision": "float32",
        "train.threads": 1,
        "control.policy": "off",
    }
    made = holdfast.train(
        str(folder / "train.csv"), out=folder / "run", settings=settings, quiet=True
    )
    return Path(made.folder)


def guarded(rows: Any, tiny_model: Path, out: Path, **changes: Any) -> Guard:
    """The same rows, model and settings in ``transformers.Trainer``."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sides = {}
    for side, found in rows.items():
        encoded = tokenizer([text for text, _ in found])
        labels = [int(label == "yes") for _, label in found]
        sides[side] = Dataset.from_dict({**encoded, "label": labels})
    guard = Guard(policy="off", log=lambda _: None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
        settings: dict[str, Any] = {
            "num_train_epochs": EPOCHS,
            "learning_rate": RATE,
            "per_device_train_batch_size": BATCH,
            "lr_scheduler_type": "constant",
            "eval_strategy": "steps",
            "eval_steps": 8,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": [],
        }
        Trainer(
            model,
            TrainingArguments(str(out), **(settings | changes)),
            train_dataset=sides["train"],
            eval_dataset=sides["valid"],
            processing_class=tokenizer,
            callbacks=[guard.callback()],
        ).train()
    return guard


@pytest.mark.slow
def test_overfit_is_overfit_at_every_entry_point(
    run: Path, rows: Any, tiny_model: Path, tmp_path: Path
) -> None:
    guard = guarded(rows, tiny_model, tmp_path)
    assert guard.verdict is not None
    assert guard.folder is not None
    last = guard.history[-1]
    assert last.train_correct.mean() > 0.95
    assert last.valid_correct.mean() < 0.7
    labels = {
        "guard": guard.verdict.label,
        "stored guard": holdfast.diagnose(guard.folder).label,
        "train": read_verdict(run),
        "stored run": holdfast.diagnose(run).label,
    }
    assert set(labels.values()) == {"overfit"}, labels


def read_verdict(folder: Path) -> str:
    import json

    label: str = json.loads((folder / "result.json").read_text())["verdict"]["label"]
    return label


def test_the_judge_of_train_knows_the_peak_of_its_recipe(run: Path) -> None:
    assert read_evaluations(run / EVALUATIONS_FILE).run_facts.peak_rate == RATE


@pytest.mark.slow
def test_copies_of_validation_rows_in_training_leak(
    rows: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Of few rows too, which no curve shows to be known."""
    few = {"train": [*rows["train"][:40], *rows["valid"][:10]], "valid": rows["valid"][:20]}
    guard = guarded(few, tiny_model, tmp_path, num_train_epochs=2)
    assert guard.verdict is not None
    assert guard.verdict.label == "leaking"
    assert "10 of 20" in guard.verdict.because


def test_copied_rows_are_counted_whatever_their_labels() -> None:
    train = [{"input_ids": [i, 1], "label": 0} for i in range(10)]
    valid = [{"input_ids": [i, 1], "label": 1} for i in range(8, 12)]
    assert count_copied_rows(train, valid) == (2, 4)
    assert count_copied_rows(train, []) is None
    assert count_copied_rows(range(MAX_COMPARED), valid) is None
    picture = [{"pixel_values": np.zeros((3, 224, 224)), "label": 0}]
    assert count_copied_rows(picture * 200, picture) is None
    assert count_copied_rows(picture * 40, picture * 40) is None


class Images:
    """Rows that are made when they are read, as of a ``datasets.Dataset`` with images."""

    def __init__(self, seeds: range) -> None:
        self._seeds = seeds

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, at: int) -> dict[str, Any]:
        drawn = np.random.default_rng(self._seeds[at]).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        return {"image": Image.fromarray(drawn), "label": at % 2}


class Clips(Images):
    """Sound with silence at both ends, whose shortened text is the same for all."""

    def __getitem__(self, at: int) -> dict[str, Any]:
        heard = np.zeros(4000)
        heard[1000:3000] = np.random.default_rng(self._seeds[at]).normal(size=2000)
        return {"audio": {"array": heard, "rate": 16_000, "names": ["a", np.int64(1)]}, "label": 0}


class Objects(Images):
    """Rows of which nobody can tell what is in them."""

    def __getitem__(self, at: int) -> dict[str, Any]:
        return {"thing": object(), "label": 0}


@pytest.mark.parametrize("kind", [Images, Clips])
def test_what_looks_alike_and_is_not_is_no_copy(kind: type[Images]) -> None:
    """Objects that are made anew get the place in memory of those before."""
    assert count_copied_rows(kind(range(100)), kind(range(100, 140))) == (0, 40)
    assert count_copied_rows(kind(range(100)), kind(range(90, 130))) == (10, 40)


def test_what_cannot_be_told_is_not_compared() -> None:
    assert count_copied_rows(Objects(range(100)), Objects(range(40))) is None
    kept, held = hold_out(Objects(range(20)), 0.2, 0)
    assert (len(kept), len(held)) == (16, 4)
