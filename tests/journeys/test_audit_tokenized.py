"""``holdfast audit`` of rows that somebody has tokenised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

MASKED = -100


@pytest.fixture
def tokenizer(merging_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(merging_llama)


def rows_of(tokenizer: Any, ended: bool) -> list[dict[str, Any]]:
    """Questions, masked, with answers of different lengths."""
    rows = []
    for i in range(40):
        asked = tokenizer(f"ask {i} and {i * i}: ", add_special_tokens=False)["input_ids"]
        said = tokenizer(f"a film was {i} good " * (1 + i % 4), add_special_tokens=False)
        answer = [*said["input_ids"], *([tokenizer.eos_token_id] if ended else [])]
        labels = [*[MASKED] * len(asked), *answer]
        rows.append({"input_ids": [*asked, *answer], "labels": labels})
    return rows


def audit(holdfast: Any, path: Path, model: Path | None, *more: object) -> Any:
    named = () if model is None else ("--set", f"model.name={model}")
    done = holdfast("audit", path, *named, "--set", "audit.rows=0", "--json", *more)
    return json.loads(done.out) if done.code == 0 else done


def names(document: dict[str, Any]) -> set[str]:
    return {one["check"] for one in document["findings"]}


def test_sound_rows_pass_and_a_fault_is_named_with_a_row(
    tokenizer: Any, merging_llama: Path, tmp_path: Path, holdfast: Any
) -> None:
    sound, faulty = tmp_path / "sound.parquet", tmp_path / "faulty.jsonl"
    parquet.write_table(pa.Table.from_pylist(rows_of(tokenizer, True)), sound)
    faulty.write_text("\n".join(map(json.dumps, rows_of(tokenizer, False))))
    good, bad = (audit(holdfast, path, merging_llama) for path in (sound, faulty))
    assert good["task"] == bad["task"] == "causal-lm"
    assert good["rows"] == 40
    assert "end_missing" not in names(good)
    (found,) = [one for one in bad["findings"] if one["check"] == "end_missing"]
    assert found["count"] >= 29
    assert "⟦" in found["because"]


def test_rows_that_are_also_among_the_test_rows_are_named(
    tokenizer: Any, merging_llama: Path, tmp_path: Path, holdfast: Any
) -> None:
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    rows = rows_of(tokenizer, True)
    parquet.write_table(pa.Table.from_pylist(rows), train)
    parquet.write_table(pa.Table.from_pylist(rows[:5]), test)
    found = audit(holdfast, train, merging_llama, "--against", test)
    assert len(found["leaks"]) == 5
    # The beginning that all rows have in common is left out of both alike.
    parquet.write_table(pa.Table.from_pylist(rows[:1]), test)
    assert len(audit(holdfast, train, merging_llama, "--against", test)["leaks"]) == 1
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps({"text": "words"}))
    done = audit(holdfast, train, merging_llama, "--against", plain)
    assert done.code == 2
    assert "has no column input_ids" in done.err


def test_every_row_of_a_small_file_is_checked_and_the_output_says_how_many(
    tokenizer: Any, merging_llama: Path, tmp_path: Path, holdfast: Any
) -> None:
    rows = rows_of(tokenizer, True) * 30
    for row in rows[1::2]:
        row["labels"] = [MASKED] * len(row["labels"])
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    found = audit(holdfast, path, merging_llama)
    (masked,) = [one for one in found["findings"] if one["check"] == "nothing_trained"]
    assert masked["count"] == 600
    (told,) = [one for one in found["decisions"] if "without a finding" in one["what"]]
    assert "1,200 of 1,200 rows" in told["because"]
    assert "end_missing" in told["chosen"]


def test_labels_outside_the_vocabulary_are_named(
    tokenizer: Any, merging_llama: Path, tmp_path: Path, holdfast: Any
) -> None:
    rows = rows_of(tokenizer, True)
    for row in rows:
        row["labels"][-2] = -1
        row["attention_mask"] = [True] * len(row["labels"])
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "ids_outside_vocabulary" in names(audit(holdfast, path, merging_llama))


def broken_ids(rows: list[dict[str, Any]]) -> None:
    rows[3]["input_ids"] = "no ids"


def broken_length(rows: list[dict[str, Any]]) -> None:
    rows[3]["labels"] = rows[3]["labels"][:-1]


def huge(rows: list[dict[str, Any]]) -> None:
    rows[3]["input_ids"][0] = 2**70


def negative(rows: list[dict[str, Any]]) -> None:
    rows[3]["input_ids"][0] = -1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_ids, "has no list of whole numbers in row 3"),
        (huge, "has no list of whole numbers in row 3"),
        (negative, "has no list of whole numbers in row 3"),
        (broken_length, "has lists of different lengths in row 3"),
    ],
)
def test_rows_that_are_no_tokens_are_refused(
    tokenizer: Any,
    merging_llama: Path,
    tmp_path: Path,
    holdfast: Any,
    damage: Callable[[list[dict[str, Any]]], None],
    message: str,
) -> None:
    rows = rows_of(tokenizer, True)
    damage(rows)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    done = audit(holdfast, path, merging_llama)
    assert done.code == 2
    assert message in done.err


def test_a_model_must_be_named_and_have_a_tokenizer(
    tokenizer: Any, tmp_path: Path, holdfast: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows_of(tokenizer, True))))
    done = audit(holdfast, path, None)
    assert done.code == 2
    assert "--set model.name=" in done.err
    (tmp_path / "empty").mkdir()
    done = audit(holdfast, path, tmp_path / "empty")
    assert done.code == 2
    assert "has no tokenizer that can be read" in done.err


def test_a_folder_with_a_tokenizer_is_enough(tokenizer: Any, tmp_path: Path, holdfast: Any) -> None:
    folder, rows = tmp_path / "tokenizer", tmp_path / "rows.jsonl"
    tokenizer.save_pretrained(folder)
    rows.write_text("\n".join(map(json.dumps, rows_of(tokenizer, True))))
    assert audit(holdfast, rows, folder)["rows"] == 40


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--text", "input_ids"), "data.text: does not apply to tokenised rows"),
        (("--set", "task=text-classification"), "task: must be causal-lm"),
        (("--fix", "clean.jsonl"), "--fix: cleans texts, and these rows are token ids"),
    ],
)
def test_options_for_texts_are_refused_for_tokens(
    tokenizer: Any,
    merging_llama: Path,
    tmp_path: Path,
    holdfast: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, rows_of(tokenizer, True))))
    done = audit(holdfast, rows, merging_llama, *options)
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "clean.jsonl").exists()
