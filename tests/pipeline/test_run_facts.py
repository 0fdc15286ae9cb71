"""What the pipeline tells the judge, and the verdict that reads the finished model's texts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import Decision, Verdict
from holdfast.core.run_facts import LabelNoise, RunFacts
from holdfast.models.probe_curve import ProbeCurve
from holdfast.pipeline.ready import Fitted
from holdfast.pipeline.run_facts import shares_of, with_probe, with_texts
from holdfast.training.loop import Trained


def test_counts_become_shares_of_the_texts() -> None:
    assert shares_of({"n": 8, "empty": 2, "repetition": 0}) == {
        "n": 8.0,
        "empty": 0.25,
        "repetition": 0.0,
    }
    assert shares_of({"n": 0, "empty": 0}) == {}


def test_what_a_refitted_head_measured_is_added_once_it_is_there() -> None:
    known, listener = RunFacts(train_rows=3), SimpleNamespace(curve=None)
    assert with_probe(known, [listener]) is known
    noise = LabelNoise(0.1, 0.05, 0.2, 0.8, 0.5, 7)
    listener.curve = ProbeCurve(np.ones(4), ((2, 0.5), (3, 0.4)), (1, 4), noise)
    told = with_probe(known, [object(), listener])
    assert (told.train_rows, told.copied_valid) == (3, (1, 4))
    assert told.probe_curve == ((2, 0.5), (3, 0.4))
    assert told.label_noise == noise


def fitted(history: tuple[Any, ...], job: Any = None) -> Fitted:
    before = Verdict("healthy", "It was.", 0.9)
    trained = Trained(history, before, (), 0, 1, "", 1, 0.0, 0.0, 0.0, {})
    nothing: Any = None
    return Fitted(nothing, job, (), trained, Decision("kept state", "step 0", "it is"), 0.0)


@pytest.mark.parametrize("generations", [None, {}, {"counts": {"test": {"n": 0}}}])
def test_without_texts_the_verdict_stays(generations: Any) -> None:
    run = fitted((1,))
    assert with_texts(run, generations) is run


def test_a_verdict_that_the_texts_change_is_told_to_the_journal(tiny_snapshot: Any) -> None:
    lines: list[tuple[Any, ...]] = []
    after = Verdict("memorizing", "It writes what it read.", 0.9)

    def monitor(history: Any, kept: int | None) -> Verdict:
        assert history[-1].outputs == {"test": {"n": 4.0, "empty": 0.5}}
        assert kept == 0
        return after

    job = SimpleNamespace(
        monitor=monitor,
        journal=SimpleNamespace(write=lambda *a, **k: lines.append((*a, k["label"]))),
    )
    counts = {"counts": {"test": {"n": 4, "empty": 2}, "test_untuned": {"n": 4, "empty": 4}}}
    told = with_texts(fitted((tiny_snapshot,), job), counts).trained
    assert told.verdict == after
    assert told.history[-1].outputs == {"test": {"n": 4.0, "empty": 0.5}}
    assert lines == [("verdict", 1, "memorizing")]


@pytest.fixture
def tiny_snapshot() -> Any:
    from holdfast.core.records import Snapshot

    return Snapshot(
        step=1,
        epoch=1.0,
        examples_seen=1,
        phase="f",
        train_losses=np.ones(2),
        valid_losses=np.ones(2),
        train_metrics={},
        valid_metrics={},
        refined_loss=1.0,
        temperature=1.0,
        learning_rate=1.0,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=0.0,
    )
