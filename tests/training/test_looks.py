"""The looks of a run, kept and read again."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RunError
from holdfast.core.records import Branch, Finding, Snapshot
from holdfast.core.run_facts import LabelNoise, RunFacts
from holdfast.training import evaluation_file
from holdfast.training.evaluation_file import read_evaluations, write_evaluations


def history(rows: int = 30, kept_logits: bool = True) -> list[Snapshot]:
    rng = np.random.default_rng(0)
    return [
        Snapshot(
            step=10 * i,
            epoch=i / 3,
            examples_seen=16 * i,
            phase="fit",
            train_losses=rng.random(20),
            valid_losses=rng.random(rows).astype(np.float32) + 0.0,
            train_metrics={"accuracy": 1 / 3},
            valid_metrics={"accuracy": math.nan},
            refined_loss=0.1 + 0.2,
            temperature=1.7,
            learning_rate=math.nan,
            gradient_norm=None,
            relative_update=1e-9 if i else None,
            distance=0.0,
            seconds=0.1,
            train_correct=rng.random(20) < 0.5,
            valid_correct=rng.random(rows) < 0.5,
            valid_logits=rng.normal(size=(rows, 3)).astype(np.float32) if kept_logits else None,
            outputs={"valid": {"n": 3.0}} if i == 2 else None,
            branch=Branch(2, 0, 10) if i == 2 else Branch(),
        )
        for i in range(3)
    ]


def known() -> RunFacts:
    """Every field is set: one that cannot be read back must show."""
    finding = Finding("near_duplicates", "warn", 0.5, 2, (3, 4), "alike", "look")
    return RunFacts(
        task="seq2seq",
        classes=3,
        planned_steps=30,
        planned_looks=4,
        train_rows=20,
        train_tokens=200,
        trainable=7,
        peak_rate=3e-4,
        usual_rates=(1e-5, 1e-3),
        findings=(finding,),
        probe_valid_losses=np.random.default_rng(1).random(30),
        first_seen=np.arange(20),
        probe_curve=((10, 0.5), (20, 0.4)),
        copied_valid=(1, 30),
        label_noise=LabelNoise(0.1, 0.05, 0.15, 0.8, 0.5, 50),
        refused=("train.label_smoothing=0.1",),
    )


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype != bool)
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("kept_logits", [True, False])
def test_every_field_comes_back_to_the_bit(tmp_path: Path, kept_logits: bool) -> None:
    path = tmp_path / "looks.npz"
    seen = history(kept_logits=kept_logits)
    assert write_evaluations(path, seen, known(), 20, "9.9")
    again = read_evaluations(path)
    assert (again.best_step, again.version) == (20, "9.9")
    for before, after in zip(seen, again.history, strict=True):
        for field in dataclasses.fields(Snapshot):
            assert same(getattr(before, field.name), getattr(after, field.name)), field.name
    for field in dataclasses.fields(RunFacts):
        assert same(getattr(known(), field.name), getattr(again.run_facts, field.name)), field.name


def test_rows_of_a_few_hundred_looks_stay_small(tmp_path: Path) -> None:
    path = tmp_path / "looks.npz"
    facts = replace(known(), probe_valid_losses=np.random.default_rng(1).random(500))
    write_evaluations(path, history(rows=500), facts, 0, "0")
    assert path.stat().st_size < 3 * 500 * (4 + 12 + 2) + 20_000


def test_what_is_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "looks.npz"
    monkeypatch.setattr(evaluation_file, "MOST_BYTES", 1000)
    assert not write_evaluations(path, history(), known(), 0, "0")
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01."])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "looks.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match="a run's evaluations"):
        read_evaluations(path)


def test_looks_of_other_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "looks.npz"
    write_evaluations(path, history(), known(), 20, "0")
    with np.load(path) as kept:
        held = dict(kept)
    for name, cut in (
        ("look_valid_losses", np.s_[:, :-1]),
        ("look_valid_logits", np.s_[:, :, :0]),
        ("look_train_correct", np.s_[:1]),
    ):
        np.savez(path, **{**held, name: held[name][cut]})
        with pytest.raises(RunError, match="Remove it"):
            read_evaluations(path)


def test_a_pickle_inside_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "looks.npz"
    np.savez(path, told=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError):
        read_evaluations(path)


def test_looks_of_a_version_that_knew_no_branches_are_read(tmp_path: Path) -> None:
    path = tmp_path / "looks.npz"
    write_evaluations(path, history(), known(), 20, "0")
    with np.load(path) as kept:
        held = dict(kept)
    told = json.loads(str(held["told"]))
    del told["looks"]["branch"]
    np.savez(path, **{**held, "told": np.array(json.dumps(told))})
    assert [s.branch for s in read_evaluations(path).history] == [Branch()] * 3
