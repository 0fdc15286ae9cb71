"""Rows, losses and callbacks that are odd, or break while the guard measures them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast import Guard
from holdfast.core.errors import DataError, RecipeError
from holdfast.plugins.trainers.losses import Formula


def own_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


def without(rows: Any, every: int) -> Any:
    """The rows, each ``every``-th with a label that a cross-entropy passes over."""
    labels = [-100 if i % every == 0 else one for i, one in enumerate(rows["labels"])]
    return rows.remove_columns("labels").add_column("labels", labels)


def result_of(guard: Guard) -> dict[str, Any]:
    assert guard.folder is not None
    found: dict[str, Any] = json.loads((guard.folder / "result.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"compute_loss_func": own_loss}])
def test_rows_without_a_target_stop_nothing(
    trainer: Callable[..., Any], rows_of: Callable[..., Any], settings: dict[str, Any]
) -> None:
    guard = Guard(log=lambda _: None)
    train, valid = without(rows_of(32), 3), without(rows_of(24, 1), 3)
    made = trainer(guard.callback(), train_dataset=train, eval_dataset=valid, **settings)
    made.train()
    assert made.state.global_step == 12
    assert guard.verdict is not None
    assert guard.verdict.label != "diverging"
    assert all(np.isfinite(look.valid_losses).all() for look in guard.history)
    assert (guard.history[0].valid_losses[::3] == 0).all()


def test_what_is_no_number_is_no_right_answer() -> None:
    logits = np.array([[2.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]])
    losses = np.array([np.log1p(np.exp(-1.0)), np.nan, np.nan])
    found = Formula("classes").measure(losses, logits)
    assert found.correct is not None
    assert found.correct.tolist() == [True, False, False]
    assert found.metrics["accuracy"] == pytest.approx(1 / 3)


def test_no_rate_is_blamed_for_what_was_broken_before_the_first_update(
    trainer: Callable[..., Any], classifier: Callable[..., Any]
) -> None:
    model = classifier()
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    guard = Guard(log=lambda _: None)
    trainer(guard.callback(), model=model).train()
    verdict = result_of(guard)["verdict"]
    assert verdict["label"] == "diverging"
    assert verdict["because"].startswith("A loss is not finite before the first update")
    assert "rate" not in verdict["cause"]
    assert verdict["remedies"]
    assert not any("rate" in one["do"] for one in verdict["remedies"])


@pytest.mark.slow
def test_full_precision_is_no_remedy_for_a_run_that_has_it(trainer: Callable[..., Any]) -> None:
    told = []
    for settings in ({}, {"bf16": True}):
        guard = Guard(log=lambda _: None)
        # A rate that breaks the loss: less precision may be the reason.
        made = trainer(guard.callback(), learning_rate=1e30, out=f"out-{len(told)}", **settings)
        made.train()
        verdict = result_of(guard)["verdict"]
        assert verdict["label"] == "diverging"
        told.append(any("full precision" in one["do"] for one in verdict["remedies"]))
    assert told == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 24])
def test_evaluation_rows_of_one_class_say_nothing_of_training_rows(
    trainer: Callable[..., Any], rows_of: Callable[..., Any], count: int
) -> None:
    rows = rows_of(48, 1)
    one_class = rows.select(np.flatnonzero(np.array(rows["labels"]) == 0)[:count].tolist())
    guard = Guard(log=lambda _: None)
    trainer(guard.callback(), eval_dataset=one_class).train()
    verdict = result_of(guard)["verdict"]
    # 28 of 32 training rows are right by then.
    assert "better than always predicting the class frequencies" not in verdict["because"]
    assert "-0.000" not in verdict["because"]


class Failing(torch.utils.data.Dataset[Any]):
    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Any:
        raise OSError("the share is gone")


def test_what_others_raise_is_not_called_a_defect_of_ours(
    trainer: Callable[..., Any], rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    lines: list[str] = []
    made = trainer(
        Guard(log=lines.append).callback(),
        eval_dataset=Failing(rows_of(24, 1)),
        eval_strategy="epoch",
    )
    # The trainer itself cannot evaluate on such rows.
    with pytest.raises(OSError, match="the share is gone"):
        made.train()
    (told,) = [line for line in lines if line.startswith("Warning: the guard disabled itself")]
    assert "the data set or its collator raised OSError: the share is gone" in told
    assert "defect in Holdfast" not in told


def test_labels_that_are_missing_are_told_as_such(
    trainer: Callable[..., Any], rows_of: Callable[..., Any]
) -> None:
    lines: list[str] = []
    rows = rows_of(24, 1).remove_columns("labels")
    made = trainer(Guard(log=lines.append).callback(), eval_dataset=rows, eval_strategy="no")
    made.train()
    assert made.state.global_step == 12
    (told,) = [line for line in lines if line.startswith("Warning: the guard disabled itself")]
    assert "compute_loss raised ValueError: The model did not return a loss" in told
    assert "defect in Holdfast" not in told


def test_two_callbacks_of_one_guard_are_refused(trainer: Callable[..., Any]) -> None:
    guard = Guard(log=lambda _: None)
    made = trainer(guard.callback(), guard.callback())
    with pytest.raises(RecipeError, match="two callbacks of one guard"):
        made.train()
    assert made.state.global_step == 0


def test_an_empty_dict_of_evaluation_sets_is_no_evaluation_set(trainer: Callable[..., Any]) -> None:
    made = trainer(Guard(log=lambda _: None).callback(), eval_dataset={})
    with pytest.raises(DataError, match="has no evaluation rows"):
        made.train()


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_a_place_that_cannot_be_written_ends_no_training_from_the_beginning(
    trainer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    place = tmp_path / "place"
    if full:
        # Every write to this device fails as one to a full disk does.
        place.mkdir()
        (place / "events.jsonl.full").symlink_to("/dev/full")
        monkeypatch.setattr("holdfast.training.journal.NAME", "events.jsonl.full")
    else:
        place.write_text("a file")
    lines: list[str] = []
    made = trainer(Guard(folder=place, log=lines.append).callback())
    made.train()
    assert made.state.global_step == 12
    (told,) = [line for line in lines if line.startswith("Warning: the guard disabled itself")]
    assert "defect in Holdfast" not in told
    assert ("full" if full else f"the folder {place} raised FileExistsError") in told


def test_a_prompt_without_targets_takes_no_row_of_an_answer_away() -> None:
    from holdfast.plugins.trainers.rows import _without_target

    assert not _without_target(torch.tensor([[-100, -100, 3]]))
    assert _without_target(torch.tensor([[-100, -100]]))


def test_a_model_of_half_precision_is_told_of_full(
    trainer: Callable[..., Any], classifier: Callable[..., Any]
) -> None:
    guard = Guard(log=lambda _: None)
    model = classifier().to(torch.bfloat16)
    trainer(guard.callback(), model=model, learning_rate=1e30).train()
    remedies = result_of(guard)["verdict"]["remedies"]
    assert any("full precision" in one["do"] for one in remedies)
