"""Model folders of somebody who means no good, and names that are none: exit 2, named, in little
time and memory, and nothing of it on the terminal but one block."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import InputError, RecipeError
from holdfast.core.machine import OverrunError, resource_bounds
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.encoders.families import FAMILIES
from holdfast.models.loading.card import purpose_of
from holdfast.models.loading.checks import check_claims
from holdfast.models.loading.source import find_model
from holdfast.models.vision.families import VISION_FAMILIES
from holdfast.tasks.lm.chat_tokens import render

CLASSES = ["a", "b"]
BROKEN: dict[str, bytes] = {
    "a list": b"[]",
    "nothing": b"",
    "null": b"null",
    "a number": b"3",
    "a word": b'"x"',
    "torn": b'{"a": ',
    "NaN": b"NaN",
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "deep lists": b"[" * 100_000,
    "deep enough": b'{"a":' * 100 + b"1" + b"}" * 100,
    "bytes": bytes(range(256)),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
}
FILES = [
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "preprocessor_config.json",
    "sentence_bert_config.json",
    "model.safetensors.index.json",
]
CLAIMS: list[dict[str, Any]] = [
    {"num_labels": 10**9},
    {"num_labels": -5},
    {"num_labels": "2"},
    {"vocab_size": 10**9},
    {"vocab_size": -1},
    {"vocab_size": "x"},
    {"vocab_size": None},
    {"vocab_size": 1e300},
    {"vocab_size": True},
    {"hidden_size": 10**9},
    {"hidden_size": -32},
    {"hidden_size": "32"},
    {"hidden_size": 0},
    {"hidden_size": [32]},
    {"hidden_size": 31},
    {"hidden_size": 64},
    {"num_hidden_layers": 10**9},
    {"num_hidden_layers": "two"},
    {"num_hidden_layers": 100},
    {"num_hidden_layers": 1e9},
    {"num_hidden_layers": {}},
    {"num_attention_heads": 0},
    {"num_attention_heads": 10**9},
    {"num_attention_heads": "x"},
    {"intermediate_size": 10**12},
    {"intermediate_size": -1},
    {"max_position_embeddings": 10**10},
    {"max_position_embeddings": "x"},
    {"max_position_embeddings": None},
    {"type_vocab_size": 10**9},
    {"hidden_act": "no_such"},
    {"hidden_act": ["x"]},
    {"model_type": "no_such"},
    {"model_type": None},
    {"model_type": ["bert"]},
    {"model_type": {}},
    {"model_type": 3},
    {"id2label": 3},
    {"id2label": "x"},
    {"label2id": [1]},
    {"architectures": {"a": 1}, "model_type": "gpt9"},
    {"hidden_dropout_prob": "x"},
    {"hidden_dropout_prob": 7},
    {"layer_norm_eps": "x"},
    {"initializer_range": "x"},
    {"quantization_config": 3},
    {"quantization_config": {"quant_method": "x"}},
    {"auto_map": {"AutoModel": "evil.Model"}},
    {"auto_map": ["evil"]},
    {"auto_map": "evil"},
    {"text_config": {"num_labels": 10**9}},
    {"torch_dtype": "no_such"},
    {"dtype": ["x"]},
    {"pad_token_id": 10**12},
    {"pad_token_id": "x"},
    {"chunk_size_feed_forward": "x"},
]
# What a plain library takes with a shrug, and what is not used: loaded all the same.
HARMLESS: tuple[dict[str, Any], ...] = (
    {"num_labels": -5},
    {"num_labels": "2"},
    {"id2label": 3},
    {"label2id": [1]},
    {"torch_dtype": "no_such"},
)
TOKENIZERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no model": lambda t: {k: v for k, v in t.items() if k != "model"},
    "model is a list": lambda t: t | {"model": []},
    "no such model": lambda t: t | {"model": {"type": "Evil"}},
    "vocabulary is a list": lambda t: t | {"model": t["model"] | {"vocab": ["a", "b"]}},
    "ids below 0": lambda t: t | {"model": t["model"] | {"vocab": {"a": -1}}},
    "ids of 2^60": lambda t: t | {"model": t["model"] | {"vocab": {"a": 2**60}}},
    "version 9": lambda t: t | {"version": "9.9"},
    "normaliser of nobody": lambda t: t | {"normalizer": {"type": "Evil"}},
    "a terrible pattern": lambda t: (
        t
        | {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(("},
                "behavior": "Isolated",
                "invert": False,
            }
        }
    ),
    "added tokens are words": lambda t: t | {"added_tokens": ["x"]},
    "a list": lambda t: [t],
    "null": lambda t: None,
}


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    made = tmp_path / "model"
    shutil.copytree(tiny_model, made)
    return made


def refused(folder: Path) -> str:
    """What is told of a folder that must not load, in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        load_classifier(str(folder), CLASSES)
    told = str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB
    assert folder.name in told
    assert len(told) < 2000
    assert "\x1b" not in told
    return told


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("file", FILES)
def test_a_small_file_that_is_broken(folder: Path, file: str, content: str) -> None:
    (folder / file).write_bytes(BROKEN[content])
    assert file in refused(folder)


