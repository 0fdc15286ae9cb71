"""The estimate of memory, and what it says when a run will not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from holdfast.contract.fit import MemoryEstimate, TrainingPlan
from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import MachineError
from holdfast.core.machine import MemoryLimit
from holdfast.core.updates import Draw
from holdfast.fits import compose
from holdfast.fits.compose import make_training_plan, model_size
from holdfast.fits.fit import make_job
from holdfast.fits.run_facts import make_run_facts
from holdfast.monitor.remedies import MOST_VALID
from holdfast.plan import defaults
from holdfast.plan.memory import (
    STEP_ON_CPU,
    activations_mb,
    check_fit,
    estimate,
    kept_mb,
    refuse_clearly_too_large,
)
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.training.act import start_phase
from holdfast.training.guard import begin_run
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.step import train_step

Make = Callable[..., TrainingPlan]


@pytest.fixture
def make(marked_csv: Path, quick: list[str]) -> Make:
    """A run that is ready, with more settings."""

    def build(*settings: str) -> TrainingPlan:
        base = [f"data.path={marked_csv}", *quick, "methods.contrast=false", "model.freeze=none"]
        recipe = override(Recipe(), [*base, *settings])
        return make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))

    return build


def available(mb: float) -> Any:
    """The machine has so many MB."""
    return patch(
        "holdfast.plan.memory.tightest_limit",
        lambda: MemoryLimit(mb, "the free memory of the machine"),
    )


def look(ready: TrainingPlan, mb: float | None = None, acts: bool = False) -> Any:
    with available(mb) if mb is not None else nullcontext():
        return check_fit(
            ready.loaded.network, ready.task, ready.train, ready.plan.phases, "float32", acts=acts
        )


def need_of(ready: TrainingPlan) -> MemoryEstimate:
    return estimate(ready.loaded.network, ready.task, ready.train, ready.plan.phases, "float32")


def test_weights_gradients_optimizer_and_copies_are_counted(make: Make) -> None:
    ready = make()
    mb = 4e-6 * sum(p.numel() for p in ready.loaded.network.parameters())
    need = need_of(ready)
    assert need.weights == pytest.approx(mb)
    assert need.gradients == pytest.approx(mb)
    assert need.optimizer == pytest.approx(2 * mb)
    assert need.copies == pytest.approx(3 * mb)
    sgd = make("train.optimizer=sgd")
    assert need_of(sgd).optimizer == pytest.approx(mb)


def test_a_run_within_a_fifth_of_the_limit_is_warned_of(make: Make) -> None:
    ready = make()
    total = need_of(ready).total
    assert look(ready, 1.25 * total)[2] == ()
    _, _, (found,) = look(ready, 1.15 * total)
    assert found.check == "memory"
    assert "available" in found.because
    assert found.because.endswith("the estimate can be a fifth too low")
    _, _, (found,) = look(ready, 0.9 * total)
    assert "can be a fifth too low" not in found.because


def test_a_policy_that_goes_back_needs_first_weights_and_two_optimizer_states(make: Make) -> None:
    ready = make()
    mb = 4e-6 * sum(p.numel() for p in ready.loaded.network.parameters())
    need = look(ready, 1e6, acts=True)[0]
    assert need.copies == pytest.approx(3 * mb + mb + 2 * 2 * mb)
    _, _, (found,) = look(ready, need.total - mb, acts=True)
    assert "control.policy=stop" in found.remedy
    _, _, (found,) = look(ready, (need.total - 5 * mb) / 1.2, acts=True)
    assert "MB are available" in found.because
    with pytest.raises(MachineError, match="MB of memory"):
        look(ready, (need.total - 5 * mb) / 1.3, acts=True)
    assert make("control.policy=adapt").memory.copies == pytest.approx(need.copies)
    assert ready.memory.copies == pytest.approx(3 * mb)


def test_a_step_that_holds_a_copy_of_the_weights_needs_as_much_again(make: Make) -> None:
    plain, held = need_of(make()), need_of(make("methods.sam=true"))
    assert held.gradients == pytest.approx(2 * plain.gradients)
    assert (held.weights, held.optimizer) == (plain.weights, plain.optimizer)


def test_a_run_that_cannot_fit_is_refused_before_anything_passes_the_network(make: Make) -> None:
    ready = make()
    network, phases = ready.loaded.network, ready.plan.phases
    rule = r"before any activation[\s\S]*1 MB are available"
    with available(1.0), pytest.raises(MachineError, match=rule):
        refuse_clearly_too_large(network, phases)
    with available(1e6):
        refuse_clearly_too_large(network, phases)
        passed = network.register_forward_pre_hook(lambda *_: pytest.fail("passed"))
        refuse_clearly_too_large(network, phases)
        passed.remove()


def test_a_group_s_limit_is_more_by_the_files_that_it_gives_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from holdfast.plan import memory

    def told(*limits: MemoryLimit) -> MemoryLimit:
        monkeypatch.setattr(memory, "memory_limits", lambda: list(limits))
        return memory.tightest_limit()

    monkeypatch.setattr(memory, "resident_mb", lambda: 400.0)
    monkeypatch.setattr(memory, "file_pages_mb", lambda: 150.0)
    assert told().description == "the free memory of the machine"
    group = told(MemoryLimit(300.0, "memory.max", 500.0))
    assert group.left_mb == 650.0
    assert group.description == "memory.max, not counting 150 MB of program files"
    assert told(MemoryLimit(50.0, "memory.max", 500.0)).left_mb == 450.0
    assert told(MemoryLimit(300.0, "ulimit -v", 600.0, counts_mapped=True)).left_mb == 600.0


def test_what_does_not_learn_needs_no_gradient_and_fewer_activations(make: Make) -> None:
    whole, held = make(), make("model.freeze=backbone")
    assert need_of(held).gradients < 0.1 * need_of(whole).gradients
    assert need_of(held).activations < 0.5 * need_of(whole).activations


def test_a_saved_model_is_scored_next_to_the_trained_one(make: Make) -> None:
    """Where a step needs less than that, scoring is the peak."""
    frozen = make("model.freeze=backbone", "train.batch_size=1")
    mb = 4e-6 * sum(p.numel() for p in frozen.loaded.network.parameters())
    learned = 4e-6 * sum(p.numel() for p in frozen.loaded.network.parameters() if p.requires_grad)
    with patch("holdfast.plan.memory.activations_mb", return_value=0.0):
        need = need_of(frozen)
        assert need.total == pytest.approx(need.rest + 2 * mb + 3 * learned)
        whole = need_of(make())
        assert whole.total == pytest.approx(whole.rest + mb + 6 * mb)


def test_activations_grow_with_the_rows_of_a_piece_and_not_with_accumulation(make: Make) -> None:
    one, two, four = (need_of(make(f"train.batch_size={k}")).activations for k in (4, 8, 16))
    assert four - two == pytest.approx(2 * (two - one))
    assert four == pytest.approx(4 * one, rel=0.01)
    assert need_of(make("train.batch_size=4", "train.accumulate=4")).activations == (
        pytest.approx(one)
    )


def saved_mb(ready: TrainingPlan, draw: Draw) -> float:
    """What autograd keeps in a step with these rows."""
    job, _ = make_job(ready, make_accelerator("float32"))
    run = begin_run(job)
    start_phase(run)
    weights = {p.untyped_storage().data_ptr() for p in run.network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        train_step(run, draw)
    return sum(one.untyped_storage().nbytes() for one in kept.values()) / 1e6


@pytest.mark.parametrize("compares", ["false", "true"])
def test_activations_are_those_of_a_step_with_the_longest_rows(
    make: Make, write_csv: Any, tmp_path: Path, compares: str
) -> None:
    """Rows that are compared pass in parts of similar length, so they hold less padding."""
    text = [("w1 " * (60 if k % 12 == 0 else 3 + k % 5) + f"w{k}", "ab"[k % 2]) for k in range(120)]
    source = write_csv(tmp_path / "lengths.csv", text)
    ready = make(f"data.path={source}", f"methods.contrast={compares}", "train.batch_size=32")
    phase = ready.plan.phases[-1]
    assert phase.compares_rows == (compares == "true")
    order = np.argsort(ready.train.lengths, kind="stable")
    measured = saved_mb(ready, Draw(order[-phase.batch_size :]))
    assert need_of(ready).activations == pytest.approx(STEP_ON_CPU * measured, rel=0.15)


def test_copies_of_weights_in_bfloat16_are_counted_once(make: Make) -> None:
    """They are kept once for all rows of a pass."""
    ready = make()
    order = np.argsort(-np.asarray(ready.train.lengths), kind="stable")
    of = (ready.loaded.network, ready.task, ready.train, "bfloat16")
    assert activations_mb(*of, 8) == pytest.approx(kept_mb(*of, order[:8]), rel=0.02)
    assert activations_mb(*of, 8) < 0.9 * 8 * activations_mb(*of, 1)


def test_the_memory_that_its_own_pass_frees_is_no_part_of_the_process(make: Make) -> None:
    """The allocator keeps it, and the run uses it again."""
    ready, now = make(), [500.0]

    def passed(*_: object) -> float:
        now[0] += 4000.0
        return 10.0

    with (
        patch("holdfast.plan.memory.activations_mb", passed),
        patch("holdfast.plan.memory.resident_mb", lambda: now[0]),
    ):
        assert need_of(ready).rest == pytest.approx(500.0 - need_of(ready).weights)


def test_looking_leaves_weights_mode_and_generator_alone(make: Make) -> None:
    ready = make()
    network = ready.loaded.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, mode = torch.get_rng_state(), network.training
    assert activations_mb(network, ready.task, ready.train, "float32", 2) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training is mode
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_checkpointing_keeps_fewer_activations(make: Make) -> None:
    assert (
        need_of(make("train.checkpoint_activations=true")).activations
        < 0.6 * need_of(make()).activations
    )


def test_a_run_that_fits_is_told_and_not_warned_of(make: Make) -> None:
    _, decision, findings = look(make(), 1e6)
    assert "of 1,000,000" in decision.chosen
    assert findings == ()


def test_a_little_too_much_is_a_warning_with_a_change_that_fits(make: Make) -> None:
    ready = make("train.batch_size=64")
    need = need_of(ready)
    _, _, (finding,) = look(ready, need.total - 0.4 * need.activations)
    assert finding.check == "memory"
    assert "train.batch_size=32 --set train.gradient_accumulation_steps=2" in finding.remedy


def test_far_too_much_is_an_error_that_names_changes(make: Make) -> None:
    ready = make("train.batch_size=64")
    with pytest.raises(MachineError) as raised:
        look(ready, need_of(ready).rest / 2)
    assert "No setting makes it fit" in str(raised.value)


def test_where_weights_are_the_trouble_an_adapter_is_the_change() -> None:
    from holdfast.plan.memory import Reduction, _remedy, _with_lora

    need = MemoryEstimate(
        weights=100, gradients=100, optimizer=200, activations=10, copies=300, rest=0
    )
    less = Reduction(("train.batch_size=1",), lambda n: n)
    lora = Reduction(("model.adapter.kind=lora",), _with_lora)
    assert "model.adapter.kind=lora" in _remedy(need, 200, iter([less, lora]))


def test_checkpointed_gradients_are_the_gradients(make: Make) -> None:
    def gradients(ready: TrainingPlan) -> dict[str, torch.Tensor]:
        network = ready.loaded.network.train()
        batch = ready.task.collate(ready.train, range(8))
        torch.manual_seed(5)
        ready.task.losses(ready.task.forward(network, batch), batch).mean().backward()
        return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}

    plain, saved = gradients(make()), gradients(make("train.checkpoint_activations=true"))
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, rtol=1e-5, atol=1e-7)


class Rows:
    """So many rows of ten tokens."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.lengths = np.full(count, 10)

    def __len__(self) -> int:
        return len(self.lengths)


