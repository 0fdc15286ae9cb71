"""The folder of an export: what stands beside the model's file so that it can be used without
Holdfast, and the card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from holdfast.core.files import write_text

CARD, FACTS, PREDICT, NEEDS = "README.md", "export.json", "predict.py", "requirements.txt"
# The weights of the saved model: not part of an export.
WEIGHTS = ("model.safetensors", "config.json", "generation_config.json", CARD)
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
SECTION = re.compile(r"^## How to load it\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# What the run did with texts before they were read, which the file does not do.
TREATED = re.compile(r"^Texts were treated .*$", re.MULTILINE)
LIBRARY = re.compile(r"^library_name: .*$", re.MULTILINE)
LIBRARIES = {"onnx": "onnx", "openvino": "openvino", "gguf": "gguf"}


def beside(name: str) -> str:
    """The text of a file that is put into exports."""
    return (resources.files("holdfast.plugins.export") / "beside" / f"{name}.txt").read_text(
        "utf-8"
    )


def copy_tokenizer(model: Path, folder: Path) -> None:
    """The tokenizer's or processor's files of a saved model."""
    for path in sorted(model.iterdir()):
        named = path.name.startswith(("model", "adapter", "pytorch_model", "holdfast"))
        if path.is_file() and path.name not in WEIGHTS and not named:
            shutil.copyfile(path, folder / path.name)


def write_predict(folder: Path, form: str, pictures: bool) -> None:
    """``predict.py`` and what it needs."""
    name = "predict_pictures.py" if pictures else "predict_texts.py"
    write_text(folder / PREDICT, beside(name))
    more = ["pillow", "torch", "transformers>=5"] if pictures else ["tokenizers"]
    write_text(folder / NEEDS, "\n".join(["numpy", *more, PACKAGES[form], ""]))


def card(model: Path, form: str, facts: Mapping[str, Any], use: Sequence[str]) -> str:
    """The model's card with how the export is used in the place of how the model is loaded, and
    what was measured of it. Without a card the sections stand alone."""
    there = model / CARD
    text = there.read_text("utf-8") if there.is_file() else "# A model made with Holdfast\n"
    text = LIBRARY.sub(f"library_name: {LIBRARIES[form]}", text, count=1)
    found = SECTION.search(text)
    treated = TREATED.findall(found[0]) if found else []
    said = [line for one in treated for line in ("", one)]
    section = "\n".join(["## How to use it", "", *use, *said, "", *_measured(facts), ""])
    if found:
        # As a function: the section holds backslashes of its own.
        return SECTION.sub(lambda _: section + "\n", text, count=1)
    return f"{text.rstrip()}\n\n{section}"


def _measured(facts: Mapping[str, Any]) -> list[str]:
    lines = ["## What was measured of this file", ""]
    lines.append(f"Precision: {facts['precision']}: {facts['kept_because']}.")
    lines.append("")
    lines.append(
        "Largest difference of a logit from the model that it was made of: "
        f"{facts['max_logit_gap']:.1e} (as a share of the largest logit where that exceeds 1)."
    )
    speed = facts.get("speed") or {}
    if rows := speed.get("rows"):
        batches = list(rows[0]["ms"])
        about = f"on {speed['cpu']}, {speed['threads']} thread{'s' * (speed['threads'] != 1)}"
        tokens = f", {speed['tokens']} tokens a text" if speed.get("tokens") else ""
        head = " | ".join(f"ms a row at batch {batch}" for batch in batches)
        lines += ["", f"Speed {about}{tokens}; medians of interleaved repeats:", ""]
        lines += [f"| Engine | Precision | {head} |", "|---|---|" + "---|" * len(batches)]
        for row in rows:
            cells = " | ".join(f"{row['ms'][batch]:.2f}" for batch in batches)
            lines.append(f"| {row['engine']} | {row['precision']} | {cells} |")
    return lines


def texts_use(form: str, threshold: bool) -> list[str]:
    """How an export of a classifier is used, as lines of Markdown."""
    below = ["", "Below its threshold a prediction is `null`: ask a person."] if threshold else []
    return [
        "It needs no Holdfast and no PyTorch:" if form else "",
        "",
        "```bash",
        "pip install -r requirements.txt",
        'python predict.py "A text to classify."',
        "```",
        "",
        "```python",
        "from predict import Model",
        'Model(".")(["A text to classify."])',
        "```",
        *below,
    ]


def pictures_use(threshold: bool) -> list[str]:
    """The same for pictures."""
    below = ["", "Below its threshold a prediction is `null`: ask a person."] if threshold else []
    return [
        "```bash",
        "pip install -r requirements.txt",
        "python predict.py picture.png",
        "```",
        *below,
    ]


def decoder_use(name: str) -> list[str]:
    """How a GGUF file is used."""
    return [
        "```bash",
        f"ollama create {name} -f Modelfile      # -q q8_0 for eight bits",
        f"ollama run {name}",
        "```",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'model = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf")',
        'tokenizer = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")',
        "```",
    ]
