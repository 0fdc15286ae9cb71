"""What every registered method promises, found by discovery."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast import training
from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.events import EVENTS, PLACES, Offers
from holdfast.core.records import Decision, Finding
from holdfast.core.settings import SettingRule
from holdfast.core.updates import Draw, ForwardPass, RowPool
from holdfast.methods.noise import NoiseHooks
from holdfast.methods.registry import (
    METHODS,
    Method,
    Parts,
    RunContext,
    all_methods,
    check_methods,
    complete_settings,
    parts_of,
)
from holdfast.models.dropouts import dropouts_by_place
from holdfast.models.network_copy import copy_network

ALL = sorted(all_methods())
KNOWN = RunContext(train_rows=90, learning_rate=1e-3)


def made(name: str) -> Parts:
    """What the method brings with its usual settings."""
    return parts_of({name: complete_settings(name, {}, KNOWN)})


def sources() -> dict[str, Any]:
    found = {name: made(name).source for name in ALL if made(name).source}
    stages = [stage for name in ALL for stage in made(name).stages]
    return found | {stage.name: stage.source for stage in stages}


def terms() -> dict[str, Any]:
    found = [term for name in ALL for term in made(name).terms]
    found += [term for name in ALL for stage in made(name).stages for term in stage.terms]
    return {term.name: term for term in found}


STEPPERS = {name: made(name).stepper for name in ALL if made(name).stepper}
SOURCES, TERMS = sources(), terms()
BESIDE = {name: made(name).add_general_rows for name in ALL if made(name).add_general_rows}


def test_the_kit_sees_every_form_of_method() -> None:
    assert {"sam"} <= STEPPERS.keys()
    assert {"balance", "contrast"} <= SOURCES.keys()
    assert {"contrast", "kl_start", "label_smoothing"} <= TERMS.keys()
    assert {"replay"} <= BESIDE.keys()


@pytest.mark.parametrize("name", ALL)
def test_its_settings_are_frozen_bounded_and_documented(name: str) -> None:
    settings = METHODS[name].settings
    assert settings.__dataclass_params__.frozen
    assert settings.__doc__
    for one in dataclasses.fields(settings):
        assert isinstance(one.metadata["rule"], SettingRule), one.name
    for key, value in complete_settings(name, {}, KNOWN).items():
        assert value is not None, key


@pytest.mark.parametrize("name", ALL)
def test_what_its_bounds_forbid_is_refused_with_the_rule(name: str) -> None:
    for one in dataclasses.fields(METHODS[name].settings):
        bounds = one.metadata["rule"]
        if bounds.choices:
            _refuses(name, one.name, ["no such word", 1, True, None, [1], {}, {"a": 0}])
            continue
        below = bounds.above if bounds.above is not None else (bounds.least or 0) - 1
        wrong = [below, bounds.most * 2, "1", True, None, [1], float("nan")]
        _refuses(name, one.name, [*wrong, *([1.5] if bounds.kind == "whole" else [])])


def _refuses(name: str, key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(RecipeError, match="must be") as caught:
            complete_settings(name, {**complete_settings(name, {}, KNOWN), key: value}, KNOWN)
        assert caught.value.what == f"methods.{name}.{key}"


@pytest.mark.parametrize("name", ALL)
def test_a_setting_that_it_has_not_names_the_nearest(name: str) -> None:
    if METHODS[name].key is not None:
        with pytest.raises(RecipeError, match="key of its own") as caught:
            check_methods({name: {}})
        assert str(METHODS[name].key) in caught.value.remedy
        return
    first = [one.name for one in dataclasses.fields(METHODS[name].settings)][:1]
    with pytest.raises(RecipeError, match="is not a setting of") as caught:
        check_methods({name: {f"{first[0] if first else 'any'}x": 1}})
    assert (f"Did you mean '{first[0]}'" if first else "none") in caught.value.remedy


@pytest.mark.parametrize("name", ALL)
def test_it_brings_equal_values_each_time_and_listeners_of_their_own(name: str) -> None:
    one, two = made(name), made(name)
    for field in ("stages", "stepper", "source", "terms"):
        assert getattr(one, field) == getattr(two, field)
    for first, second in zip(one.listeners(), two.listeners(), strict=True):
        assert first is not second
        assert first.place in PLACES
        assert any(hasattr(first, event) for event in EVENTS) or isinstance(first, Offers)


@dataclass(frozen=True)
class Rows:
    labels: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def pool(n: int = 90, batch: int = 8, seed: int = 0) -> RowPool:
    rng = np.random.default_rng(1)
    return RowPool(Rows(rng.integers(0, 3, n), rng.integers(2, 30, n)), batch, seed, "p")


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_draws_by_seed_and_step_alone(name: str) -> None:
    source, steps = SOURCES[name], [0, 1, 5, 13, 40, 41]
    forward = {step: source.draw(one, step).rows.tolist() for one in [pool()] for step in steps}
    one = pool()
    for step in reversed(steps):
        assert source.draw(one, step).rows.tolist() == forward[step]
        assert source.draw(pool(), step).rows.tolist() == forward[step]
    other = pool(seed=1)
    assert [source.draw(other, step).rows.tolist() for step in steps] != list(forward.values())


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("n", "batch"), [(90, 8), (7, 8), (16, 8), (4, 4), (33, 5)])
def test_a_source_draws_rows_that_are_there_no_more_than_fit(name: str, n: int, batch: int) -> None:
    source, drawn_from = SOURCES[name], pool(n, batch)
    count = source.steps_per_epoch(drawn_from)
    assert count >= 1
    for step in range(2 * count):
        draw = source.draw(drawn_from, step)
        assert 1 <= len(draw) <= batch
        assert draw.rows.min() >= 0
        assert draw.rows.max() < n
        assert len(draw.positions) == len(draw.rows)


@pytest.mark.parametrize("name", BESIDE)
def test_rows_beside_come_by_seed_and_step_alone_and_leave_own_rows_as_they_are(name: str) -> None:
    from holdfast.training.plan import EveryRow

    general, inner = pool(20).examples, EveryRow()
    source = BESIDE[name](inner, general)

    def told(draw: Draw) -> list[int]:
        return [] if draw.auxiliary is None else draw.auxiliary.rows.tolist()

    steps = [0, 1, 5, 13, 40, 41]
    forward = {step: told(source.draw(one, step)) for one in [pool()] for step in steps}
    for step in reversed(steps):
        draw = source.draw(pool(), step)
        assert draw.rows.tolist() == inner.draw(pool(), step).rows.tolist()
        assert told(draw) == forward[step]
        assert all(len(pool()) <= row < len(pool()) + 20 for row in told(draw))


class Slope:
    """An update of a curved loss of three weights; counts its passes."""

    def __init__(self) -> None:
        self.parameters = [torch.nn.Parameter(torch.tensor([0.3, -0.2, 1.0]))]
        self.passes = 0

    def loss(self) -> torch.Tensor:
        (weight,) = self.parameters
        return (weight**4).sum() + torch.sin(3 * weight).sum()

    def gradients(self, draw: Draw, repeat_pass: bool = False) -> float:
        assert repeat_pass == (self.passes > 0)
        self.passes += 1
        loss = self.loss()
        (self.parameters[0].grad,) = torch.autograd.grad(loss, self.parameters)
        return float(loss.detach())


@pytest.mark.parametrize("name", STEPPERS)
def test_a_stepper_leaves_a_gradient_and_the_weights_as_they_were(name: str) -> None:
    update = Slope()
    before, here = update.parameters[0].detach().clone(), float(update.loss().detach())
    assert STEPPERS[name](update, Draw(np.arange(4))) == pytest.approx(here)
    assert torch.equal(update.parameters[0].detach(), before)
    assert update.parameters[0].grad is not None
    assert torch.isfinite(update.parameters[0].grad).all()
    assert update.passes == STEPPERS[name].passes


def passed(rows: np.ndarray) -> tuple[ForwardPass, torch.Tensor]:
    """A classifier's pass of these of eight rows."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=generator)[rows]
    features = torch.randn(8, 5, generator=generator)[rows]
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])[rows]

    @dataclass
    class Output:
        logits: torch.Tensor
        features: torch.Tensor

    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    before = torch.randn(8, 3, generator=generator)[rows]
    start = Output(before, features)
    return ForwardPass(
        rows, {"labels": labels}, Output(logits, features), lambda at: take(start, at)
    ), losses


