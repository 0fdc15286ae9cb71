"""Whether weights are spread over processes, and what is refused then."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import InputError, MachineError, RecipeError, RunError
from holdfast.core.machine import MemoryLimit
from holdfast.prepare import sharding
from holdfast.prepare.sharding import (
    LAUNCHED,
    LOADING,
    OFFLOAD,
    RESHARD,
    SETTING,
    VERSION,
    choose_sharding,
)
from holdfast.recipe import Recipe, override
from holdfast.training.checkpoint import CheckpointStore

LORA = ["task=causal-lm", "model.adapter.kind=lora"]


def chosen(*settings: str) -> tuple[str, str]:
    with record_decisions() as log:
        shard = choose_sharding(override(Recipe(), [*LORA, *settings]))
    return shard, "; ".join(
        f"{one.chosen}: {one.because}" for one in decisions_and_findings(log)[0]
    )


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(LOADING, "true")
    return monkeypatch


@pytest.fixture
def launched(two: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As ``accelerate launch --use_fsdp --fsdp_version 2`` does."""
    two.setenv("ACCELERATE_USE_FSDP", "true")
    two.setenv("FSDP_VERSION", "2")
    return two


def test_one_process_says_nothing_and_spreads_nothing() -> None:
    assert chosen() == ("off", "")


def test_one_process_cannot_be_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="this run has only one") as raised:
        chosen("train.shard=full")
    assert "accelerate launch" in raised.value.remedy
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "there is only one process" in chosen()[1]


@pytest.mark.usefixtures("two")
def test_several_processes_are_told_which_way() -> None:
    assert chosen()[0] == "off"
    assert "the launcher does not request FSDP" in chosen()[1]
    assert "set in the recipe" in chosen("train.shard=full")[1]
    assert chosen("train.shard=full")[0] == "full"


def test_the_launcher_is_followed_and_no_process_gets_empty_weights(
    launched: pytest.MonkeyPatch,
) -> None:
    shard, told = chosen()
    assert shard == "full"
    assert "accelerate launch requests FSDP 2: each of 2 processes" in told
    assert os.environ[LOADING] == "false"
    assert chosen("train.shard=off")[0] == "off"


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["task=text-classification"], "not supported for text-classification"),
        (["task=seq2seq"], "not supported for seq2seq"),
        (["model.adapter.kind=dora"], "model.adapter.kind"),
        (["model.adapter.kind=prompt"], "model.adapter.kind"),
        (["model.quantize=4bit"], "model.quantize"),
        (["methods.rdrop=true"], "methods"),
        (["control.policy=adapt"], "control.policy"),
        (["generate.watch=true"], "texts generated at every evaluation"),
        (["train.metric=bleu"], "texts generated at every evaluation"),
        (["train.optimizer=paged_adamw8bit"], "train.optimizer"),
        (["train.precision=float16"], "train.precision"),
    ],
)
def test_what_is_not_built_for_it_is_refused_by_its_name(settings: list[str], named: str) -> None:
    with pytest.raises(RecipeError) as raised:
        chosen(*settings)
    assert named in str(raised.value)
    assert raised.value.exit_code == 2
    assert "off" in raised.value.remedy


def test_methods_that_a_stored_recipe_names_unasked_are_none(launched: pytest.MonkeyPatch) -> None:
    assert chosen("methods.contrast=false", "methods.probe_first=true")[0] == "full"


@pytest.mark.parametrize(
    ("name", "value"), [("FSDP_VERSION", "1"), ("FSDP_OFFLOAD_PARAMS", "true")]
)
def test_a_launcher_s_setting_that_is_not_followed_is_refused(
    launched: pytest.MonkeyPatch, name: str, value: str
) -> None:
    launched.setenv(name, value)
    with pytest.raises(MachineError, match=name):
        chosen()


def test_the_setting_has_three_words() -> None:
    for wrong in ("yes", "half"):
        with pytest.raises(InputError, match=SETTING):
            override(Recipe(), [f"{SETTING}={wrong}"])


@pytest.mark.parametrize(("wrote", "reads"), [((0, 2), (0, 1)), ((0, 1), (0, 2)), ((0, 2), (0, 4))])
def test_parts_are_continued_by_as_many_processes(
    tmp_path: Path, wrote: tuple[int, int], reads: tuple[int, int]
) -> None:
    """All that the store of the first process sees: its own file, and those beside it."""
    CheckpointStore(tmp_path, mark="m", part=wrote).save(3, {"step": 3})
    if wrote[1] > 1:
        CheckpointStore(tmp_path, mark="m", part=(1, wrote[1])).save(3, {"step": 3})
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"step-00000003.pt", f"part-00000003-1of{wrote[1]}.pt"}
    with pytest.raises(RunError, match=f"a run on {wrote[1]} process") as raised:
        CheckpointStore(tmp_path, mark="m", part=reads).load()
    assert f"with {wrote[1]}" in raised.value.remedy


def test_a_part_that_is_damaged_sends_all_to_the_step_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process cannot read its newest part, so neither uses that step."""
    import accelerate.utils

    stores = [CheckpointStore(tmp_path, mark="m", part=(k, 2)) for k in (1, 0)]
    for step in (3, 5):
        for store in stores:
            store.save(step, {"step": step, "own": json.dumps(step)})
    (tmp_path / "part-00000005-1of2.pt").write_bytes(b"torn")
    # What the other process says each time: its steps, then what is wrong with its part.
    said = iter([[["00000003", "00000005"]], ["part-00000005-1of2.pt is damaged"], [""]])
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda mine: [*mine, *next(said)])
    first = CheckpointStore(tmp_path, mark="m", part=(0, 2))
    state = first.load()
    assert state is not None
    assert state["step"] == 3
    assert "is damaged" in first.decisions[0].because
    said = iter([[["00000003", "00000005"]], [""], [""]])
    second = CheckpointStore(tmp_path, mark="m", part=(1, 2)).load()
    assert second is not None
    assert second["step"] == 3


def test_these_are_the_names_that_accelerate_launch_sets() -> None:
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    options = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--num_machines", "1"]
    given = launch_command_parser().parse_args([*options, "train.py"])
    given.mixed_precision, given.dynamo_backend = "no", "no"
    made = prepare_multi_gpu_env(given)
    assert made[LAUNCHED] == "true"
    assert made[VERSION] == "2"
    assert {OFFLOAD, RESHARD, LOADING} <= made.keys()


@pytest.mark.parametrize(
    ("gpu", "free", "where"), [(True, 1e9, "cuda"), (True, 1.0, "cpu"), (False, 1.0, "cuda")]
)
def test_a_model_too_large_for_a_device_is_scored_in_the_processor_s_memory(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, free: float, where: str
) -> None:
    import torch

    network, noted = torch.nn.Linear(1000, 1000), []
    held = SimpleNamespace(device=torch.device("cuda"), num_processes=2)
    job = SimpleNamespace(
        accelerator=held,
        plan=SimpleNamespace(steps=3),
        journal=SimpleNamespace(decide=lambda _, made: noted.append(made.chosen)),
    )
    ready = SimpleNamespace(prepared=SimpleNamespace(loaded=SimpleNamespace(network=network)))
    monkeypatch.setattr(sharding, "on_gpu", lambda: gpu)
    monkeypatch.setattr(sharding, "tightest_limit", lambda: MemoryLimit(free, "said"))
    found = sharding._scoring_accelerator(job, ready)  # type: ignore[arg-type]
    assert found.device.type == where
    assert found.num_processes == 2
    assert noted == (["on the CPU"] if where == "cpu" else [])
