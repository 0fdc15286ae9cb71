"""What a network costs in counted operations, and how fast a machine is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.models.encoders.classifier import load_classifier
from holdfast.training.machine import speed
from holdfast.training.machine.machine import MachineChoice

MACHINE = MachineChoice(1, "float32", "default", ())


@pytest.mark.parametrize("length", [4, 60])
def test_operations_are_those_that_torch_counts(tiny_model: Path, length: int) -> None:
    network = load_classifier(str(tiny_model), ("a", "b")).network.eval()
    # Its products alone are counted; the fused attention is none of them on a processor.
    network.backbone.set_attn_implementation("eager")
    ids = torch.full((1, length), 7)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(input_ids=ids, attention_mask=torch.ones_like(ids))
    (found,) = speed.forward_operations(network, np.array([length]))
    # Biases and norms have weights but no product, the pooler and the head are no blocks.
    assert found == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_speed_is_measured_once_and_read_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    answers = iter([3e9, 5e9])
    monkeypatch.setattr(speed, "_measure", lambda _: next(answers))
    other = MachineChoice(2, "float32", "default", ())
    with record_decisions() as log:
        assert [speed.operations_per_second(one) for one in (MACHINE, MACHINE)] == [3e9, 3e9]
        assert [speed.operations_per_second(one) for one in (other, MACHINE)] == [5e9, 3e9]
    said = decisions_and_findings(log)[0]
    assert [one.chosen for one in said] == ["3 GFLOP/s", "5 GFLOP/s"]
    assert len(json.loads((tmp_path / "cache" / "machine.json").read_text("utf-8"))) == 2


BROKEN = ("-1.0", "1e-300", "1e300", "true", "5", f"1{'0' * 400}", "NaN", '"x"', "null")


@pytest.mark.parametrize("kept", ["{", "[1]", "[" * 100_000, *BROKEN])
def test_a_broken_record_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    if kept in BROKEN:
        kept = f"{{{json.dumps(speed._key(MACHINE))}: {kept}}}"
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path))
    monkeypatch.setattr(speed, "_measure", lambda _: 3e9)
    (tmp_path / "machine.json").write_text(kept, "utf-8")
    assert speed.operations_per_second(MACHINE) == 3e9


def test_without_a_place_to_store_it_the_speed_is_measured_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(speed, "_measure", lambda _: 3e9)
    with record_decisions() as log:
        assert speed.operations_per_second(MACHINE) == 3e9
    (said,) = decisions_and_findings(log)[0]
    assert said.because.startswith("could not be stored, so the next run measures it again")


def test_a_product_is_timed_on_this_machine() -> None:
    assert 1e7 < speed._measure(MACHINE) < 1e16
