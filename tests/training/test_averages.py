"""Averages of weights: each against an independent oracle, then on a run of the loop."""

from __future__ import annotations

import contextlib
import copy
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, update_bn

from holdfast.control.choice import last, lowest
from holdfast.core.actions import RollBack
from holdfast.core.errors import RecipeError
from holdfast.methods.averages import (
    CheckpointSoup,
    Ema,
    LineSearch,
    Swa,
    ema_share,
    interpolate,
    update_mean,
)
from holdfast.methods.registry import RunContext, complete_settings, parts_of
from holdfast.training.loop import fit
from holdfast.training.run import learning_norms
from holdfast.training.snapshot import measure_statistics

RNG = np.random.default_rng(0)
WALK = [torch.tensor(RNG.normal(size=(3, 2)), dtype=torch.float32) for _ in range(12)]


def test_the_exponential_average_is_the_weighted_mean_of_its_definition() -> None:
    """Against the sum itself: weights in proportion to β^(t−i), which add to one."""
    mean: dict[str, torch.Tensor] = {}
    for count, now in enumerate(WALK, 1):
        mean = update_mean(mean, {"w": now}, ema_share(0.9, count))
        weights = 0.9 ** np.arange(count)[::-1]
        wanted = np.average([w.numpy() for w in WALK[:count]], axis=0, weights=weights)
        assert mean["w"].numpy() == pytest.approx(wanted, abs=1e-6)


def test_without_its_correction_it_would_be_the_one_of_torch() -> None:
    """PyTorch begins at the first weights, which from then on keep the weight β^(t−1)."""
    model = torch.nn.Linear(2, 3, bias=False)
    theirs = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9))
    mean: dict[str, torch.Tensor] = {}
    for count, now in enumerate(WALK, 1):
        with torch.no_grad():
            model.weight.copy_(now)
        theirs.update_parameters(model)
        mean = update_mean(mean, {"w": now}, 0.1 if count > 1 else 1.0)
    assert torch.allclose(mean["w"], theirs.module.weight, atol=1e-6)


def test_the_tail_mean_is_the_one_of_torch_and_counts_stay_whole() -> None:
    model = torch.nn.Linear(2, 3, bias=False)
    theirs = AveragedModel(model)
    (listener,) = Swa().listeners()
    mean: dict[str, torch.Tensor] = {}
    for count, now in enumerate(WALK, 1):
        with torch.no_grad():
            model.weight.copy_(now)
        theirs.update_parameters(model)
        tensors = {"w": now, "batches": torch.tensor(count)}
        mean = update_mean(mean, tensors, listener._share(count))
    assert torch.allclose(mean["w"], theirs.module.weight, atol=1e-6)
    assert mean["batches"].item() == len(WALK)
    assert mean["batches"].dtype == torch.int64


def test_the_line_ends_at_both_ends_and_leaves_counts_alone() -> None:
    start = {"w": WALK[0], "n": torch.tensor(3)}
    end = {"w": WALK[1], "n": torch.tensor(8)}
    assert torch.equal(interpolate(start, end, 0.0)["w"], WALK[0])
    assert torch.equal(interpolate(start, end, 1.0)["w"], WALK[1])
    wanted = 0.7 * WALK[0].double() + 0.3 * WALK[1].double()
    found = interpolate(start, end, 0.3)
    assert torch.allclose(found["w"].double(), wanted, atol=1e-6)
    assert found["n"].item() == 8


class Keeper:
    """Holds the weights after each step."""

    name, place = "keeper", "note"

    def __init__(self) -> None:
        self.after: dict[int, dict[str, torch.Tensor]] = {}
        self.looks: dict[int, dict[str, torch.Tensor]] = {}

    def step_done(self, run: Any) -> None:
        self.after[run.step] = run.copy_tensors()

    def snapshot_taken(self, run: Any) -> None:
        self.looks[run.step] = run.copy_tensors()


def trained(job: Any, phase: Any, *listeners: Any, **changes: Any) -> tuple[Any, Any, Keeper]:
    keeper = Keeper()
    shape = {"phases": (phase(steps=12),), "evaluate_at": (0, 3, 6, 9, 12), "choose": last}
    made = job(listeners=(keeper, *listeners), **{**shape, **changes})
    return made, fit(made), keeper


def weights(made: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in made.network.named_parameters() if p.requires_grad}


def test_the_mean_of_the_tail_is_what_is_kept(job: Any, phase: Any) -> None:
    made, fitted, keeper = trained(job, phase, *Swa(start=0.5).listeners())
    for name, tensor in weights(made).items():
        tail = torch.stack([keeper.after[step][name] for step in range(7, 13)])
        assert torch.allclose(tensor, tail.mean(0), atol=1e-6)
    assert (fitted.best_step, fitted.last_step) == (12, 12)
    (tried,) = fitted.offers
    assert tried.accepted
    assert "the mean of 6 steps" in tried.decision.because
    # The look is at the mean itself, row by row.
    batch = made.task.collate(made.valid, np.arange(len(made.valid)))
    made.network.eval()
    with torch.no_grad():
        output = made.task.forward(made.network, batch)
        losses = made.task.losses(output, batch).numpy()
    assert fitted.selected_average.valid_losses == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 12), (0.1, 11), (0.5, 6)])
def test_the_first_steps_do_not_count_for_an_exponential_average(
    job: Any, phase: Any, warmup: float, steps: int
) -> None:
    _, fitted, _ = trained(job, phase, *Ema(0.9, warmup).listeners())
    (tried,) = fitted.offers
    assert f"of {steps} steps" in tried.decision.because


def test_an_average_that_is_worse_is_tried_and_not_kept(job: Any, phase: Any) -> None:
    """A small rate: the mean of the way lies far behind its end."""
    slow = {"phases": (phase(steps=12, learning_rate=0.004, head_learning_rate=0.004),)}
    slow["choose"] = lowest(lambda look: look.valid_loss)
    plain, alone, _ = trained(job, phase, **slow)
    made, fitted, _ = trained(job, phase, *Swa(start=0).listeners(), **slow)
    (tried,) = fitted.offers
    assert not tried.accepted
    assert fitted.selected_average is None
    assert tried.evaluation.valid_loss > fitted.history[-1].valid_loss
    assert "not kept" in tried.decision.chosen
    for name, tensor in weights(made).items():
        assert torch.equal(tensor, weights(plain)[name])
    assert fitted.best_step == alone.best_step


@pytest.mark.parametrize(
    "listeners",
    [
        lambda: Ema(0.5).listeners(),
        lambda: Swa().listeners(),
        lambda: (CheckpointSoup(3),),
        lambda: (LineSearch(4, "lowest"),),
    ],
    ids=["ema", "swa", "soup", "wise"],
)
def test_training_itself_is_to_the_bit_the_one_without(
    job: Any, phase: Any, listeners: Any
) -> None:
    _, plain, before = trained(job, phase, dropout=0.3)
    _, fitted, after = trained(job, phase, *listeners(), dropout=0.3)
    for step, tensors in before.after.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, after.after[step][name])
    for one, two in zip(plain.history, fitted.history, strict=True):
        assert np.array_equal(one.valid_losses, two.valid_losses)
        assert (one.distance, one.gradient_norm) == (two.distance, two.gradient_norm)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 6, 9, 11, 12])
def test_killed_and_resumed_the_averages_are_those_of_the_run_that_was_not(
    job: Any, phase: Any, tmp_path: Any, killed: Any, step: int
) -> None:
    def listeners() -> tuple[Any, ...]:
        return (
            *Ema(0.7).listeners(),
            *Swa(0.3).listeners(),
            CheckpointSoup(3),
            LineSearch(4, "start"),
        )

    class Kill:
        name, place = "kill", "tell"

        def step_done(self, run: Any) -> None:
            if run.step == step:
                raise killed

    whole, wanted, _ = trained(job, phase, *listeners())
    with pytest.raises(killed):
        trained(job, phase, *listeners(), Kill(), folder=tmp_path)
    shape = {"phases": (phase(steps=12),), "evaluate_at": (0, 3, 6, 9, 12), "choose": last}
    again = job(tmp_path, listeners=listeners(), **shape)
    found = fit(again, resume=True)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name])
    assert [one.decision for one in found.offers] == [one.decision for one in wanted.offers]
    # A finished run that is opened again has its average still.
    opened = job(tmp_path, listeners=listeners(), **shape)
    told = fit(opened, resume=True)
    assert [one.decision for one in told.offers] == [one.decision for one in wanted.offers]
    assert np.array_equal(told.selected_average.valid_losses, wanted.selected_average.valid_losses)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(opened)[name])


def test_the_soup_is_the_mean_of_looks_and_its_loss_is_no_higher(job: Any, phase: Any) -> None:
    made, fitted, keeper = trained(job, phase, CheckpointSoup(4), dropout=0.5)
    (tried,) = fitted.offers
    if tried.evaluation is None:
        pytest.fail(tried.decision.because)
    named = tried.decision.because.split("steps ")[1].split(", of the")[0]
    steps = [int(step) for step in named.split(", ")]
    assert len(steps) > 1
    assert fitted.best_step == max(steps)
    for name, tensor in weights(made).items():
        wanted = torch.stack([keeper.looks[step][name] for step in steps]).mean(0)
        assert torch.allclose(tensor, wanted, atol=1e-6)
    assert tried.evaluation.refined_loss <= min(s.refined_loss for s in fitted.history) + 1e-6


