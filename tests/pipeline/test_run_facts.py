"""What the pipeline tells the judge, and the verdict that reads the finished model's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import accelerate
import numpy as np
import pytest
import torch

from holdfast.contract.fit import FittedModel
from holdfast.contract.written_text import Sample, Verbatim, WrittenSamples
from holdfast.core.records import Decision, Verdict
from holdfast.core.run_facts import LabelNoise, RunFacts
from holdfast.fits.run_facts import judge_with_texts, with_probe
from holdfast.models.probes.head_fit import ProbeCurve
from holdfast.recipe import parse
from holdfast.training.loop import TrainingResult


def test_what_a_refitted_head_measured_is_added_once_it_is_there() -> None:
    known, listener = RunFacts(train_rows=3), SimpleNamespace(curve=None)
    assert with_probe(known, [listener]) is known
    noise = LabelNoise(0.1, 0.05, 0.2, 0.8, 0.5, 7)
    listener.curve = ProbeCurve(np.ones(4), ((2, 0.5), (3, 0.4)), (1, 4), noise)
    told = with_probe(known, [object(), listener])
    assert (told.train_rows, told.copied_valid) == (3, (1, 4))
    assert told.probe_curve == ((2, 0.5), (3, 0.4))
    assert told.label_noise == noise


# Four validation texts of which two are empty.
WRITTEN = ["", "a b", "", "c d"]
EMPTY = {"n": 4.0, "empty": 0.5}


def fitted(
    kept: Any,
    job: Any = None,
    *,
    later: Sequence[Any] = (),
    rows: int = 4,
    adapter: str = "lora",
    task: str = "seq2seq",
) -> FittedModel:
    """A run whose kept model writes ``WRITTEN`` for its validation rows."""
    before = Verdict("healthy", "It was.", 0.9)
    history = (kept, *later)
    trained = TrainingResult(history, before, (), kept.step, len(history), "", 1, 0.0, 0.0, 0.0, {})
    valid = Sample(list("wxyz"), list("abcd"), None, lambda network, device: WRITTEN)
    train = Sample([], [], None, lambda network, device: pytest.fail("is not asked"))
    samples = WrittenSamples({"train": train, "valid": valid}, ["k l"], None, 8)
    ready: Any = SimpleNamespace(
        recipe=parse(
            {"task": task, "generate": {"rows": rows}, "model": {"adapter": {"kind": adapter}}},
            "test",
        ),
        definition=SimpleNamespace(choose_samples=lambda *asked: samples),
        loaded=SimpleNamespace(network=torch.nn.Linear(1, 1), tokenizer=None),
        splits=SimpleNamespace(
            train_rows=SimpleNamespace(table="train"), valid_rows=SimpleNamespace(table="valid")
        ),
        plan=SimpleNamespace(probe_rows=4),
    )
    return FittedModel(ready, job, (), trained, Decision("best checkpoint", "step 0", "it is"), 0.0)


def test_a_run_that_writes_no_text_keeps_its_verdict(tiny_snapshot: Any) -> None:
    silent = fitted(tiny_snapshot, rows=0)
    assert judge_with_texts(silent) is silent
    prompt = fitted(tiny_snapshot, adapter="prompt")
    assert judge_with_texts(prompt) is prompt


def test_texts_of_the_evaluation_points_are_not_written_again(tiny_snapshot: Any) -> None:
    run = fitted(replace(tiny_snapshot, outputs={"valid": EMPTY}))
    assert judge_with_texts(run) is run


def test_the_verdict_is_on_the_texts_of_the_checkpoint_that_is_kept(tiny_snapshot: Any) -> None:
    full = {"n": 4.0, "empty": 0.0}
    kept = replace(tiny_snapshot, outputs={"valid": full})
    last = replace(tiny_snapshot, step=2, outputs={"valid": EMPTY})
    judged: list[Any] = []

    def monitor(history: Any, best: int | None) -> Verdict:
        judged.append(history[-1].outputs)
        return Verdict("healthy", "It was.", 0.9)

    judge_with_texts(fitted(kept, SimpleNamespace(monitor=monitor), later=[last]))
    assert judged == [{"valid": full}]


def test_a_verdict_that_the_texts_change_is_told_to_the_journal(
    tiny_snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"train": Verbatim(2, (5,)), "valid": Verbatim(4, ())}
    monkeypatch.setattr(
        "holdfast.fits.run_facts.verbatim_completions", lambda *given: known[given[2]]
    )
    lines: list[tuple[Any, ...]] = []
    after = Verdict("memorizing", "It writes what it read.", 0.9)

    def monitor(history: Any, kept: int | None) -> Verdict:
        shares = history[-1].outputs["valid"]
        assert shares.items() >= EMPTY.items()
        assert kept == 1
        return after

    job = SimpleNamespace(
        monitor=monitor,
        accelerator=accelerate.Accelerator(cpu=True),
        journal=SimpleNamespace(write=lambda *a, **k: lines.append((*a, k["label"]))),
    )
    run = judge_with_texts(fitted(tiny_snapshot, job, task="causal-lm"))
    told = run.trained
    assert run.completed == known["train"]
    assert told.verdict == after
    shares = told.history[-1].outputs
    assert shares["train"] == {"verbatim": 0.5, "verbatim_n": 2.0}
    assert (shares["valid"]["verbatim"], shares["valid"]["verbatim_n"]) == (0.0, 4.0)
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
