"""``make recipes`` against a hub that answers what the test says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_recipes

    yield check_recipes
    sys.modules.pop("check_recipes", None)


class Answers:
    """A hub that has one model and one data set of these columns."""

    def __init__(self, files: list[str], splits: list[str], columns: list[str]) -> None:
        self.told = files, splits, columns

    def files(self, model: str, revision: str | None) -> tuple[list[str], bool]:
        return self.told[0], False

    def splits(self, data: Any) -> list[str]:
        return self.told[1]

    def columns(self, data: Any) -> list[str]:
        return self.told[2]


WHOLE = ["model.safetensors", "tokenizer.json"]
NAMES = ["question", "context", "answer"]


@pytest.mark.parametrize(
    ("files", "splits", "columns", "wrong"),
    [
        (WHOLE, ["train", "test"], NAMES, None),
        (["model.msgpack", "tokenizer.json"], ["train"], NAMES, "no weights"),
        (["pytorch_model.bin"], ["train"], NAMES, "tokenizer"),
        (WHOLE, ["all"], NAMES, "no split 'train'"),
        (WHOLE, ["train"], ["question", "code"], "no column answer, context"),
    ],
)
def test_what_a_recipe_names_is_looked_up(
    script: Any, files: list[str], splits: list[str], columns: list[str], wrong: str | None
) -> None:
    found = script.check(ROOT / "recipes" / "pandas-t5.yaml", Answers(files, splits, columns))
    assert len(found.good) + len(found.bad) == 2
    assert (wrong in found.bad[0]) if wrong else not found.bad


def test_a_refusal_of_the_hub_is_a_line_not_a_crash(script: Any, capsys: Any) -> None:
    class Refuses(Answers):
        def files(self, model: str, revision: str | None) -> tuple[list[str], bool]:
            raise OSError("no such model")

    assert script.main(["pandas-t5.yaml"], Refuses(WHOLE, ["train"], NAMES)) == 1
    assert "WRONG: OSError: no such model" in capsys.readouterr().out


def test_without_a_network_it_says_so_and_succeeds(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("nothing there")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert script.main([]) == 0
    assert "cannot be reached" in capsys.readouterr().out
