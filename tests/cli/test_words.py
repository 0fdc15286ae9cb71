"""The names that may be typed, and what an unknown one was meant to be."""

from __future__ import annotations

from typing import get_args

import pytest

from holdfast.cli.commands import suggestion
from holdfast.cli.options import TASKS, VERDICTS, complete_tasks, complete_verdicts
from holdfast.core.labels import Label
from holdfast.recipe.parts import Task


def test_the_names_are_those_of_the_code() -> None:
    assert set(TASKS) == set(get_args(Task))
    assert get_args(Label) == VERDICTS


OPTIONS = ["--set", "--seed", "--test", "--text", "--label", "--fail-on"]


@pytest.mark.parametrize(
    ("typed", "meant_part"),
    [
        ("--lable", "--label"),
        ("--epochs", "--set train.epochs="),
        ("--failon", "--fail-on"),
        ("--batch-size", "--set train.batch_size="),
        ("--learning_rate", "train.learning_rate="),
    ],
)
def test_an_option_or_a_recipe_key_is_offered(typed: str, meant_part: str) -> None:
    assert meant_part in suggestion(typed, OPTIONS, settable=True)


def test_an_option_that_is_close_stands_alone() -> None:
    assert suggestion("--lable", OPTIONS, settable=True) == "Did you mean --label?"


def test_what_is_like_nothing_is_told_where_to_look() -> None:
    assert suggestion("--zzz", OPTIONS, settable=True).startswith(
        "`--help` lists the options; --set"
    )
    assert suggestion("--epochs", ["--out"], settable=False) == "`--help` lists the options."


def test_the_shell_completes_what_begins_so() -> None:
    assert complete_verdicts("mis") == ["miscalibrated"]
    assert complete_tasks("") == list(TASKS)


def test_a_share_of_all_is_a_hundred() -> None:
    from holdfast.terminal.results.errors import _span

    assert _span({"value": 1.0, "low": 0.877, "high": 1.0}, 100) == "100 (95 % CI 88–100)"
    assert _span({"value": 0.25, "low": 0.0512, "high": 3.0}) == "0.25 (95 % CI 0.051–3)"
