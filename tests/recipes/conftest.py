"""What the recipes need in small: real rows under their columns, and models of their
architectures, drawn at random."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
DECODER: dict[str, Any] = {**SHAPE, "num_key_value_heads": 1, "max_position_embeddings": 2048}
ENCODER = {**SHAPE, "max_position_embeddings": 514, "pad_token_id": 0}
T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
# By the recipe's model: the architecture, its shape, the tokenizer.
TINY: dict[str, tuple[str, dict[str, Any], str]] = {
    "microsoft/deberta-v3-base": (
        "deberta-v2",
        {
            **ENCODER,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        "bert-base-uncased",
    ),
    "FacebookAI/roberta-base": ("roberta", {**ENCODER, "type_vocab_size": 1}, "trained"),
    "google-bert/bert-base-uncased": ("bert", ENCODER, "bert-base-uncased"),
    "distilbert/distilbert-base-uncased": (
        "distilbert",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        "bert-base-uncased",
    ),
    "google/flan-t5-base": (
        "t5",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "trained",
    ),
    "google/flan-t5-large": (
        "t5",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "trained",
    ),
    "google-t5/t5-base": ("t5", T5, "trained"),
    "Helsinki-NLP/opus-mt-en-fr": (
        "marian",
        {
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "max_position_embeddings": 512,
            "decoder_start_token_id": 0,
            "forced_eos_token_id": 1,
        },
        "trained",
    ),
    "openai-community/gpt2": (
        "gpt2",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 1024},
        "gpt2",
    ),
    "NousResearch/Llama-2-7b-hf": ("llama", DECODER, "trained"),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": ("qwen2", DECODER, "gpt2"),
    "microsoft/resnet-50": (
        "resnet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        "pictures",
    ),
    "google/vit-base-patch16-224-in21k": (
        "vit",
        {**SHAPE, "image_size": 32, "patch_size": 16},
        "pictures",
    ),
}
BUILDERS = {
    "t5": "AutoModelForSeq2SeqLM",
    "marian": "AutoModelForSeq2SeqLM",
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "qwen2": "AutoModelForCausalLM",
    "resnet": "AutoModelForImageClassification",
    "vit": "AutoModelForImageClassification",
}


@pytest.fixture(params=RECIPES, ids=lambda path: str(path.stem))
def recipe_file(request: pytest.FixtureRequest) -> Path:
    """Each recipe in turn."""
    return Path(request.param)


@pytest.fixture(scope="session")
def real_rows(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, str]]:
    """For the first word of a recipe's name: its ``data`` keys, leading to real rows."""
    folder = tmp_path_factory.mktemp("rows")
    made: dict[str, dict[str, str]] = {}

    def rows(job: str) -> dict[str, str]:
        if job not in made:
            made[job] = MAKERS[job](shared_data, folder)
        return made[job]

    return rows


@pytest.fixture(scope="session")
def tiny_of(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Iterable[str]], Path]:
    """A folder with a tiny model of the architecture of a recipe's model."""
    folder = tmp_path_factory.mktemp("models")

    def tiny(name: str, texts: Iterable[str]) -> Path:
        target = folder / name.replace("/", "--")
        if not target.exists():
            _write_model(target, name, texts, shared_data)
        return target

    return tiny


def _write_model(folder: Path, name: str, texts: Iterable[str], data: Path) -> None:
    import torch
    import transformers
    from transformers.utils import logging

    kind, shape, reads = TINY[name]
    given: dict[str, Any] = {}
    if reads == "pictures":
        from transformers.models.vit import ViTImageProcessorPil

        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        tokenizer = _tokenizer(reads, texts, data)
        tokenizer.save_pretrained(folder)
        given = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
    config = transformers.AutoConfig.for_model(kind, **(shape | given))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, BUILDERS.get(kind, "AutoModel")).from_config(config)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()


