"""``holdfast predict`` on the tables that people have: ids, odd columns, gaps, encodings."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest


@pytest.fixture(scope="module")
def texts(marked_rows: Any) -> list[str]:
    return [text for text, _ in marked_rows(12, seed=3)]


@pytest.fixture(scope="module")
def told(finished_run: Path, texts: list[str]) -> list[str]:
    import holdfast

    return holdfast.TrainedRun(finished_run).predict(texts)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("header", [["id", "text"], ["text", "stars"], ["label", "text"]])
def test_other_columns_are_kept_and_mean_nothing(
    header: list[str],
    holdfast: Any,
    finished_run: Path,
    texts: list[str],
    told: list[str],
    write_csv: Any,
    tmp_path: Path,
) -> None:
    """More different values than classes: no column may be taken for a label."""
    rows = [
        [text if name == "text" else f"v{n}" for name in header] for n, text in enumerate(texts)
    ]
    path = write_csv(tmp_path / "new.csv", rows, header)
    done = holdfast("predict", finished_run, path, "--out", "preds.csv")
    assert (done.code, done.out) == (0, ""), done.err
    written = read_csv(tmp_path / "preds.csv")
    assert list(written[0]) == [*header, "prediction", "confidence"]
    assert [[row[name] for name in header] for row in written] == rows
    assert [row["prediction"] for row in written] == told
    lines = [json.loads(line) for line in holdfast("predict", finished_run, path).out.splitlines()]
    assert [line[header[0]] for line in lines] == [row[0] for row in rows]
    assert [line["row"] for line in lines] == list(range(12))


def test_a_row_without_text_is_counted_and_stays(
    holdfast: Any,
    finished_run: Path,
    texts: list[str],
    told: list[str],
    write_csv: Any,
    tmp_path: Path,
) -> None:
    gaps = [texts[0], "", texts[1], "   ", texts[2]]
    path = write_csv(tmp_path / "new.csv", list(enumerate(gaps)), ["id", "text"])
    done = holdfast("predict", finished_run, path, "--out", "p.csv")
    assert "2 of 5 rows have no text" in done.err
    written = read_csv(tmp_path / "p.csv")
    assert [row["id"] for row in written] == ["0", "1", "2", "3", "4"]
    assert [row["prediction"] for row in written] == [told[0], "", told[1], "", told[2]]
    assert [bool(row["confidence"]) for row in written] == [True, False, True, False, True]
    lines = holdfast("predict", finished_run, path).out.splitlines()
    assert json.loads(lines[1]) == {
        "row": 1,
        "prediction": "",
        "confidence": None,
        "because": "it has no text",
        "id": "1",
        "text": "",
    }


def test_types_of_the_input_survive(
    holdfast: Any, finished_run: Path, texts: list[str], told: list[str], tmp_path: Path
) -> None:
    import datetime

    when = datetime.datetime(2026, 1, 2, 3, 4)
    table = pa.table(
        {
            "n": pa.array(range(12), pa.int16()),
            "when": [when] * 12,
            "text": texts,
            "tags": [["a", "b"]] * 12,
            "prediction": ["older"] * 12,
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    done = holdfast("predict", finished_run, tmp_path / "in.parquet", "--out", "p.parquet")
    assert done.code == 0, done.err
    written = parquet.read_table(tmp_path / "p.parquet")
    assert written["prediction"].to_pylist() == told
    assert written["input_prediction"].to_pylist() == ["older"] * 12
    assert "input_prediction" in done.err
    for name in ("n", "when", "tags"):
        assert written[name].equals(table[name]), name
    rows = [
        {"n": n, "x": n / 2, "ok": n % 2 == 0, "tags": {"a": [n]}, "text": text}
        for n, text in enumerate(texts)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert holdfast("predict", finished_run, tmp_path / "in.jsonl", "--out", "p.jsonl").code == 0
    for row, line in zip(rows, (tmp_path / "p.jsonl").read_text("utf-8").splitlines(), strict=True):
        assert row.items() <= json.loads(line).items()


def test_probabilities_are_columns(
    holdfast: Any,
    finished_run: Path,
    texts: list[str],
    told: list[str],
    write_csv: Any,
    tmp_path: Path,
) -> None:
    path = write_csv(tmp_path / "new.csv", [(text,) for text in [*texts, " "]], ["text"])
    setting = ("--set", "predict.probabilities=true")
    assert holdfast("predict", finished_run, path, "--out", "p.csv", *setting).code == 0
    *written, empty = read_csv(tmp_path / "p.csv")
    for row, said in zip(written, told, strict=True):
        assert float(row["probability_no"]) + float(row["probability_yes"]) == pytest.approx(1)
        assert float(row[f"probability_{said}"]) == float(row["confidence"])
    assert (empty["probability_no"], empty["probability_yes"]) == ("", "")
    wrong = holdfast("predict", finished_run, path, "--set", "predict.probability=true")
    assert wrong.code == 2
    assert "predict.probabilities=true" in wrong.err


def test_parts_join_without_a_seam(
    holdfast: Any,
    finished_run: Path,
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from holdfast.runs import prediction_file

    rows = [(n, "" if n % 7 == 3 else text) for n, (text, _) in enumerate(marked_rows(50, seed=5))]
    path = write_csv(tmp_path / "new.csv", rows, ["id", "text"])
    whole = holdfast("predict", finished_run, path).out.splitlines()
    monkeypatch.setattr(prediction_file, "PART_ROWS", 8)
    parts = holdfast("predict", finished_run, path).out.splitlines()
    assert len(whole) == 50
    for one, other in zip(map(json.loads, whole), map(json.loads, parts), strict=True):
        assert one.pop("confidence") == pytest.approx(other.pop("confidence"), abs=1e-5)
        assert one == other


def test_nothing_is_written_over_unasked(
    holdfast: Any, finished_run: Path, texts: list[str], write_csv: Any, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "new.csv", [(text,) for text in texts], ["text"])
    before = path.read_bytes()
    (tmp_path / "old.csv").write_text("mine", "utf-8")
    for out, said in (
        (path, "is the input"),
        ("old.csv", "exists already"),
        ("p.txt", "file type"),
        ("no/p.csv", "does not exist"),
    ):
        done = holdfast("predict", finished_run, path, "--out", out)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
    assert path.read_bytes() == before
    assert (tmp_path / "old.csv").read_text("utf-8") == "mine"
    assert holdfast("predict", finished_run, path, "--out", path, "--force").code == 2
    assert path.read_bytes() == before
    assert holdfast("predict", finished_run, path, "--out", "old.csv", "--force").code == 0
    assert [row["text"] for row in read_csv(tmp_path / "old.csv")] == texts


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_table_without_rows_gives_one_without_rows(
    ending: str, holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.csv").write_text("id,text\n", "utf-8")
    done = holdfast("predict", finished_run, "none.csv", "--out", f"p.{ending}")
    assert done.code == 0, done.err
    if ending == "csv":
        assert (tmp_path / "p.csv").read_text("utf-8") == "id,text,prediction,confidence\n"
    if ending == "parquet":
        written = parquet.read_table(tmp_path / "p.parquet")
        assert (len(written), written.column_names[-2:]) == (0, ["prediction", "confidence"])


def test_the_data_come_last(holdfast: Any, finished_run: Path, marked_csv: Path) -> None:
    for command in ("predict", "evaluate"):
        done = holdfast(command, marked_csv, finished_run)
        assert done.code == 2
        assert "takes the data last" in done.err


def test_a_column_called_otherwise_is_named(
    holdfast: Any,
    finished_run: Path,
    texts: list[str],
    told: list[str],
    write_csv: Any,
    tmp_path: Path,
) -> None:
    path = write_csv(tmp_path / "new.csv", [(n, t) for n, t in enumerate(texts)], ["id", "body"])
    refused = holdfast("predict", finished_run, path)
    assert refused.code == 2
    assert "has no column 'text', which the run reads" in refused.err
    assert "--text" in refused.err
    done = holdfast("predict", finished_run, path, "--text", "body")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["prediction"] for line in lines] == told
    assert [line["body"] for line in lines] == texts


@pytest.mark.slow
def test_an_encoding_is_the_file_s_own(
    holdfast: Any, marked_rows: Any, sets: list[str], tmp_path: Path
) -> None:
    """A run on Windows-1252 reads a UTF-8 file as UTF-8, and another of its own kind as before."""
    rows = "\n".join(f"{text} é,{label}" for text, label in marked_rows(80))
    (tmp_path / "old.csv").write_bytes(f"text,label\n{rows}\n".encode("cp1252"))
    refused = holdfast("train", "old.csv", "--out", "r", "--quiet", *sets)
    assert "add --set data.encoding=" in refused.err
    trained = holdfast(
        "train", "old.csv", "--out", "r", "--quiet", *sets, "--set", "data.encoding=cp1252"
    )
    assert trained.code == 0, trained.err
    lines = "text\nw1 good café\nw2 bad naïve\n"
    (tmp_path / "utf8.csv").write_text(lines, "utf-8")
    (tmp_path / "west.csv").write_bytes(lines.encode("cp1252"))
    both = [holdfast("predict", "r", name) for name in ("utf8.csv", "west.csv")]
    texts = [[json.loads(line)["text"] for line in done.out.splitlines()] for done in both]
    assert texts[0] == texts[1] == ["w1 good café", "w2 bad naïve"]
    assert "the run's own data has the encoding cp1252" in " ".join(both[1].err.split())
    assert "cp1252" not in both[0].err


def test_errors_advise_options_that_exist(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:
    rows = "text,label\nw1 good café,yes\nw2 bad naïve,no\n"
    (tmp_path / "west.csv").write_bytes(rows.encode("cp1252"))
    for command in ("predict", "evaluate"):
        refused = holdfast(command, finished_run, "west.csv")
        assert refused.code == 2
        assert "--encoding cp1252" in refused.err
        assert "--set" not in refused.err
        done = holdfast(command, finished_run, "west.csv", "--encoding", "cp1252")
        assert done.code == 0, done.err
        unknown = holdfast(command, finished_run, "west.csv", "--encoding", "utf-9")
        assert unknown.code == 2
        assert "--encoding" in unknown.err


@pytest.mark.slow
def test_a_workbook_is_trained_on_and_predicted(
    holdfast: Any, marked_rows: Any, sets: list[str], tmp_path: Path
) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.create_sheet("Reviews")
    sheet = book["Reviews"]
    for row in [("text", "label", "n"), *((t, label, 7) for t, label in marked_rows(80))]:
        sheet.append(row)
    book.save(tmp_path / "reviews.xlsx")
    done = holdfast("train", "reviews.xlsx", "--out", "r", "--verbose", *sets)
    assert done.code == 0, done.err
    assert "sheet: Reviews" in done.err
    said = holdfast("predict", "r", "reviews.xlsx", "--out", "p.parquet")
    assert said.code == 0, said.err
    written = parquet.read_table(tmp_path / "p.parquet")
    assert written["n"].to_pylist() == [7] * 80
    assert written["n"].type == pa.int64()


@pytest.mark.slow
def test_a_pipe_is_read_within_the_run_s_limits(
    holdfast: Any, old_runs: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = old_runs / "rows" / "classes.jsonl"
    given = ["--set", "data.limits.cell_mb=0.0005", "--set", f"model.name={tiny_model}"]
    recipe = old_runs / "classes.yaml"
    done = holdfast(
        "train", recipe, "--out", "r", "--quiet", *given, "--set", f"data.path={source}"
    )
    assert done.code == 0, done.err

    def pipe(*more: str) -> Any:
        text = io.TextIOWrapper(io.BytesIO(b"good " * 200), encoding="utf-8")
        monkeypatch.setattr("sys.stdin", text)
        return holdfast("predict", "r", "-", *more)

    refused = pipe()
    assert refused.code == 2
    assert "standard input, line 1: holds more than 0.0005 million characters" in refused.err
    assert pipe("--set", "data.limits.cell_mb=1").code == 0


def test_each_row_is_one_row_for_a_spreadsheet_and_no_cell_a_formula(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:
    texts = ["a good\rone", "bad", "=1+1", "good\r\nand\nbad"]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    assert holdfast("predict", finished_run, source, "--out", "p.csv").code == 0
    assert pd.read_csv(tmp_path / "p.csv")["text"].tolist() == texts
    safe = ("--set", "predict.csv_safe=true")
    assert holdfast("predict", finished_run, source, "--out", "safe.csv", *safe).code == 0
    defused = [texts[0], texts[1], "'=1+1", texts[3]]
    assert pd.read_csv(tmp_path / "safe.csv")["text"].tolist() == defused
    refused = holdfast("predict", finished_run, source, "--out", "p.jsonl", *safe)
    assert refused.code == 2
    assert "predict.csv_safe" in refused.err


def test_a_table_without_rows_is_named(holdfast: Any, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("text\n", "utf-8")
    done = holdfast("predict", finished_run, tmp_path / "empty.csv")
    assert (done.code, done.out) == (0, "")
    assert "The data has no rows" in done.err
