"""What lies on a machine as a base model: folders that are named, and the Hugging Face cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import ModelError
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.loading.local import LocalModel, SkippedModel, local_encoders
from holdfast.models.loading.options import LoadOptions

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EMBEDDED = LocalModel("embedded")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    from huggingface_hub import constants, file_download

    folder = tmp_path / "hub"
    folder.mkdir()
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(folder), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.delenv("HOLDFAST_MODELS", raising=False)
    return folder


@pytest.fixture
def stored(cache: Path, make_model: Callable[..., Path]) -> Callable[..., Path]:
    """Puts a tiny BERT into the cache as a model of the hub, and gives its snapshot."""

    def make(name: str, main: bool = True) -> Path:
        place = cache / f"models--{name.replace('/', '--')}"
        snapshot = place / "snapshots" / COMMIT
        snapshot.parent.mkdir(parents=True)
        shutil.copytree(make_model("bert"), snapshot)
        if main:
            (place / "refs").mkdir()
            (place / "refs" / "main").write_text(COMMIT, "utf-8")
        return snapshot

    return make


def change(snapshot: Path, **settings: Any) -> None:
    path = snapshot / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")


def test_with_an_empty_cache_only_the_embedded_model_is_there(cache: Path) -> None:
    assert local_encoders() == ([EMBEDDED], [])
    cache.rmdir()
    assert local_encoders() == ([EMBEDDED], [])


def test_a_cached_encoder_is_loaded_by_its_commit_without_the_hub(
    stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    stored("some/encoder")
    stored("other/encoder", main=False)
    found, skipped = local_encoders()
    assert found == [
        EMBEDDED,
        LocalModel("other/encoder", COMMIT),
        LocalModel("some/encoder", COMMIT),
    ]
    assert skipped == []
    monkeypatch.setattr(huggingface_hub, "HfApi", asked)
    loaded = load_classifier("some/encoder", ("a", "b"), LoadOptions(revision=COMMIT))
    assert loaded.facts["commit"] == COMMIT


def break_weights(snapshot: Path) -> None:
    (snapshot / "model.safetensors").unlink()


def pickles_only(snapshot: Path) -> None:
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")


def half_a_model(snapshot: Path) -> None:
    parts = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(parts), "utf-8")


@pytest.mark.parametrize(
    ("damage", "because"),
    [
        (break_weights, "no weights"),
        (pickles_only, "no weights in safetensors"),
        (half_a_model, "has a missing or empty weight file (model-2.safetensors)"),
        (lambda s: (s / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda s: change(s, auto_map={"AutoModel": "code.Own"}), "brings code of its own"),
        (lambda s: change(s, architectures=["LlamaForCausalLM"]), "not a text encoder (decoder)"),
        (lambda s: change(s, model_type="vit", architectures=[]), "not a text encoder (pictures)"),
        (lambda s: change(s, model_type="whisper", architectures=[]), "not a text encoder"),
        (lambda s: change(s, quantization_config={"bits": 4}), "already quantised"),
        (lambda s: (s / "config.json").write_text("{", "utf-8"), "no readable config.json"),
    ],
)
def test_what_cannot_be_used_is_skipped_with_its_reason(
    stored: Any, damage: Callable[[Path], object], because: str
) -> None:
    damage(stored("some/model"))
    found, skipped = local_encoders()
    assert found == [EMBEDDED]
    assert [type(one) for one in skipped] == [SkippedModel]
    assert skipped[0].name == "some/model"
    assert because in skipped[0].because


@pytest.mark.parametrize(
    ("damage", "because"),
    [
        (lambda p: (p / "refs" / "main").write_bytes(b"\xff\xfe\x00"), "unreadable refs/main"),
        (lambda p: (p / "refs" / "main").write_text("f" * 40, "utf-8"), "commit ffffffff has no"),
        (lambda p: shutil.rmtree(p / "snapshots"), "commit 01234567 has no config.json"),
        (lambda p: [shutil.rmtree(p / one) for one in ("refs", "snapshots")], "no main branch"),
    ],
)
def test_a_damaged_entry_of_the_cache_is_skipped_with_its_reason(
    stored: Any, cache: Path, damage: Callable[[Path], object], because: str
) -> None:
    stored("some/model")
    stored("other/model")
    damage(cache / "models--some--model")
    found, skipped = local_encoders()
    assert found == [EMBEDDED, LocalModel("other/model", COMMIT)]
    assert [one.name for one in skipped] == ["some/model"]
    assert because in skipped[0].because


def test_of_a_model_with_code_that_is_named_the_remedy_is_to_name_it_alone(
    make_model: Callable[..., Path], cache: Path
) -> None:
    folder = make_model("bert")
    change(folder, auto_map={"AutoModel": "code.Own"})
    with pytest.raises(ModelError, match="brings code") as error:
        local_encoders([str(folder)])
    assert error.value.remedy.startswith("Remove it from model.candidates, or set model.name")


def test_a_folder_of_models_is_listed_and_a_broken_one_is_an_error(
    cache: Path, make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("b", "a"):
        shutil.copytree(make_model("bert"), folder / name)
    (folder / "notes.txt").write_text("no model", "utf-8")
    monkeypatch.setenv("HOLDFAST_MODELS", str(folder))
    both = [LocalModel(str(folder / name), None, "HOLDFAST_MODELS") for name in ("a", "b")]
    assert local_encoders() == ([EMBEDDED, *both], [])
    monkeypatch.setenv("HOLDFAST_MODELS", f"{folder / 'b'}:{folder}")
    assert local_encoders() == ([EMBEDDED, both[1], both[0]], [])
    link = tmp_path / "link"
    link.symlink_to(folder / "a")
    named = LocalModel(str(link), None, "model.candidates")
    assert local_encoders([str(link), str(folder / "a")])[0] == [EMBEDDED, named, both[1]]
    (folder / "a" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights") as error:
        local_encoders()
    assert error.value.remedy.endswith("It is listed in HOLDFAST_MODELS.")
    with pytest.raises(ModelError, match="is neither a folder"):
        local_encoders(["./missing"])
    (folder / "b" / "README.md").write_text("---\ntags:\n- holdfast\n---\n", "utf-8")
    monkeypatch.setenv("HOLDFAST_MODELS", str(folder / "b"))
    with pytest.raises(ModelError, match="was fine-tuned by Holdfast"):
        local_encoders()
    for wrong in (tmp_path / "nowhere", folder / "notes.txt", cache, "~nosuchuser/models"):
        monkeypatch.setenv("HOLDFAST_MODELS", str(wrong))
        with pytest.raises(ModelError, match="HOLDFAST_MODELS"):
            local_encoders()
