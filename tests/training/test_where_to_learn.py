"""Which layers learn when, and what is put back or drawn anew: on a run of the loop."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from holdfast.core.actions import Action, Extend, Freeze
from holdfast.core.decisions import record_decisions
from holdfast.core.errors import ModelError, RecipeError
from holdfast.methods.layers import (
    GradualUnfreezing,
    HeadReset,
    LayerSchedule,
    Progressive,
    Reinit,
    TopReinit,
    check_reinit,
    unfrozen_layers,
)
from holdfast.models.base import Layer
from holdfast.models.layers import reinitialize, top_layers
from holdfast.training.loop import fit

STEPS = 12


class Moved:
    """Which parameters moved at each step, and which had an optimizer's state after it."""

    name, place = "zz_moved", "note"

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.steps: dict[int, set[str]] = {}
        self.known: dict[int, set[str]] = {}
        self.head: dict[int, torch.Tensor] = {}

    def batch_ready(self, run: Any) -> None:
        self.before = run.copy_tensors()

    def step_done(self, run: Any) -> None:
        now, names = run.copy_tensors(), run.trainable_parameters()
        self.steps[run.step] = {n for n in names if not torch.equal(now[n], self.before[n])}
        state = run.optimizer.state
        self.known[run.step] = {n for n, p in names.items() if p in state}
        self.head[run.step] = now["head.weight"]


@pytest.fixture
def layered(job: Any, phase: Any) -> Any:
    """A run whose network says its layers: a body and a head."""

    def run(*listeners: Any, folder: Any = None, resume: bool = False, **changes: Any) -> Any:
        moved = Moved()
        shape = {"phases": (phase(steps=STEPS),), "evaluate_at": (0, 4, 8, 12), "dropout": 0.3}
        made = job(folder, listeners=(*listeners, moved), **{**shape, **changes})
        network = made.network
        network.layers = lambda: [
            Layer("embeddings", (network.words,)),
            Layer("block.0", (network.body, network.dropout)),
            Layer("head", (network.head,)),
        ]
        return made, fit(made, resume=resume), moved

    return run


def lowers(moved: Moved) -> list[int]:
    return [step for step, names in moved.steps.items() if "body.weight" in names]


def test_the_head_learns_alone_and_then_everything(layered: Any) -> None:
    made, _, moved = layered(*Progressive(start=0.5).listeners())
    assert lowers(moved) == list(range(7, STEPS + 1))
    assert all("head.weight" in names for names in moved.steps.values())
    # Not even an optimizer's state before it is its turn.
    assert moved.known[6] == {"head.weight", "head.bias"}
    assert "body.weight" in moved.known[7]
    assert all(p.requires_grad for n, p in made.network.named_parameters() if "words" not in n)


def test_layers_that_do_not_learn_yet_do_not_decay_either(layered: Any, phase: Any) -> None:
    heavy = {"phases": (phase(steps=STEPS, weight_decay=0.5),)}
    _, _, moved = layered(*Progressive(start=0.5).listeners(), **heavy)
    assert lowers(moved) == list(range(7, STEPS + 1))


@pytest.mark.parametrize(
    ("done", "wanted"), [(0.0, 0), (0.1, 1), (0.24, 2), (0.25, 3), (0.4, 4), (0.5, 6), (0.9, 6)]
)
def test_one_more_layer_at_a_time(done: float, wanted: int) -> None:
    """Six layers by half of the steps: each takes a twelfth of them."""
    assert unfrozen_layers(done, 6, 0.5) == wanted


def test_gradual_unfreezing_starts_at_the_top(layered: Any) -> None:
    """Of two layers below the head the words never learn by the recipe: the other joins alone, when
    the share ``until`` is over."""
    made, _, moved = layered(*GradualUnfreezing(until=0.5).listeners())
    assert lowers(moved) == list(range(7, STEPS + 1))
    assert not made.network.words.weight.requires_grad


