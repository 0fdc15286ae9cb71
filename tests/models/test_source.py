"""Names, folders, hub models and their refusals."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from holdfast.augment.texts.model_forms import masked_model
from holdfast.core.errors import ModelError
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.loading import source
from holdfast.models.loading.options import LoadOptions
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import plain_folder

CLASSES = ("a", "b")


class Trap:
    """Runs code when it is unpickled the careless way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def as_pytorch_file(folder: Path) -> Path:
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    return folder


def test_a_pytorch_file_is_read_by_the_weights_only_loader_which_is_said(
    make_model: Any, batch: Any
) -> None:
    folder = make_model("deberta-v2")
    safe = load_classifier(str(folder), CLASSES)
    loaded = load_classifier(str(as_pytorch_file(folder)), CLASSES)
    (said,) = [d for d in loaded.decisions if d.what == "weights file"]
    assert "weights-only" in said.because
    assert loaded.facts["weights"] == "pytorch"
    inputs = batch(loaded.tokenizer)
    with torch.inference_mode():
        assert torch.equal(loaded.network(**inputs), safe.network(**inputs))


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    protocol: str, make_model: Any, tmp_path: Path
) -> None:
    folder = as_pytorch_file(make_model("bert"))
    weights, trap = folder / "pytorch_model.bin", {"x": Trap(tmp_path / "sprung")}
    if protocol == "torch":
        torch.save(trap, weights)
    else:
        weights.write_bytes(pickle.dumps(trap))
    with pytest.raises(ModelError, match=r"more than numbers|cannot be read"):
        load_classifier(str(folder), CLASSES)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists(), "the trap must work, or this test shows nothing"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_model_does_not_run_unasked(file: str, make_model: Any, tmp_path: Path) -> None:
    folder = make_model("bert")
    (folder / "own_code.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    edit(folder / file, auto_map={"AutoModel": "own_code.Model", "AutoTokenizer": ["own_code.T"]})
    with pytest.raises(ModelError, match=r"--set model\.trust_remote_code=true"):
        load_classifier(str(folder), CLASSES)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_of_an_augmentation_runs_no_code_even_if_somebody_says_yes(
    file: str, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers would ask at the terminal."""
    folder = make_model("bert")
    (folder / "own_code.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    auto_map = {"AutoConfig": "own_code.C", "AutoTokenizer": ["own_code.T", None]}
    edit(folder / file, auto_map=auto_map, model_type="own", tokenizer_class="Own")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # A tokenizer of its own may be replaced by the plain one that its files describe.
    with contextlib.suppress(ModelError):
        masked_model(str(folder))
    assert not (tmp_path / "ran").exists()


def test_an_adapter_s_base_of_the_hub_is_loaded_from_its_folder(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, Transformers would ask the hub to convert weights that are no safetensors."""
    folder = make_model("bert")
    asked: list[tuple[str, str | None]] = []

    def found(name: str, revision: str | None) -> Path:
        asked.append((name, revision))
        return folder

    monkeypatch.setattr("holdfast.models.loading.source.find_folder", found)
    assert plain_folder("owner/name", "abc") == folder
    (folder / "tokenizer_config.json").write_text("no json")
    with pytest.raises(ModelError):
        plain_folder("owner/name")
    assert asked == [("owner/name", "abc"), ("owner/name", None)]


def test_allowed_code_of_a_tokenizer_runs_and_is_not_needed_again(
    make_model: Any, batch: Any, tmp_path: Path
) -> None:
    folder = make_model("bert")
    (folder / "own_code.py").write_text(
        "import os\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class Own(PreTrainedTokenizerFast):\n"
        "    def __init__(self, *args, **kwargs):\n"
        f"        os.makedirs({str(tmp_path / 'ran')!r}, exist_ok=True)\n"
        "        super().__init__(*args, **kwargs)\n"
    )
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own_code.Own"]})
    edit(folder / "config.json", auto_map={"AutoModel": "own_code.Missing"})
    loaded = load_classifier(str(folder), CLASSES, LoadOptions(trust_remote_code=True))
    assert (tmp_path / "ran").exists()
    assert {"model's own code", "tokenizer's own code"} <= {d.what for d in loaded.decisions}
    wanted = batch(loaded.tokenizer)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    found = batch(load_saved(tmp_path / "saved").tokenizer)
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    assert "auto_map" not in (tmp_path / "saved" / "config.json").read_text()
    assert "auto_map" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match="is not a folder") as caught:
        source.find_model(str(tmp_path / "mime"))
    assert f"Did you mean {tmp_path / 'mine'}?" in caught.value.remedy


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        source.find_model(str(tmp_path))


def test_a_model_without_tokenizer_or_weights_says_which(make_model: Any) -> None:
    folder = make_model("bert")
    shutil.move(folder / "tokenizer.json", folder / "elsewhere")
    with pytest.raises(ModelError, match="no tokenizer"):
        source.find_model(str(folder))
    shutil.move(folder / "elsewhere", folder / "tokenizer.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        source.find_model(str(folder))


def test_a_damaged_weights_file_is_an_error_of_the_input(make_model: Any) -> None:
    folder = make_model("bert")
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be read"):
        load_classifier(str(folder), CLASSES)


def test_weights_of_another_shape_are_refused(make_model: Any) -> None:
    folder = make_model("bert")
    edit(folder / "config.json", intermediate_size=64)
    with pytest.raises(ModelError, match="of another size"):
        load_classifier(str(folder), CLASSES)


def test_absent_weights_are_refused_and_never_drawn(make_model: Any) -> None:
    folder = make_model("bert")
    edit(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelError, match="lacks 16 of the weights of a BERT"):
        load_classifier(str(folder), CLASSES)


def test_an_architecture_that_does_not_fit_is_named(make_model: Any) -> None:
    folder = make_model("bert")
    edit(folder / "config.json", model_type="gpt2")
    with pytest.raises(ModelError, match="gpt2"):
        load_classifier(str(folder), CLASSES)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(make_model: Any) -> None:
    folder = make_model("bert", vocab_size=10)
    with pytest.raises(ModelError, match="fewer than its tokenizer"):
        load_classifier(str(folder), CLASSES)


def test_without_a_network_a_hub_name_says_so() -> None:
    with pytest.raises(ModelError, match="not reachable") as caught:
        source.find_model("nobody/no-such-model")
    assert "embedded" in caught.value.remedy


def test_a_cached_hub_model_serves_without_a_network(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache" / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123abcd")
    shutil.copytree(make_model("bert"), cached / "snapshots" / "0123abcd")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    found = source.find_model("owner/name")
    assert found.folder == cached / "snapshots" / "0123abcd"
    assert found.commit == "0123abcd"
    with pytest.raises(ModelError, match="not reachable"):
        source.find_model("owner/name", revision="another")
    with pytest.raises(ModelError, match="not reachable") as caught:
        source.find_model("owner/nane")
    assert "Did you mean 'owner/name'? Known: embedded, owner/name, smollm2." in caught.value.remedy


def hub_error(name: str) -> Exception:
    import huggingface_hub.errors as hub

    kind = getattr(hub, name)
    error: Exception = kind.__new__(kind)
    error.args = ("refused",)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "read token"),
        ("RepositoryNotFoundError", "Check the spelling"),
        ("RevisionNotFoundError", "this revision"),
        ("LocalEntryNotFoundError", "not reachable"),
        ("OfflineModeIsEnabled", "not reachable"),
    ],
)
def test_each_refusal_of_the_hub_says_what_to_do(error: str, message: str) -> None:
    explained = source._hub_error("owner/name", "v1", hub_error(error))
    assert isinstance(explained, ModelError)
    assert message in str(explained)


