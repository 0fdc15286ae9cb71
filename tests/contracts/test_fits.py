"""A fit is a value: in one process after others, and in a process of its own, to the bit."""

from __future__ import annotations

import builtins
import gc
import hashlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.core.errors import Defect, Interrupted, MachineError, RecipeError
from holdfast.core.records import to_json
from holdfast.data.scratch import scratch_file
from holdfast.fits.fit import fit
from holdfast.models.compute.processor import can_checkpoint
from holdfast.plugins.sandbox.fork import ENVIRONMENT, fork
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override, parse
from holdfast.tasks import task_definition

SMALL = [
    "train.max_steps=4",
    "train.batch_size=4",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "train.cache_frozen=off",
    "train.evaluations=2",
    "generate.rows=0",
]
# What is imported once for all processes; importing is no part of a fit.
HEAVY = [
    "PIL.PngImagePlugin",
    "accelerate",
    "datasets",
    "peft",
    "scipy.stats",
    "sklearn.linear_model",
    *[f"transformers.models.{name}" for name in ("bert.modeling_bert", "t5.modeling_t5")],
    *[f"transformers.models.{name}" for name in ("llama.modeling_llama", "vit.modeling_vit")],
    "transformers.models.resnet.modeling_resnet",
    "transformers.generation.utils",
]
# Two divisions of unlike rows and sizes. The second fit changes all that could stay behind: what
# learns, what is kept of the activations, the rate, the phases, the kept state.
FITS: dict[str, tuple[list[int], list[int], dict[str, Any]]] = {
    "A": ([0, 1, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13], {}),
    "B": (
        [13, 12, 11, 10, 9, 8, 6, 5, 4, 1],
        [0, 3, 7],
        {
            "model.freeze": 1,
            "train.checkpoint_activations": True,
            "train.learning_rate": 0.01,
            "train.keep": "last",
        },
    ),
}


def fit_of(prepared: PreparedData, name: str) -> FittedModel:
    train, valid, settings = FITS[name]
    network, impossible = prepared.loaded.network, set()
    if network.adapter is not None:
        impossible.add("model.freeze")
    if not any(can_checkpoint(module) for module in network.modules()):
        impossible.add("train.checkpoint_activations")
    settings = {key: value for key, value in settings.items() if key not in impossible}
    return fit(prepared, np.array(train), np.array(valid), settings)


def digest(fitted: FittedModel) -> dict[str, str]:
    """What a fit gave, and what the run would store of its settings, as hashes."""
    weights = hashlib.blake2b()
    for name, tensor in sorted(fitted.network.state_dict().items()):
        weights.update(name.encode())
        weights.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    history = [
        (
            look.step,
            look.train_losses.tolist(),
            look.valid_losses.tolist(),
            look.distance,
            look.gradient_norm,
        )
        for look in fitted.trained.history
    ]
    learns = sorted(n for n, p in fitted.network.named_parameters() if p.requires_grad)
    return {
        "weights": weights.hexdigest(),
        "history": hashlib.blake2b(json.dumps(history).encode()).hexdigest(),
        "verdict": json.dumps(to_json(fitted.trained.verdict), sort_keys=True),
        "recipe": fitted.recipe.to_yaml(),
        "learns": " ".join(learns),
    }


def prepared_of(plain: dict[str, Any]) -> PreparedData:
    recipe = parse(plain, "recipe")
    return prepare(
        recipe, task_definition(recipe.task).read(str(recipe.data.path), recipe.data, None)
    )


@pytest.fixture(scope="session")
def recipe_for(make_sample: Callable[[str], Any]) -> Callable[[str], Recipe]:
    return lambda name: override(make_sample(name).recipe, SMALL)


