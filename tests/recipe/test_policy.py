"""``control.policy`` is chosen where the recipe leaves it open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.core.records import Decision
from holdfast.data.table import Columns
from holdfast.pipeline.main import train
from holdfast.plan import control
from holdfast.plan.control import resolve_policy, without_trials
from holdfast.recipe import Recipe, override
from holdfast.recipe.recipe import parse

TEXTS, IMAGES = "text-classification", "image-classification"


@pytest.mark.parametrize(
    ("task", "label_kind", "policy"),
    [
        (TEXTS, "class", "adapt"),
        (TEXTS, None, "adapt"),
        (IMAGES, None, "adapt"),
        (TEXTS, "several", "stop"),
        (TEXTS, "number", "stop"),
        ("token-classification", None, "stop"),
        ("seq2seq", None, "stop"),
        ("causal-lm", None, "stop"),
    ],
)
def test_a_run_adapts_where_that_was_measured(
    task: str, label_kind: str | None, policy: str
) -> None:
    recipe = override(Recipe(), [f"task={task}"])
    resolved, (decision,) = resolve_policy(
        recipe, Columns(("text",), "label", label_kind=label_kind)
    )
    assert resolved.control.policy == decision.chosen == policy
    named = label_kind if label_kind not in (None, "class") else task
    named = "language model" if named == "causal-lm" else named
    assert (str(named) in decision.because) == (policy == "stop")
    # The other policy is one setting away.
    other = {"adapt": "stop", "stop": "adapt"}[policy]
    assert f"--set control.policy={other}" in decision.because


def test_a_teacher_and_several_processes_are_reasons_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns, recipe = Columns(("text",), "label"), override(Recipe(), [f"task={TEXTS}"])
    taught = parse({**recipe.model_dump(), "distill": {"teacher": ["run"]}}, "a test")
    assert resolve_policy(taught, columns)[0].control.policy == "stop"
    monkeypatch.setattr(control, "process_count", lambda: 2)
    assert resolve_policy(recipe, columns)[0].control.policy == "stop"


@pytest.mark.parametrize("stated", ["off", "stop", "adapt", "mine.py:Own"])
def test_a_stated_policy_is_kept_without_a_word(stated: str) -> None:
    recipe = override(Recipe(), ["task=causal-lm", f"control.policy={stated}"])
    assert resolve_policy(recipe, Columns(("text",), None)) == (recipe, ())


def test_a_run_stores_the_policy_and_its_reason(
    tmp_path: Path, marked_csv: Path, quick: list[str]
) -> None:
    plan = ("control.policy", "train.epochs", "train.learning_rate", "methods.contrast")
    settings = [one for one in quick if not one.startswith(plan)]
    run = tmp_path / "run"
    result = train(override(Recipe(), [f"data.path={marked_csv}", *settings]), run)
    stored: Any = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    told = [one for one in result["decisions"] if one["what"] == "control.policy"]
    assert stored["control"]["policy"] == result["control"]["policy"] == "adapt"
    assert [one["chosen"] for one in told] == ["adapt"]


@pytest.mark.parametrize("stated", [None, "off", "stop", "adapt", "mine.py:Own"])
def test_folds_and_searches_have_no_trials_and_say_so(stated: str | None) -> None:
    recipe = override(Recipe(), [f"control.policy={stated}"] if stated else [])
    changed, told = without_trials(recipe, "a reason")
    assert changed.control.policy == ("off" if stated == "off" else "stop")
    chosen = "stop" if stated is None else f"stop in place of {stated}"
    said = Decision("control.policy", chosen, "a reason")
    assert told == (() if stated in ("off", "stop") else (said,))
    assert all(one.prominent is (stated is not None) for one in told)
