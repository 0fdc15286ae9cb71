"""``holdfast choose`` as a user has it: a model and why, for every task, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast as package
from holdfast.core.errors import ModelError, RecipeError
from holdfast.data.table import HeldOut
from holdfast.search.choice.models import Choice

WORDS = [f"w{i}" for i in range(40)]
FACTS = {"parameters", "disk_mb", "memory_mb", "licence", "languages", "max_length", "rows_per_s"}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test rows stay closed."""

    def refuse(self: HeldOut) -> None:
        raise AssertionError("the test rows were opened")

    monkeypatch.setattr(HeldOut, "open", refuse)


@pytest.fixture(scope="module")
def wide_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second candidate: the first with weights that make its states the same for every text."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("model") / "blind-bert"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith("word_embeddings.weight"):
            tensor[:] = tensor[0]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    head = "---\nlicense: mit\nlanguage:\n- de\n- fr\n---\n# Blind\n"
    (folder / "README.md").write_text(head, encoding="utf-8")
    return folder


def sets(settings: list[str]) -> list[str]:
    return [part for one in settings for part in ("--set", one)]


@pytest.mark.slow
def test_the_model_that_knows_the_rows_is_chosen_and_nothing_is_written(
    holdfast: Any,
    marked_csv: Path,
    tiny_model: Path,
    wide_model: Path,
    quick: list[str],
    tmp_path: Path,
    closed: None,
) -> None:
    models = f"{wide_model},{tiny_model},nowhere/at-all"
    done = holdfast("choose", marked_csv, "--models", models, *sets(quick[1:]))
    assert done.code == 0, done.err
    assert done.out.startswith(f"{tiny_model}:")
    first = " ".join(done.out.split("\n\n")[0].split())
    assert "linear probe, 5-fold cross-validation" in first
    # No score of the fine-tuned model is foretold, in the sentence or in the table.
    assert "predicted" not in first
    assert "Predicted" not in done.out
    assert "The score after fine-tuning is not predicted" in " ".join(done.out.split())
    # A path has no place to be broken.
    assert max(len(line) for line in done.out.splitlines() if "/" not in line) <= 80
    assert "Skipped: nowhere/at-all" in done.out
    assert "(best layer: " in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []
    told = json.loads(
        holdfast("choose", marked_csv, "--models", models, *sets(quick[1:]), "--json").out
    )
    assert told["schema"] == 1
    assert told["chosen"] == str(tiny_model)
    assert told["told_apart"] is True
    assert (told["task"], told["metric"]) == ("text-classification", "accuracy")
    best, blind = told["models"]
    for one in (best, blind):
        assert {one["predicted"][key] for key in ("value", "low", "high")} == {None}
        assert "not predicted" in one["predicted"]["why"]
        evidence = one["evidence"]
        assert evidence["value"] == one["probe"]
        assert 0 <= evidence["low"] < evidence["value"] <= evidence["high"] <= 1
    assert best.keys() >= FACTS | {"probe", "layer", "h_score", "logme", "layers", "short"}
    assert best["evidence"]["low"] > blind["evidence"]["value"]
    assert [one["name"] for one in told["left_out"]] == ["nowhere/at-all"]
    assert (blind["licence"], blind["languages"]) == ("mit", ["de", "fr"])
    assert best["licence"] is None
    assert blind["probe"] < 0.65 < best["probe"]
    assert blind["h_score"] < best["h_score"]
    assert blind["logme"] < best["logme"]
    assert [layer["name"] for layer in best["layers"]] == [
        "embeddings",
        "block.0",
        "block.1",
        "pooled",
    ]
    assert best["tokens_per_word"] == pytest.approx(1.0)
    assert list(tmp_path.iterdir()) == []


def rows(
    folder: Path, make: Callable[[np.random.Generator, int], dict[str, Any]], count: int = 60
) -> Path:
    rng, path = np.random.default_rng(0), folder / "rows.jsonl"
    lines = [json.dumps(make(rng, i)) for i in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def words(rng: np.random.Generator, most: int = 12) -> list[str]:
    return [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(2, most))]


def several(rng: np.random.Generator, i: int) -> dict[str, Any]:
    own = [mark for mark in ("good", "bad") if rng.random() < 0.5]
    return {"text": " ".join([*words(rng), *own]), "label": own}


def number(rng: np.random.Generator, i: int) -> dict[str, Any]:
    count = int(rng.integers(0, 5))
    return {"text": " ".join([*words(rng, 6), *["good"] * count]), "label": count + 0.5}


