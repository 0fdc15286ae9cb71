"""The saved model in plain Transformers or PEFT against what Holdfast wrote down of it: a script of
its own process, which never imports Holdfast.

Reads ``check.json`` and the run folder that it is given; writes ``checked.json``: ``compared``, how
many test rows, and ``difference``, the largest between the probabilities of a class (texts: between
a row's losses, ÷ the larger) here and in ``predictions.parquet``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(folder: Path, run: Path) -> None:
    import pyarrow.parquet as parquet
    import torch

    told = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    written = parquet.read_table(run / "predictions.parquet").to_pylist()
    maker = {
        "text-classification": classes,
        "image-classification": pictures,
        "seq2seq": pairs,
        "causal-lm": tokens,
    }[told["task"]]
    with torch.inference_mode():
        found = [abs(here - there) / scale for here, there, scale in maker(told, run, written)]
    compared = sum(line["loss"] is not None for line in written)
    answer = {"compared": compared, "difference": max(found)}
    (folder / "checked.json").write_text(json.dumps(answer), encoding="utf-8")
    assert "holdfast" not in sys.modules


def classes(told: Any, run: Path, written: Any) -> Iterator[tuple[float, float, float]]:
    import transformers as hf

    model = hf.AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(run / "model")
    for line in written:
        text = told["rows"][line["row"]]["text"]
        inputs = tokenizer(text, truncation=True, max_length=told["length"], return_tensors="pt")
        yield from of_class(model, line, told, model(**inputs).logits[0])


def pictures(told: Any, run: Path, written: Any) -> Iterator[tuple[float, float, float]]:
    import transformers as hf
    from PIL import Image

    model = hf.AutoModelForImageClassification.from_pretrained(run / "model").eval()
    processor = hf.AutoImageProcessor.from_pretrained(run / "model", backend="pil")
    for line in written:
        picture = Image.open(told["rows"][line["row"]]["path"]).convert("RGB")
        inputs = processor(images=picture, return_tensors="pt")
        yield from of_class(model, line, told, model(**inputs).logits[0])


def of_class(model: Any, line: Any, told: Any, logits: Any) -> Iterator[tuple[float, float, float]]:
    """Probabilities by class name; the row must be the row that was meant, and its answer ours."""
    here = logits.float().softmax(-1).tolist()
    names = [model.config.id2label[place] for place in range(len(here))]
    assert line["label"] == told["rows"][line["row"]]["label"], "not the same row"
    places = [names.index(name) for name in told["classes"]]
    for place, there in zip(places, line["probabilities"], strict=True):
        yield here[place], there, 1.0
    close = abs(max(here) - here[names.index(line["prediction"])]) < 1e-4
    assert close, f"row {line['row']}: {line['prediction']} is not the likeliest"


def pairs(told: Any, run: Path, written: Any) -> Iterator[tuple[float, float, float]]:
    import transformers as hf

    model = hf.AutoModelForSeq2SeqLM.from_pretrained(run / "model").eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(run / "model")
    for line in written:
        row = told["rows"][line["row"]]
        inputs = tokenizer(
            row["text"], truncation=True, max_length=told["length"], return_tensors="pt"
        )
        labels = tokenizer(
            text_target=row["target"],
            truncation=True,
            max_length=told["target_length"],
            return_tensors="pt",
        )
        here = model(input_ids=inputs["input_ids"], labels=labels["input_ids"]).loss.item()
        yield here, line["loss"], max(here, line["loss"])


def tokens(told: Any, run: Path, written: Any) -> Iterator[tuple[float, float, float]]:
    import torch
    import transformers as hf

    if (run / "model" / "adapter_config.json").exists():
        import peft

        model = peft.AutoPeftModelForCausalLM.from_pretrained(run / "model").eval()
    else:
        model = hf.AutoModelForCausalLM.from_pretrained(run / "model").eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(run / "model")
    for line in written:
        ids, labels = chat(told["rows"][line["row"]], tokenizer)
        ids, labels = ids[: told["length"]], labels[: told["length"]]
        if all(label == -100 for label in labels[1:]):
            assert line["loss"] is None
            continue
        here = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        yield here, line["loss"], max(here, line["loss"])


def chat(row: Any, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids, and −100 where no answer is; a plain text is an answer from its first token."""
    if "messages" not in row:
        ids = tokenizer(row["text"])["input_ids"]
        return ids, ids
    whole = tokenizer.apply_chat_template(row["messages"], tokenize=False)
    before = tokenizer.apply_chat_template(
        row["messages"][:1], tokenize=False, add_generation_prompt=True
    )
    coded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    end = len(whole.rstrip())
    inside = [len(before) < last <= end for _, last in coded["offset_mapping"]]
    ids = coded["input_ids"]
    return ids, [i if own else -100 for i, own in zip(ids, inside, strict=True)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