def take(output: Any, places: np.ndarray) -> Any:
    return dataclasses.replace(
        output, logits=output.logits[places], features=output.features[places]
    )


@pytest.mark.parametrize("name", TERMS)
def test_a_term_gives_each_row_its_finite_loss_whatever_the_order(name: str) -> None:
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    straight = TERMS[name](*passed(np.arange(8)))
    assert straight.shape == (8,)
    assert torch.isfinite(straight).all()
    assert torch.allclose(TERMS[name](*passed(order)), straight[order], atol=1e-6)


# They compare the forms of one row, which stands here once; ``tests/methods`` says how.
OF_FORMS = {"pairing"}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_compares_rows_where_it_says_so_and_nowhere_else(name: str) -> None:
    if name in OF_FORMS:
        return
    whole = TERMS[name](*passed(np.arange(8)))
    half = TERMS[name](*passed(np.arange(4)))
    alone = torch.allclose(half, whole[:4], atol=1e-6)
    assert alone != TERMS[name].compares_rows


def test_it_suits_a_network_or_says_why_not(sample: Any) -> None:
    """Of every kind of task; what it makes for a network comes off again, and is made anew."""
    for name in [name for name in ALL if METHODS[name].key is None]:
        loaded = dataclasses.replace(sample.loaded, network=copy_network(sample.loaded.network))
        asked = {"head": 0.2} if name == "dropout" else {}
        parts = parts_of({name: complete_settings(name, asked, KNOWN)})
        refused: RecipeError | None = None
        with record_decisions() as told:
            try:
                parts.prepares(loaded)
            except RecipeError as error:
                refused = error
        if refused is not None:
            assert refused.what.startswith(f"methods.{name}")
            assert refused.remedy
            continue
        assert all(isinstance(one, Decision | Finding) and one.because for one in told)
        listeners = [*parts.listeners(), *parts.listeners_for(loaded)]
        assert all(one.place in PLACES for one in listeners)
        disturbances = [one for one in listeners if isinstance(one, NoiseHooks)]
        if disturbances:
            _disturbs_training_alone(disturbances, loaded.network, sample)