def test_under_a_head_without_weights_the_top_layer_learns_from_the_start(
    job: Any, phase: Any
) -> None:
    """Of a language model whose head shares the embeddings' weights."""
    moved = Moved()
    listeners = (*Progressive(start=0.5).listeners(), moved)
    made = job(listeners=listeners, phases=(phase(steps=STEPS),), evaluate_at=(0, 12))
    network = made.network
    network.layers = lambda: [
        Layer("embeddings", (network.words,)),
        Layer("block.0", (network.body,)),
        Layer("block.1", (network.head,)),
        Layer("head", ()),
    ]
    fit(made)
    assert all("head.weight" in names for names in moved.steps.values())
    assert lowers(moved) == list(range(7, STEPS + 1))


def test_where_it_joined_a_run_under_way_is_its_beginning_and_is_remembered() -> None:
    """The share of what was left then; of a later phase the share of all of it."""
    asked: list[float] = []

    def made() -> LayerSchedule:
        return LayerSchedule("a test", lambda done, layers: int(bool(asked.append(done))))

    def run(phase: int, step: int) -> Any:
        return SimpleNamespace(
            phase_index=phase,
            step_in_phase=step,
            phase=SimpleNamespace(steps=12, head="train"),
            network=SimpleNamespace(layers=lambda: [], training=False),
            trainable_parameters=dict,
            adjustments=SimpleNamespace(frozen=()),
        )

    one, two = made(), made()
    one.run_start(run(0, 6))
    two.run_start(run(0, 9))
    two.load_state_dict(one.state_dict())
    for listener in (one, two):
        for place in ((0, 6), (0, 9), (1, 3)):
            listener.batch_ready(run(*place))
    assert asked == [0.0, 0.5, 0.25] * 2


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6, 7, 8])
def test_killed_and_resumed_the_same_layers_learn(
    layered: Any, tmp_path: Any, killed: Any, step: int
) -> None:
    class Kill:
        name, place = "kill", "tell"

        def step_done(self, run: Any) -> None:
            if run.step == step:
                raise killed

    def both() -> tuple[Any, ...]:
        return (*Progressive(start=0.55).listeners(), HeadReset(0.6))

    whole, _, _ = layered(*both())
    with pytest.raises(killed):
        layered(*both(), Kill(), folder=tmp_path)
    again, _, _ = layered(*both(), folder=tmp_path, resume=True)
    for one, two in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, two)


class FreezesAt8:
    """An advisor."""

    def decide(self, verdict: Any, history: Any) -> tuple[Action, ...]:
        return (Freeze("a test", ("block.0",)),) if history[-1].step == 8 else ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def test_what_an_action_has_frozen_stays_so(layered: Any) -> None:
    _, _, moved = layered(*Progressive(start=0.5).listeners(), advisor=FreezesAt8())
    assert lowers(moved) == [7, 8]


def test_the_head_is_put_back_once_and_its_moments_are_gone(layered: Any, tmp_path: Any) -> None:
    heads: dict[str, torch.Tensor] = {}

    class First:
        name, place = "first", "note"

        def phase_start(self, run: Any) -> None:
            heads["start"] = run.initial_tensors["head.weight"]

    _, _, moved = layered(HeadReset(0.5), First(), folder=tmp_path)
    back = [step for step in moved.head if torch.equal(moved.head[step], heads["start"])]
    assert back == [6]
    assert "head.weight" not in moved.known[6]
    assert {"body.weight", "body.bias"} <= moved.known[6]
    assert "head.weight" in moved.known[7]
    assert "head reset" in (tmp_path / "events.jsonl").read_text()


class Extends:
    """An advisor: more steps, once."""

    def decide(self, verdict: Any, history: Any) -> tuple[Action, ...]:
        return (Extend("a test", steps=8),) if history[-1].step == 8 else ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def put_back_at(moved: Moved) -> list[int]:
    """The steps after which an optimizer knows nothing of the head."""
    return [step for step, known in moved.known.items() if "head.weight" not in known]


def test_the_head_is_put_back_once_in_a_run_that_is_extended(
    layered: Any, tmp_path: Any, killed: Any
) -> None:
    """Half of 12 steps is over when half of 20 comes."""
    _, _, moved = layered(HeadReset(0.5), advisor=Extends())
    assert max(moved.steps) == STEPS + 8
    assert put_back_at(moved) == [6]

    class Kill:
        name, place = "kill", "tell"

        def step_done(self, run: Any) -> None:
            if run.step == 9:
                raise killed

    with pytest.raises(killed):
        layered(HeadReset(0.5), Kill(), folder=tmp_path, advisor=Extends())
    _, _, moved = layered(HeadReset(0.5), folder=tmp_path, resume=True, advisor=Extends())
    assert max(moved.steps) == STEPS + 8
    assert put_back_at(moved) == []


