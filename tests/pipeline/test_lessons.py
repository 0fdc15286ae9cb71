"""What teachers say reaches the rows that they said it of, whatever the division and the tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.updates import ForwardPass
from holdfast.fits import seen_rows
from holdfast.fits.compose import make_training_plan
from holdfast.fits.lessons import Lessons, check_teachers
from holdfast.fits.seen_rows import refuse_seen_rows
from holdfast.fits.teachers import TagTeacher, load_teachers
from holdfast.pipeline.main import train as run_train
from holdfast.prepare.model import prepare
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.runs.predictor import Predictor
from holdfast.tasks.tags.losses import TokenClassification, encode_words

PLAIN = ["train.precision=float32", "train.threads=1", "train.matmul=default"]


def term_of(prepared: Any, train: Any) -> tuple[Any, Any]:
    """The loss term of a fit on these rows, and the fit."""
    valid = np.setdiff1d(np.arange(len(prepared)), train)[:5]
    ready = make_training_plan(prepared, np.asarray(train), valid)
    (term,) = ready.plan.phases[-1].terms
    return term, ready


@pytest.fixture(scope="module")
def taught(finished_run: Path, marked_csv: Path, quick: list[str]) -> Any:
    """The rows of a run, its teacher's answers once asked and once to be asked."""
    settings = [f"data.path={marked_csv}", *quick, f"distill.teacher=[{finished_run}]"]
    recipe = override(Recipe(), [*settings, "methods.contrast=false"])
    divided = load_and_divide(recipe)
    prepared = prepare(divided.recipe, divided.table)
    teachers = load_teachers([finished_run], prepared)
    rows = tuple(one.rows(prepared.rows, prepared.examples) for one in teachers)
    kept = replace(prepared, lessons=Lessons(teachers, "class", rows=rows))
    asked = replace(prepared, lessons=Lessons(teachers, "class"))
    return kept, asked, rows[0]


def test_a_fit_is_told_what_was_said_of_its_own_rows(taught: Any) -> None:
    kept, asked, said = taught
    train = np.array([40, 3, 77, 12, 90, 5])
    for prepared in (kept, asked):
        term, ready = term_of(prepared, train)
        rows = np.array([2, 0, 5])
        batch = ready.task.collate(ready.train, rows)
        logits = torch.zeros(3, 2)
        passed = ForwardPass(rows, batch, type("Output", (), {"logits": logits})())
        found = term.query_teacher(passed).logits[0].numpy()
        np.testing.assert_allclose(found, said.values[train[rows]], rtol=1e-4, atol=1e-5)


def test_a_teacher_says_of_a_row_what_its_run_says(taught: Any, finished_run: Path) -> None:
    kept, _, said = taught
    answers = Predictor.load(finished_run).predict_table(kept.rows)
    shares = torch.softmax(torch.from_numpy(said.values), dim=-1).numpy()
    np.testing.assert_allclose(shares, np.asarray(answers.probabilities), rtol=1e-4, atol=1e-5)


def test_without_what_teachers_say_a_fit_is_refused(taught: Any) -> None:
    kept, _, _ = taught
    with pytest.raises(RecipeError, match="a fold or a trial would need its own teachers"):
        make_training_plan(replace(kept, lessons=None), np.arange(9), np.arange(9, 14))


def test_tags_are_taught_word_by_word_whatever_the_pieces(
    tiny_model: Path, letters_model: Path, tmp_path: Path
) -> None:
    rng, lines = np.random.default_rng(0), []
    for _ in range(40):
        words = [f"w{i}" for i in rng.integers(0, 40, rng.integers(3, 9))]
        tags = rng.choice(["O", "B-X"], len(words)).tolist()
        lines.append(json.dumps({"tokens": words, "tags": tags}))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    data = [f"data.path={path}", "data.labels=exact", *PLAIN, "train.max_steps=2"]
    run = tmp_path / "run"
    run_train(override(Recipe(), [*data, f"model.name={tiny_model}"]), run)
    divided = load_and_divide(override(Recipe(), [*data, f"model.name={letters_model}"]))
    prepared = prepare(divided.recipe, divided.table)
    (teacher,) = load_teachers([run], prepared)
    assert isinstance(teacher, TagTeacher)
    found = teacher.rows(prepared.rows, prepared.examples)
    assert found.known.all()
    # The teacher by itself, a sentence at a time, in its own pieces.
    model = teacher.model
    task = TokenClassification(int(model.tokenizer.pad_token_id), model.classes)
    own: Any = prepared.examples
    for place in (0, 7, 31):
        read = encode_words(prepared.rows.take([place]), model.tokenizer, model.max_length)
        batch = task.collate(read, [0])
        inputs = {k: v for k, v in batch.items() if k not in ("where", "tags", "counts")}
        with torch.inference_mode():
            logits = model.network(**inputs).flatten(0, 1)[batch["where"]].numpy()
        mine = found.values[own.starts[place] : own.starts[place + 1]]
        np.testing.assert_allclose(mine, logits[:, teacher.order], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_who_has_no_teacher_loads_nothing_of_one() -> None:
    asks = "import sys, holdfast.pipeline.main; print('holdfast.fits.lessons' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"


@pytest.mark.parametrize("side", ["train", "valid"])
def test_a_teacher_that_knew_a_row_that_scores_its_student_is_refused(
    monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Also one that only chose its state by that row."""
    sides = np.array(["train", "valid", "test"], dtype=object)
    monkeypatch.setattr(seen_rows, "_rows_of_run", lambda _: (np.array([1, 2, 3]), sides))

    def ask(**own: list[int]) -> Any:
        found = {one: np.array(own.get(one, []), dtype=np.int64) for one in sides}
        monkeypatch.setattr(seen_rows, "_keys_by_split", lambda _: found)
        with record_decisions() as log:
            refuse_seen_rows(Path("teacher"), None, seen_rows.AS_TEACHER)  # type: ignore[arg-type]
        return decisions_and_findings(log)[1]

    with pytest.raises(RunError, match="1 test row of the new run"):
        ask(test=[1 if side == "train" else 2])
    assert ask(test=[3, 4], valid=[2, 5]) == ()
    (finding,) = ask(test=[3], valid=[1, 5])
    assert (finding.check, finding.count, finding.score) == ("teacher_knows", 1, 0.5)


def test_a_teacher_that_is_gone_is_named_with_its_setting(tmp_path: Path) -> None:
    """Such as one that was moved before its student's run is resumed."""
    with pytest.raises(RunError) as error:
        check_teachers([tmp_path / "gone"], Recipe())
    assert error.value.what == f"the teacher {tmp_path / 'gone'} (distill.teacher)"
