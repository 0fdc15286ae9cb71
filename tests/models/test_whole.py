"""What loaders pass over in silence is an error: weights absent, surplus or not finite, an empty
tokenizer, half an adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from holdfast.core.errors import ModelError
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.generators.causal import load_causal, load_saved_causal
from holdfast.models.generators.seq2seq import load_seq2seq
from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
from holdfast.models.loading.weights import check_finite, check_tokenizer
from holdfast.models.vision.vision import load_saved_vision, load_vision

WEIGHTS = "model.safetensors"
LAST = {"bert": "encoder.layer.1.", "t5": "decoder.block.1.", "llama": "layers.1.", "vit": "layer"}


def words_of_their_own() -> Any:
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> dict[str, Path]:
    """A folder of each kind of model, as somebody publishes it."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        T5Config,
        T5ForConditionalGeneration,
        ViTConfig,
        ViTForImageClassification,
    )
    from transformers.models.vit import ViTImageProcessorPil

    root = tmp_path_factory.mktemp("strangers")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    with torch.random.fork_rng(devices=[]):
        BertForSequenceClassification(BertConfig(vocab_size=40, **small)).save_pretrained(
            root / "bert"
        )
        T5ForConditionalGeneration(
            T5Config(
                vocab_size=40,
                d_model=16,
                d_kv=8,
                d_ff=24,
                num_layers=2,
                num_heads=2,
                pad_token_id=0,
                eos_token_id=3,
                decoder_start_token_id=0,
            )
        ).save_pretrained(root / "t5")
        ViTForImageClassification(
            ViTConfig(**small, image_size=16, patch_size=8, num_labels=2)
        ).save_pretrained(root / "vit")
    for name in ("bert", "t5"):
        words_of_their_own().save_pretrained(root / name)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(root / "vit")
    shutil.copytree(tiny_llama, root / "llama")
    return {path.name: path for path in root.iterdir()}


LOAD: dict[str, Callable[[Path], Any]] = {
    "bert": lambda path: load_classifier(str(path), ["a", "b"]),
    "t5": lambda path: load_seq2seq(str(path)),
    "llama": lambda path: load_causal(str(path)),
    "vit": lambda path: load_vision(str(path), ["a", "b"]),
}
SAVED: dict[str, Callable[[Path], Any]] = {
    "bert": load_saved,
    "t5": load_saved_seq2seq,
    "llama": load_saved_causal,
    "vit": load_saved_vision,
}


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def one_of(state: dict[str, Any], part: str = "") -> str:
    """A matrix of a block (``part``) that learns."""
    return next(name for name in sorted(state) if part in name and state[name].ndim == 2)


def without(part: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        del state[one_of(state, part)]

    return change


def spoilt(value: float) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state[one_of(state, "layer" if "layer" in str(sorted(state)) else "block")][0, 0] = value

    return change


def in_shards(folder: Path) -> None:
    """The weights as an index that names two files, of which one is absent."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    names = dict.fromkeys(state, "model-00001-of-00002.safetensors")
    names[one_of(state)] = "model-00002-of-00002.safetensors"
    told = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(told))


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("kind", sorted(LOAD))
def test_a_strangers_model_that_is_whole_is_read(strangers: dict[str, Path], kind: str) -> None:
    LOAD[kind](strangers[kind])
    if kind != "bert":
        SAVED[kind](strangers[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(LOAD))
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("a layer", "weights|tensors"),
        ("nan", "not finite numbers"),
        ("inf", "not finite numbers"),
        ("shards", "cannot be"),
        ("cut", "cannot be"),
    ],
)
def test_a_strangers_model_that_is_not_whole_is_refused(
    strangers: dict[str, Path], tmp_path: Path, kind: str, damage: str, said: str
) -> None:
    folder = Path(shutil.copytree(strangers[kind], tmp_path / "model"))
    if damage in ("nan", "inf"):
        changed(folder, spoilt(float(damage)))
    elif damage == "a layer":
        changed(folder, without(LAST[kind]))
    else:
        {"shards": in_shards, "cut": cut}[damage](folder)
    with pytest.raises(ModelError, match=said) as caught:
        LOAD[kind](folder)
    assert caught.value.remedy
    with pytest.raises(ModelError):
        SAVED[kind](folder)


@pytest.mark.parametrize("kind", ["t5", "llama", "vit"])
def test_a_saved_folder_whose_configuration_has_fewer_layers_is_refused(
    strangers: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(strangers[kind], tmp_path / "model"))
    told = json.loads((folder / "config.json").read_text())
    told |= {
        name: 1
        for name in ("num_hidden_layers", "num_layers", "num_decoder_layers")
        if name in told
    }
    told.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="has no place for"):
        SAVED[kind](folder)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_saved_folder_without_its_tokenizer_is_refused(
    strangers: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(strangers[kind], tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        SAVED[kind](folder)


def test_a_sum_that_overflows_is_no_fault_of_the_weights() -> None:
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.fill_(3e38)
    check_finite("model", layer)
    with torch.no_grad():
        layer.weight[3, 5] = float("-inf")
    with pytest.raises(ModelError, match="1 of 4,096 in weight"):
        check_finite("model", layer)


class Tokens:
    """As much of a tokenizer and a configuration as is looked at."""

    def __init__(self, size: int, words: dict[str, int]) -> None:
        self.vocab_size, self._words = size, words
        self.all_special_tokens = ["[PAD]", "[UNK]"]

    def get_vocab(self) -> dict[str, int]:
        return self._words

    def get_text_config(self) -> Tokens:
        return self


def test_a_tokenizer_fits_its_embeddings_or_has_fewer_words() -> None:
    words = {"[PAD]": 0, "[UNK]": 1, "a": 2}
    for size in (3, 64):
        check_tokenizer("model", Tokens(size, words), Tokens(size, words))
    with pytest.raises(ModelError, match="2 word embeddings"):
        check_tokenizer("model", Tokens(2, words), Tokens(2, words))
    for few in ({}, {"[PAD]": 0, "[UNK]": 1}):
        with pytest.raises(ModelError, match="empty vocabulary"):
            check_tokenizer("model", Tokens(9, few), Tokens(9, few))
