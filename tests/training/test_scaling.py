"""Scaled losses: PyTorch's scaler on a processor, in the real loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import TrainingError
from holdfast.training.journal import Journal
from holdfast.training.loop import fit
from holdfast.training.machine.machine import MOST_IN_A_ROW, LossScale, make_accelerator


class Scaled:
    """An accelerator whose losses are scaled, as Accelerate's are in float16; the gradients of
    some backward passes overflow."""

    def __init__(self, inner: Any, overflows: tuple[int, ...] = ()) -> None:
        self._inner, self._overflows, self._passes = inner, overflows, 0
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def backward(self, loss: torch.Tensor) -> None:
        scale = float("inf") if self._passes in self._overflows else self.scaler.scale(loss) / loss
        (loss * scale).backward()
        self._passes += 1


def weights(job: Any) -> list[np.ndarray[Any, Any]]:
    return [p.detach().numpy().copy() for p in job.network.parameters()]


def test_a_scaled_run_is_the_run_without(job: Any) -> None:
    plain, scaled = job(), job(accelerator=Scaled(make_accelerator("float32")))
    looks = [[s.valid_loss for s in fit(one).history] for one in (plain, scaled)]
    assert looks[0] == pytest.approx(looks[1], rel=1e-5)
    for one, other in zip(weights(plain), weights(scaled), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_in_the_loop_it_goes_on_after_one_that_overflowed(job: Any, tmp_path: Path) -> None:
    one = job(tmp_path, accelerator=Scaled(make_accelerator("float32"), (2, 5)))
    trained = fit(one)
    assert trained.last_step == 10
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = [line["step"] for line in lines if line.get("what") == "update skipped"]
    assert told == [3, 6]
    assert all(np.isfinite(array).all() for array in weights(one))
    assert trained.history[-1].valid_loss < trained.history[0].valid_loss
    assert all(s.gradient_norm is None or np.isfinite(s.gradient_norm) for s in trained.history)


def test_killed_and_resumed_it_ends_as_it_would_have(job: Any, tmp_path: Path, killed: Any) -> None:
    class Kill:
        name = "kill"

        def gradients_ready(self, run: Any) -> None:
            if run.step == 7:
                raise killed

    for name in "ab":
        (tmp_path / name).mkdir()
    whole = job(tmp_path / "a", accelerator=Scaled(make_accelerator("float32"), (2,)))
    fit(whole)
    cut = Scaled(make_accelerator("float32"), (2,))
    with pytest.raises(killed):
        fit(job(tmp_path / "b", accelerator=cut, listeners=[Kill()]))
    again = Scaled(make_accelerator("float32"))
    resumed = job(tmp_path / "b", accelerator=again)
    fit(resumed, resume=True)
    assert again.scaler.get_scale() == 2.0**9
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scale_changes_nothing_but_rounding() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.5, -2.0]))
    twin = torch.nn.Parameter(weight.detach().clone())
    ways = []
    for parameter, scaler in (
        (weight, torch.amp.GradScaler("cpu", init_scale=1024.0)),
        (twin, None),
    ):
        scale, optimizer = LossScale(scaler), torch.optim.AdamW([parameter], lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            loss = (parameter**2).sum() * (step + 1)
            (scaler.scale(loss) if scaler else loss).backward()
            scale.unscale(optimizer)
            norm = float(parameter.grad.norm())  # type: ignore[union-attr]
            assert scale.step(optimizer, norm, step, Journal(None))
            ways.append(norm)
    assert ways[:3] == pytest.approx(ways[3:], rel=1e-6)
    torch.testing.assert_close(weight, twin)


class Heard:
    """What ``LossScale`` needs of a journal."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str, str]] = []

    def note(self, step: int, what: str, because: str, **more: Any) -> None:
        self.told.append((step, what, because))


def overflowing(times: int) -> tuple[LossScale, Heard, torch.nn.Parameter]:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scale, heard = LossScale(scaler), Heard()
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    for _ in range(times):
        optimizer.zero_grad()
        scaler.scale(parameter.sum()).backward()
        parameter.grad = torch.full((2,), float("inf"))
        scale.unscale(optimizer)
        assert not scale.step(optimizer, float("inf"), 7, heard)  # type: ignore[arg-type]
    return scale, heard, parameter


def test_an_update_that_overflows_is_left_out_and_told() -> None:
    scale, heard, parameter = overflowing(2)
    assert torch.equal(parameter.detach(), torch.ones(2))
    assert (scale.skipped, scale.in_a_row) == (2, 2)
    step, what, because = heard.told[0]
    assert (step, what) == (7, "update skipped")
    assert "65,536" in because
    assert "32,768" in because
    assert "(2 updates skipped so far)" in heard.told[1][2]


def test_a_run_that_only_overflows_ends_with_the_remedy() -> None:
    with pytest.raises(TrainingError, match="overflow float16") as raised:
        overflowing(MOST_IN_A_ROW)
    assert "float32" in raised.value.remedy


def test_its_state_goes_on_where_it_was() -> None:
    scale, _, _ = overflowing(3)
    other = LossScale(torch.amp.GradScaler("cpu", init_scale=2.0**16))
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()
    assert LossScale(None).state_dict() == {}
    assert scale.state_dict()["scaler"]["scale"] == 2.0**13