def test_a_gated_model_is_refused_at_its_files_with_token_and_licence_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub lists a gated model's files for anybody, and refuses the files themselves."""
    import types

    import huggingface_hub

    def refuse(*_: Any, **settings: Any) -> str:
        raise hub_error(
            "LocalEntryNotFoundError" if settings.get("local_files_only") else "GatedRepoError"
        )

    listed = types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename="model.safetensors")])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match="licence") as caught:
        source.find_model("meta-llama/Llama-2-7b-hf")
    assert "meta-llama/Llama-2-7b-hf" in caught.value.remedy
    assert "HF_TOKEN" in caught.value.remedy


def test_only_one_set_of_weights_is_fetched() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.safetensors"]
    assert source._weights_pattern(both) == "model*.safetensors"
    assert source._weights_pattern(["pytorch_model.bin", "x/a.safetensors"]) == "pytorch*.bin"


def test_loading_and_saving_are_silent(
    make_model: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_model("bert")
    capfd.readouterr()
    loaded = load_classifier(str(folder), CLASSES, pooling="own")
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    assert capfd.readouterr() == ("", "")


def test_silence_ends_with_the_block() -> None:
    from transformers.utils import logging as hf_logging

    before = logging.getLogger("transformers").level, hf_logging.is_progress_bar_enabled()
    with pytest.raises(ZeroDivisionError), quiet_transformers():
        _ = 1 / 0
    after = logging.getLogger("transformers").level, hf_logging.is_progress_bar_enabled()
    assert after == before


def test_the_hash_of_a_model_is_that_of_its_weight_files_in_the_order_of_their_names(
    make_model: Any,
) -> None:
    folder = make_model("bert")
    whole = source.find_model(str(folder))
    first = source.weights_digest(whole)
    assert first == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    parts = {"model-00002-of-00002.safetensors": b"cd", "model-00001-of-00002.safetensors": b"ab"}
    (folder / "model.safetensors").unlink()
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    assert source.weights_digest(whole) == hashlib.sha256(b"abcd").hexdigest()
    embedded = source.find_model("embedded")
    weights = (embedded.folder / "model.safetensors").read_bytes()
    assert source.weights_digest(embedded) == hashlib.sha256(weights).hexdigest()
