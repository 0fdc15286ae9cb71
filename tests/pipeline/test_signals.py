"""What the names of classes do to a run: added, said, repeated; left out with a reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.fits.compose import make_training_plan
from holdfast.prepare.model import prepare, with_log
from holdfast.prepare.signals import with_signals
from holdfast.recipe import parse
from holdfast.tasks import task_definition

ASKED = {
    "lost_card": ["I cannot find my card", "my card was stolen", "where did my bank card go"],
    "exchange_rate": ["how many dollars do I get", "euro to pound rate", "converting currency"],
    "change_pin": ["a new secret number please", "I forgot my code", "reset the four digits"],
    "close_account": ["I want to leave this bank", "delete my profile", "stop being a customer"],
}


def rows_of(path: Path, labels: dict[str, str] | None = None, repeat: int = 5) -> Path:
    lines = ["text,label"]
    for i in range(repeat):
        for label, texts in ASKED.items():
            lines += [
                f"{text} now {'abcdefgh'[i]},{(labels or {}).get(label, label)}" for text in texts
            ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def prepared_of(source: Path, **data: Any) -> PreparedData:
    recipe = parse(
        {
            "task": "text-classification",
            "data": {"path": str(source), **data},
            "train": {"threads": 1, "precision": "float32", "matmul": "default"},
        },
        "recipe",
    )
    rows = task_definition(recipe.task).read(str(source), recipe.data, None)
    return prepare(recipe, rows)


def decided(prepared: PreparedData) -> dict[str, tuple[str, str]]:
    return {d.what: (d.chosen, d.because) for d in prepared.decisions}


def signals(prepared: PreparedData, train: Ints, known: Sequence[Table] = ()) -> PreparedData:
    """With the log of what was decided and found."""
    with record_decisions() as log:
        found = with_signals(prepared, train, known)
    return with_log(found, log)


@pytest.mark.slow
def test_labels_that_are_words_join_the_training_rows_and_the_run_repeats(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "rows.csv")
    settings = {"train.max_steps": 2, "train.threads": 1}
    run = holdfast.train(source, out=tmp_path / "one", settings=settings)
    assert run.result["data"]["added"] == {"name": 4}
    assert run.result["data"]["train"] + run.result["data"]["valid"] < 60
    told = next(d for d in run.result["decisions"] if d["what"] == "class names")
    assert told["chosen"].startswith("4: change pin, close account, exchange rate")
    assert "nearest to the name of their own class" in told["because"]
    assert run.result["settings"]["data"]["names"]["lost_card"] == "lost card"
    again = holdfast.train(tmp_path / "one" / "recipe.yaml", out=tmp_path / "two")
    for name in ("test", "valid", "train_probe"):
        values = [one.result[name]["metrics"]["loss"]["value"] for one in (run, again)]
        assert values[0] == values[1]
    assert again.result["data"]["added"] == {"name": 4}
    # The baseline is that of a run without names.
    off = holdfast.train(source, out=tmp_path / "off", settings={**settings, "data.names": False})
    assert off.result["data"]["added"] == {}
    assert off.result["baseline"]["all"] == run.result["baseline"]["all"]
    assert off.result["test"]["metrics"]["loss"] != run.result["test"]["metrics"]["loss"]


def test_names_that_the_rows_do_not_bear_out_are_left_out(tmp_path: Path) -> None:
    names = list(ASKED)
    swapped = dict(zip(names, names[1:] + names[:1], strict=True))
    prepared = prepared_of(rows_of(tmp_path / "swapped.csv", swapped))
    found = signals(prepared, np.arange(60))
    chosen, because = decided(found)["class names"]
    assert chosen == "left out"
    assert "do not agree with the names" in because
    assert found.added is None
    assert found.recipe.data.names is False
    # Asked for, they are learned from all the same.
    forced = signals(prepared_of(rows_of(tmp_path / "s.csv", swapped), names=True), np.arange(60))
    assert forced.added is not None
    assert forced.added.counts == {"name": 4}


def test_codes_and_rows_enough_leave_names_out_without_looking(tmp_path: Path) -> None:
    codes = dict(zip(ASKED, ("CARD", "RATE", "PIN", "ACC"), strict=True))
    prepared = prepared_of(rows_of(tmp_path / "codes.csv", codes))
    chosen, because = decided(signals(prepared, np.arange(60)))["class names"]
    assert chosen == "left out"
    assert "are not words" in because
    many = prepared_of(rows_of(tmp_path / "many.csv"))
    chosen, because = decided(signals(many, np.tile(np.arange(60), 7)))["class names"]
    assert chosen == "left out"
    assert "105 training rows per class" in because


def test_words_and_descriptions_that_the_user_gives_are_used(tmp_path: Path) -> None:
    codes = dict(zip(ASKED, "0123", strict=True))
    told = tmp_path / "told.csv"
    told.write_text('label,text\n0,"a card is missing"\n0,"a card was taken"\n2,"a code"\n')
    words = {0: "lost card", "1": "exchange rate", "2": "pin", "3": "closing"}
    source = rows_of(tmp_path / "rows.csv", codes)
    found = signals(prepared_of(source, names=words, descriptions=str(told)), np.arange(60))
    assert found.added is not None
    assert found.added.counts == {"name": 4, "description": 3}
    assert found.added.table.column("label").tolist() == [0, 1, 2, 3, 0, 0, 2]
    assert found.added.weights.tolist() == [2.0] * 7
    assert decided(found)["class descriptions"][0] == "2 classes"


@pytest.mark.slow
def test_faults_of_names_and_descriptions_are_refused(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "rows.csv")
    with pytest.raises(RecipeError, match="no row has"):
        signals(prepared_of(source, names={"lost_cart": "lost card"}), np.arange(60))
    with pytest.raises(RecipeError, match="a text for each label"):
        prepared_of(source, names={"lost_card": 3})
    told = tmp_path / "told.csv"
    told.write_text("name,words\nlost_card,a card\n")
    with pytest.raises(RecipeError, match="needs the columns"):
        signals(prepared_of(source, descriptions=str(told)), np.arange(60))
    told.write_text("label,text\nlost,a card\n")
    with pytest.raises(RecipeError, match="no row has"):
        signals(prepared_of(source, descriptions=str(told)), np.arange(60))
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text(
        "\n".join(json.dumps({"text": f"row {i}", "label": i / 7}) for i in range(40))
    )
    with pytest.raises(RecipeError, match="one class each"):
        signals(prepared_of(numbers, label_kind="number", names=True), np.arange(40))


def test_a_description_that_copies_a_row_of_any_side_is_left_out(tmp_path: Path) -> None:
    """The file of the rows itself would teach the test rows with their labels."""
    source = rows_of(tmp_path / "rows.csv")
    told = tmp_path / "told.csv"
    lines = source.read_text().splitlines()[1:]
    told.write_text("\n".join(["text,label", *lines, "a thing that is missing,lost_card"]))
    prepared = prepared_of(source, names=False, descriptions=str(told))
    found = signals(prepared, np.arange(30), (prepared.rows,))
    assert found.added is not None
    assert found.added.counts == {"description": 1}
    (said,) = [one for one in found.preparation_findings if one.check == "descriptions"]
    assert said.count == len(lines)
    # What a run tells and writes are the findings of its fit.
    assert said in make_training_plan(found, np.arange(30), np.arange(30, 60)).findings