@pytest.mark.parametrize(("steps", "wanted"), [(1, []), (2, [1]), (8, [7]), (12, [11])])
def test_the_head_is_never_put_back_after_the_last_update(
    layered: Any, phase: Any, steps: int, wanted: list[int]
) -> None:
    """Nothing would fit it."""
    short = {"phases": (phase(steps=steps),), "evaluate_at": (0, steps)}
    _, _, moved = layered(HeadReset(0.95), **short)
    assert put_back_at(moved) == wanted


@pytest.fixture(scope="module")
def bert(tiny_model: Any) -> Any:
    from holdfast.models.encoders.classifier import load_classifier

    return load_classifier(str(tiny_model), ["a", "b"]).network


def test_the_top_is_drawn_as_the_architecture_draws_it(bert: Any) -> None:
    """Against a model of the same configuration, which Transformers has drawn."""
    from transformers import AutoModel

    network = copy.deepcopy(bert)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.37)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    layers = top_layers(network, 1)
    reinitialize(network, layers, seed=3)
    drawn = {id(p) for layer in layers for p in layer.parameters()}
    wanted = dict(AutoModel.from_config(network.config).named_parameters())
    seen = 0
    for name, parameter in network.named_parameters():
        if id(parameter) not in drawn:
            assert torch.equal(parameter, before[name]), name
        elif parameter.ndim > 1:
            spread = float(parameter.detach().std())
            assert spread == pytest.approx(network.config.initializer_range, rel=0.15)
            assert abs(float(parameter.detach().mean())) < 0.15 * network.config.initializer_range
        elif (known := wanted.get(name.removeprefix("backbone."))) is not None:
            # Biases are 0 and norms 1, to the bit.
            assert torch.equal(parameter, known), name
            seen += 1
    assert seen > 5


def test_the_draw_is_the_seeds_and_nobody_elses(bert: Any) -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        network = copy.deepcopy(bert)
        layers = top_layers(network, 1)
        reinitialize(network, layers, seed)
        return [p for layer in layers for p in layer.parameters()]

    state = torch.get_rng_state()
    one, again, other = drawn(3), drawn(3), drawn(4)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_cannot_be_drawn_anew_is_refused(bert: Any) -> None:
    with pytest.raises(RecipeError, match="must be below 2"):
        check_reinit(Reinit(blocks=2), bert)
    network = copy.deepcopy(bert)
    with record_decisions() as log:
        check_reinit(Reinit(blocks=1), network)
    (told,) = log
    assert told.chosen.startswith("block.1")
    block = next(layer for layer in network.layers() if layer.name == "block.1")
    next(block.parameters()).requires_grad_(False)
    with pytest.raises(RecipeError, match=r"block\.1 is frozen"):
        check_reinit(Reinit(blocks=1), network)


class Odd(nn.Module):
    """Whose initializer does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 3))

    def _init_weights(self, module: nn.Module) -> None: ...


def test_a_matrix_that_nobody_knows_how_to_draw_is_named() -> None:
    odd: Any = Odd()
    with pytest.raises(ModelError, match="no initialisation for these weights"):
        reinitialize(odd, [Layer("block.0", (odd,))], 0)


def test_the_top_is_drawn_after_the_first_look_and_before_the_first_step(bert: Any) -> None:
    notes: list[Any] = []
    network = copy.deepcopy(bert)
    run = SimpleNamespace(
        step=0,
        network=network,
        plan=SimpleNamespace(seed=0),
        journal=SimpleNamespace(note=lambda *said, **more: notes.append(more)),
    )
    listener = TopReinit(1)
    assert not hasattr(listener, "run_start")
    listener.phase_start(run)
    assert not torch.equal(network.head.weight, bert.head.weight)
    assert notes[0]["chosen"].endswith("head")
    with torch.no_grad():
        network.head.weight.zero_()
    run.step = 5
    listener.phase_start(run)
    assert not network.head.weight.detach().any()
