"""``model.freeze=auto``: what training rows say of each layer, and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from torch import nn

from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import Interrupted, RecipeError
from holdfast.core.wording import percent_phrase
from holdfast.fits.frozen import LayerEvidence, choose_layers, count_frozen, relative_gradient
from holdfast.models.base import Layer
from holdfast.models.layer_outputs import pooled
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


@pytest.mark.parametrize(
    ("gradients", "count"),
    [
        ([0.1, 0.1, 0.5, 1.0], 2),
        # From the bottom up, as far as it goes.
        ([0.1, 0.9, 0.1, 1.0], 1),
        ([0.6, 0.1, 0.1, 1.0], 0),
        # At most half of them.
        ([0.1, 0.1, 0.1, 0.1, 1.0], 2),
        ([0.0, 0.0], 0),
        ([], 0),
    ],
)
def test_bottom_layers_of_which_little_is_asked_are_left_alone(
    gradients: list[float], count: int
) -> None:
    assert count_frozen([LayerEvidence(str(i), g) for i, g in enumerate(gradients)]) == count


def test_a_relative_gradient_is_that_of_the_whole_layer_together() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(1.0)
    layer(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    # Two outputs: the gradient of each row of weights is the input, of each bias 1.
    wanted = np.sqrt(2 * (1 + 4 + 9) + 2) / np.sqrt(6 * 4 + 2)
    assert relative_gradient(Layer("x", (layer,))) == pytest.approx(wanted)
    layer.zero_grad(set_to_none=True)
    assert relative_gradient(Layer("x", (layer,))) == 0.0


def test_states_are_averaged_over_their_places() -> None:
    states = torch.arange(12.0).reshape(1, 3, 4)
    assert pooled(states, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0, 4.0, 5.0]]
    assert pooled(states, None).tolist() == [[4.0, 5.0, 6.0, 7.0]]
    maps = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert pooled(maps, None).tolist() == [[1.5, 5.5]]


class Net(nn.Module):
    """Embeddings that hold the class, a block that hands it on, one that throws it away, and a head
    that reads what the embeddings gave beside."""

    adapter, fixed, new_head = None, frozenset[int](), True

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Linear(4, 4, bias=False)
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for part in (self.embeddings, self.first):
                part.weight.copy_(torch.eye(4))
            self.second.weight.zero_()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        states = self.first(self.embeddings(x))
        out: torch.Tensor = states + self.second(states)
        return out

    def layers(self) -> list[Layer]:
        named = {"embeddings": self.embeddings, "block.0": self.first, "block.1": self.second}
        return [*(Layer(n, (m,)) for n, m in named.items()), Layer("head", (self.head,))]


class Task:
    classes = ("a", "b")

    def collate(self, examples: Any, rows: Any) -> dict[str, torch.Tensor]:
        return {
            "x": examples.x[torch.as_tensor(rows)],
            "labels": torch.as_tensor(examples.labels[rows]),
        }

    def forward(self, network: Any, batch: Any) -> Any:
        return network.head(network.features(batch["x"]))

    def losses(self, output: Any, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(output, batch["labels"], reduction="none")


def test_each_layer_is_told_with_its_probe_and_nothing_is_left_behind() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    x = torch.tensor(rng.normal(size=(200, 4)) + 1.2 * labels[:, None], dtype=torch.float32)
    rows = SimpleNamespace(x=x, labels=labels, rows=np.arange(200))
    network: Any = Net()
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    memory = {n: p.data_ptr() for n, p in network.named_parameters()}
    state = torch.get_rng_state()
    with record_decisions() as log:
        chosen = choose_layers(network, Task(), rows, 0, "none")  # type: ignore[arg-type]
    told, _ = decisions_and_findings(log)
    assert [one.chosen.split(":")[0] for one in told] == [
        chosen,
        "embeddings",
        "block.0",
        "block.1",
    ]
    # A layer of zeros has no size for a gradient to be relative to.
    assert "gradient 0.00e+00" in told[3].because
    shown = {one.chosen.split(":")[0]: one.because for one in told[1:]}
    for name in ("embeddings", "block.0"):
        right = int(shown[name].partition("accuracy ")[2].partition("%")[0])
        theirs = LogisticRegression().fit(x[:150].numpy(), labels[:150])
        assert right == pytest.approx(100 * theirs.score(x.numpy(), labels), abs=5)
    # Of nothing but zeros a probe gives the commonest class.
    commonest = max(labels.mean(), 1 - labels.mean())
    assert f"accuracy {percent_phrase(commonest)}" in shown["block.1"]
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.data_ptr() == memory[name]
        assert parameter.grad is None
    assert torch.equal(state, torch.get_rng_state())


class Kill:
    name = "kill"

    def step_done(self, run: Any) -> None:
        if run.step == 4:
            raise KeyboardInterrupt


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_stores_what_was_chosen_and_its_repeat_and_resume_follow_it(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    sets = [f"data.path={marked_csv}", *quick, "model.freeze=auto", "methods.contrast=false"]
    recipe = override(Recipe(), [*sets, "train.max_steps=8"])
    result = train(recipe, tmp_path / "run")
    told = [one for one in result["decisions"] if one["what"] == "layers by evidence"]
    assert [one["chosen"].split(":")[0] for one in told] == ["embeddings", "block.0", "block.1"]
    assert all("relative gradient" in one["because"] for one in told)
    assert all("out of fold, a linear probe" in one["because"] for one in told)
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text("utf-8"))["model"]["freeze"]
    named = [one["chosen"].split(":")[0] for one in told if one["chosen"].endswith("stays")]
    assert kept == (",".join(named) or "words")
    more: dict[str, Any] = {"listeners": (Kill(),), "checkpoint_every_s": 0.0}
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "killed", **more)
    train(recipe, tmp_path / "killed", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "killed")
    again = json.loads((tmp_path / "killed" / "result.json").read_text("utf-8"))
    assert [one for one in again["decisions"] if one["what"] == "layers by evidence"] == told


def test_an_adapter_leaves_nothing_to_choose(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    sets = [f"data.path={marked_csv}", *quick, "model.freeze=auto", "model.adapter.kind=lora"]
    with pytest.raises(RecipeError, match="trained in their place"):
        train(override(Recipe(), sets), tmp_path / "run")
    assert not (tmp_path / "run").exists()
