"""Fairness of whole small runs: in ``train``, on the finished run, against a plain one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import holdfast
from holdfast.cli.main import app
from holdfast.core.errors import HoldfastError

NAMES = {"1": ["Emily", "Todd", "Anne", "Greg"], "0": ["Jamal", "Keisha", "Tyrone", "Latoya"]}
SMALL = {
    "train.epochs": 12,
    # Both runs of a comparison validate on the same rows.
    "train.folds": 0,
    "train.batch_size": 16,
    "train.learning_rate": 5e-3,
    "train.threads": 1,
    "model.max_length": 16,
    "data.split.train": 0.4,
    "data.split.test": 0.3,
    "data.split.valid": 0.3,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose label is their name's alone, and a column that goes with nothing."""
    path, rng = tmp_path_factory.mktemp("fair") / "rows.csv", np.random.default_rng(0)
    words = [f"w{k}" for k in range(40)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "side", "same"])
        for k in range(240):
            label = "01"[k % 2]
            rest = " ".join(rng.choice(words, 5))
            name = NAMES[label][rng.integers(4)]
            writer.writerow([f"{name} {rest}", label, "ab"[rng.integers(2)], f"group {label}"])
    return path


@pytest.fixture(scope="module")
def named_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network whose tokenizer knows the names."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("named")
    names = [name.lower() for each in NAMES.values() for name in each]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *names, *(f"w{k}" for k in range(40))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lexicon(source: Path) -> Path:
    path = source.parent / "terms.yaml"
    groups = {"first": NAMES["1"], "second": NAMES["0"]}
    path.write_text(json.dumps({"names": {"groups": groups}}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(source: Path, named_model: Path, lexicon: Path) -> Path:
    out = source.parent / "run"
    made = {**SMALL, "probes.fairness.terms": str(lexicon)}
    holdfast.train(source, model=named_model, out=out, settings=made, text="text", label="label")
    return out


def read(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))["fairness"]
    return found


@pytest.mark.slow
def test_train_finds_that_names_decide(run: Path) -> None:
    (axis,) = read(run)["swap"]["axes"]
    assert axis["status"] == "changes"
    assert abs(axis["change"]["value"]) > 0.2
    assert axis["change"]["low"] * axis["change"]["high"] > 0
    assert axis["flipped"]["rows"] > 0
    assert axis["start_model"]["value"] is not None


def test_columns_that_go_with_the_label_alone_are_found(run: Path) -> None:
    groups = read(run)["groups"]
    assert {one["column"] for one in groups["columns"]} >= {"side", "same"}
    found = {(one["column"], one["measure"]) for one in groups["findings"]}
    assert ("same", "positive rate") in found
    assert not any(column == "side" for column, _ in found)
    # All rows of a group have one label, so that no number of rows of the other is there yet.
    added = {(one["group"], one["class"]): one for one in groups["to_add"]}
    assert set(added) == {("group 0", "1"), ("group 1", "0")}
    assert all(one["rows"] == 0 and one["add"] > 20 for one in added.values())


def test_the_command_shows_what_was_stored_and_asks_for_more(run: Path, source: Path) -> None:
    shown = CliRunner().invoke(app, ["fairness", str(run)])
    assert shown.exit_code == 0, shown.output
    assert "change when a text names another group (names)" in " ".join(shown.output.split())
    assert all(len(line) <= 80 for line in shown.output.splitlines())
    told = holdfast.fairness(run)
    assert told["fairness"] == read(run)
    assert told["openings"] is None
    asked = ["fairness", str(run), "--group", "side", "--rows", "60", "--json"]
    more = json.loads(CliRunner().invoke(app, asked).stdout)
    assert more["openings"] == 1
    columns = [one["column"] for one in more["fairness"]["groups"]["columns"]]
    assert columns == ["side", "names of terms"]
    assert (run / "openings.jsonl").read_text("utf-8").count("\n") == 1


def test_a_column_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(HoldfastError, match="no column 'sied'"):
        holdfast.fairness(run, ["sied"])


def test_the_page_has_the_answer_and_escapes_what_was_read(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    assert "Fairness" in page
    assert "Texts with the largest change in prediction" in page


@pytest.mark.slow
def test_counterfactual_forms_take_the_name_away_and_fairea_says_what_it_cost(
    run: Path, source: Path, named_model: Path, lexicon: Path
) -> None:
    out = source.parent / "fair"
    made = {
        **SMALL,
        "probes.fairness.terms": str(lexicon),
        "enrich": {"counterfactual": {"terms": str(lexicon)}},
        "methods.pairing": {"weight": 1.0},
        # Validation rows carry the cue, and would choose a state that has it.
        "train.keep": "last",
        "methods.contrast": False,
        "methods.probe_first": False,
        "train.epochs": 30,
    }
    holdfast.train(source, model=named_model, out=out, settings=made, text="text", label="label")
    (axis,) = read(out)["swap"]["axes"]
    assert abs(axis["change"]["value"]) < 0.1
    (line,) = holdfast.fairness(out, against=run)["against"]
    assert line["gap"] < line["gap_plain"]
    # The name is all that tells: without it a model can only guess, as flipping does.
    assert line["verdict"] in ("no better", "undecided")


@pytest.mark.slow
def test_reweighed_groups_and_labels_are_independent(source: Path, named_model: Path) -> None:
    out = source.parent / "weighed"
    made = {**SMALL, "train.epochs": 1, "data.reweigh": "side"}
    done = holdfast.train(
        source, model=named_model, out=out, settings=made, text="text", label="label"
    )
    (told,) = [d for d in done.result["decisions"] if d["what"] == "weights of groups"]
    assert "2 groups" in told["chosen"]