@pytest.fixture(scope="session")
def alone(
    samples: list[str], recipe_for: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What each fit of each sample gives in a process in which nothing was fitted before."""
    jobs = [[f"{s}: {fit}", recipe_for(s).model_dump(), fit] for s in samples for fit in FITS]
    place = tmp_path_factory.mktemp("alone")
    (place / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['fit_alone'](sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, __file__, str(place)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: json.loads((place / f"{i}.json").read_text()) for i, (name, *_) in enumerate(jobs)
    }


def fit_alone(place: str) -> None:
    """Every job in a process of its own, forked from one that has imported all and done nothing."""
    jobs = json.loads(Path(place, "jobs.json").read_text())
    for module in HEAVY:
        importlib.import_module(module)
    for _, plain, _ in jobs:
        task_definition(plain["task"])
    for i, (name, plain, which) in enumerate(jobs):
        child = fork()
        if child == 0:
            try:
                found = digest(fit_of(prepared_of(plain), which))
                Path(place, f"{i}.json").write_text(json.dumps(found))
                os._exit(0)
            except BaseException as error:
                print(name, repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


@pytest.mark.slow
def test_no_fit_sees_another(samples: list[str], recipe_for: Any, alone: dict[str, Any]) -> None:
    """A, B and A again in one process are A and B, each in a process of its own.

    One test for all samples, so that the processes are started once whatever the number of workers.
    """
    for name in samples:
        prepared = prepared_of(recipe_for(name).model_dump())
        before = {n: t.clone() for n, t in prepared.loaded.network.state_dict().items()}
        first = fit_of(prepared, "A")
        given = digest(first)
        other = digest(fit_of(prepared, "B"))
        again = digest(fit_of(prepared, "A"))
        assert given == alone[f"{name}: A"], name
        assert other == alone[f"{name}: B"], name
        assert again == given, name
        assert other["weights"] != given["weights"], name
        # What a fit gave stays its own, and what was prepared stays as it was.
        assert digest(first) == given, name
        after = prepared.loaded.network.state_dict()
        assert all(torch.equal(after[n], tensor) for n, tensor in before.items()), name


def test_the_length_of_targets_is_that_of_the_rows_that_are_learned(recipe_for: Any) -> None:
    prepared = prepared_of(recipe_for("seq2seq").model_dump())
    examples: Any = prepared.examples
    known = set(examples.kept.tolist())
    short = [i for i, size in enumerate(examples.target_sizes) if size < 8 and i in known]
    long = [i for i, size in enumerate(examples.target_sizes) if size > 8]
    assert len(short) > 3
    assert long
    for train, valid, limit in ((short, long, 8), (long, short, 16)):
        fitted = fit(prepared, np.array(train), np.array(valid))
        assert fitted.recipe.model.max_target_length == limit
        sides: Any = fitted.training_plan.splits
        assert sides.valid.target_lengths.max() <= limit
        assert sides.valid.target_cut.all() == (valid is long)
        decided = [d for d in fitted.training_plan.decisions if d.what == "model.max_target_length"]
        assert [d.chosen for d in decided] == [str(limit)]
        assert f"of {len(train)} training targets" in decided[0].because


def test_what_is_prepared_otherwise_in_between_leaves_no_trace(recipe_for: Any) -> None:
    """Accelerate has one precision a process, and PyTorch one number of threads."""
    recipe = recipe_for("classes")
    prepared = prepared_of(recipe.model_dump())
    before = digest(fit_of(prepared, "A"))
    try:
        other = override(recipe, ["train.precision=bfloat16", "train.threads=2", "seed=5"])
        assert digest(fit_of(prepared_of(other.model_dump()), "A")) != before
        assert torch.get_num_threads() == 2
        assert digest(fit_of(prepared, "A")) == before
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


class Counter:
    def __init__(self) -> None:
        self.calls: list[str] = []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Every opened file, loaded model and call of a tokenizer or an image processor."""
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

    counter = Counter()

    def count(what: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counter.calls.append(f"{what} {str(args[:1])[:80]}")
            return real(*args, **kwargs)

        return call

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", count("open", open))
    loads = count("from_pretrained", PreTrainedModel.from_pretrained.__func__)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(loads))
    for maker in (PreTrainedTokenizerBase, BaseImageProcessor):
        monkeypatch.setattr(maker, "__call__", count("encode", maker.__call__))
    return counter


def test_a_fit_reads_no_file_loads_no_model_and_encodes_nothing(
    sample: Any, request: pytest.FixtureRequest, recipe_for: Any, counted: Counter
) -> None:
    prepared = prepared_of(recipe_for(request.node.callspec.params["sample"]).model_dump())
    assert any(call.startswith("open") for call in counted.calls)
    assert any(call.startswith("encode") for call in counted.calls)
    # The first fit imports modules and asks what the machine is.
    fit_of(prepared, "A")
    counted.calls.clear()
    fit_of(prepared, "B")
    # What memory there is, is asked of the machine.
    system = ("'/proc/", "'/sys/")
    assert [call for call in counted.calls if not any(s in call for s in system)] == []


def test_frozen_weights_lie_in_memory_once(
    make_sample: Callable[[str], Any], recipe_for: Any
) -> None:
    prepared = prepared_of(recipe_for("classes, adapter").model_dump())
    fitted = fit_of(prepared, "A")
    start = dict(prepared.loaded.network.named_parameters())
    for name, parameter in fitted.network.named_parameters():
        shared = parameter.data_ptr() == start[name].data_ptr()
        assert shared is not parameter.requires_grad, name
    same = [
        n for n, t in fitted.trained.initial_tensors.items() if t.data_ptr() == start[n].data_ptr()
    ]
    # Only the head was changed before the first step: it was fitted to the features.
    assert {n for n in fitted.trained.initial_tensors if n not in same} <= {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"model.name": "embedded"},
        {"seed": 3},
        {"data.label": "x"},
        {"train.precision": "bfloat16"},
        {"model.dropout": 0.3},
    ],
)
def test_a_fit_cannot_set_what_was_prepared(
    make_sample: Callable[[str], Any], recipe_for: Any, settings: dict[str, Any]
) -> None:
    prepared = prepared_of(recipe_for("classes").model_dump())
    with pytest.raises(RecipeError, match="prepared") as raised:
        fit(prepared, np.arange(8), np.arange(8, 14), settings)
    assert raised.value.what == next(iter(settings))
    assert "Prepare them again" in raised.value.remedy


