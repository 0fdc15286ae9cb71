"""What every detector promises, found by discovery."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import holdfast.monitor.detectors as room
from holdfast.core.labels import Label
from holdfast.core.records import Finding, Snapshot, to_json
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.judge import CAUSES, ORDER
from holdfast.recipe import Recipe, override

ALL = list(DETECTORS)
STEPS = 8


def snapshot(step: int, train: np.ndarray, valid: np.ndarray, **more: Any) -> Snapshot:
    plain: dict[str, Any] = {
        "step": step,
        "epoch": step / 100,
        "examples_seen": step,
        "phase": "fit",
        "train_losses": train,
        "valid_losses": valid,
        "train_metrics": {},
        "valid_metrics": {},
        "refined_loss": float("nan"),
        "temperature": 1.0,
        "learning_rate": 1e-4,
        "gradient_norm": 1.0,
        "relative_update": 1e-3,
        "distance": 1e-2,
        "seconds": 0.0,
    }
    return Snapshot(**(plain | more))


def course(train: np.ndarray, valid: np.ndarray, n: int, seed: int = 0, **more: Any) -> History:
    """Mean losses a look to a case of ``n`` rows a side."""
    rng = np.random.default_rng(seed)
    rows = [
        np.maximum(0, m + 0.1 * rng.normal(size=(n, 1)) + 0.01 * rng.normal(size=(n, len(m))))
        for m in (train, valid)
    ]
    history = tuple(
        snapshot(
            100 * k,
            rows[0][:, k],
            rows[1][:, k],
            train_correct=rows[0][:, k] < 0.6,
            valid_correct=rows[1][:, k] < 0.6,
        )
        for k in range(len(train))
    )
    known = RunFacts(
        classes=2,
        planned_steps=100 * (len(train) - 1),
        planned_looks=len(train),
        train_rows=n,
        trainable=10**6,
        usual_rates=(1e-5, 1e-3),
        probe_valid_losses=rows[1][:, 0],
        probe_curve=((n // 2, 0.41), (n, 0.4)),
        first_seen=rng.integers(1, 9, n),
    )
    return History(history, dataclasses.replace(known, **more))


@functools.cache
def good(n: int = 200) -> History:
    """A run with nothing to report: it learned, has stopped, and the gap is small."""
    return course(
        np.array([0.69, 0.5, 0.38, 0.35, 0.34, 0.34, 0.34, 0.34]),
        np.array([0.69, 0.52, 0.4, 0.37, 0.36, 0.36, 0.36, 0.36]),
        n,
    )


@functools.cache
def shape(kind: str, n: int) -> History:
    """Histories of every kind of fault, to be survived and, by some, reported."""
    up, down = np.linspace(0.3, 2.0, STEPS), np.linspace(0.7, 0.01, STEPS)
    flat = np.full(STEPS, 0.69)
    made = {
        "overfit": lambda: course(down, up, n),
        "diverging": lambda: course(up, up, n),
        "nothing": lambda: course(flat, flat, n),
        "better": lambda: course(flat, down, n),
        "slow": lambda: course(flat, flat, n, usual_rates=(1.0, 2.0)),
        "fast": lambda: course(flat, flat, n, usual_rates=(1e-9, 1e-8)),
        "copied": lambda: course(
            down,
            down,
            n,
            findings=(
                Finding("target_is_source", "warn", 1.0, n, (), "copies", "none"),
                Finding("label_giveaway", "error", 1.0, n, (), "shown", "none"),
            ),
        ),
        "few": lambda: course(
            down,
            np.linspace(0.7, 0.3, STEPS),
            n,
            probe_curve=((10, 0.9), (20, 0.4)),
            trainable=10**9,
            first_seen=np.arange(n),
        ),
    }[kind]()
    if kind != "nothing":
        return made
    shares = {"n": 50, "wrong_training_answer": 0.5, "repetition": 0.9, "source_copied": 0.9}
    last = dataclasses.replace(
        made.snapshots[-1], outputs={"train": shares, "valid": shares}, general_loss=9.0
    )
    return History((*made.snapshots[:-1], last), made.run_facts)


SHAPES = ("overfit", "diverging", "nothing", "better", "slow", "fast", "copied", "few")


def test_every_file_of_the_room_registers_a_detector() -> None:
    files = {path.stem for path in Path(room.__file__).parent.glob("*.py")} - {"__init__"}
    used = {detect.__module__.rsplit(".", 1)[1] for detect in DETECTORS.values()}
    assert files == used


def test_every_detector_has_its_place_or_only_adds_evidence() -> None:
    listed = {name for name, _, _ in ORDER} | set(CAUSES)
    assert listed <= set(ALL)
    assert set(ALL) - listed == {"disparity"}


@pytest.mark.parametrize("name", ALL)
def test_it_blames_nothing_on_a_run_that_went_well(name: str) -> None:
    sign = DETECTORS[name](good())
    assert sign is None or sign.label in (None, "healthy", "learning"), sign
    assert sign is None or sign.cause is None, sign


@pytest.mark.parametrize("name", ALL)
def test_it_claims_no_label_from_less_than_two_looks(name: str) -> None:
    for looks in [0, 1]:
        case = History(good().snapshots[:looks], good().run_facts)
        sign = DETECTORS[name](case)
        assert sign is None or sign.label is None


@pytest.mark.parametrize("name", ALL)
def test_what_it_sees_is_whole(name: str) -> None:
    for kind in SHAPES:
        for n in [0, 1, 2, 40]:
            sign = DETECTORS[name](shape(kind, n))
            if sign is None:
                continue
            assert sign.because
            assert not sign.because.endswith(".")
            assert sign.label in (None, *get_args(Label))
            assert 0 <= sign.strength <= 1
            assert 0 <= sign.blame <= 1
            assert (sign.strength > 0) == (sign.label is not None)
            assert set(sign.explains) <= set(get_args(Label))
            assert sign.evidence
            assert sign.since_step is None or 0 <= sign.since_step <= 100 * (STEPS - 1)
            json.dumps(to_json(sign), allow_nan=False)


@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_is_no_number_is_the_rates_business_alone(name: str) -> None:
    for value in [np.nan, np.inf]:
        case = good(20)
        broken = dataclasses.replace(case.snapshots[-1], valid_losses=np.full(20, value))
        sign = DETECTORS[name](History((*case.snapshots[:-1], broken), case.run_facts))
        assert sign is None or sign.label is None or name == "rate_high"


@pytest.mark.parametrize("name", ALL)
def test_every_remedy_is_a_setting_of_the_recipe(name: str) -> None:
    for kind in SHAPES:
        sign = DETECTORS[name](shape(kind, 40))
        for remedy in sign.remedies if sign else ():
            assert remedy.do
            override(Recipe(), remedy.set)


@pytest.mark.parametrize("name", ALL)
def test_twice_is_the_same(name: str) -> None:
    for kind in SHAPES:
        detect, case = DETECTORS[name], shape(kind, 40)
        again = History(case.snapshots, case.run_facts)
        assert to_json(detect(case)) == to_json(detect(again))


@pytest.mark.parametrize("name", ALL)
def test_without_circumstances_it_is_no_surer(name: str) -> None:
    detect = DETECTORS[name]
    for kind in SHAPES:
        case = shape(kind, 40)
        sign, bare = detect(case), detect(History(case.snapshots))
        if bare is not None and bare.label is not None:
            assert sign is not None
            assert sign.label == bare.label