def _tokenizer(reads: str, texts: Iterable[str], data: Path) -> Any:
    """A real tokenizer, or byte pairs trained on the rows, with an end as T5 and Marian have it."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if reads != "trained":
        return AutoTokenizer.from_pretrained(data.parent / "models" / "tokenizers" / reads)
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(
        texts, 1000, special_tokens=["<pad>", "</s>", "<s>", "<unk>"], show_progress=False
    )
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner._tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
    )


def _lines(path: Path, count: int, start: int = 0) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, start, start + count)]


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def ai_text(data: Path, folder: Path) -> dict[str, str]:
    """Pairs of a human and a machine text; the pair stands for the prompt."""
    with gzip.open(data / "ai_text" / "paired_texts.csv.gz", "rt", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["pair_id"])[:48]
    kept = [{"text": r["text"], "label": r["label"], "prompt_name": r["pair_id"]} for r in rows]
    return {"path": _write(folder / "ai.jsonl", kept)}


def held_out(data: Path, folder: Path) -> dict[str, str]:
    """Pairs of one generator to learn from, pairs of another to be scored on."""
    with gzip.open(data / "ai_text" / "paired_texts.csv.gz", "rt", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["pair_id"])
    by_generator = {"path": "gpt-4", "test": "davinci"}
    found = {}
    for key, model in by_generator.items():
        pairs = {row["pair_id"] for row in rows if row["model"] == model}
        own = [r for r in rows if r["pair_id"] in pairs and r["model"] in ("human", model)]
        kept = [{"text": r["text"], "label": r["label"], "prompt_name": r["pair_id"]} for r in own]
        found[key] = _write(folder / f"ai-{model}.jsonl", kept[:40])
    return found


def dialogsum(data: Path, folder: Path) -> dict[str, str]:
    parts = {"path": ("val", 40), "test": ("test", 8)}
    return {
        key: _write(
            folder / f"dialogsum-{name}.jsonl",
            _lines(data / "dialogsum" / f"{name}.jsonl.gz", count),
        )
        for key, (name, count) in parts.items()
    }


def samsum(data: Path, folder: Path) -> dict[str, str]:
    parts = {"path": ("train", 32), "valid": ("val", 8), "test": ("test", 8)}
    return {
        key: _write(
            folder / f"samsum-{name}.jsonl", _lines(data / "samsum" / f"{name}.jsonl.gz", count)
        )
        for key, (name, count) in parts.items()
    }


def pandas(data: Path, folder: Path) -> dict[str, str]:
    rows = _lines(data / "text2code" / "wikisql_train.jsonl.gz", 48)
    kept = [
        {
            "question": r["question"],
            "context": f"df = pd.DataFrame(columns={r['columns']})",
            "answer": r["pandas"],
        }
        for r in rows
    ]
    return {"path": _write(folder / "pandas.jsonl", kept)}


def pairs(data: Path, folder: Path) -> dict[str, str]:
    """There are no French texts here: questions in English and SQL stand in."""
    rows = _lines(data / "text2code" / "wikisql_train.jsonl.gz", 48, 100)
    kept = [{"english": r["question"], "non_english": r["sql"]} for r in rows]
    return {"path": _write(folder / "pairs.jsonl", kept)}


def chats(data: Path, folder: Path) -> dict[str, str]:
    """One file for both recipes: instructions in columns, and as Llama-2 renders them."""
    rows = _lines(data / "instructions" / "train.jsonl.gz", 48)
    for row in rows:
        asked = "\n".join(filter(None, (row["instruction"], row["input"])))
        row["text"] = f"<s>[INST] {asked} [/INST] {row['output']} </s>"
    rendered = [{"text": row.pop("text")} for row in rows]
    return {
        "path": _write(folder / "chats.jsonl", rows),
        "rendered": _write(folder / "rendered.jsonl", rendered),
    }


def articles(data: Path, folder: Path) -> dict[str, str]:
    """Paragraphs of WikiText-2 with its headings and blank lines, as the hub has them."""
    found = {}
    for key, name, count in (("path", "valid", 40), ("valid", "valid", 10), ("test", "test", 10)):
        source = data / "corpus" / f"wikitext2_{name}.txt.gz"
        with gzip.open(source, "rt", encoding="utf-8") as file:
            start = 40 if key == "valid" else 0
            rows = [{"text": line} for line in itertools.islice(file, start, start + count)]
        found[key] = _write(folder / f"articles-{key}.jsonl", rows)
    return found


def pictures(data: Path, folder: Path) -> dict[str, str]:
    target = folder / "pictures"
    with zipfile.ZipFile(io.BytesIO((data / "cifar10" / "cifar10.zip").read_bytes())) as packed:
        for name in ("cat", "ship", "frog"):
            inside = [n for n in packed.namelist() if f"train/{name}/" in n and n.endswith("jpg")]
            for number, entry in enumerate(inside[:12]):
                path = target / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed.read(entry))
    return {"path": str(target)}


MAKERS = {
    "ai": ai_text,
    "summaries": samsum,
    "pandas": pandas,
    "english": pairs,
    "chat": chats,
    "pictures": pictures,
    "articles": articles,
    "held_out": held_out,
    "dialogsum": dialogsum,
}
