"""A student that is its own teacher, of every kind of task: nothing is to be learned, and nothing
moves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.core.updates import ForwardPass
from holdfast.fits.teachers import GenerativeTeacher, ImageTeacher, TagTeacher, TextTeacher
from holdfast.methods.teacher import DistillationLoss, TeacherOutputs
from holdfast.pipeline.main import train
from holdfast.recipe import override
from holdfast.search.student import student_recipe
from holdfast.tasks import task_definition

PROBLEMS = {"several": "several", "number": "number"}


def own_teacher(sample: Any) -> Any:
    loaded, task = sample.loaded, sample.recipe.task
    outputs = np.arange(len(sample.task.classes))
    model = SimpleNamespace(
        network=loaded.network,
        tokenizer=loaded.tokenizer,
        processor=loaded.tokenizer,
        classes=sample.task.classes,
    )
    if task == "text-classification":
        return TextTeacher(model, outputs)  # type: ignore[arg-type]
    if task == "image-classification":
        return ImageTeacher(model, outputs)  # type: ignore[arg-type]
    if task == "token-classification":
        return TagTeacher(model, outputs)  # type: ignore[arg-type]
    return GenerativeTeacher(loaded.network, loaded.tokenizer)


@pytest.mark.parametrize("compared", ["probabilities", "logits"])
def test_who_is_its_own_teacher_learns_nothing(sample: Any, compared: Any) -> None:
    task, network, rows = sample.task, sample.loaded.network, np.arange(4)
    kind = sample.table.columns.label_kind or "class"
    problem: Any = (
        PROBLEMS.get(kind, "class") if sample.recipe.task == "text-classification" else "class"
    )
    batch = task.collate(sample.examples, rows)
    network.eval()
    # Without a gradient to come some kernels are others, whose last digit is another.
    said = own_teacher(sample).batch(task, batch).detach()
    network.zero_grad()
    output = task.forward(network, batch)
    term = DistillationLoss(lambda _: TeacherOutputs([said]), 4, 4, 1.0, 2.0, problem, compared)
    losses = term(ForwardPass(rows, batch, output), task.losses(output, batch))
    losses.sum().backward()
    slopes = [p.grad.abs().max().item() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    assert losses.shape == (4,)
    if sample.recipe.task == "token-classification":
        # The last layer reads a word alone here and among all there, which moves the last digit.
        assert losses.abs().max().item() < 1e-9
        assert max(slopes, default=0) < 1e-4
    else:
        assert (losses == 0).all()
        assert max(slopes, default=0) == 0


def test_who_is_its_own_teacher_can_read_every_batch(sample: Any) -> None:
    prepared: Any = SimpleNamespace(loaded=sample.loaded, rows=sample.table)
    assert own_teacher(sample).differs(prepared) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seq2seq", "pictures"])
def test_a_run_of_its_kind_has_a_student(name: str, make_sample: Any, tmp_path: Path) -> None:
    sample = make_sample(name)
    few = ["train.max_steps=3", "train.batch_size=4", "train.threads=1", "generate.rows=2"]
    few += ["train.precision=float32", "train.matmul=default", "generate.max_new_tokens=4"]
    teacher, folder = tmp_path / "teacher", tmp_path / "student"
    train(override(sample.recipe, few), teacher)
    recipe = student_recipe([teacher], layers=1, settings=[*few, "distill.alone=false"])
    found = train(recipe, folder)["distilled"]
    assert found["teacher"]["value"] is not None
    assert found["speed"]["value"] > 0
    assert found["student"]["parameters"] < found["teacher"]["parameters"]
    assert task_definition(recipe.task or "").load_plain_model(folder) is not None
