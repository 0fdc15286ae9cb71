"""Threads and precision: decided once, with a reason."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import holdfast.training.machine.machine as machine
from holdfast.core.errors import MachineError
from holdfast.training.machine.machine import (
    choose_machine,
    has_fast_bfloat16,
    runs_several_cpu_processes,
)


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def flags(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(machine, "_processor_flags", lambda: set(names))
    monkeypatch.setattr(machine, "device_type", lambda: "cpu")


@pytest.mark.parametrize(
    ("found", "gain", "precision"),
    [
        ((), 2.0, "float32"),
        (("avx2", "fma"), 2.0, "float32"),
        (("avx_ne_convert",), 2.0, "float32"),
        (("avx512_bf16",), 1.6, "bfloat16"),
        # A processor whose bfloat16 is slower than its float32.
        (("avx512_bf16",), 0.52, "float32"),
        (("amx_bf16", "avx2"), 4.1, "bfloat16"),
        (("bf16",), 1.3, "bfloat16"),
    ],
)
def test_bfloat16_where_the_processor_is_faster_with_it(
    monkeypatch, found, gain: float, precision: str
) -> None:
    flags(monkeypatch, *found)
    monkeypatch.setattr(machine, "_bfloat16_gain", lambda threads: gain)
    choice = choose_machine(1, "auto", "default")
    assert choice.precision == precision
    because = next(d.because for d in choice.decisions if d.what == "train.precision")
    known = [flag for flag in found if flag.endswith("bf16")]
    assert all(flag in because for flag in known)
    assert (f"{gain:.2g} times the speed" in because) == bool(known)
    assert has_fast_bfloat16("cpu")[0] == (precision == "bfloat16")


def test_the_speed_of_bfloat16_is_measured_once_and_as_torch_computes_it() -> None:
    gain = machine._bfloat16_gain(torch.get_num_threads())
    assert gain == machine._bfloat16_gain(torch.get_num_threads()) > 0


def test_an_encoder_decoder_never_trains_in_float16(monkeypatch) -> None:
    """A GPU with fast float16 and slow bfloat16, as the T4 has."""
    monkeypatch.setattr(machine, "device_type", lambda: "cuda")
    monkeypatch.setattr(machine, "has_fast_bfloat16", lambda device: (False, "no bfloat16"))
    monkeypatch.setattr(machine, "has_tensor_cores", lambda: True)
    choose = machine._choose_precision
    assert choose("auto", True)[0] == choose("float16", True)[0] == "float16"
    assert choose("auto", False) == ("float32", "no bfloat16")
    with pytest.raises(MachineError, match="bfloat16 or float32 for an encoder-decoder"):
        choose("float16", False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_set_is_not_questioned(monkeypatch, precision: str) -> None:
    flags(monkeypatch)
    choice = choose_machine(3, precision, "default")
    assert (choice.threads, choice.precision, choice.matmul) == (3, precision, "default")
    assert {d.because for d in choice.decisions} == {"set in the recipe"}
    assert torch.get_num_threads() == 3


def test_omp_num_threads_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    choice = choose_machine(None, "float32")
    assert choice.threads == 5
    assert "OMP_NUM_THREADS" in choice.decisions[0].because


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alone", "together", "threads"), [(100, 190, 2), (100, 110, 1), (100, 40, 1)]
)
def test_unset_a_probe_decides(monkeypatch, alone: int, together: int, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "_steps_per_second", lambda n: alone if n == 1 else together)
    choice = choose_machine(None, "float32")
    assert choice.threads == threads
    assert torch.get_num_threads() == threads
    assert f"{alone:.0f}" in choice.decisions[0].because


def test_one_core_needs_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setattr(machine, "_steps_per_second", lambda n: pytest.fail("probed"))
    assert choose_machine(None, "float32").threads == 1


@pytest.mark.parametrize("speeds", [(100, 40, 98, 190), (30, 188, 100, 40)])
def test_a_moment_of_other_work_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, speeds: tuple[int, ...]
) -> None:
    """Both numbers of threads are timed twice, in turn, and the best of each counts."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    rest = list(speeds)
    monkeypatch.setattr(machine, "_steps_per_second", lambda _: rest.pop(0))
    choice = choose_machine(None, "float32")
    assert choice.threads == 2
    assert "100 small steps per second on 1 thread, " in choice.decisions[0].because
    assert machine.ROUNDS * 2 * machine.PROBE_SECONDS == 0.5
    monkeypatch.undo()
    monkeypatch.setattr(machine, "PROBE_SECONDS", 0.02)
    assert machine._steps_per_second(1) > 0


