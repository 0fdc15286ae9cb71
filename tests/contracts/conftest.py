"""One small, whole sample of every kind of task (and of labels), for the kits of the joints.

A kind without a sample fails ``test_kinds.py``. A sample is a source file and settings; all else
is asked of the kind itself, so that the kits know nothing of any task.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.contract.fit import TaskDefinition
from holdfast.data.table import Table
from holdfast.models.base import LoadedModel
from holdfast.plan.adapters import with_adapter
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition
from holdfast.training.task import Examples, TrainingTask

WORDS = [f"w{i}" for i in range(40)]
ROWS = 14


@dataclass(frozen=True)
class Sample:
    """A kind at work on a handful of rows: what each of its functions gave."""

    recipe: Recipe
    definition: TaskDefinition
    table: Table
    loaded: LoadedModel
    examples: Examples
    task: TrainingTask


def _text(rng: np.random.Generator, most: int = 30) -> str:
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(1, most)))


def _rows(
    folder: Path, rows: int, make: Callable[[np.random.Generator, int], dict[str, Any]]
) -> str:
    rng, path = np.random.default_rng(0), folder / "rows.jsonl"
    lines = [json.dumps(make(rng, i)) for i in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _classes(folder: Path, rows: int = ROWS) -> str:
    return _rows(folder, rows, lambda rng, i: {"text": _text(rng), "label": "ab"[i % 2]})


def _pairs_of_texts(folder: Path, rows: int = ROWS) -> str:
    return _rows(
        folder,
        rows,
        lambda rng, i: {"text": _text(rng), "text_pair": _text(rng), "label": "ab"[i % 2]},
    )


def _several(folder: Path, rows: int = ROWS) -> str:
    sets = [["a"], ["a", "b"], [], ["b"]]
    return _rows(folder, rows, lambda rng, i: {"text": _text(rng), "label": sets[i % 4]})


def _numbers(folder: Path, rows: int = ROWS) -> str:
    return _rows(
        folder, rows, lambda rng, i: {"text": _text(rng), "label": round(3.5 * i, 1) + 0.25}
    )


def _tags(folder: Path, rows: int = ROWS) -> str:
    # The third sentence is longer than the model reads.
    def row(rng: np.random.Generator, i: int) -> dict[str, Any]:
        words = _text(rng, 60 if i == 2 else 12).split()
        return {
            "tokens": words,
            "tags": rng.choice(["O", "B-X", "I-X", "B-Y"], len(words)).tolist(),
        }

    return _rows(folder, rows, row)


def _pairs(folder: Path, rows: int = ROWS) -> str:
    # The third target has no known letter, so that a row is left out.
    def row(rng: np.random.Generator, i: int) -> dict[str, Any]:
        return {"source": _text(rng), "target": "☃" if i == 2 else _text(rng, 12)}

    return _rows(folder, rows, row)


def _chats(folder: Path, rows: int = ROWS) -> str:
    # The fourth question fills the model's length, so that no token of its answer is left.
    def row(rng: np.random.Generator, i: int) -> dict[str, Any]:
        question = "why " * 40 if i == 3 else _text(rng, 5)
        turns = [("user", question), ("assistant", _text(rng, 4))]
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    return _rows(folder, rows, row)


def _texts(folder: Path, rows: int = ROWS) -> str:
    return _rows(folder, rows, lambda rng, i: {"text": _text(rng, 4 if i % 3 else 60)})


def _pictures(folder: Path, rows: int = ROWS) -> str:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(rows):
        place = folder / "pictures" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (12, 10, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return str(folder / "pictures")


SHORT = ["model.max_length=24"]
LORA = ["model.adapter.kind=lora", "model.adapter.rank=2"]
# name: task, the model's fixture, how its source is made, settings.
SAMPLES: dict[str, tuple[str, str, Callable[..., str], list[str]]] = {
    "classes": ("text-classification", "tiny_model", _classes, ["model.max_length=24"]),
    "classes, adapter": (
        "text-classification",
        "tiny_model",
        _classes,
        [*LORA, "model.adapter.merge=true"],
    ),
    "classes, a decoder": ("text-classification", "tiny_llama", _classes, SHORT),
    "tags, an encoder-decoder": (
        "token-classification",
        "tiny_t5",
        _tags,
        ["data.labels=exact", *SHORT],
    ),
    "pairs of texts": (
        "text-classification",
        "tiny_model",
        _pairs_of_texts,
        ["data.text=[text, text_pair]", "model.pooling=own"],
    ),
    "several labels": ("text-classification", "tiny_model", _several, ["data.label_kind=several"]),
    "numbers": ("text-classification", "tiny_model", _numbers, ["data.label_kind=number"]),
    "tags": ("token-classification", "tiny_model", _tags, ["data.labels=exact", *SHORT]),
    "tags, adapter": (
        "token-classification",
        "tiny_model",
        _tags,
        ["data.labels=exact", *LORA, "model.adapter.merge=true"],
    ),
    "seq2seq": (
        "seq2seq",
        "tiny_t5",
        _pairs,
        ["data.text=source", "data.target=target", "model.max_length=16"],
    ),
    "chats": ("causal-lm", "tiny_llama", _chats, ["model.max_length=100", "data.template=chatml"]),
    "plain texts, adapter": (
        "causal-lm",
        "tiny_llama",
        _texts,
        [*LORA, "model.adapter.merge=true", "model.max_length=64"],
    ),
    "pictures": ("image-classification", "tiny_vit", _pictures, []),
    "pictures, batch norms": ("image-classification", "tiny_resnet", _pictures, []),
}


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a T5 of two layers of 32 units, drawn at random, that reads WORDS."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
    from transformers.utils import logging

    folder = tmp_path_factory.mktemp("encoder-decoder") / "tiny-t5"
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(vocab_size=len(vocabulary), decoder_start_token_id=0, **sizes)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    logging.enable_progress_bar()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def _vision(folder: Path, kind: str) -> Path:
    place = Path(__file__).parents[1] / "models" / "vision.py"
    spec = importlib.util.spec_from_file_location("vision_models", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Path = module.tiny_vision(folder / kind, kind)
    return made


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _vision(tmp_path_factory.mktemp("vision"), "vit")


@pytest.fixture(scope="session")
def tiny_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _vision(tmp_path_factory.mktemp("vision"), "resnet")


def sample_of(name: str, model: Path, folder: Path) -> Sample:
    """What the kind makes of the sample, by its own functions."""
    task, _, source, settings = SAMPLES[name]
    data = [f"task={task}", f"data.path={source(folder)}", f"model.name={model}"]
    recipe = override(Recipe(), [*data, *settings])
    definition = task_definition(task)
    table = definition.read(str(recipe.data.path), recipe.data, None)
    loaded = with_adapter(definition.load(recipe, table), recipe)
    examples = definition.encode(table, loaded, recipe)
    return Sample(
        recipe,
        definition,
        table,
        loaded,
        examples,
        definition.make_task(loaded, table, recipe, None),
    )


@pytest.fixture(scope="session")
def make_sample(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Sample]:
    made: dict[str, Sample] = {}

    def make(name: str) -> Sample:
        if name not in made:
            model = request.getfixturevalue(SAMPLES[name][1])
            made[name] = sample_of(name, model, tmp_path_factory.mktemp("sample"))
        return made[name]

    return make


# One sample of each task is tried at once; what differs in the adapter or the architecture, later.
LATER = {name for name in SAMPLES if "," in name}


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in LATER else []) for n in SAMPLES]
)
def sample(request: pytest.FixtureRequest, make_sample: Callable[[str], Sample]) -> Sample:
    """Each sample in turn, made once a session; no test may change it."""
    return make_sample(request.param)


@pytest.fixture
def inputs(sample: Sample) -> dict[str, Any]:
    """A batch of the sample's first examples: what its network is called with."""
    batch = sample.task.collate(sample.examples, np.arange(4))
    known = ["input_ids", "attention_mask", "token_type_ids", "pixel_values"]
    return {name: batch[name] for name in [*known, *_needed(sample)] if name in batch}


def _needed(sample: Sample) -> list[str]:
    """What the network's ``forward`` names, beside what it takes by any name."""
    import inspect

    network: Any = sample.loaded.network
    return [name for name in inspect.signature(network.forward).parameters if name != "inputs"]


@pytest.fixture(scope="session")
def samples() -> list[str]:
    return list(SAMPLES)


@pytest.fixture
def whole_source(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[str]]:
    """The settings of a sample, with 120 rows: enough for every part of a run."""

    def source_of(name: str) -> list[str]:
        task, model, make, settings = SAMPLES[name]
        data, folder = make(tmp_path, rows=120), request.getfixturevalue(model)
        return [f"task={task}", f"data.path={data}", f"model.name={folder}", *settings]

    return source_of