@pytest.mark.parametrize("content", [name for name in BROKEN if name not in ("null", "nothing")])
def test_a_tokenizer_that_is_broken(
    folder: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "tokenizer.json").write_bytes(BROKEN[content])
    assert "tokenizer" in refused(folder)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_of_another_shape(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(TOKENIZERS[name](json.loads(path.read_text()))))
    assert "tokenizer" in refused(folder)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: json.dumps(claim)[:40])
def test_a_configuration_that_claims_what_is_not_there(folder: Path, claim: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | claim))
    if claim in HARMLESS:
        with contextlib.suppress(InputError):
            load_classifier(str(folder), CLASSES)
        return
    refused(folder)


def test_no_usual_configuration_claims_too_much() -> None:
    from transformers import CONFIG_MAPPING

    kinds = [
        *FAMILIES,
        *VISION_FAMILIES,
        "gpt2",
        "llama",
        "qwen2",
        "gemma2",
        "phi3",
        "mistral",
        "t5",
        "bart",
        "marian",
        "pegasus",
        "mimi_encoder",
        "sam2_video",
    ]
    for kind in kinds:
        if kind in CONFIG_MAPPING:
            settings = json.loads(json.dumps(CONFIG_MAPPING[kind]().to_dict(), default=str))
            check_claims(kind, settings, pictures=True)


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "dangling"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_no_file(folder: Path, file: str, kind: str) -> None:
    path = folder / file
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(file if kind == "loop" else "nowhere")
    refused(folder)


def header(value: Any) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "noise": os.urandom(5000),
    "2^60": struct.pack("<Q", 2**60) + b"{}",
    "2^63": struct.pack("<Q", 2**63) + bytes(99),
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "a list": header([]),
    "no tensors": header({}),
    "deep": struct.pack("<Q", 50_000) + b'{"a":' * 10_000,
    "beyond the end": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    "overlapping": header(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        }
    )
    + bytes(12),
    "a shape of 2^62": header({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}})
    + bytes(4),
    "negative": header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + bytes(4),
    "a type of nobody": header({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}})
    + bytes(4),
    "a pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_lie(folder: Path, name: str) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS[name])
    refused(folder)


def test_weights_that_were_cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for size in (9, 500, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:size])
        refused(folder)


def test_an_index_that_leads_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder)


def test_a_pickle_that_runs_code_is_not_loaded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    mark = folder.parent / "ran"
    code = f"cposix\nsystem\n(S'touch {mark}'\ntR."
    (folder / "pytorch_model.bin").write_bytes(code.encode())
    refused(folder)
    assert not mark.exists()


def test_an_adapter_that_puts_another_model_in_its_place(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    assert "adapter_config.json" in refused(folder)


NAMES = [
    "a\0b",
    "a\nb",
    "a b",
    "..",
    "../..",
    "x" * 5000,
    "x/" * 3000,
    "~nobody/x",
    "\x1b[2J",
    "",
    " ",
    "/",
    "/dev/null",
    "/dev/zero",
    "owner/name/more",
    "-x",
    "é/ü",
    "a//b",
    "\udcff",
    ".",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(InputError):  # told when the model is loaded
        purpose_of(name)
    with pytest.raises(InputError) as caught:
        find_model(name)
    assert "\x1b" not in str(caught.value)


def test_a_name_that_is_none_on_the_command_line(
    tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    rows = "".join(f"words {i},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    for name in ("a\nb", "x" * 5000):
        done = holdfast("train", "rows.csv", f"--model={name}", "--dry-run")
        assert done.code == 2
        assert "model.name" in done.err


class Template:
    """Something that renders a chat template as a tokenizer does."""

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def apply_chat_template(self, turns: Any, **options: Any) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered = render_jinja_template([turns], chat_template=self.chat_template)
        return str(rendered[0][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}"
        "{% endfor %}{{ n.x }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
        "{% for %}",
        "{{ messages[0].nothing.at_all }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_chat_template_without_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.tasks.lm.chat_tokens.LONGEST_S", 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # That it comes back is the claim: left alone the first one counts to ten thousand million.
    with pytest.raises(RecipeError, match="refuses a row"):
        render(Template(template), [{"role": "user", "content": "x"}], answer_next=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB


def endless() -> None:
    while True:
        pass


def test_bounds_are_as_they_were_afterwards() -> None:
    import signal

    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    with pytest.raises(OverrunError), resource_bounds(0.05, 10**9):
        endless()
    with pytest.raises(MemoryError), resource_bounds(5, 10**8):
        bytearray(10**9)
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getsignal(signal.SIGALRM) is handler
    assert len(bytearray(2 * 10**8)) == 2 * 10**8