@pytest.mark.parametrize(
    ("world", "device", "told"), [("1", "cpu", False), ("2", "cpu", True), ("2", "cuda", False)]
)
def test_when_accelerate_must_be_told(monkeypatch, world: str, device: str, told: bool) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setattr(machine, "device_type", lambda: device)
    assert runs_several_cpu_processes() == told


@pytest.mark.parametrize(("gain", "chosen"), [(0.0, "default"), (1.1, "default"), (2.0, "onednn")])
def test_the_faster_products_are_chosen_with_the_measured_gain(
    monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    monkeypatch.setattr("holdfast.models.compute.processor.measure_gain", lambda: gain)
    choice = choose_machine(1, "float32")
    assert choice.matmul == chosen
    because = next(d.because for d in choice.decisions if d.what == "train.matmul")
    assert (f"{gain:.1f}" in because) == (gain > 0)


def half_of_the_smallest_normal() -> float:
    return float(torch.tensor(torch.finfo(torch.float32).tiny).mul(0.5))


def test_subnormal_results_are_0_inside_and_as_before_outside() -> None:
    assert half_of_the_smallest_normal() > 0
    with machine.flushed_subnormals():
        assert half_of_the_smallest_normal() == 0
        with machine.flushed_subnormals():
            pass
        assert half_of_the_smallest_normal() == 0
        told = choose_machine(1, "float32").decisions
    assert half_of_the_smallest_normal() > 0
    named = "subnormal numbers (below 1.2e-38)"
    on_processor = machine.device_type() == "cpu"
    assert any(decision.what == named for decision in told) == on_processor
    assert all(d.what != named for d in choose_machine(1, "float32").decisions)


def test_they_are_what_they_were_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), machine.flushed_subnormals():
        raise ValueError("inside")
    assert half_of_the_smallest_normal() > 0


@pytest.mark.parametrize("one_size", [True, False])
def test_kernels_are_few_where_batches_have_many_shapes(monkeypatch, one_size: bool) -> None:
    for name in machine.KERNEL_CACHES:
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    choose_machine(1, "float32", "default", one_size=one_size)
    kept = [os.environ.get(name) for name in machine.KERNEL_CACHES]
    assert kept == [None if one_size else machine.KERNEL_CACHE_SIZE] * 2
    assert torch.backends.cuda.cudnn_sdp_enabled() == one_size


def gpu(monkeypatch: pytest.MonkeyPatch, bfloat16: bool, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(machine, "device_type", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize(
    ("bfloat16", "capability", "precision"),
    [(True, (8, 0), "bfloat16"), (False, (7, 5), "float16"), (False, (6, 1), "float32")],
)
def test_a_gpu_without_bfloat16_takes_float16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool, capability: tuple[int, int], precision: str
) -> None:
    gpu(monkeypatch, bfloat16, capability)
    choice = choose_machine(1, "auto")
    assert choice.precision == precision
    because = next(d.because for d in choice.decisions if d.what == "train.precision")
    assert ("losses are scaled" in because) == (precision == "float16")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_float16_is_refused_where_no_gpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(machine, "device_type", lambda: device)
    with pytest.raises(MachineError, match="float16") as raised:
        choose_machine(1, "float16")
    assert raised.value.value == device


@pytest.mark.parametrize("set_already", [True, False])
def test_an_apple_gpu_is_named_with_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, set_already: bool
) -> None:
    monkeypatch.setattr(machine, "device_type", lambda: "mps")
    monkeypatch.setenv(machine.APPLE_FALLBACK, "1" if set_already else "0")
    told = next(d for d in choose_machine(1, "auto").decisions if d.what == "device")
    assert told.chosen == "mps"
    assert told.prominent == (not set_already)
    assert "4 and 8 bits" in told.because
    assert (f"set {machine.APPLE_FALLBACK}=1" in told.because) == (not set_already)
