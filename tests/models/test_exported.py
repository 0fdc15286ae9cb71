"""What is exported is the saved model: without its carrying block, in one file, at any size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import ModelError
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.loading.options import LoadOptions
from holdfast.models.vision.vision import load_saved_vision, load_vision
from holdfast.plugins.export.graphs import (
    OnnxEngine,
    OpenVinoEngine,
    quantise,
    write_onnx,
    write_openvino,
)
from holdfast.plugins.export.model import (
    Exportable,
    exportable_image_model,
    exportable_text_model,
    merge_adapter,
)
from holdfast.plugins.export.proof import (
    TOLERANCE,
    compare_file,
    proof_lengths,
    synthetic_batch,
    synthetic_rows,
)

CLASSES = ("yes", "no", "it's “complicated”")


def saved_text(folder: Path, place: Path, temperature: float = 1.5) -> Exportable:
    """A classifier with every weight moved, saved, and read back twice."""
    loaded = load_classifier(str(folder), CLASSES, LoadOptions(seed=1))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    loaded.network.save(place, loaded.tokenizer, temperature)
    one, two = load_saved(place), load_saved(place)
    return exportable_text_model(
        one.network.model, two.network.model, one.tokenizer, one.max_length
    )


def read_facts(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def apart(whole: Exportable, rows: tuple[torch.Tensor, ...]) -> float:
    with torch.inference_mode():
        wanted, found = whole.saved(*rows), whole.network(*rows)
    return float((wanted - found).abs().max() / wanted.abs().max())


def test_the_model_without_its_carrying_block_gives_the_same_logits(
    carrying: str, make_model: Any, tmp_path: Path
) -> None:
    whole = saved_text(make_model(carrying), tmp_path / "saved")
    # ModernBERT is told to take the mean, and carries nothing.
    assert whole.lean is (carrying != "modernbert")
    rows = synthetic_rows(whole, 7, 30)
    assert rows[1].min() == 0, "the batch must hold padding"
    assert apart(whole, rows) <= TOLERANCE
    if whole.lean:
        layers = [sum(p.numel() for p in one.parameters()) for one in (whole.network, whole.saved)]
        assert layers[0] < layers[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exportable, Path]:
    from holdfast.models.loading.quiet import quiet_transformers

    conftest: Any = sys.modules[f"{__name__.rpartition('.')[0]}.conftest"]
    folder = tmp_path_factory.mktemp("exported")
    with quiet_transformers():
        conftest.tiny_model(folder / "tiny", "bert", max_position_embeddings=520)
    whole = saved_text(folder / "tiny", folder / "saved")
    write_onnx(whole, folder / "model.onnx", {"labels": '["é"]', "threshold": "0.7"})
    return whole, folder / "model.onnx"


@pytest.mark.slow
def test_one_file_is_the_model_at_every_batch_and_length(file: tuple[Exportable, Path]) -> None:
    whole, path = file
    assert proof_lengths(whole) == (2, 33, 512)
    gap = compare_file(whole, OnnxEngine(path).run)
    assert gap.relative <= TOLERANCE
    sizes = [f"{batch}x{length}" for length in (2, 33, 512) for batch in (1, 7, 64)]
    assert list(gap.shapes) == sizes


def test_what_is_needed_to_use_the_file_stands_in_it(file: tuple[Exportable, Path]) -> None:
    assert read_facts(file[1]) == {"labels": '["é"]', "threshold": "0.7"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["a padded row", "a long text", "not a number", "one logit"])
def test_a_file_that_computes_something_else_is_seen(
    file: tuple[Exportable, Path], fault: str
) -> None:
    whole, path = file
    engine = OnnxEngine(path)

    def faulty(given: Any) -> Any:
        if fault == "a padded row":
            given = {**given, "attention_mask": torch.ones_like(given["attention_mask"])}
        if fault == "a long text" and given["input_ids"].shape[1] > 40:
            given = {name: value[:, :40] for name, value in given.items()}
        found = engine.run(given)
        if fault == "not a number" and len(found) == 64:
            found[63, 1] = np.nan
        if fault == "one logit" and len(found) == 64:
            found[63, 2] += 1e-2
        return found

    assert not compare_file(whole, faulty).relative <= TOLERANCE


@pytest.mark.slow
def test_a_resnet_in_one_file_is_the_model_at_every_batch(tmp_path: Path) -> None:
    vision: Any = sys.modules.get("vision") or _vision()
    loaded = load_vision(
        str(vision.tiny_vision(tmp_path / "tiny", "resnet")), CLASSES, LoadOptions(seed=1)
    )
    loaded.network.save(tmp_path / "saved", loaded.tokenizer, 0.7)
    one, two = (load_saved_vision(tmp_path / "saved") for _ in range(2))
    whole = exportable_image_model(
        one.network.model, two.network.model, (3, vision.SIDE, vision.SIDE)
    )
    write_onnx(whole, tmp_path / "model.onnx", {})
    gap = compare_file(whole, OnnxEngine(tmp_path / "model.onnx").run)
    assert gap.relative <= TOLERANCE
    assert list(gap.shapes) == [f"{batch}x3x32x32" for batch in (1, 7, 64)]


def _vision() -> Any:
    import importlib.util

    place = Path(__file__).parent / "vision.py"
    spec = importlib.util.spec_from_file_location("vision", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_adapter_is_merged_into_the_function(make_model: Any, tmp_path: Path) -> None:
    from holdfast.models.base import AdapterSpec

    folder = make_model("bert")
    loaded = load_classifier(
        str(folder), CLASSES, LoadOptions(adapter=AdapterSpec("lora", rank=4), seed=1)
    )
    with torch.no_grad():
        for name, parameter in loaded.network.named_parameters():
            if "lora" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    one, two = load_saved(tmp_path / "saved"), load_saved(tmp_path / "saved")
    whole = exportable_text_model(
        one.network.model, two.network.model, one.tokenizer, one.max_length
    )
    assert not any("lora" in name for name, _ in whole.network.named_parameters())
    assert any("lora" in name for name, _ in whole.saved.named_parameters())
    assert apart(whole, synthetic_rows(whole, 7, 20)) <= TOLERANCE


def test_a_learnt_prompt_is_refused_by_its_name() -> None:
    class Prompt:
        is_prompt_learning, peft_type = True, "PeftType.PROMPT_TUNING"

    class Adapted:
        active_peft_config = Prompt()

    with pytest.raises(ModelError, match="prompt_tuning"):
        merge_adapter(Adapted())


def test_eight_bits_have_a_scale_a_channel_and_keep_the_facts(
    file: tuple[Exportable, Path], tmp_path: Path
) -> None:
    import onnx

    whole, path = file
    quantise(path, tmp_path / "small.onnx")
    assert read_facts(tmp_path / "small.onnx").items() >= read_facts(path).items()
    graph = onnx.load(str(tmp_path / "small.onnx")).graph
    weights = {one.name: one for one in graph.initializer}
    wide = [node.input[1] for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(wide) >= 12, "six matrices a block"
    for name in wide:
        scale = weights[name.removesuffix("_quantized") + "_scale"]
        assert list(scale.dims) == [weights[name].dims[-1]]
    given = synthetic_batch(whole, 64, 33)
    full, small = OnnxEngine(path).run(given), OnnxEngine(tmp_path / "small.onnx").run(given)
    assert not np.array_equal(full, small)
    assert np.corrcoef(full.ravel(), small.ravel())[0, 1] > 0.98


@pytest.mark.slow
def test_openvino_s_files_are_the_model_with_the_same_facts(
    file: tuple[Exportable, Path], tmp_path: Path
) -> None:
    whole, path = file
    write_openvino(path, tmp_path / "model.xml", {"labels": '["é"]', "precision": "f32"})
    assert compare_file(whole, OpenVinoEngine(tmp_path / "model.xml").run).relative <= TOLERANCE
    import openvino

    model = openvino.Core().read_model(str(tmp_path / "model.xml"))
    assert model.get_rt_info(["holdfast", "labels"]).value == '["é"]'
    assert model.get_rt_info(["holdfast", "names"]).value == '["labels", "precision"]'