def test_the_line_reports_every_point_and_keeps_one_of_them(
    job: Any, phase: Any, tmp_path: Any
) -> None:
    made, fitted, keeper = trained(job, phase, LineSearch(4, "start"), folder=tmp_path)
    (tried,) = fitted.offers
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (note,) = [line for line in lines if line.get("what") == "average of weights"]
    assert [point["share"] for point in note["curve"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # Its ends are looks of the run.
    assert note["curve"][0]["valid_loss"] == pytest.approx(fitted.history[0].refined_loss)
    assert note["curve"][-1]["valid_loss"] == pytest.approx(fitted.history[-1].refined_loss)
    # ``last`` keeps whatever is newest: the point nearest to the start is the first of them.
    assert "0.25 of the way" in tried.decision.because
    for name, tensor in weights(made).items():
        wanted = 0.75 * keeper.looks[0][name] + 0.25 * keeper.looks[12][name]
        assert torch.allclose(tensor, wanted, atol=1e-6)


class Valley:
    """A trial whose loss is (w − ``at``)², and which keeps what is not above ``most``."""

    def __init__(self, at: float, most: float = 0.0, general: float | None = None) -> None:
        self.at, self.most, self.general = at, most, general

    def __call__(self, tensors: Any) -> Any:
        loss = float((tensors["w"] - self.at) ** 2)
        general = None if self.general is None else abs(float(tensors["w"]) - self.general)
        return SimpleNamespace(refined_loss=loss, valid_correct=None, general_loss=general)

    def would_keep(self, look: Any) -> bool:
        return bool(look.refined_loss <= self.most)


@pytest.mark.parametrize(
    ("at", "lean", "share"),
    [(0.6, "lowest", 0.6), (0.6, "start", 0.4), (1.3, "lowest", "end"), (-1.0, "lowest", "start")],
)
def test_which_point_of_the_line_is_offered(at: float, lean: str, share: Any) -> None:
    run = SimpleNamespace(
        initial_tensors={"w": torch.tensor(0.0)},
        best=SimpleNamespace(step=8, tensors={"w": torch.tensor(1.0)}),
    )
    made = LineSearch(10, lean).offer(run, Valley(at, most=0.05))  # type: ignore[arg-type]
    if isinstance(made, str):
        assert f"{share} is best" in made
        return
    assert made.tensors["w"].item() == pytest.approx(share)
    assert made.step == 8


@pytest.mark.parametrize(
    ("within", "general", "share"),
    [(0.17, None, 0.6), (0.17, 0.0, 0.6), (0.17, 0.78, 0.8), (0.9, None, 0.1), (1e-4, None, None)],
)
def test_a_stated_loss_is_given_for_what_the_model_knew(
    within: float, general: float | None, share: float | None
) -> None:
    """The loss is (w − 1)²: 0.16 at 0.6, 0.81 at 0.1, 0.01 at 0.9."""
    run = SimpleNamespace(
        initial_tensors={"w": torch.tensor(0.0)},
        best=SimpleNamespace(step=8, tensors={"w": torch.tensor(1.0)}),
    )
    line = LineSearch(10, "lowest", within)
    made = line.offer(run, Valley(1.0, general=general))  # type: ignore[arg-type]
    if share is None:
        assert isinstance(made, str)
        return
    assert not isinstance(made, str)
    assert made.tensors["w"].item() == pytest.approx(share)
    assert made.within == within
    assert [("general_loss" in point) for point in made.curve] == [general is not None] * 11


def test_what_a_recipe_gives_for_it_is_kept_though_the_looks_say_otherwise(
    job: Any, phase: Any
) -> None:
    _, fitted, _ = trained(job, phase, LineSearch(4, "lowest", 9.0), choose=newest_unless_first)
    (tried,) = fitted.offers
    assert tried.accepted
    assert "0.25 of the way" in tried.decision.because
    assert "within the 9 nats" in tried.decision.because


def newest_unless_first(looks: Any) -> int:
    """A rule that keeps the last look of the run itself."""
    steps = [-1, *(look.step for look in looks)]
    return len(looks) - (1 if steps[-1] > steps[-2] else 2)


def test_a_run_that_keeps_its_start_is_searched_up_to_where_it_went() -> None:
    run = SimpleNamespace(
        initial_tensors={"w": torch.tensor(0.0)},
        best=SimpleNamespace(step=0, tensors={"w": torch.tensor(0.0)}),
        previous={"w": torch.tensor(1.0)},
        last_snapshot=SimpleNamespace(step=20),
    )
    made = LineSearch(10, "lowest").offer(run, Valley(0.2))  # type: ignore[arg-type]
    assert not isinstance(made, str)
    assert (made.tensors["w"].item(), made.step) == (pytest.approx(0.2), 20)


def test_a_run_that_ends_before_the_tail_says_so(job: Any, phase: Any) -> None:
    _, fitted, _ = trained(job, phase, *Swa(start=0.99).listeners(), phases=(phase(steps=12),))
    assert fitted.offers[0].accepted
    _, fitted, _ = trained(job, phase, *Swa(0.5).listeners(), max_minutes=1e-9)
    assert "before the first step that counts, 7" in fitted.offers[0].decision.because


class Normed(torch.nn.Module):
    """A network with batch norms in the place of the toy's hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        return out


def test_statistics_of_batch_norms_are_measured_as_torch_measures_them() -> None:
    """``update_bn`` over the same batches."""
    torch.manual_seed(0)
    data = torch.randn(40, 4) * 3 + 1
    mine, theirs = Normed(), None
    theirs = copy.deepcopy(mine)
    update_bn(data.split(8), theirs)

    class Task:
        def collate(self, examples: Any, rows: Any) -> dict[str, torch.Tensor]:
            return {"x": examples.data[torch.as_tensor(rows)]}

        def forward(self, network: Any, batch: dict[str, torch.Tensor]) -> Any:
            return network(batch["x"])

    rows = SimpleNamespace(data=data, rows=np.arange(40))
    device = SimpleNamespace(device=torch.device("cpu"), autocast=contextlib.nullcontext)
    job = SimpleNamespace(train=rows, task=Task(), accelerator=device, cache=None)
    run = SimpleNamespace(
        network=mine, job=job, phase=SimpleNamespace(rows_per_step=8), plan=SimpleNamespace(seed=0)
    )
    mine.train()
    measure_statistics(run)  # type: ignore[arg-type]
    found, wanted = mine.net[1], theirs.net[1]
    assert isinstance(found, torch.nn.BatchNorm1d)
    assert torch.allclose(found.running_mean, wanted.running_mean, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(found.running_var, wanted.running_var, rtol=0.05)  # type: ignore[arg-type]
    assert found.momentum == 0.1
    assert mine.training
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    assert learning_norms(mine) == []


class BackOnce:
    """An advisor that goes back from the look at 9 to the one at 3, once."""

    def __init__(self) -> None:
        self.done = False

    def decide(self, verdict: Any, history: Any) -> tuple[Any, ...]:
        if history[-1].step != 9 or self.done:
            return ()
        self.done = True
        return (RollBack("a test", 3),)

    def restore_points(self, history: Any) -> tuple[int, ...]:
        return (3,)

    def rolled_back(self, state: dict[str, Any]) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def test_what_a_run_went_back_from_is_in_no_average(job: Any, phase: Any) -> None:
    soup, (ema,) = CheckpointSoup(9), Ema(0.9, warmup=0.0).listeners()
    _, fitted, keeper = trained(job, phase, soup, ema, advisor=BackOnce(), dropout=0.5)
    held = {step: tensors for _, step, tensors in soup._best_states}
    assert sorted(held) == [0, 3, 6, 9, 12] == [s.step for s in fitted.history]
    # Those of the branch that is alive: what the keeper saw last of each step.
    for step in (3, 6, 9, 12):
        assert torch.equal(held[step]["body.weight"], keeper.looks[step]["body.weight"])
    weights = 0.9 ** np.arange(12)[::-1]
    walk = [keeper.after[step]["body.weight"].numpy() for step in range(1, 13)]
    wanted = np.average(walk, axis=0, weights=weights)
    assert ema.mean["body.weight"].numpy() == pytest.approx(wanted, abs=1e-5)
    assert ema.count == 12


def test_an_average_is_measured_under_statistics_of_its_own(job: Any, phase: Any) -> None:
    """The running mean of a batch norm is then that of what the averaged layer below it gives."""
    network = job().network
    network.body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8))
    made, fitted, _ = trained(job, phase, *Swa(start=0.5).listeners(), network=network)
    assert fitted.offers[0].accepted
    batch = made.task.collate(made.train, np.arange(len(made.train)))
    linear, norm = network.body[0], network.body[1]
    with torch.no_grad():
        mask = batch["attention_mask"][..., None].float()
        below = linear((network.words(batch["input_ids"]) * mask).sum(1) / mask.sum(1))
    # Five batches of eight: the mean of their means is the mean of all.
    assert torch.allclose(norm.running_mean, below.mean(0), atol=1e-5)


def test_the_copies_that_are_held_are_counted() -> None:
    known = RunContext(train_rows=90, learning_rate=1e-3)
    asked = {name: complete_settings(name, {}, known) for name in ("ema", "swa", "soup", "wise")}
    assert parts_of(asked).copies == 2 + 2 + 4
    with pytest.raises(RecipeError, match="lean"):
        complete_settings("wise", {"lean": "end"}, known)
