"""A method as a user has it: one key of a recipe; and as who writes one has it: one file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import Interrupted, RecipeError
from holdfast.core.records import Decision
from holdfast.core.settings import setting
from holdfast.core.updates import ForwardPass
from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


@dataclass(frozen=True, slots=True)
class Flood:
    """A loss that is not let below a level: |ℓ − b| + b (2002.08709, here row by row)."""

    level: float = setting(0.1, above=0, most=10)
    name: ClassVar[str] = "flood"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        return (losses - self.level).abs() + self.level


class Lowest:
    """The lowest loss of an update so far."""

    name, place = "flood", "note"
    made: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.loss = float("inf")
        self.made.append(self)

    def step_done(self, run: Any) -> None:
        self.loss = min(self.loss, run.running_loss)

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss = state["loss"]


@pytest.fixture
def flood() -> Iterator[None]:
    METHODS.add("flood", Method(Flood, lambda asked: Parts(terms=(asked,), listeners=lowest)))
    yield
    del METHODS._entries["flood"]
    Lowest.made.clear()


def lowest() -> tuple[Lowest]:
    return (Lowest(),)


def go(data: Path, quick: list[str], folder: Path, *settings: str, **more: Any) -> dict[str, Any]:
    settings = ("methods.contrast=false", *settings)
    return train(override(Recipe(), [f"data.path={data}", *quick, *settings]), folder, **more)


@pytest.mark.slow
def test_a_method_of_one_file_runs_from_a_recipe(
    marked_csv: Path, quick: list[str], tmp_path: Path, flood: None
) -> None:
    go(marked_csv, quick[:-1], tmp_path / "run", "methods.flood.level=0.9")
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text("utf-8"))
    assert kept["methods"] == {"contrast": False, "probe_first": True, "flood": {"level": 0.9}}
    (listener,) = Lowest.made
    assert 0.9 <= listener.loss < 2
    go(marked_csv, quick[:-1], tmp_path / "again", "methods.flood=true")
    assert 0.1 <= Lowest.made[1].loss < 0.9


@pytest.mark.parametrize(
    ("wrong", "what", "remedy"),
    [
        ("methods.flod=true", "methods", "Did you mean 'flood'"),
        ("methods.flood.levl=1", "methods.flood.levl", "Did you mean 'level'"),
        ("methods.flood.level=0", "methods.flood.level", "Remove it"),
        ("methods.flood.level=word", "methods.flood.level", "Remove it"),
    ],
)
def test_what_it_cannot_be_is_refused_before_anything_is_written(
    marked_csv: Path,
    quick: list[str],
    tmp_path: Path,
    flood: None,
    wrong: str,
    what: str,
    remedy: str,
) -> None:
    with pytest.raises(RecipeError) as caught:
        go(marked_csv, quick[:-1], tmp_path / "run", wrong)
    assert caught.value.what == what
    assert remedy in caught.value.remedy
    assert not (tmp_path / "run").exists()


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


class Kill:
    name = "kill"

    def step_done(self, run: Any) -> None:
        if run.step == 5:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def rare_csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """100 rows, a fifth of them of the second class."""
    rows = marked_rows()
    label = rows[0][1]
    common, other = ([r for r in rows if (r[1] == label) is same] for same in (True, False))
    path: Path = write_csv(
        tmp_path_factory.mktemp("rare") / "rare.csv", [*common[:80], *other[:20]]
    )
    return path


@pytest.mark.slow
def test_a_killed_run_of_two_methods_ends_to_the_bit_as_it_would_have(
    rare_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    both = ("methods.sam.rho=0.1", "methods.balance=true")
    told: list[Decision] = []
    with decisions_to(told.append):
        go(rare_csv, quick[:-1], tmp_path / "whole", *both)
    lines = {one.chosen: one.because for one in told if getattr(one, "what", "") == "method"}
    assert lines == {
        "sam (rho 0.1)": "set in the recipe; each update passes its rows 2 times",
        "balance (strength 1)": "set in the recipe; it samples the rows of fine-tuning",
    }
    with pytest.raises(Interrupted):
        go(
            rare_csv,
            quick[:-1],
            tmp_path / "killed",
            *both,
            listeners=(Kill(),),
            checkpoint_every_s=0.0,
        )
    go(rare_csv, quick[:-1], tmp_path / "killed", *both, resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")
    go(rare_csv, quick[:-1], tmp_path / "plain")
    assert weights(tmp_path / "whole") != weights(tmp_path / "plain")


@pytest.mark.slow
def test_balanced_classes_stand_in_the_data_map_by_their_own_rows(
    rare_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    """Both classes come alike often, so a rare row passes about four times as often."""
    go(rare_csv, quick[:-1], tmp_path / "run", "methods.balance=true", "control.policy=off")
    lines = pq.read_table(tmp_path / "run" / "examples.parquet").to_pylist()
    trained = [line for line in lines if line["split"] == "train"]
    passes: dict[str, list[int]] = {}
    for line in trained:
        passes.setdefault(line["label"], []).append(line["passes"])
    rare, common = sorted(passes.values(), key=len)
    assert sum(rare) == pytest.approx(sum(common), abs=4)
    assert min(rare) > max(common)


@pytest.mark.slow
def test_a_method_of_the_fine_tuning_where_there_is_none_is_a_finding(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    """The smallest plan is contrast alone."""
    sets = [f"data.path={marked_csv}", *quick, "methods.balance=true", "train.label_smoothing=0.1"]
    train(
        override(Recipe(), [*sets, "methods.contrast.steps=50", "train.epochs=null"]),
        tmp_path / "r",
    )
    found = json.loads((tmp_path / "r" / "result.json").read_text("utf-8"))["data"]["findings"]
    (idle,) = [one for one in found if one["check"] == "unused_setting"]
    assert "methods.balance and train.label_smoothing" in idle["because"]
    assert "methods.contrast=false" in idle["remedy"]


AVERAGES = (
    "methods.ema=true",
    "methods.swa=true",
    "methods.soup.states=3",
    "methods.wise.points=4",
)


@pytest.mark.slow
def test_averages_are_tried_told_and_kept_as_a_plain_model(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    """``train.keep=last`` keeps the newest, which is the last average that was made."""
    heard: list[Any] = []
    settings = (*AVERAGES, "train.keep=last", "methods.wise.lean=start", "train.max_steps=12")
    with decisions_to(heard.append):
        result = go(marked_csv, quick, tmp_path / "run", *settings)
    told = [one for one in result["decisions"] if one["what"] == "average of weights"]
    assert [one["chosen"].split(":")[0] for one in told] == ["ema", "soup", "swa", "wise"]
    (kept,) = [one for one in result["decisions"] if one["what"] == "best checkpoint"]
    assert kept["chosen"].startswith("the average wise, up to step ")
    assert sum(getattr(one, "what", "") == "average of weights" for one in heard) == len(told)
    lines = [json.loads(x) for x in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    (line,) = [one for one in lines if one.get("chosen", "").startswith("wise:")]
    assert [point["share"] for point in line["curve"]] == [0, 0.25, 0.5, 0.75, 1]
    plain = go(marked_csv, quick, tmp_path / "plain", "train.keep=last", "train.max_steps=12")
    assert weights(tmp_path / "run") != weights(tmp_path / "plain")
    assert (tmp_path / "run" / "report.html").exists()
    # What is scored on validation is the average, not the state whose step it names.
    share, loss = line["curve"][1]["share"], line["curve"][1]["valid_loss"]
    assert share == 0.25
    assert result["valid"]["metrics"]["loss"]["value"] == pytest.approx(loss, abs=0.05)
    assert plain["best_step"] == result["last_step"]


@pytest.mark.slow
def test_a_run_with_averages_that_was_killed_ends_as_the_one_that_was_not(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    settings = (*AVERAGES, "train.max_steps=12")
    whole = go(marked_csv, quick, tmp_path / "whole", *settings)
    with pytest.raises(Interrupted):
        go(
            marked_csv,
            quick,
            tmp_path / "killed",
            *settings,
            listeners=(Kill(),),
            checkpoint_every_s=0.0,
        )
    again = go(marked_csv, quick, tmp_path / "killed", *settings, resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")
    named = ("average of weights", "best checkpoint")
    assert [d for d in again["decisions"] if d["what"] in named] == [
        d for d in whole["decisions"] if d["what"] in named
    ]


WHERE = (
    ("methods.unfreeze=true",),
    ("methods.progressive.start=0.4",),
    ("methods.reset_head=true",),
    ("methods.reinit.blocks=1", "model.freeze=none"),
)


@pytest.mark.slow
@pytest.mark.parametrize("asked", WHERE, ids=[one[0] for one in WHERE])
def test_where_it_learns_a_killed_run_ends_as_the_one_that_was_not(
    marked_csv: Path, quick: list[str], tmp_path: Path, asked: tuple[str, ...]
) -> None:
    settings = (*asked, "train.max_steps=8", "control.policy=off", "train.keep=last")
    go(marked_csv, quick, tmp_path / "whole", *settings)
    more = {"listeners": (Kill(),), "checkpoint_every_s": 0.0}
    with pytest.raises(Interrupted):
        go(marked_csv, quick, tmp_path / "killed", *settings, **more)
    go(marked_csv, quick, tmp_path / "killed", *settings, resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")
    plain = ("train.max_steps=8", "control.policy=off", "train.keep=last", *asked[1:])
    go(marked_csv, quick, tmp_path / "plain", *plain)
    assert weights(tmp_path / "whole") != weights(tmp_path / "plain")


def test_layers_that_are_not_there_are_refused_before_anything_is_written(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="must be below 2") as caught:
        go(marked_csv, quick, tmp_path / "run", "methods.reinit.blocks=4")
    assert caught.value.what == "methods.reinit.blocks"
    assert not (tmp_path / "run").exists()


NOISE = (
    "methods.dropout={hidden: 0.2, attention: 0}",
    "methods.hype.scale=0.01",
    "methods.neftune=true",
    "methods.word_dropout=true",
    "methods.dropconnect.rate=0.05",
    "methods.rdrop.alpha=0.5",
    "methods.l2_sp=true",
    "methods.l1={strength: 300, place: head}",
    "train.keep=last",
    "control.policy=off",
    "train.schedule=one_cycle",
)


@pytest.mark.slow
def test_a_killed_run_of_all_noise_and_penalties_ends_to_the_bit_as_it_would_have(
    rare_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    told: list[Any] = []
    with decisions_to(told.append):
        go(rare_csv, quick[:-1], tmp_path / "whole", *NOISE)
    killed = {"listeners": (Kill(),), "checkpoint_every_s": 0.0}
    with pytest.raises(Interrupted):
        go(rare_csv, quick[:-1], tmp_path / "cut", *NOISE, **killed)
    go(rare_csv, quick[:-1], tmp_path / "cut", *NOISE, resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    lines = {one.what: one for one in told if isinstance(one, Decision)}
    assert "hidden 0.2 instead of 0.1" in lines["dropout"].chosen
    assert lines["rdrop"].chosen == "two passes per row"
    assert lines["zero weights with l1"].chosen != "0.0 % of the weights are zero"
    assert "step 0" not in lines["zero weights with l1"].because
    recipe = yaml.safe_load((tmp_path / "whole" / "recipe.yaml").read_text("utf-8"))
    assert recipe["train"]["warmup"] == 0.3
    assert recipe["methods"]["dropout"] == {
        "embedding": "model",
        "attention": 0,
        "hidden": 0.2,
        "head": "model",
        "adapter": "model",
    }
    events = (tmp_path / "whole" / "events.jsonl").read_text("utf-8").splitlines()
    (note,) = [e for e in map(json.loads, events) if "exactly zero" in str(e.get("because"))]
    assert note["event"] == "note"


@pytest.mark.parametrize(
    ("settings", "what", "rule"),
    [
        (
            ["methods.l1=true", "methods.elastic_net=true"],
            "methods.elastic_net and methods.l1",
            "includes L1",
        ),
        (["methods.rdrop=true", "model.dropout=0"], "methods.rdrop", "dropouts of this network"),
        (["methods.dropout.adapter=0.1"], "methods.dropout.adapter", "has no dropout"),
    ],
)
def test_what_contradicts_itself_is_refused(
    marked_csv: Path, quick: list[str], tmp_path: Path, settings: list[str], what: str, rule: str
) -> None:
    with pytest.raises(RecipeError, match=rule) as caught:
        go(marked_csv, quick[:-1], tmp_path / "run", *settings)
    assert caught.value.what == what
    assert caught.value.remedy
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_what_does_nothing_beside_another_is_a_finding(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    sets = ("methods.l2=true", "train.weight_decay=0.1", "train.max_steps=2")
    go(marked_csv, quick[:-1], tmp_path / "r", *sets)
    found = json.loads((tmp_path / "r" / "result.json").read_text("utf-8"))["data"]["findings"]
    (idle,) = [one for one in found if one["check"] == "useless_setting"]
    assert "methods.l2 and train.weight_decay pull the same weights" in idle["because"]
