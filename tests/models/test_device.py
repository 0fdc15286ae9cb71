"""Where a finished model computes. A second name of the processor stands for the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import holdfast
from holdfast.models.compute import device
from holdfast.models.compute.device import MIN_ROWS, best_device, on_best_device

GPU = torch.device("cpu", 0)


class Moved(torch.nn.Linear):
    """Remembers where it was moved to; its weights are new ones then, as on a GPU."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.moves: list[torch.device] = []

    def to(self, where: Any) -> Moved:
        self.moves.append(where)
        self.weight = torch.nn.Parameter(self.weight.detach().clone())
        return self


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "best_device", lambda: GPU)


def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, wanted in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert best_device() == torch.device(wanted)


@pytest.mark.usefixtures("gpu")
def test_for_many_rows_it_is_moved_and_brought_back() -> None:
    network = Moved()
    with on_best_device(network, MIN_ROWS) as where:
        assert where == GPU
        assert network.moves == [GPU]
    assert network.moves == [GPU, torch.device("cpu")]


@pytest.mark.usefixtures("gpu")
def test_it_can_be_trained_after_it_was_moved_in_inference_mode() -> None:
    network = Moved()
    with torch.inference_mode(), on_best_device(network, MIN_ROWS):
        pass
    network(torch.ones(1, 1)).sum().backward()
    assert network.weight.grad is not None


@pytest.mark.usefixtures("gpu")
def test_it_is_brought_back_after_an_error() -> None:
    network = Moved()
    with pytest.raises(ZeroDivisionError), on_best_device(network, MIN_ROWS):
        raise ZeroDivisionError
    assert network.moves == [GPU, torch.device("cpu")]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", ["few rows", "no network", "quantised"])
def test_it_stays_where_it_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Moved()
    asked: Any = network.forward if kind == "no network" else network
    if kind == "quantised":
        monkeypatch.setattr("holdfast.models.adapters.quantize.is_quantized", lambda _: True)
    rows = MIN_ROWS - 1 if kind == "few rows" else MIN_ROWS
    with on_best_device(asked, rows) as where:
        assert where == torch.device("cpu")
    assert network.moves == []


def test_without_a_gpu_nothing_is_moved() -> None:
    network = Moved()
    with on_best_device(network, 10_000) as where:
        assert where == torch.device("cpu")
    assert network.moves == []


@pytest.mark.usefixtures("gpu")
def test_a_saved_classifier_predicts_many_rows_there(
    finished_run: Path, marked_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Any] = []
    plain = torch.nn.Module.to

    def to(self: torch.nn.Module, *where: Any, **more: Any) -> torch.nn.Module:
        moves.extend(where)
        return plain(self, *where, **more)

    here = list(holdfast.TrainedRun(finished_run).predict(marked_csv))
    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(device, "MIN_ROWS", 1)
    there = list(holdfast.TrainedRun(finished_run).predict(marked_csv))
    assert there == here
    assert moves[-2:] == [GPU, torch.device("cpu")]
