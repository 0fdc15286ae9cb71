"""What goes wrong in real logs, and what is made of it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.errors import DataError, InputError, MachineError, RecipeError
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.logs.choose import parse_name
from holdfast.plugins.logs.reader import parse_settings, read_curves, read_log
from holdfast.plugins.logs.table import parse_number
from holdfast.plugins.logs.trackers import log_records


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


NAMES = [
    ("loss", None, False),
    ("train_loss", "train", False),
    ("val_loss", "valid", False),
    ("eval/loss", "valid", False),
    ("valLoss", "valid", False),
    ("vloss", "valid", False),
    ("validation_0-logloss", "valid", False),
    ("val/box_loss", "valid", False),
    ("eval_accuracy", "valid", True),
    ("metrics/mAP50-95(B)", None, True),
    ("eval_rougeL", "valid", True),
    ("rewards/accuracies", None, True),
    ("error_rate", None, False),
    ("eval_f1", "valid", True),
    ("val_perplexity", "valid", False),
]


@pytest.mark.parametrize(("name", "side", "rises"), NAMES)
def test_a_name_says_the_set_and_the_direction(name: str, side: str | None, rises: bool) -> None:
    found = parse_name(name)
    assert found is not None
    assert (found.split, found.rises) == (side, rises)


@pytest.mark.parametrize(
    "name",
    [
        "lr",
        "learning_rate",
        "grad_norm",
        "eval_runtime",
        "eval_samples_per_second",
        "time",
        "epoch",
        "loss_scale",
        "total_flos",
        "reward_std",
        "gpu_memory",
    ],
)
def test_what_is_no_loss_and_no_metric_is_left_alone(name: str) -> None:
    assert parse_name(name) is None


CELLS = [
    ("0.5", 0.5),
    (" 1e-3 ", 1e-3),
    (2, 2.0),
    ("12 %", 0.12),
    ("tensor(0.25)", 0.25),
    ("tensor(0.25, device='cuda:0')", 0.25),
    ("", None),
    ("None", None),
    (None, None),
    (True, None),
    ("abc", None),
    ([1], None),
]


@pytest.mark.parametrize(("cell", "value"), CELLS)
def test_a_cell_is_a_number_or_nothing(cell: object, value: float | None) -> None:
    assert parse_number(cell) == value


def test_nan_in_a_log_stays_nan_and_an_empty_cell_is_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "step,loss,val_loss\n1,NaN,0.5\n2,,0.4\n3,inf,\n")
    curves = read_curves(path)
    assert curves.train is not None
    assert curves.valid is not None
    assert curves.train.positions.tolist() == [1, 3]
    assert math.isnan(curves.train.values[0])
    assert curves.valid.positions.tolist() == [1, 2]
    assert curves.best == 2


def test_after_a_resume_the_later_rows_count_and_it_is_said(tmp_path: Path) -> None:
    rows = [f"{e},{1 / (e + 1)},{v}" for e, v in [(0, 9), (1, 8), (2, 7), (3, 6), (1, 5), (2, 4)]]
    curves = read_curves(write(tmp_path / "a.csv", "\n".join(["epoch,loss,val_loss", *rows])))
    assert curves.valid is not None
    assert curves.valid.positions.tolist() == [0, 1, 2]
    assert curves.valid.values.tolist() == [9, 5, 4]
    assert any("resumed" in decision.because for decision in curves.decisions)


@pytest.mark.parametrize(
    ("columns", "first", "newest_first", "said"),
    [
        ("epoch,step", 1, False, "counted over all epochs"),
        ("epoch,step", 0, False, "counted over all epochs"),
        ("step", 1, False, "counted over all epochs"),
        ("global_step", 1, True, "newest first"),
        ("epoch,global_step", 1, True, "newest first"),
        ("epoch", 1, True, "newest first"),
    ],
)
def test_rows_in_another_order_are_the_run_that_they_are_of(
    columns: str, first: int, newest_first: bool, said: str, tmp_path: Path
) -> None:
    """Four epochs of three steps, 10 apart, against the same run with steps over all epochs."""
    rows = []
    for epoch in range(4):
        for at in range(3):
            step = 10 * (at + first)
            whole = {"epoch": epoch, "step": step, "global_step": step + 30 * epoch}
            cells = [whole[name] for name in columns.split(",")]
            rows.append(",".join(map(str, [*cells, 9 - 3 * epoch - at, epoch % 3 + 1])))
    rows = rows[::-1] if newest_first else rows
    text = "\n".join([f"{columns},loss,val_loss", *rows])
    curves = read_curves(write(tmp_path / "a.csv", text))
    assert any(said in decision.chosen for decision in curves.decisions)
    assert not any("resumed" in decision.because for decision in curves.decisions)
    assert curves.train is not None
    assert curves.valid is not None
    if columns == "epoch":
        assert curves.train.positions.tolist() == [0, 1, 2, 3]
        assert curves.train.values.tolist() == [8, 5, 2, -1]
    else:
        assert curves.train.positions.tolist() == [10 * (i + first) for i in range(12)]
        assert curves.train.values.tolist() == [9 - i for i in range(12)]
        assert curves.valid.values.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 1, 1, 1]


def test_an_epoch_on_its_last_row_alone_is_enough(tmp_path: Path) -> None:
    lines = []
    for epoch in range(3):
        lines += [f"{step},,{9 - epoch}," for step in (9, 19, 29)]
        lines.append(f"29,{epoch + 1},,{epoch + 5}")
    curves = read_curves(write(tmp_path / "a.csv", "\n".join(["step,epoch,loss,val_loss", *lines])))
    assert curves.train is not None
    assert curves.valid is not None
    assert curves.train.positions.tolist() == [9, 19, 29, 39, 49, 59, 69, 79, 89]
    assert curves.valid.positions.tolist() == [29, 59, 89]


def test_numbers_with_a_comma_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [f'{n},{9 - n},"0,{n}5"' for n in range(1, 5)]
    curves = read_curves(write(tmp_path / "a.csv", "\n".join(["step,loss,val_loss", *rows])))
    assert curves.valid is None
    (told,) = [one for one in curves.decisions if one.what == "cells left out"]
    assert told.chosen == "4"
    assert "'0,15'" in told.because


def test_steps_of_a_run_that_was_resumed_are_not_counted_on(tmp_path: Path) -> None:
    rows = ["1,10,9", "1,20,8", "2,30,7", "1,20,6", "2,30,5"]
    curves = read_curves(write(tmp_path / "a.csv", "\n".join(["epoch,step,val_loss", *rows])))
    assert curves.valid is not None
    assert curves.valid.positions.tolist() == [10, 20, 30]
    assert curves.valid.values.tolist() == [9, 6, 5]


def test_rows_within_one_epoch_are_averaged_and_at_one_step_the_last_counts(tmp_path: Path) -> None:
    by_epoch = read_curves(write(tmp_path / "a.csv", "epoch,loss\n0,4\n0,2\n1,1\n1,2\n"))
    by_step = read_curves(write(tmp_path / "b.csv", "step,loss\n0,4\n0,2\n1,1\n1,2\n"))
    assert by_epoch.train is not None
    assert by_step.train is not None
    assert by_epoch.train.values.tolist() == [3, 1.5]
    assert by_step.train.values.tolist() == [2, 2]


def test_the_position_is_the_step_else_the_epoch_else_the_row(tmp_path: Path) -> None:
    texts = {
        "step": "epoch,step,val_loss\n1,10,3\n2,20,1\n",
        "epoch": "epoch,val_loss\n1,3\n2,1\n",
        "row": "val_loss,loss\n3,1\n1,1\n",
    }
    found = {
        axis: read_curves(write(tmp_path / f"{axis}.csv", text)) for axis, text in texts.items()
    }
    assert {axis: (c.axis, c.best) for axis, c in found.items()} == {
        "step": ("step", 20),
        "epoch": ("epoch", 2),
        "row": ("row", 1),
    }


def test_of_several_validation_sets_the_first_is_taken_and_the_rest_named(tmp_path: Path) -> None:
    text = "step,loss,eval_b_loss,eval_a_loss\n1,1,5,3\n2,1,4,2\n"
    curves = read_curves(write(tmp_path / "a.csv", text))
    assert curves.valid is not None
    assert curves.valid.name == "eval_b_loss"
    assert any("eval_a_loss" in decision.because for decision in curves.decisions)


def test_a_named_column_is_taken_and_an_unknown_one_refused_with_the_nearest(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.csv", "step,foo,bar,val_loss\n1,5,3,1\n2,4,2,2\n")
    curves = read_curves(path, {"train": "foo", "valid": "bar"})
    assert curves.train is not None
    assert curves.valid is not None
    assert (curves.train.name, curves.valid.name) == ("foo", "bar")
    with pytest.raises(DataError, match="val_loss"):
        read_curves(path, {"valid": "val_los"})
    with pytest.raises(RecipeError, match="valid"):
        read_curves(path, {"vald": "val_loss"})
    with pytest.raises(RecipeError, match="train=COL"):
        parse_settings(["train"])


def test_a_metric_that_rises_stands_in_for_a_missing_loss(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "epoch,loss,val_accuracy\n0,1,0.5\n1,0.5,0.9\n2,0.2,0.8\n")
    curves = read_curves(path)
    assert curves.valid is not None
    assert curves.valid.higher_is_better
    assert curves.best == 1


BROKEN = {
    "empty.csv": "",
    "blank.jsonl": "\n\n",
    "words.txt": "once upon a time\n",
    "page.html": "<html>",
    "no_loss.csv": "epoch,colour\n1,red\n",
    "list.json": "[1, 2, 3]",
    "object.json": '{"a": 1}',
    "cut.json": '{"log_history": [{"loss": 1',
    "no_history.json": '{"log_history": []}',
    "only_header.csv": "epoch,loss,val_loss\n",
    "words_for_numbers.csv": "epoch,loss\n1,high\n",
    "broken.jsonl": "{not json}\n{}\n",
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_no_log_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, BROKEN[name])
    with pytest.raises(InputError) as caught:
        read_curves(path)
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_a_folder_without_a_log_and_a_path_without_anything_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trainer_state"):
        read_curves(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_curves(tmp_path / "nowhere.csv")


def test_a_folder_may_be_named_as_a_file_is(tmp_path: Path) -> None:
    for name in ("run.json", "run.jsonl", "run.log"):
        write(tmp_path / name / "wandb-history.jsonl", '{"_step": 1, "val_loss": 2}\n')
        assert read_curves(tmp_path / name).source == "wandb"


def test_a_line_that_a_kill_cut_off_ends_the_log(tmp_path: Path) -> None:
    curves = read_curves(write(tmp_path / "a.jsonl", '{"step": 1, "val_loss": 2}\n{"step": 2, "va'))
    assert curves.points == 1


def state(last: int) -> str:
    history = [{"eval_loss": 1 / s, "step": s} for s in range(1, last + 1)]
    return json.dumps({"log_history": history, "max_steps": 9})


def test_of_several_checkpoints_the_latest_is_read(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        write(tmp_path / f"checkpoint-{step}" / "trainer_state.json", state(step))
    curves = read_curves(tmp_path)
    assert curves.last == 10
    assert any("checkpoint-10" in decision.chosen for decision in curves.decisions)
    assert read_curves(tmp_path / "checkpoint-2").last == 2


def test_the_trainers_summary_is_no_point_of_the_training_loss(tmp_path: Path) -> None:
    history = [
        {"loss": 3.0, "step": 1},
        {"loss": 1.0, "step": 2},
        {"train_loss": 2.0, "train_runtime": 8.0, "step": 2},
    ]
    path = write(tmp_path / "trainer_state.json", json.dumps({"log_history": history}))
    curves = read_curves(path)
    assert curves.train is not None
    assert curves.train.values.tolist() == [3.0, 1.0]
    assert curves.seconds == 8.0


def test_an_old_state_without_steps_takes_epochs(tmp_path: Path) -> None:
    history = [
        {"loss": 1.0, "epoch": 1},
        {"eval_loss": 0.5, "epoch": 1},
        {"eval_loss": 0.4, "epoch": 2},
    ]
    path = write(tmp_path / "trainer_state.json", json.dumps({"log_history": history}))
    assert (read_curves(path).axis, read_curves(path).best) == ("epoch", 2)


def test_several_runs_in_a_folder_are_named_and_none_is_guessed(tmp_path: Path) -> None:
    for version in (0, 1):
        write(
            tmp_path / "lightning_logs" / f"version_{version}" / "metrics.csv",
            "epoch,step,val_loss\n0,1,1\n",
        )
    with pytest.raises(DataError, match="version_1"):
        read_curves(tmp_path)


# Forty evaluations with a long text each, over five blocks: what W&B 0.31 wrote.
WANDB_FILE = Path(__file__).with_name("history.wandb.gz")


def test_the_records_of_a_binary_run_of_wandb_are_read_until_the_first_damaged_one() -> None:
    whole = gzip.decompress(WANDB_FILE.read_bytes())

    def evaluations(content: bytes) -> int:
        return sum(b"val_loss" in record for record in log_records(content))

    # Each evaluation is a record of the history and one of the summary.
    assert evaluations(whole) == 80
    middle = len(whole) // 2
    assert 36 <= evaluations(whole[:middle]) <= 42
    damaged = bytearray(whole)
    damaged[middle] ^= 1
    assert 36 <= evaluations(bytes(damaged)) <= 42
    assert evaluations(b"") == evaluations(whole[:9]) == 0


def test_a_binary_run_of_wandb_is_read_by_its_package_or_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run-1.wandb"
    path.write_bytes(gzip.decompress(WANDB_FILE.read_bytes()))
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(MachineError, match="pip install wandb"):
            read_curves(path)
    else:
        curves = read_curves(path)
        assert (curves.source, curves.points, curves.best) == ("wandb", 40, 20)


def tracker_database(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


# The columns that these versions of the trackers write, among others: MLflow 3.17, Trackio 0.43.
MLFLOW_TABLES = (
    "CREATE TABLE runs (run_uuid TEXT, name TEXT, lifecycle_stage TEXT)",
    "CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT,"
    " is_nan BOOLEAN)",
)
TRACKIO_TABLE = (
    "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, timestamp TEXT, run_name TEXT,"
    " step INTEGER, metrics TEXT)"
)


def mlflow_database(path: Path, *names: str) -> Path:
    runs = [f"INSERT INTO runs VALUES ('id-{name}', '{name}', 'active')" for name in names]
    metrics = [
        f"INSERT INTO metrics VALUES ('{key}', {value}, {1000 * step}, 'id-{name}', {step}, {nan})"
        for name in names
        for step in (1, 2, 3)
        for key, value, nan in (
            ("loss", 1 / step, 0),
            ("val_loss", abs(step - 2) + 0.5, 0),
            ("accuracy", 0, 1),
        )
    ]
    return tracker_database(path, *MLFLOW_TABLES, *runs, *metrics)


def test_a_database_of_mlflow_is_read(tmp_path: Path) -> None:
    curves = read_curves(mlflow_database(tmp_path / "mlflow.db", "first"))
    assert (curves.source, curves.points, curves.best, curves.seconds) == ("mlflow", 3, 2, 2.0)
    # MLflow stores NaN as 0 with a mark.
    assert np.isnan(read_log(tmp_path / "mlflow.db").columns["accuracy"].values).all()


def test_of_several_runs_in_a_database_one_is_named(tmp_path: Path) -> None:
    path = mlflow_database(tmp_path / "mlflow.db", "first", "second")
    with pytest.raises(DataError, match="first, second") as caught:
        read_curves(path)
    assert f"{path}/NAME" in caught.value.remedy
    assert read_curves(path / "second").best == 2
    assert read_curves(path / "id-second").best == 2
    with pytest.raises(DataError, match="has no run of this name"):
        read_curves(path / "third")


def test_a_database_of_trackio_is_read(tmp_path: Path) -> None:
    rows = [
        f"INSERT INTO metrics VALUES ({step}, 'id', '2026-01-01T00:00:0{step}+00:00', 'first',"
        f""" {step}, '{{"loss": {1 / step}, "val_loss": {abs(step - 2) + 0.5}, "bad": "NaN"}}')"""
        for step in (1, 2, 3)
    ]
    path = tracker_database(tmp_path / "holdfast.db", TRACKIO_TABLE, *rows)
    curves = read_curves(path)
    assert (curves.source, curves.points, curves.best, curves.seconds) == ("trackio", 3, 2, 2.0)


@pytest.mark.parametrize(
    ("statements", "rule"),
    [
        (("CREATE TABLE a (b TEXT)",), "is a database of another program"),
        (("CREATE TABLE metrics (b TEXT)",), "is a database of another program"),
        (MLFLOW_TABLES, "has no run with a metric"),
        ((TRACKIO_TABLE,), "has no run with a metric"),
    ],
)
def test_a_database_without_a_run_is_refused(
    tmp_path: Path, statements: tuple[str, ...], rule: str
) -> None:
    with pytest.raises(DataError, match=rule):
        read_curves(tracker_database(tmp_path / "a.db", *statements))


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 4000)
    with pytest.raises(DataError, match="cannot be read as a log"):
        read_curves(path)


def test_every_real_log_is_read(shared_data: Path) -> None:
    files = [p for p in (shared_data / "trainer_states").iterdir() if p.suffix in (".json", ".csv")]
    assert len(files) == 20
    for file in sorted(files):
        curves = read_curves(file)
        assert curves.train is not None
        assert curves.valid is not None
        assert curves.points >= 4
        nan = file.name.startswith("anra8571")
        assert (curves.best is None) == nan
        if not nan:
            assert curves.valid.values[curves.valid.positions == curves.best] == np.nanmin(
                curves.valid.values
            )


def _log(path: Path, columns: dict[str, list[float]]) -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = [
        ",".join(["epoch", *columns]),
        *(f"{e},{','.join(map(str, r))}" for e, r in enumerate(rows)),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


LOSS = [1.0, 0.8, 0.6, 0.5, 0.4]
UP = [0.5, 0.6, 0.7, 0.8, 0.9]
LOW = [0.5, 0.55, 0.6, 0.65, 0.7]


@pytest.mark.parametrize(
    ("names", "train", "valid"),
    [
        (("loss", "val_loss", "accuracy", "val_accuracy"), "accuracy", "val_accuracy"),
        (("loss", "eval_loss", "accuracy", "eval_accuracy"), "accuracy", "eval_accuracy"),
        (("train_loss", "valid_loss", "accuracy", "val_acc"), "accuracy", "val_acc"),
        (("train_loss", "val_loss", "train_acc", "accuracy"), "train_acc", "accuracy"),
        (("train_loss", "valid_loss", "accuracy", "time"), None, "accuracy"),
        (("train_loss", "val_loss", "accuracy", "lr"), None, "accuracy"),
    ],
)
def test_a_metric_without_a_set_is_of_the_set_that_is_missing(
    names: tuple[str, ...], train: str | None, valid: str, tmp_path: Path
) -> None:
    values = (LOSS, LOSS, UP, LOW)
    curves = read_curves(_log(tmp_path / "log.csv", dict(zip(names, values, strict=True))))
    assert curves.valid_metric is not None
    assert curves.valid_metric.name == valid
    assert (curves.train_metric.name if curves.train_metric else None) == train
    assert any(d.what == "metric" and valid in d.chosen for d in curves.decisions)


def test_the_validation_rows_are_read_where_the_log_tells_them(tmp_path: Path) -> None:
    plain = {"loss": LOSS, "val_loss": LOSS}
    assert read_curves(_log(tmp_path / "a.csv", plain)).valid_rows is None
    told = plain | {"val_rows": [37.0] * 5}
    assert read_curves(_log(tmp_path / "b.csv", told)).valid_rows == 37
    speed = {
        "loss": LOSS,
        "eval_loss": LOSS,
        "eval_runtime": [0.5, 0.51, 0.49, 0.5, 0.5],
        "eval_samples_per_second": [240.0, 235.3, 244.9, 240.0, 240.0],
    }
    curves = read_curves(_log(tmp_path / "c.csv", speed))
    assert curves.valid_rows == 120
    assert any(d.what == "validation rows" and "runtime" in d.because for d in curves.decisions)


@pytest.mark.parametrize("rows", [13, 87, 150])
def test_accuracies_that_are_parts_of_one_number_tell_the_rows(rows: int, tmp_path: Path) -> None:
    """The least number that fits divides the true one; of many different parts it is that."""
    rng = np.random.default_rng(rows)
    parts = [round(float(k) / rows, 5) for k in rng.permutation(np.arange(1, rows))[:12]]
    log = {"loss": [1.0 - 0.05 * i for i in range(12)], "val_accuracy": parts}
    assert read_curves(_log(tmp_path / "log.csv", log)).valid_rows == rows
    other = log | {"val_accuracy": [round(float(v), 5) for v in rng.uniform(0.5, 0.9, 12)]}
    assert read_curves(_log(tmp_path / "other.csv", other)).valid_rows is None


def test_a_rate_of_errors_is_the_metric_where_none_rises(tmp_path: Path) -> None:
    """XGBoost's own: 2 % and 25 % wrong are 98 and 75 % right."""
    wrong = {
        "train": {"error": [0.3, 0.2, 0.1, 0.05, 0.02, 0.02]},
        "valid": {"error": [0.4, 0.3, 0.27, 0.25, 0.25, 0.25]},
    }
    path = tmp_path / "evals.json"
    path.write_text(json.dumps(wrong), "utf-8")
    curves = read_curves(path)
    assert curves.valid is not None
    assert curves.valid_metric is not None
    assert curves.train_metric is not None
    assert curves.valid.values[-1] == 0.25
    assert curves.valid_metric.values[-1] == 0.75
    assert curves.train_metric.values[-1] == 0.98
    assert judge_curves(curves).label == "memorizing"
    squared = {"loss": LOSS, "val_mean_squared_error": LOSS}
    assert read_curves(_log(tmp_path / "log.csv", squared)).valid_metric is None
