"""The list of commands in ``holdfast --help``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.cli.commands import GROUPS, Commands
from holdfast.cli.main import app
from holdfast.core.errors import RecipeError


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    return dict(re.findall(r"^  ([a-z]+) +(\S.*)$", shown, re.M))


def test_every_command_stands_in_its_group_with_one_line_that_fits(listed: dict[str, str]) -> None:
    assert list(listed) == list(Commands()) == [name for names in GROUPS.values() for name in names]
    for name, line in listed.items():
        assert re.match("[A-Z][a-z-]+,? ", line), name
        assert not line.endswith("."), name
        assert line.count("(") == line.count(")"), f"{name}: goes on in the next line"


def test_an_argument_too_many_is_named_with_what_to_do() -> None:
    error = CliRunner().invoke(app, ["train", "a.csv", "b.csv", "c d.csv"]).exception
    assert isinstance(error, RecipeError)
    assert error.what == "b.csv c d.csv"
    assert "data: {path: [A, B]}" in error.remedy
    error = CliRunner().invoke(app, ["diagnose", "a.csv", "b.csv"]).exception
    assert isinstance(error, RecipeError)
    assert "`holdfast diagnose --help`" in error.remedy


def test_a_mistyped_command_option_or_key_names_the_nearest_of_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").touch()
    for words, nearest in (
        (["tarin", "x.csv"], "train"),
        (["train", "x.csv", "--lable", "y"], "--label"),
        (["train", "x.csv", "--set", "train.epoch=3"], "train.epochs"),
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code != 0
        assert f"Did you mean {nearest!r}?" in f"{done.output}{done.exception}" or (
            f"Did you mean {nearest}?" in f"{done.output}{done.exception}"
        )
