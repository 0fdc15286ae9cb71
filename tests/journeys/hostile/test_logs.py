"""Logs of somebody who means no good, or no logs at all: exit 2 and named, or read for what they
hold, in time that grows with their size and no faster."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import pickle
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import DataError, InputError
from holdfast.plugins.logs.choose import MAX_POINTS
from holdfast.plugins.logs.reader import read_verdict
from holdfast.plugins.logs.table import from_rows

HEAD = "epoch,loss,val_loss\n"
GOOD = HEAD + "".join(f"{i},{2 - i / 10},{2.1 - i / 11}\n" for i in range(12))
STATE = {"log_history": [{"step": i, "loss": 2 / i, "eval_loss": 2.1 / i} for i in range(1, 9)]}


def csv_of(rows: Iterable[tuple[object, ...]]) -> bytes:
    return (HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows)).encode()


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("log.csv", GOOD)
    return target.getvalue()


REFUSED: dict[str, bytes] = {
    "deep.json": b"[" * 100_000,
    "deep.jsonl": b'{"loss":' * 5000 + b"1" + b"}" * 5000,
    "deep_closed.json": b'{"a":' * 900 + b"1" + b"}" * 900,
    "deep_state.json": b'{"log_history": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep_row.jsonl": b'{"a":' * 60 + b"1" + b"}" * 60 + b"\n",
    "picture.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50,
    "picture.json": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50,
    "program.log": b"\x7fELF\x02\x01\x01" + bytes(500),
    "zip.csv": zipped(),
    "zip.jsonl": zipped(),
    "log.csv.gz": gzip.compress(GOOD.encode()),
    "pickle.csv": pickle.dumps({"loss": [1, 2]}),
    "pickle.json": pickle.dumps([1.0] * 9),
    "history.pkl": pickle.dumps({"loss": [1, 2], "val_loss": [1, 2]}),
    "utf16.csv": GOOD.encode("utf-16"),
    "latin.csv": "\xe9poch,loss\n1,\xff\n".encode("latin-1"),
    "nul.csv": HEAD.encode() + b"1,\0,2\n",
    "list.json": b"[1, 2, 3]",
    "null.json": b"null",
    "number.json": b"3",
    "word.json": b'"loss"',
    "empty_object.json": b"{}",
    "empty_list.json": b"[]",
    "mixed.json": b'[{"loss": 1}, 2]',
    "open.json": b'{"loss": [1, 2',
    "nan.json": b"NaN",
    "lists_of_lists.json": b'{"loss": [[1], [2]]}',
    "state_null.json": b'{"log_history": null}',
    "state_list.json": b'[{"log_history": []}]',
    "state_empty.json": b'{"log_history": []}',
    "state_of_numbers.json": b'{"log_history": [1, 2]}',
    "state_number.json": b'{"log_history": 3}',
    "state_digits.json": b'{"log_history": [{"step": ' + b"9" * 5000 + b', "loss": 1}]}',
    "digits.jsonl": b'{"loss": ' + b"9" * 5000 + b"}\n",
    "words.jsonl": b'{"loss": "high"}\n{"loss": "low"}\n',
    "numbers.jsonl": b"1\n2\n",
    "torn.jsonl": b'{"loss": 1}\n{"lo\n{"loss": 2}\n',
    "boosting.json": b'{"train": {"logloss": [null]}}',
    "boosting2.json": b'{"a": {"b": ["x"]}}',
    "only_header.csv": HEAD.encode(),
    "no_numbers.csv": HEAD.encode() + b"a,b,c\n" * 5,
    "no_names.csv": b"1,2,3\n4,5,6\n",
    "one_line.csv": b"x" * 5_000_000,
    "wide_cell.csv": HEAD.encode() + b"1," + b"9" * 200_000 + b",3\n",
    "huge_step.csv": csv_of((1.7e308, 1, 1) for _ in range(5)),
    "negative_huge.csv": csv_of((-1.7e308 + i, 1, 1) for i in range(5)),
    "far_step.csv": csv_of((10**300 + i, 1, 1) for i in range(5)),
    "long_name.jsonl": json.dumps({"loss" + "x" * 3000: 1}).encode() + b"\n",
    "empty.csv": b"",
    "spaces.csv": b"   \n\n  \n",
    "html.csv": b"<html><body>404</body></html>",
    "events.out.tfevents.1": b"nonsense",
    "events.out.tfevents.2": b"",
    "events.out.tfevents.3": struct.pack("<Q", 2**60) + bytes(40),
    "events.out.tfevents.4": bytes(100_000),
    "run.wandb": b"nonsense" * 10,
    "events.jsonl": b'{"event": "snapshot", "step": "x"}\n',
    "own_list.jsonl": b'{"event": "snapshot", "step": 1, "train_metrics": [1]}\n',
    "own_words.jsonl": b'{"event": 3}\n',
    "yolo.csv": b"epoch,train/a_loss,val/a_loss\n1,x,y\n",
    "sk.json": b'{"loss_curve_": "x"}',
    "sk2.json": b'{"loss_curve_": {"a": 1}}',
    "trainer_log.jsonl": b'{"current_steps": [1], "loss": {}}\n',
}

READ: dict[str, bytes] = {
    "nan_steps.csv": csv_of((["nan", i][i % 2], 2 / i, 2 / i) for i in range(1, 13)),
    "negative_steps.csv": csv_of((-20 + i, 2 / i, 2 / i) for i in range(1, 13)),
    "huge_values.csv": csv_of((i, 1.7e308 / i, -1.7e308) for i in range(1, 13)),
    "tiny_values.csv": csv_of((i, 1e-310 * i, 5e-324) for i in range(1, 13)),
    "all_nan.csv": csv_of((i, "nan", "nan") for i in range(1, 13)),
    "no_finite_loss.csv": b"epoch,train_loss,valid_loss,accuracy\n"
    + b"".join(b"%d,%.3f,nan,%.3f\n" % (i, 2 / i, 1 - 0.5 / i) for i in range(1, 13)),
    "nan_epochs.jsonl": b"".join(
        b'{"step": %d, "epoch": NaN, "loss": %.3f, "eval_loss": %.3f}\n' % (i, 2 / i, 1 + i / 9)
        for i in range(1, 13)
    ),
    "infinite.csv": csv_of((i, "inf", "-inf") for i in range(1, 13)),
    "all_zero.csv": csv_of((i, 0, 0) for i in range(1, 13)),
    "constant.csv": csv_of((5, 2 / i, 2 / i) for i in range(1, 13)),
    "one_point.csv": csv_of([(1, 1, 1)]),
    "negative.csv": csv_of((i, -i, -i) for i in range(9)),
    "short_rows.csv": HEAD.encode() + b"1\n2,3\n4,5,6\n7,8,9,10,11\n" * 3,
    "quoted.csv": b'epoch,"loss","val\nloss"\n1,"2",3\n',
    "mac.csv": GOOD.replace("\n", "\r").encode(),
    "bars.csv": GOOD.replace(",", "|").encode(),
    "bom.csv": b"\xef\xbb\xbf" + GOOD.encode(),
    "escapes.csv": GOOD.replace("loss", "loss\x1b[2J\x1b]0;x\x07").encode(),
    "escapes.jsonl": b'{"epoch": 1, "loss \\u001b[31m": 1, "val_loss \\u001b[31m": 2}\n',
    "numbers_in_words.jsonl": b'{"step": 1, "loss": "1_0", "eval_loss": "12 %"}\n',
    "torn_end.jsonl": b'{"step": 1, "loss": 1, "eval_loss": 1}\n{"st',
    "surrogate.jsonl": b'{"step": 1, "loss \\ud800": 1, "val_loss": 2}\n',
    "state.json": json.dumps(STATE).encode(),
    "state_odd.json": json.dumps(
        STATE
        | {
            "max_steps": "x",
            "log_history": [
                {"step": [1], "loss": {}},
                *STATE["log_history"],
                {"train_runtime": [1]},
            ],
        }
    ).encode(),
    "state_steps.json": json.dumps(STATE | {"max_steps": 1e308}).encode(),
}


def _clean(text: str) -> None:
    for mark in ("Traceback", "a defect", "\x1b", "\x07", "Warning"):
        assert mark not in text


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_log_is_refused_by_name(
    tmp_path: Path, holdfast: Callable[..., Any], name: str
) -> None:
    (tmp_path / name).write_bytes(REFUSED[name])
    done = holdfast("diagnose", name)
    assert done.code == 2, done.err or done.out
    assert name in done.err
    assert len(done.err) < 6000
    _clean(done.err)


@pytest.mark.parametrize("name", READ)
def test_a_strange_log_is_read_for_what_it_holds(
    tmp_path: Path, holdfast: Callable[..., Any], name: str
) -> None:
    (tmp_path / name).write_bytes(READ[name])
    done = holdfast("diagnose", name, "--html", "page.html")
    assert done.code == 0, done.err
    _clean(done.out + done.err)
    told = json.loads(holdfast("diagnose", name, "--json").out)
    assert told["verdict"]["label"]


@pytest.mark.parametrize("label", ["train=nothing", "valid=", "x=1", "train", "=", "train=\x1b[2J"])
def test_a_series_that_is_none(tmp_path: Path, holdfast: Callable[..., Any], label: str) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    done = holdfast("diagnose", "log.csv", "--set", label)
    assert done.code == 2
    _clean(done.err)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, holdfast: Callable[..., Any]) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "trainer_state.json")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "trainer_state.json").mkdir()
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "again").symlink_to(tmp_path / "around")
    (tmp_path / "void").mkdir()
    names = [
        "pipe.csv",
        "loop.csv",
        "run",
        "state",
        "around",
        "void",
        "/dev/null",
        "/dev/zero",
        "absent.csv",
        "x" * 5000,
        "log.csv/below",
        "a\0b",
        "\udcff",
        "",
    ]
    for name in names:
        done = holdfast("diagnose", name)
        assert done.code == 2, (name[:30], done.err, done.out)
        _clean(done.err)


def test_a_folder_of_too_many_files_is_not_looked_through(
    tmp_path: Path, holdfast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.plugins.logs.text.MAX_FILES", 50)
    (tmp_path / "many").mkdir()
    for i in range(60):
        (tmp_path / "many" / f"{i}.txt").touch()
    done = holdfast("diagnose", "many")
    assert done.code == 2
    assert "more than 50 files" in done.err


def test_links_to_folders_are_not_followed(tmp_path: Path, holdfast: Callable[..., Any]) -> None:
    metrics = tmp_path / "mlruns" / "0" / "abc" / "metrics"
    metrics.mkdir(parents=True)
    (metrics.parent / "meta.yaml").touch()
    (metrics / "val_loss").write_text("".join(f"{i} {2 - i / 9} {i}\n" for i in range(9)))
    (metrics / "again").symlink_to(metrics)
    (metrics / "out").symlink_to("/")
    done = holdfast("diagnose", "mlruns", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["points"] == 9


COUNTING = "AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


@pytest.mark.parametrize("disguised", [False, True])
@pytest.mark.parametrize(
    "statements",
    [
        (
            f"CREATE VIEW metrics {COUNTING} i AS run_id, '' AS run_name, i AS timestamp,"
            " i AS step, '{}' AS metrics, i AS id FROM n",
        ),
        (
            "CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan)",
            "INSERT INTO metrics VALUES ('loss', 1, 1, 1, 1, 0)",
            f"CREATE VIEW runs {COUNTING} 1 AS run_uuid, 'a' AS name,"
            " 'active' AS lifecycle_stage FROM n",
        ),
    ],
    ids=["metrics", "runs"],
)
def test_a_view_that_never_ends_is_not_read(
    tmp_path: Path, statements: tuple[str, ...], disguised: bool
) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        if disguised:
            database.execute("PRAGMA writable_schema = ON")
            database.execute("UPDATE sqlite_master SET type = 'table'")
        database.commit()
    with pytest.raises(DataError, match=r"another program|cannot be read"):
        read_verdict(path)


def test_a_tensor_that_claims_a_size_is_not_made(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    from tensorboard.summary.writer.record_writer import RecordWriter

    event = event_pb2.Event(wall_time=1.0, step=1)
    value = event.summary.value.add(tag="val_loss")
    value.metadata.plugin_data.plugin_name = "scalars"
    value.tensor.dtype = 1
    value.tensor.float_val.append(1.0)
    value.tensor.tensor_shape.dim.add(size=2**40)
    path = tmp_path / "events.out.tfevents.9"
    with path.open("wb") as file:
        RecordWriter(file).write(event.SerializeToString())
    with pytest.raises(InputError):
        read_verdict(path)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["forth", "back", "twice"])
def test_of_forty_thousand_rows_no_more_points_are_judged_than_can_be(
    tmp_path: Path, shape: str
) -> None:
    count = 40_000
    at = {
        "forth": range(count),
        "back": range(count, 0, -1),
        "twice": [i // 2 for i in range(count)],
    }
    rows = ((i, 2 - k / count, 2 - k / count) for k, i in enumerate(at[shape]))
    (tmp_path / "log.csv").write_bytes(csv_of(rows))
    curves, _ = read_verdict(tmp_path / "log.csv")
    # Detectors compare points with points: there are never more than they can.
    assert curves.points <= MAX_POINTS
    if shape == "forth":
        assert curves.points == count // 2
        assert any("every 2th" in one.chosen for one in curves.decisions)


def test_ten_thousand_columns(tmp_path: Path) -> None:
    names = [f"loss_{i}" for i in range(10_000)]
    lines = [",".join(["step", *names]), *(",".join([str(i)] + ["1.5"] * 10_000) for i in range(3))]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    read_verdict(tmp_path / "log.csv")


def test_more_numbers_than_can_be_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.plugins.logs.table.MAX_NUMBERS", 100)
    with pytest.raises(InputError, match="more than 100 numbers"):
        from_rows(({"step": i, "loss": 1.0} for i in range(1000)), "csv", "log.csv")


def test_a_document_beyond_its_bound_says_what_may_be_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.plugins.logs.text.MAX_DOCUMENT_BYTES", 100)
    (tmp_path / "s.json").write_text(json.dumps(STATE))
    with pytest.raises(InputError, match="as JSONL"):
        read_verdict(tmp_path / "s.json")


def rewritten(points: list[tuple[float, float]], mean: bool) -> tuple[dict[float, float], int]:
    """What a resume leaves, by the rule in words: what stands after the position that is written
    now is forgotten, and so is that position itself if anything stood after it."""
    kept: dict[float, list[float]] = {}
    forgotten = 0
    for at, value in points:
        later = [place for place in kept if place > at]
        if later:
            later += [place for place in kept if place == at]
        forgotten += len(later)
        for place in later:
            del kept[place]
        kept.setdefault(at, []).append(value)
    return {at: float(np.mean(v)) if mean else v[-1] for at, v in sorted(kept.items())}, forgotten


@pytest.mark.parametrize("seed", range(20))
def test_positions_that_go_back_mean_what_they_meant(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = [
        (float(a), float(v))
        for a, v in zip(random.integers(0, 8, 30), random.normal(size=30), strict=True)
    ]
    for axis in ("step", "epoch"):
        with record_decisions() as said:
            log = from_rows([{axis: a, "loss": v} for a, v in points], "csv", "log.csv")
        expected, forgotten = rewritten(points, axis == "epoch")
        found = log.columns["loss"]
        assert dict(zip(found.positions.tolist(), found.values.tolist(), strict=True)) == expected
        told = [d.chosen for d in decisions_and_findings(said)[0] if d.what == "rows written twice"]
        assert told == ([f"the later ones, {forgotten} values replaced"] if forgotten else [])


@pytest.mark.parametrize("most", [1.0, 1.0000001, 1.0009])
def test_an_accuracy_a_rounding_above_one_is_a_share(tmp_path: Path, most: float) -> None:
    values = [*np.linspace(0.5, 0.9, 9), most]
    verdicts = []
    for top in (1.0, most):
        values[-1] = top
        rows = [{"step": i, "loss": math.exp(-i), "val_accuracy": v} for i, v in enumerate(values)]
        path = tmp_path / f"{top}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        verdicts.append(read_verdict(path)[1].label)
    assert verdicts[0] == verdicts[1]