def _disturbs_training_alone(listeners: list[Any], network: Any, sample: Any) -> None:
    batch = sample.task.collate(sample.examples, np.arange(3))
    for parameter in network.parameters():
        if parameter.requires_grad:
            # The second matrix of an adapter is 0, behind which no noise is seen.
            parameter.data = parameter.data + 0.05 * torch.randn(parameter.shape)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def losses(mode: bool) -> torch.Tensor:
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
        torch.manual_seed(3)
        network.train(mode)
        with torch.no_grad():
            return sample.task.losses(sample.task.forward(network, batch), batch)

    for place in dropouts_by_place(network):
        # So that the noise alone tells the passes apart.
        place.set_rate(0.0)
    run = SimpleNamespace(network=network)
    with torch.random.fork_rng(devices=[]):
        measured, learned = losses(False), losses(True)
        for one in listeners:
            one.run_start(run)
        assert torch.equal(losses(False), measured)
        assert not torch.equal(losses(True), learned), [one.name for one in listeners]
        for one in listeners:
            one.run_end(run)
        assert torch.equal(losses(True), learned)


def test_the_loop_names_no_method() -> None:
    """Neither in a name nor in a value of its code; docstrings may. A network has dropout too."""
    known = {*ALL, *STEPPERS, *SOURCES, *TERMS} | {type(one).__name__ for one in STEPPERS.values()}
    known -= {"dropout"}
    said: dict[str, set[str]] = {}
    for path in sorted(Path(training.__path__[0]).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
        said[path.name] = names & known
    assert {name: found for name, found in said.items() if found} == {}


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown method") as caught:
        check_methods({"samm": {}})
    assert "Did you mean 'sam'" in caught.value.remedy
    assert "label_smoothing" not in caught.value.remedy


def test_two_that_do_the_same_exclude_each_other() -> None:
    entry = METHODS["sam"]
    METHODS.add("other_sam", Method(entry.settings, entry.parts))
    try:
        with pytest.raises(RecipeError, match="exclude each other") as caught:
            parts_of({"sam": {}, "balance": {}, "other_sam": {}})
        assert caught.value.what == "methods.other_sam and methods.sam"
    finally:
        del METHODS._entries["other_sam"]
