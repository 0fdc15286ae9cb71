"""Every log reader gives the same curves for the same run; a reader without a kit fails here."""

from __future__ import annotations

import csv
import json
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.curves import Curves
from holdfast.core.errors import InputError
from holdfast.plugins.logs.reader import READERS, read_curves

TRAIN = [1.0, 0.7, 0.5, 0.4, 0.3, 0.25]
VALID = [1.1, 0.8, 0.65, 0.7, 0.8, 0.9]


def _csv(path: Path, names: list[str], rows: list[list[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def _jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), "utf-8")
    return path


def _pairs() -> list[tuple[int, float, float]]:
    return [(i, t, v) for i, (t, v) in enumerate(zip(TRAIN, VALID, strict=True))]


def hugging_face(folder: Path) -> Path:
    history: list[dict[str, object]] = []
    for i, t, v in _pairs():
        history += [{"loss": t, "step": i, "epoch": i / 2}, {"eval_loss": v, "step": i}]
    history.append({"train_loss": 0.5, "train_runtime": 12.0, "step": 5})
    return _json(folder / "trainer_state.json", {"max_steps": 5, "log_history": history})


def lightning(folder: Path) -> Path:
    rows: list[list[object]] = []
    for i, t, v in _pairs():
        rows += [[0, i, t, ""], [0, i, "", v]]
    return _csv(folder / "metrics.csv", ["epoch", "step", "train_loss", "val_loss"], rows)


def mlflow_database(path: Path) -> Path:
    metrics = [
        (key, value, 1000 * i, "id", i, 0)
        for i, t, v in _pairs()
        for key, value in (("train_loss", t), ("val_loss", v))
    ]
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE runs (run_uuid, name, lifecycle_stage)")
        database.execute("CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan)")
        database.execute("INSERT INTO runs VALUES ('id', 'first', 'active')")
        database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", metrics)
        database.commit()
    return path


def tensorboard(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    writer = EventFileWriter(str(folder / "events"))
    for i, t, v in _pairs():
        for tag, value in (("train/loss", t), ("eval/loss", v)):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(step=i, wall_time=100.0 + i, summary=summary))
    writer.close()
    return folder / "events"


def mlflow(folder: Path) -> Path:
    run = folder / "mlruns" / "0" / "abc"
    (run / "metrics").mkdir(parents=True)
    (run / "meta.yaml").write_text("run_id: abc\n", "utf-8")
    for name, values in (("train_loss", TRAIN), ("val_loss", VALID)):
        lines = [f"{1000 * i} {value} {i}\n" for i, value in enumerate(values)]
        (run / "metrics" / name).write_text("".join(lines), "utf-8")
    return folder / "mlruns"


def holdfast_run(folder: Path) -> Path:
    rows: list[dict[str, object]] = [{"event": "note", "step": 0, "what": "x"}]
    rows += [
        {
            "event": "snapshot",
            "step": i,
            "epoch": i / 2,
            "train_loss": t,
            "valid_loss": v,
            "refined_loss": v,
            "train_rows": 9,
            "valid_rows": 9,
            "seconds": 1.0 * i,
            "train_metrics": {"accuracy": 0.9},
            "valid_metrics": {"accuracy": 0.8},
        }
        for i, t, v in _pairs()
    ]
    return _jsonl(folder / "events.jsonl", rows)


KITS: dict[str, Callable[[Path], Path]] = {
    "hf_trainer_state": hugging_face,
    "lightning": lightning,
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "holdfast": holdfast_run,
    "csv": lambda f: _csv(f / "log.csv", ["step", "loss", "val_loss"], list(map(list, _pairs()))),
    "keras": lambda f: _csv(
        f / "log.csv",
        ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"],
        [[i, 0.5, t, 0.4, v] for i, t, v in _pairs()],
    ),
    "keras_history": lambda f: _json(f / "history.json", {"loss": TRAIN, "val_loss": VALID}),
    "fastai": lambda f: _csv(
        f / "history.csv",
        ["epoch", "train_loss", "valid_loss", "accuracy", "time"],
        [[i, t, v, 0.5, "00:12"] for i, t, v in _pairs()],
    ),
    "ultralytics": lambda f: _csv(
        f / "results.csv",
        [
            "epoch",
            "train/box_loss",
            "train/cls_loss",
            "metrics/mAP50(B)",
            "val/box_loss",
            "val/cls_loss",
        ],
        [[i, t - 0.1, 0.1, 0.5, v - 0.2, 0.2] for i, t, v in _pairs()],
    ),
    "jsonl": lambda f: _jsonl(
        f / "log.jsonl", [{"step": i, "train": {"loss": t}, "val_loss": v} for i, t, v in _pairs()]
    ),
    "llama_factory": lambda f: _jsonl(
        f / "trainer_log.jsonl",
        [
            {"current_steps": i, "total_steps": 5, **logged, "elapsed_time": "0:01:40"}
            for i, t, v in _pairs()
            for logged in ({"loss": t}, {"eval_loss": v})
        ],
    ),
    "boosting": lambda f: _json(
        f / "evals.json", {"validation_0": {"logloss": TRAIN}, "validation_1": {"logloss": VALID}}
    ),
    "sklearn": lambda f: _json(
        f / "mlp.json", {"loss_curve_": TRAIN, "validation_scores_": [2 - v for v in VALID]}
    ),
    "database": lambda f: mlflow_database(f / "mlflow.db"),
    "wandb": lambda f: (
        _jsonl(
            f / "run-1" / "files" / "wandb-history.jsonl",
            [{"_step": i, "_runtime": i, "train/loss": t, "eval/loss": v} for i, t, v in _pairs()],
        ).parent.parent
    ),
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in KITS.items()}


def test_every_reader_has_a_kit() -> None:
    assert set(READERS) == set(KITS)


def read(path: Path) -> Curves:
    with warnings.catch_warnings():
        # TensorBoard's own imports warn of what setuptools will drop.
        warnings.simplefilter("ignore")
        return read_curves(path)


@pytest.mark.parametrize("name", sorted(KITS))
def test_a_reader_recognises_its_log_and_hands_on_its_curves(
    name: str, logs: dict[str, Path]
) -> None:
    curves = read(logs[name])
    assert curves.source == {"keras_history": "keras", "database": "mlflow"}.get(name, name)
    assert curves.train is not None
    assert curves.valid is not None
    assert curves.train.values == pytest.approx(TRAIN, abs=1e-6)
    expected = [2 - v for v in VALID] if curves.valid.higher_is_better else VALID
    assert curves.valid.values == pytest.approx(expected, abs=1e-6)
    assert curves.valid.positions.tolist() == curves.train.positions.tolist() == list(range(6))
    assert curves.best == 2
    assert curves.decisions


@pytest.mark.parametrize("name", sorted(KITS))
def test_only_the_general_readers_also_accept_a_log_of_another(
    name: str, logs: dict[str, Path]
) -> None:
    """So a log has one source, whatever order the readers were found in."""
    ours = READERS[name].priority
    rivals = [n for n, r in READERS.items() if n != name and r.accepts(logs[name])]
    assert [n for n in rivals if READERS[n].priority >= ours] == []


@pytest.mark.parametrize("name", sorted(set(KITS) - {"tensorboard", "mlflow"}))
def test_a_log_of_bytes_is_refused_by_saying_what_a_log_is(
    name: str, logs: dict[str, Path], tmp_path: Path
) -> None:
    files = [logs[name]] if logs[name].is_file() else list(logs[name].rglob("*.jsonl"))
    path = tmp_path / files[0].name
    path.write_bytes(b"\x00\x01\xff\xfe" * 200)
    with pytest.raises(InputError, match=r"A log has a loss|not text"):
        read(path)


@pytest.mark.parametrize("name", sorted(KITS))
def test_positions_increase_and_values_are_doubles(name: str, logs: dict[str, Path]) -> None:
    curves = read(logs[name])
    for series in (curves.train, curves.valid, curves.valid_metric):
        if series is not None:
            assert np.all(np.diff(series.positions) > 0)
            assert series.values.dtype == np.float64
