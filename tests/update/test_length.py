"""What a recipe counts in updates, for an update of more rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.plugins.update.options import UpdateOptions, scale_for_rows, start_update
from holdfast.recipe import Recipe, override


def recipe(*settings: str) -> Recipe:
    return override(Recipe(), settings)


@pytest.mark.parametrize(
    ("steps", "before", "after", "scaled"),
    [(50, 100, 400, 200), (7, 30, 31, 8), (180, 400, 100, 45), (1, 1000, 10, 1)],
)
def test_a_bound_on_updates_keeps_the_passes(
    steps: int, before: int, after: int, scaled: int
) -> None:
    found, (said,) = scale_for_rows(recipe(f"train.max_steps={steps}"), before, after)
    assert found.train.max_steps == scaled
    assert (said.what, said.chosen, said.prominent) == ("train.max_steps", str(scaled), True)
    # As many passes, to less than one update.
    assert 0 <= scaled / after - steps / before < 1 / after
    assert f"--set train.max_steps={steps}" in said.because


def test_what_stays_is_said_and_what_grows_by_itself_is_not() -> None:
    given = recipe(
        "train.max_minutes=5",
        "methods.contrast.steps=75",
        "train.epochs=3",
        "train.warmup=0.1",
        "train.evaluations=9",
        "train.patience=4",
    )
    found, said = scale_for_rows(given, 100, 400)
    assert found == given
    assert [(one.what, one.chosen) for one in said] == [
        ("methods.contrast.steps", "75"),
        ("train.max_minutes", "5"),
    ]
    assert all(one.prominent for one in said)


def test_what_is_set_for_the_update_is_taken_as_it_is() -> None:
    settings = ["train.max_steps=50", "train.max_minutes=5", "methods.contrast.steps=75"]
    given = recipe(*settings)
    assert scale_for_rows(given, 100, 400, settings) == (given, ())
    assert scale_for_rows(given, 100, 100) == (given, ())


def test_an_update_of_a_short_run_is_as_long_for_its_rows(
    served: Path, tmp_path: Path, odd_rows: Any, write_csv: Any
) -> None:
    """The served run was bounded to 20 updates of its 280 training rows."""
    path = served / "recipe.yaml"
    before = path.read_text("utf-8")
    assert before.count("max_steps: null") == 1
    path.write_text(before.replace("max_steps: null", "max_steps: 20"), "utf-8")
    result = json.loads((served / "result.json").read_text("utf-8"))
    del result["seal"]
    (served / "result.json").write_text(json.dumps(result), "utf-8")
    feedback = write_csv(tmp_path / "feedback.csv", odd_rows(600))
    begun = start_update(UpdateOptions(served, str(feedback)))
    block = begun.procedure.feedback
    rows = block["used"] + block["replayed"]["n"]
    assert block["replayed"]["of"] == result["data"]["train"]
    assert begun.recipe.train.max_steps == -(-20 * rows // block["replayed"]["of"]) > 40
    (said,) = (one for one in begun.procedure.decisions if one["what"] == "train.max_steps")
    assert said["chosen"] == str(begun.recipe.train.max_steps)
    own = start_update(UpdateOptions(served, str(feedback), settings={"train.max_steps": 20}))
    assert own.recipe.train.max_steps == 20
    assert not [one for one in own.procedure.decisions if one["what"] == "train.max_steps"]
