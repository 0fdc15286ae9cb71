"""Training from kept outputs of frozen layers: training that computes them is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.fits.prefix_caching import probe_prefix
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.sam import Sam
from holdfast.models.compute.prefix import Prefix, frozen_prefix
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.layers import freeze, parameter_groups
from holdfast.models.loading.options import LoadOptions
from holdfast.models.probes.probe import fit_probe
from holdfast.training.guard import begin_run
from holdfast.training.loop import fit
from holdfast.training.prefix_cache import PrefixCache
from holdfast.training.run import Job, Run

CLASSES = ("a", "b")


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.fits.prefix_caching.PROBE_SECONDS", 0.0)


def groups(network: Any, phase: Any) -> list[dict[str, Any]]:
    found = parameter_groups(network, phase.learning_rate)
    return [g for g in found if phase.head == "train" or not g["name"].startswith("head")]


@pytest.fixture
def made(job: Any, phase: Any, contrast_phase: Any, tiny_model: Path) -> Any:
    """Builds a job of contrast, then fine-tuning, with dropout, on a BERT whose first block is
    frozen; with ``cache`` its outputs are kept in that folder."""

    def make(cache: Path | None = None, folder: Path | None = None, *more: Any, **changes: Any):
        network = load_classifier(str(tiny_model), CLASSES, LoadOptions(dropout=0.2)).network
        freeze(network, 2)
        refit = HeadRefit(lambda x, y: fit_probe(x, y, classes=2, seed=0, c=0.1), first=True)
        settings = {
            "network": network,
            "groups": groups,
            "evaluate_at": (0, 2, 3, 9),
            "phases": (
                contrast_phase(steps=3, learning_rate=1e-3),
                phase(name="finetune", steps=6, accumulate=2, learning_rate=1e-3),
            ),
            "listeners": (refit, *more),
        } | changes
        if cache is not None:
            prefix = Prefix(frozen_prefix(network))
            plain = job(folder, **settings)
            assert probe_prefix(prefix, network, plain.task, plain.train, "float32").why_not is None
            settings["cache"] = PrefixCache(prefix, cache)
        return job(folder, **settings)

    return make


class Steps:
    """The loss and the gradients of every step."""

    name = "steps"

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[torch.Tensor] = []

    def gradients_ready(self, run: Run) -> None:
        held = run.trainable_parameters().values()
        self.gradients.append(torch.cat([p.grad.flatten() for p in held if p.grad is not None]))

    def step_done(self, run: Run) -> None:
        self.losses.append(run.running_loss)


def test_losses_gradients_and_snapshots_are_those_without_it(made: Any, tmp_path: Path) -> None:
    plain, kept = Steps(), Steps()
    expected, found = fit(made(None, None, plain)), fit(made(tmp_path, None, kept))
    assert len(kept.losses) == 9
    np.testing.assert_allclose(kept.losses, plain.losses, rtol=1e-5)
    for first, second in zip(kept.gradients, plain.gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)
    for one, other in zip(found.history, expected.history, strict=True):
        np.testing.assert_allclose(one.valid_losses, other.valid_losses, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.train_losses, other.train_losses, rtol=1e-4, atol=1e-6)
    assert list(tmp_path.iterdir()) == [], "removed at the end"


def test_two_passes_a_step_read_it_both_times(made: Any, phase: Any, tmp_path: Path) -> None:
    shape = {"phases": (phase(steps=6, learning_rate=1e-3, stepper=Sam(0.05)),)}
    shape["evaluate_at"] = (0, 3, 6)
    plain, kept = Steps(), Steps()
    fit(made(None, None, plain, **shape))
    work = made(tmp_path, None, kept, **shape)
    counter = Counter(work)
    fit(work)
    assert counter.rows == len(work.train) + len(work.valid)
    np.testing.assert_allclose(kept.losses, plain.losses, rtol=1e-4)


class Counter:
    """How many rows the frozen block computes."""

    def __init__(self, work: Job) -> None:
        self.rows = 0
        first: nn.Module = work.network.layers()[1].modules[0]
        own = first.attention
        own.register_forward_hook(self.count)

    def count(self, _module: nn.Module, inputs: Any, _out: Any) -> None:
        self.rows += inputs[0].shape[0]


def test_every_row_is_computed_once(made: Any, tmp_path: Path) -> None:
    work = made(tmp_path)
    counter = Counter(work)
    fit(work)
    assert counter.rows == len(work.train) + len(work.valid)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["files kept", "files lost"])
def test_killed_and_resumed_it_ends_bit_identical(
    made: Any, tmp_path: Path, killed: Any, lost: bool
) -> None:
    class Kill:
        name = "kill"

        def step_done(self, run: Run) -> None:
            if run.step == 5:
                raise killed

    whole = made(tmp_path / "a", None)
    expected = fit(whole)
    (tmp_path / "run").mkdir()
    with pytest.raises(killed):
        fit(made(tmp_path / "b", tmp_path / "run", Kill()))
    assert len(list((tmp_path / "b").glob("prefix-*.rows"))) == 2
    for path in (tmp_path / "b").iterdir() if lost else ():
        path.unlink()
    again = made(tmp_path / "b", tmp_path / "run")
    counter = Counter(again)
    found = fit(again, resume=True)
    most = len(again.train) + len(again.valid)
    assert counter.rows == most if lost else counter.rows < most
    for one, other in zip(again.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, other)
    for first, second in zip(found.history, expected.history, strict=True):
        assert first.valid_losses.tolist() == second.valid_losses.tolist()
        assert first.train_losses.tolist() == second.train_losses.tolist()


def started(work: Job) -> Run:
    run = begin_run(work)
    run.fill_prefix_cache()
    return run


def losses(run: Run, examples: Any) -> list[float]:
    found, _ = run.observer.measure(run.network, examples, np.arange(len(examples)))
    return found.tolist()


def test_rows_with_other_inputs_are_computed_anew(made: Any, tmp_path: Path) -> None:
    run = started(made(tmp_path))
    examples, counter = run.job.train, Counter(run.job)
    losses(run, examples)
    assert counter.rows == 0
    changed = examples.ids.copy()
    at = int(examples.offsets[7])
    changed[at + 1] = 5 + changed[at + 1] % 20
    object.__setattr__(examples, "ids", changed)
    found = losses(run, examples)
    assert counter.rows > 0
    run.job.cache.remove()
    assert found == losses(run, examples)


@pytest.mark.parametrize("change", ["unfrozen", "written"])
def test_frozen_weights_that_changed_end_the_keeping_with_a_note(
    made: Any, tmp_path: Path, change: str
) -> None:
    (tmp_path / "run").mkdir()
    run = started(made(tmp_path / "kept", tmp_path / "run"))
    weight = run.network.layers()[1].modules[0].attention.self.query.weight
    before = losses(run, run.job.valid)
    if change == "unfrozen":
        weight.requires_grad_(True)
    else:
        with torch.no_grad():
            weight.mul_(3.0)
    after = losses(run, run.job.valid)
    assert (after == pytest.approx(before, rel=1e-4)) == (change == "unfrozen")
    notes = [line for line in run.journal.lines() if line["event"] == "note"]
    assert [note["what"] for note in notes] == ["cached outputs deleted"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_files_of_other_weights_or_rows_are_not_read(made: Any, examples: Any, tmp_path) -> None:
    first = started(made(tmp_path))
    expected = losses(first, first.job.valid)
    other = made(tmp_path)
    with torch.no_grad():
        next(other.network.layers()[1].modules[0].parameters()).mul_(2.0)
    assert losses(started(other), other.valid) != pytest.approx(expected, rel=1e-4)
    rows = examples(16, seed=9)
    third = started(made(tmp_path, valid=rows))
    third_plain = begin_run(made(valid=rows))
    assert losses(third, rows) == pytest.approx(losses(third_plain, rows), rel=1e-4, abs=1e-6)


class Mixing(nn.Module):
    """A frozen block that reads the mean of its batch, or draws dropout beside it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.words, self.block = nn.Embedding(30, 8), nn.Linear(8, 8)
        self.block.requires_grad_(False)
        self.words.requires_grad_(False)
        self.loose, self.dropout, self.head = nn.Dropout(0.5), nn.Dropout(0.0), nn.Linear(8, 2)

    def layers(self) -> list[Any]:
        from holdfast.models.base import Layer

        return [
            Layer("embeddings", (self.words,)),
            Layer("block.0", (self.block,)),
            Layer("head", (self.head,)),
        ]

    def features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        words = self.words(input_ids)
        if self.how == "company":
            words = words - words.mean(dim=0, keepdim=True)
        if self.how == "dropout":
            words = self.loose(words)
        states = self.block(words)
        mask = attention_mask[..., None].float()
        return (states * mask).sum(1) / mask.sum(1)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("company", "depend on the other rows in its batch"),
        ("dropout", "dropout outside of the layers"),
        ("plain", None),
    ],
)
def test_the_model_is_asked_and_says_why_not(job: Any, how: str, why: str | None) -> None:
    network = Mixing(how)
    work, state = job(), torch.get_rng_state()
    entry = probe_prefix(Prefix(frozen_prefix(network)), network, work.task, work.train, "float32")
    assert (entry.why_not is None) if why is None else (why in entry.why_not)
    assert torch.equal(torch.get_rng_state(), state)
    assert entry.bytes_of(work.train) == (0 if why else 4 * 8 * int(work.train.lengths.sum()))


def test_no_validation_rows_need_no_file(made: Any, examples: Any, tmp_path: Path) -> None:
    run = started(made(tmp_path, valid=examples(0)))
    assert [path.name for path in tmp_path.glob("*.rows")] == ["prefix-train.rows"]
    assert len(losses(run, run.job.train)) == 40
