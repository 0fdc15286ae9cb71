"""``predict.py`` of an export: how logits become answers, for every kind of label."""

from __future__ import annotations

import json
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.plugins.export.folder import bundled_text, card, copy_tokenizer


@pytest.fixture(scope="module")
def script() -> Any:
    module = types.ModuleType("predict")
    module.__dict__["__file__"] = "predict.py"
    exec(compile(bundled_text("predict_texts.py"), "predict.py", "exec"), module.__dict__)
    return module


def model(script: Any, folder: Path, logits: Any, **facts: Any) -> Any:
    """A model whose file answers ``logits`` of the batch that it is given."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["[PAD]", "a", "b", "c", "d"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.save(str(folder / "tokenizer.json"))
    told = {
        "task": "text-classification",
        "label_kind": "class",
        "labels": json.dumps(["x", "y"]),
        "max_length": "4",
        "pad_id": "0",
        "pad_token": "[PAD]",
        "pad_side": "right",
    } | facts
    script._engine = lambda folder, threads: (logits, told)
    return script.Model(folder)


def by_first(batch: Any) -> Any:
    """Logits that tell by which word a text begins."""
    return np.stack([np.zeros(len(batch["input_ids"])), batch["input_ids"][:, 0] - 2.0], axis=1)


def test_answers_come_in_the_order_of_the_texts(script: Any, tmp_path: Path) -> None:
    asked = model(script, tmp_path, by_first)
    texts = ["d a a a a a a", "a", "c b", "a b c d", "d"]
    found = asked(texts, batch=2)
    assert [one["prediction"] for one in found] == ["y", "x", "y", "x", "y"]
    assert found[1]["confidence"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert found[2]["probabilities"]["y"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_below_the_threshold_there_is_no_answer(script: Any, tmp_path: Path) -> None:
    asked = model(script, tmp_path, by_first, threshold="0.8")
    assert [one["prediction"] for one in asked(["a", "d"])] == [None, "y"]


def test_of_costs_the_least_expected_one_is_the_answer(script: Any, tmp_path: Path) -> None:
    # To say y where it is x costs nine; no answer costs one.
    cost = [[0, 9, 1], [1, 0, 1]]
    costs = json.dumps({"classes": ["x", "y"], "cost": cost})
    asked = model(script, tmp_path, by_first, costs=costs)
    for text in "abcd":
        p = asked([text])[0]["probabilities"]
        spent = {"x": p["y"], "y": 9 * p["x"], None: 1.0}
        assert asked([text])[0]["prediction"] == min(spent, key=lambda one: spent[one])
    never = json.dumps({"classes": ["y", "x"], "cost": [[0, 1, None], [1, 0, None]]})
    assert [
        one["prediction"] for one in model(script, tmp_path, by_first, costs=never)(["a", "d"])
    ] == ["x", "y"]


def test_texts_are_cut_where_the_model_ends(script: Any, tmp_path: Path) -> None:
    seen: list[Any] = []

    def logits(batch: Any) -> Any:
        seen.append(batch["input_ids"].shape)
        return by_first(batch)

    model(script, tmp_path, logits)(["a b c d a b c d"])
    assert seen == [(1, 4)]


def test_several_labels_are_each_their_own_yes_or_no(script: Any, tmp_path: Path) -> None:
    answered = model(script, tmp_path, lambda b: np.array([[2.0, -1.0]]), label_kind="several")(
        ["a"]
    )
    sure = 1 / (1 + math.exp(-1))
    assert answered[0]["prediction"] == ["x"]
    assert answered[0]["confidence"] == pytest.approx(sure)
    assert answered[0]["probabilities"]["y"] == pytest.approx(1 - sure)


def test_a_number_is_the_output_itself(script: Any, tmp_path: Path) -> None:
    asked = model(script, tmp_path, lambda b: np.array([[3.14159265]]), label_kind="number")
    assert asked(["a"]) == [{"prediction": 3.141593}]


def test_words_have_the_tag_of_their_first_piece_and_unread_ones_another(
    script: Any, tmp_path: Path
) -> None:
    def logits(batch: Any) -> Any:
        return np.stack([np.zeros(batch["input_ids"].shape), batch["input_ids"] - 2.5], axis=2)

    asked = model(
        script, tmp_path, logits, task="token-classification", label_kind="tags", unread="none"
    )
    found = asked(["a d b c d d", ["d"]])
    assert found[0]["prediction"] == ["x", "y", "x", "y", "none", "none"]
    assert found[0]["confidence"] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert found[1]["prediction"] == ["y"]


def test_the_card_keeps_what_the_run_says_and_tells_how_the_file_is_used(tmp_path: Path) -> None:
    front = "---\nlibrary_name: transformers\ntags:\n- x\n---\n"
    load = "## How to load it\n\npipeline(\\d)\n\nTexts were treated so.\n"
    text = f"{front}\n# It\n\n{load}\n## Facts\n\n- a\n"
    (tmp_path / "README.md").write_text(text)
    facts = {"precision": "float32", "kept_because": "it is asked for", "max_logit_gap": 1e-7}
    made = card(tmp_path, "onnx", facts, ["Use\\it."])
    assert made.startswith("---\nlibrary_name: onnx\ntags:\n- x\n---\n")
    assert "pipeline" not in made
    assert "\nTexts were treated so.\n" in made
    assert made.index("Use\\it.") < made.index("1.0e-07") < made.index("## Facts")
    assert "## How to use it" in card(tmp_path / "none", "onnx", facts, ["Use it."])


def test_the_weights_of_the_run_are_not_copied(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "out").mkdir()
    names = ["config.json", "model.safetensors", "adapter_config.json", "holdfast.json"]
    kept = ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    for name in [*names, *kept, "README.md"]:
        (tmp_path / "model" / name).write_text("x")
    copy_tokenizer(tmp_path / "model", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == kept


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "L", "LA", "P", "RGB", "RGBA", "CMYK", "1"])
def test_a_picture_is_read_as_in_training(mode: str, tmp_path: Path) -> None:
    from PIL import Image

    from holdfast.data.images.decode import read_image

    namespace: dict[str, Any] = {"__file__": "predict.py", "__name__": "predict"}
    exec(compile(bundled_text("predict_pictures.py"), "predict.py", "exec"), namespace)
    rng = np.random.default_rng(0)
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if mode in deep:
        values = rng.integers(0, 65536, (9, 7))
        image = Image.fromarray((values / 65535 if mode == "F" else values).astype(deep[mode]))
    else:
        image = Image.fromarray(rng.integers(0, 256, (9, 7, 4)).astype(np.uint8), "RGBA")
        image = image.convert(mode)
    path = tmp_path / "picture.tiff"
    image.save(path)
    reader = namespace["Model"].__new__(namespace["Model"])
    reader.mode = "RGB"
    theirs, ours = np.asarray(reader._read(path)), np.asarray(read_image(path).image)
    assert theirs.shape == ours.shape == (9, 7, 3)
    assert np.array_equal(theirs, ours)