@pytest.mark.parametrize(
    ("train", "valid", "rule", "value"),
    [
        (np.arange(14) < 9, np.arange(9, 14), "list of integers", "bool of shape (14,)"),
        (np.arange(9), np.arange(14) >= 9, "list of integers", "bool of shape (14,)"),
        ([0.0, 1.5, 2.0], [9, 10], "list of integers", "float64 of shape (3,)"),
        ([[0, 1], [2, 3]], [9, 10], "list of integers", "int64 of shape (2, 2)"),
        ([], [9, 10], "list of integers", "no row"),
        (range(9), [], "list of integers", "no row"),
        ([0, 1, -1], [9, 10], "not among the 14", -1),
        (range(9), [8, 9, 10], "for training and for validation", 8),
    ],
)
def test_positions_that_are_none_are_refused(
    recipe_for: Any, train: Any, valid: Any, rule: str, value: Any
) -> None:
    """A mask would be read as the rows 0 and 1, and −1 as the last row."""
    prepared = prepared_of(recipe_for("classes").model_dump())
    with pytest.raises(Defect, match=rule) as raised:
        fit(prepared, train, valid)
    assert raised.value.value == value


def test_rows_may_repeat_and_stand_in_any_order(recipe_for: Any) -> None:
    prepared = prepared_of(recipe_for("classes").model_dump())
    fitted = fit(prepared, np.array([5, 3, 3, 8, 0, 5], dtype=np.uint8), [12, 9, 12])
    rows = prepared.rows.column("row")
    assert fitted.training_plan.train.rows.tolist() == rows[[5, 3, 3, 8, 0, 5]].tolist()
    assert fitted.training_plan.valid.rows.tolist() == rows[[12, 9, 12]].tolist()


@pytest.mark.parametrize("rows", [[0], [0, 1], [0, 1, 2]])
def test_a_handful_of_rows_is_learned_without_settings(recipe_for: Any, rows: list[int]) -> None:
    """They hold no pairs to contrast, which nobody asked for."""
    prepared = prepared_of(recipe_for("classes").model_dump())
    fitted = fit(prepared, rows, range(9, 14))
    assert fitted.recipe.methods["contrast"] is False
    with pytest.raises(RecipeError, match="at least 4"):
        fit(prepared, rows, range(9, 14), {"methods.contrast": True})


def test_an_interrupted_fit_promises_no_checkpoint_and_disturbs_no_other(
    recipe_for: Any, tmp_path: Path
) -> None:
    class Asks:
        name = "asks"

        def step_done(self, run: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    prepared = prepared_of(recipe_for("classes").model_dump())
    before = digest(fit_of(prepared, "A"))
    with pytest.raises(Interrupted, match="interrupted at step 1") as raised:
        fit(prepared, range(9), range(9, 14), listeners=[Asks()])
    assert "checkpoint" not in str(raised.value)
    assert "resume" not in str(raised.value)
    assert digest(fit_of(prepared, "A")) == before


def test_kept_outputs_go_with_their_fit(recipe_for: Any) -> None:
    prepared = prepared_of(recipe_for("classes").model_dump())
    place = scratch_file("any").parent
    gc.collect()
    before = set(place.glob("prefix-*"))
    settings = {"train.cache_frozen": "on", "model.freeze": 2, "methods.contrast": False}
    fitted = fit(prepared, range(9), range(9, 14), settings)
    assert len(set(place.glob("prefix-*")) - before) == 1
    del fitted
    gc.collect()
    assert set(place.glob("prefix-*")) == before


def test_nothing_of_a_fit_stays_in_memory(recipe_for: Any) -> None:
    """A graph that autograd keeps is seen by no collector, but what hangs on it is."""
    prepared = prepared_of(recipe_for("classes").model_dump())

    def tensors() -> int:
        fit_of(prepared, "A")
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    # The first fit imports, and remembers what it measured once.
    tensors()
    first = tensors()
    assert tensors() == first


@pytest.mark.parametrize(("name", "allowed"), [("seq2seq", False), ("chats", True)])
def test_an_encoder_decoder_is_not_offered_float16(
    name: str, allowed: bool, make_sample: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations of T5 overflow in it."""
    asked: list[bool] = []

    def choose(*settings: object, float16: bool, **others: object) -> None:
        asked.append(float16)
        raise MachineError("this test", "ends here", None, "")

    monkeypatch.setattr("holdfast.prepare.model.choose_machine", choose)
    sample = make_sample(name)
    with pytest.raises(MachineError, match="ends here"):
        prepare(sample.recipe, sample.table)
    assert asked == [allowed]
