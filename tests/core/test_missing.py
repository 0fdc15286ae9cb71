"""Every door that is given a missing path names the folder as a person would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core.errors import InputError
from holdfast.data.source import read_source
from holdfast.plugins.logs.reader import read_log
from holdfast.recipe.recipe import read_recipe

DOORS: dict[str, Callable[[Path], object]] = {
    "nonexist.csv": lambda path: read_source(path, None, None),
    "nonexist.jsonl": read_log,
    "nonexist.yaml": read_recipe,
}


@pytest.mark.parametrize("name", DOORS)
def test_a_bare_name_is_missed_in_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        DOORS[name](Path(name))
    assert "the current folder holds no similar name." in str(refused.value)
    assert ".." not in str(refused.value)


@pytest.mark.parametrize("name", DOORS)
def test_the_nearest_name_or_the_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name.replace("nonexist", "nonexists")).write_text("x")
    with pytest.raises(InputError, match=r"Did you mean .*nonexists"):
        DOORS[name](tmp_path / name)
    with pytest.raises(InputError, match=r"folder .*absent does not exist either"):
        DOORS[name](tmp_path / "absent" / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"the folder .*empty holds no similar name"):
        DOORS[name](tmp_path / "empty" / name)


def test_a_log_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "lightning_logs").mkdir()
    with pytest.raises(InputError, match=r"Did you mean .*lightning_logs"):
        read_log(tmp_path / "lightning_log")