def tags(rng: np.random.Generator, i: int) -> dict[str, Any]:
    tokens = words(rng)
    return {"tokens": tokens, "tags": ["B-X" if int(w[1:]) < 10 else "O" for w in tokens]}


def chats(rng: np.random.Generator, i: int) -> dict[str, Any]:
    return {"text": " ".join(words(rng))}


OTHERS = {
    "several": (several, "f1_micro", ["data.label_kind=several"]),
    "number": (number, "r2", ["data.label_kind=number"]),
    "tags": (tags, "entity_f1", ["data.labels=exact"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_other_answers_are_asked_about_too(
    kind: str, tiny_model: Path, wide_model: Path, tmp_path: Path, closed: None
) -> None:
    make, metric, settings = OTHERS[kind]
    found = package.choose(
        rows(tmp_path, make),
        models=[wide_model, tiny_model],
        settings=[*settings, "train.epochs=2", "train.precision=float32", "train.threads=1"],
    )
    assert found.metric == metric
    assert found.chosen == str(tiny_model)
    best, blind = found.candidates
    assert best.frozen is not None
    assert blind.frozen is not None
    assert best.frozen.layer.score > blind.frozen.layer.score + 0.2
    assert best.frozen.log_evidence > blind.frozen.log_evidence
    assert (best.frozen.h_score is None) == (kind != "tags")
    assert best.short is not None


@pytest.mark.slow
def test_pictures_are_asked_about(tmp_path: Path, closed: None) -> None:
    from PIL import Image
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    rng = np.random.default_rng(0)
    for i in range(40):
        place = tmp_path / "pictures" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 200, (12, 12, 3))
        pixels[..., 2] += 55 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    folder = tmp_path / "resnet"
    ResNetModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(folder)
    found = package.choose(
        tmp_path / "pictures",
        models=[folder, "embedded"],
        settings=["train.epochs=2", "train.precision=float32", "train.threads=1"],
    )
    assert (found.task, found.metric) == ("image-classification", "accuracy")
    assert [one.name for one in found.left_out] == ["embedded"]
    (only,) = found.candidates
    assert only.frozen is not None
    assert only.frozen.layer.score > 0.8
    assert only.facts.tokens_per_word is None
    assert only.facts.max_length is None
    assert "only usable candidate" in found.because


def check(found: Choice) -> None:
    for candidate in found.candidates:
        measured = candidate.evidence
        assert measured.value is not None
        assert measured.low is not None
        assert measured.high is not None
        assert 0 < measured.low <= measured.value <= measured.high
        assert candidate.seconds > 0


@pytest.mark.slow
def test_texts_are_measured_in_bits_a_byte(
    tiny_llama: Path, merging_llama: Path, tiny_model: Path, tmp_path: Path, closed: None
) -> None:
    found = package.choose(
        rows(tmp_path, chats, 24),
        models=[tiny_llama, merging_llama, tiny_model],
        task="causal-lm",
        settings=["train.epochs=2", "train.precision=float32", "train.threads=1"],
    )
    assert (found.metric, found.higher) == ("bits_per_byte", False)
    assert [one.name for one in found.left_out] == [str(tiny_model)]
    check(found)
    for one in found.candidates:
        assert one.texts is not None
        assert one.texts.after < one.texts.before
        assert one.short is not None


def test_without_names_the_encoders_of_this_machine_are_compared(
    holdfast: Any,
    marked_csv: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    cache, mine = tmp_path / "hub", tmp_path / "mine"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    shutil.copytree(tiny_model, mine / "tiny")
    snapshot = cache / "models--some--encoder" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.mkdir()
    (snapshot / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    monkeypatch.setenv("HOLDFAST_MODELS", str(mine))
    # What `auto` is chosen by may stand in a recipe: its candidates are compared too.
    other = shutil.copytree(tiny_model, tmp_path / "other")
    usual = ["model.max_length=24", "train.max_steps=2"]
    quick = sets([*usual, "model.budget=5", f"model.candidates=[{other}]"])
    done = holdfast("choose", marked_csv, "--json", *quick)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    compared = {one["name"] for one in found["models"]}
    assert compared == {"embedded", str(other), str(mine / "tiny")}
    assert [one["name"] for one in found["left_out"]] == ["some/encoder"]
    assert "has no tokenizer" in found["left_out"][0]["because"]
    (mine / "tiny" / "model.safetensors").unlink()
    broken = holdfast("choose", marked_csv, *quick)
    assert broken.code == 2
    assert "has no weights" in broken.err


def test_no_model_at_all_is_refused_with_every_reason(
    holdfast: Any, marked_csv: Path, tmp_path: Path
) -> None:
    done = holdfast("choose", marked_csv, "--models", "nowhere,./neither")
    assert done.code == 2
    assert "nowhere" in done.err
    assert "./neither" in done.err
    assert holdfast("choose", marked_csv, "--models", " , ").code == 2
    with pytest.raises(RecipeError, match="names no model"):
        package.choose(marked_csv, models=[])
    with pytest.raises(ModelError, match="cannot be fine-tuned on these rows"):
        package.choose(marked_csv, models="./neither")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def letters_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT, drawn at random, that takes every word apart into letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = [chr(97 + i) for i in range(26)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = [*special, *letters, *(f"##{letter}" for letter in letters)]
    inner = Tokenizer(models.WordPiece({w: i for i, w in enumerate(known)}, unk_token="[UNK]"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        **{f"{name}_token": token for name, token in zip(names, special, strict=True)},
    )
    folder = tmp_path_factory.mktemp("letters") / "letters-bert"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(known),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=96,
        )
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n", "utf-8")
    return folder


def drug(rng: np.random.Generator, i: int) -> dict[str, Any]:
    names = ["aspirin", "insulin", "heparin", "codeine", "quinine", "statins"]
    chosen = [names[k] for k in rng.integers(0, len(names), rng.integers(3, 7))]
    return {"text": " ".join(chosen), "label": "yes" if chosen.count("codeine") else "no"}


@pytest.mark.slow
def test_a_model_is_adapted_and_kept_where_it_is_better(
    holdfast: Any, letters_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.models.encoders.classifier import load_classifier
    from holdfast.search.choice import adaptation

    place = tmp_path / "given"
    place.mkdir()
    source = rows(place, drug)
    rng = np.random.default_rng(5)
    lines = [{"text": drug(rng, i)["text"] + " and more of it"} for i in range(80)]
    texts = tmp_path / "given" / "texts.jsonl"
    texts.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    settings = sets(["train.epochs=2", "train.precision=float32", "train.threads=1"])
    asked = ["choose", source, "--models", letters_model, *settings]
    asked += ["--adapt", texts, "--extend", "20", "--out", "better", "--json"]
    done = holdfast(*asked)
    assert done.code == 0, done.err
    told = json.loads(done.out)["adapted"]
    difference = told["difference"]
    assert told["kept"] == (difference["low"] > 0)
    assert Path("better").exists() == told["kept"]
    assert {"aspirin", "insulin", "codeine", "more"} <= set(told["new_words"])
    assert told["tokens_per_word"]["after"] == pytest.approx(1.0)
    assert told["tokens_per_word"]["before"] > 5
    assert told["pretrain"]["loss_after"] <= told["pretrain"]["loss_before"]
    assert {path.name for path in tmp_path.iterdir()} <= {"given", "better"}
    shutil.rmtree("better", ignore_errors=True)

    monkeypatch.setattr(adaptation, "compare_adapted", lambda *_: ((0.2, 0.1, 0.3), 11, "nats"))
    done = holdfast(*asked[:-1])
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "Use it with --model better" in said
    assert f"extended by {len(told['new_words'])} words" in said
    made = load_classifier("better", ("no", "yes"))
    ids = made.tokenizer("codeine and aspirin")["input_ids"]
    assert len(ids) == 5
    assert (Path("better") / "README.md").read_text("utf-8").startswith('---\nlicense: "mit"')
    again = holdfast(*asked)
    assert again.code == 2
    assert "exists already" in again.err

    shutil.rmtree("better")
    monkeypatch.setattr(adaptation, "compare_adapted", lambda *_: ((0.2, -0.1, 0.3), 11, "nats"))
    done = holdfast(*asked[:-1])
    assert "nothing was written" in " ".join(done.out.split())
    assert {path.name for path in tmp_path.iterdir()} == {"given"}


@pytest.mark.slow
def test_what_cannot_be_adapted_is_refused(
    holdfast: Any, marked_csv: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = ["choose", marked_csv, "--models", tiny_model]
    assert "Add --out" in holdfast(*base, "--extend", "5").err
    assert "no adaptation is requested" in holdfast(*base, "--out", "x").err
    assert holdfast(*base, "--out", "x", "--extend", "-1").code == 2
    done = holdfast(*base, "--task", "token-classification", "--extend", "5", "--out", "x")
    assert done.code == 2
    assert "token-classification" in done.err
    done = holdfast(*base, "--extend", "5", "--out", "x")
    assert done.code == 2
    assert "--extend: finds no word" in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []
