"""The key ``treat``: what training does by itself and when asked, and that later rows are read as
the model was trained."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError
from holdfast.data.memory.texts import table_from_texts
from holdfast.pipeline.main import train
from holdfast.prepare.clean import clean_like_run, clean_texts
from holdfast.prepare.rows import load_and_divide
from holdfast.quality.clean.apply import plan_cleaning
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.runs.predictor import Predictor

DAMAGED, MEANT = "schÃ¶n \u200bgood film â€“ really", "schön good film – really"


def source(folder: Path, n: int = 80) -> Path:
    rng = random.Random(0)
    good, bad = ["good", "great", "fine", "lovely"], ["bad", "poor", "dull", "weak"]
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for row in range(n):
            words = [*rng.sample((good, bad)[row % 2], 3), f"film{row}"]
            text = " ".join(words)
            writer.writerow([f"{text} schÃ¶n" if row % 8 == 0 else text, ("no", "yes")[row % 2]])
    return path


def divided(path: Path, *settings: str):
    said = []
    with decisions_to(said.append):
        found = load_and_divide(override(Recipe(), [f"data.path={path}", *settings]))
    return found, said


def test_what_is_broken_for_sure_is_repaired_and_said(tmp_path: Path) -> None:
    found, said = divided(source(tmp_path))
    assert not [text for text in found.table.column("text") if "Ã" in text]
    assert sum("schön" in text for text in found.table.column("text")) == 10
    (decision,) = [one for one in found.decisions if one.what == "clean.encoding"]
    assert decision in said
    assert "10 texts" in decision.chosen
    (finding,) = [one for one in found.findings if one.check == "encoding_damage"]
    assert finding.fixed
    assert finding.count == 10
    assert found.recipe.treat == {"control": True, "encoding": True}


def test_a_test_file_is_read_as_the_source_is() -> None:
    table, other = table_from_texts(["cafÃ©", "a bar"]), table_from_texts(["a pub", "the cafÃ©"])
    source, given, _, decisions = clean_texts(
        table, {"test": other}, (), plan_cleaning({"encoding": True})
    )
    assert source.column("text") == ["café", "a bar"]
    assert given["test"].column("text") == ["a pub", "the café"]
    assert "1 text, 1 text of the test file" in decisions[0].chosen


def test_texts_that_a_treatment_does_not_look_at_are_counted() -> None:
    pytest.importorskip("symspellpy")
    texts = [
        "I did not recieve the parcel",
        "i did not recieve it",
        "if recieve(x) == 1:  # The recieve call",
        "Der Empfang der Nachricht verlief problemlos",
        "Fine",
        "no, thanks",
    ]
    source, _, _, decisions = clean_texts(
        table_from_texts(texts), {}, (), plan_cleaning({"spelling": True, "control": True})
    )
    assert source.column("text") == ["I did not receive the parcel", *texts[1:]]
    (decision,) = decisions
    assert decision.chosen == "1 text cleaned"
    assert decision.because.endswith(
        "; skipped: 1 (a program), 1 (fewer than seven words in ten are English), "
        "2 (no capital letter)"
    )
    # Where nothing was changed it is said too.
    *_, decisions = clean_texts(
        table_from_texts(texts[1:2]), {}, (), plan_cleaning({"spelling": True})
    )
    assert [one.chosen for one in decisions] == ["no text cleaned"]


def test_it_can_be_forbidden(tmp_path: Path) -> None:
    found, _ = divided(source(tmp_path), "treat.encoding=false")
    assert sum("Ã" in text for text in found.table.column("text")) == 10
    (finding,) = [one for one in found.findings if one.check == "encoding_damage"]
    assert not finding.fixed
    assert found.recipe.treat == {"control": True, "encoding": False}


def test_copies_leave_the_training_rows_alone(tmp_path: Path) -> None:
    path = source(tmp_path)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, *lines[1:41]]), "utf-8")
    plain, _ = divided(path)
    treated, _ = divided(path, "treat.copies=true")
    train, kept = plain.splits.train.table.column("text"), treated.splits.train.table.column("text")
    assert sorted(set(train)) == sorted(kept)
    assert len(kept) < len(train)
    assert len(treated.splits.units) == len(kept) + len(treated.splits.valid)
    for name in ("valid", "test"):
        assert len(getattr(treated.splits, name)) == len(getattr(plain.splits, name))
    records = treated.splits.records.to_pylist()
    dropped = [one for one in records if one["split"] == "dropped"]
    assert len(dropped) == len(train) - len(kept)
    assert all(one["note"].startswith("clean.copies: duplicates row") for one in dropped)


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("treat.encodings=true", "unknown cleaning step"),
        ("treat.mask.onyl=[email]", "not a setting"),
        ("treat.mask.only=[mail]", "not a type of personal data"),
        ("treat.boilerplate=true", "only works on a file"),
        ("treat.copies.count=n", "only works on a file"),
        ("treat.copies.same=alike", "not one of the known values"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, setting: str, rule: str) -> None:
    with pytest.raises(RecipeError, match=rule):
        divided(source(tmp_path), setting)


@pytest.mark.slow
def test_rows_that_come_later_are_read_as_those_of_the_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [
        f"data.path={source(tmp_path)}",
        "treat.mask=true",
        "train.max_steps=4",
        "train.batch_size=8",
        "methods.contrast=false",
        "train.evaluations=1",
    ]
    result = train(override(Recipe(), settings), run)
    recipe = read_recipe(run / "recipe.yaml")
    assert recipe.treat == {"control": True, "encoding": True, "mask": True}
    assert result["settings"]["treat"] == recipe.treat
    assert any(d["what"] == "treat.encoding" for d in result["decisions"])
    predictor = Predictor.load(run)
    asked = predictor.read_rows([DAMAGED, f"{MEANT} jo@example.com"])
    # What predict hands to the model is what a table of the training would hold.
    assert asked.table.column("text") == [MEANT, f"{MEANT} [EMAIL]"]
    raw = table_from_texts([DAMAGED])
    assert clean_like_run(raw, recipe).column("text") == [MEANT]
    damaged, meant = predictor.predict_table(asked.table.take([0])), predictor.predict([MEANT])
    assert damaged.confidence[0] == pytest.approx(next(iter(meant)).confidence, abs=1e-6)
    # The columns that predict writes stay as they came.
    (part,) = predictor.predict([DAMAGED]).parts()
    assert part.columns["text"].to_pylist() == [DAMAGED]
    rows = tmp_path / "new.csv"
    rows.write_text(f"text,label\n{DAMAGED},yes\n{MEANT},yes\n", "utf-8")
    assert predictor.read_labelled_rows(str(rows)).table.column("text") == [MEANT, MEANT]
    # A run without the key, as older ones are, reads texts as they stand.
    old = recipe.model_copy(update={"treat": {}})
    assert clean_like_run(raw, old).column("text") == [DAMAGED]
    sides = parquet.read_table(run / "splits.parquet")
    assert json.dumps(sides["split"].to_pylist()).count("train") > 0