def big(parameters: int) -> torch.nn.Module:
    layer: Any = torch.nn.Linear(parameters // 1000, 1000, bias=False, device="meta")
    layer.adapter = None
    return layer


@pytest.mark.parametrize(
    ("parameters", "rows", "oversized"),
    [
        (110_000_000, 100, True),
        (110_000_000, 2000, False),
        (335_000_000, 1500, True),
        (335_000_000, 10_000, False),
        (10_800_000, 30, False),
        (39_000_000, 8, False),
    ],
)
def test_a_large_model_on_few_rows_is_oversized_and_a_small_one_never(
    parameters: int, rows: int, oversized: bool
) -> None:
    with record_decisions() as log:
        model_size(big(parameters), Rows(rows), measured=False)
    (decision,), findings = decisions_and_findings(log)
    assert (decision.chosen == "oversized") is oversized
    assert [finding.check for finding in findings] == ["model_size"] * oversized
    assert all("model.adapter.kind=lora" in f.remedy and "freeze" in f.remedy for f in findings)


def test_a_plan_that_was_measured_is_not_too_large() -> None:
    with record_decisions() as log:
        model_size(big(110_000_000), Rows(100), measured=True)
    (decision,), findings = decisions_and_findings(log)
    assert decision.chosen == "fits"
    assert "1,100,000 per row" in decision.because
    assert not findings


def test_the_default_plan_of_a_large_sentence_encoder_is_not_called_too_large(
    make: Make, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model counts as one of base size here, and as too large for the rows."""
    monkeypatch.setattr(defaults, "SMALL_PARAMETERS", 1000)
    monkeypatch.setattr(compose, "SMALL_MODEL", 1000)
    monkeypatch.setattr(compose, "MAX_PARAMETERS_PER_ROW", 10)
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "modules.json").write_text("[]", "utf-8")
    for factor, too_large in ((1, False), (10, True)):
        plan = make(f"model.name={folder}", f"train.learning_rate={factor * 5e-5}")
        checks = [finding.check for finding in plan.findings]
        assert ("model_size" in checks) is too_large
        assert (make_run_facts(plan).trainable is not None) is too_large


def test_the_limit_on_updates_is_a_fact_of_the_run(make: Make) -> None:
    assert make_run_facts(make("train.max_steps=2")).step_limit == 2
    assert make_run_facts(make()).step_limit is None


def test_a_larger_validation_split_may_help_where_rows_are_set_aside(make: Make) -> None:
    assert not {*MOST_VALID} & {*make_run_facts(make()).refused}


def test_the_ratio_is_said_a_row_and_a_token() -> None:
    with record_decisions() as log:
        model_size(big(2_000_000), Rows(100), measured=False)
    (decision,), _ = decisions_and_findings(log)
    assert "20,000 per row" in decision.because
    assert "2,000 per token" in decision.because
