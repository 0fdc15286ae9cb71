"""The folder of an export: the files next to the model that make it usable without Holdfast, the
card, and the files of a Space.

A Space is a small page that queries the exported model. It needs the packages of ``predict.py`` and
the standard library.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from holdfast.core.files import write_text
from holdfast.core.tasks import IMAGE_TASKS

CARD, FACTS, PREDICT, REQUIREMENTS = "README.md", "export.json", "predict.py", "requirements.txt"
# The weights of the saved model, which an export leaves out.
WEIGHTS = ("model.safetensors", "config.json", "generation_config.json", CARD)
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
SECTION = re.compile(r"^## How to load it\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# The cleaning that the run applied to texts, which the file does not apply.
CLEANED = re.compile(r"^Texts (?:were|are) (?:treated|cleaned)\b.*$", re.MULTILINE)
LIBRARY = re.compile(r"^library_name: .*$", re.MULTILINE)
TEXTS_USE = """\
It needs no Holdfast and no PyTorch:

```bash
pip install -r requirements.txt
python predict.py "A text to classify."
```

```python
from predict import Model
Model(".")(["A text to classify."])
```"""
IMAGES_USE = """\
```bash
pip install -r requirements.txt
python predict.py picture.png
```"""
DECODER_USE = """\
```bash
ollama create {name} -f Modelfile
ollama run {name}
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf")
tokenizer = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")
```"""
MERGED_USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```"""
SPACE, PORT = "space", 7860
DOCKER = f"""FROM python:3.12-slim
RUN useradd -m -u 1000 user
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=user . .
USER user
EXPOSE {PORT}
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "{PORT}"]
"""


def bundled_text(name: str) -> str:
    """The text of a file that is bundled with exports."""
    return (resources.files("holdfast.plugins.export") / "beside" / f"{name}.txt").read_text(
        "utf-8"
    )


def copy_tokenizer(model: Path, folder: Path) -> None:
    """Copy the tokenizer's or processor's files of a saved model."""
    for path in sorted(model.iterdir()):
        named = path.name.startswith(("model", "adapter", "pytorch_model", "holdfast"))
        if path.is_file() and path.name not in WEIGHTS and not named:
            shutil.copyfile(path, folder / path.name)


def write_predict(folder: Path, form: str, images: bool) -> None:
    """Write ``predict.py`` and the files it needs."""
    name = "predict_pictures.py" if images else "predict_texts.py"
    write_text(folder / PREDICT, bundled_text(name))
    packages = ["pillow", "torch", "transformers>=5"] if images else ["tokenizers"]
    write_text(folder / REQUIREMENTS, "\n".join(["numpy", *packages, PACKAGES[form], ""]))


def card(model: Path, form: str, facts: Mapping[str, Any], usage: Sequence[str]) -> str:
    """The model's card with the lines ``usage`` in place of the loading section, and the
    measurements of the export. Without a card, only these sections.
    """
    card_path = model / CARD
    text = card_path.read_text("utf-8") if card_path.is_file() else "# A model made with Holdfast\n"
    library = "transformers" if form == "merged" else form
    text = LIBRARY.sub(f"library_name: {library}", text, count=1)
    section_match = SECTION.search(text)
    cleaning_lines = CLEANED.findall(section_match[0]) if section_match else []
    text_cleaning = [line for one in cleaning_lines for line in ("", one)]
    section = "\n".join(
        ["## How to use it", "", *usage, *text_cleaning, "", *_measurement_lines(facts), ""]
    )
    if section_match:
        # A function, since the section contains backslashes.
        return SECTION.sub(lambda _: section + "\n", text, count=1)
    return f"{text.rstrip()}\n\n{section}"


def _measurement_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Measurements of this file",
        "",
        f"Precision: {facts['precision']}, because {facts['kept_because']}.",
        "",
        "Largest logit difference from the original model: "
        f"{facts['max_logit_gap']:.1e} (as a share of the largest logit where that "
        "exceeds 1).",
    ]
    if cost := facts.get("quantization"):
        lines += [
            "",
            f"Mean KL divergence of its next-token distribution from the float32 model's: "
            f"{cost['kl']:.2g} nats on {cost['tokens']:,} tokens; same most probable token: "
            f"{100 * cost['same_top']:.1f} %.",
        ]
    if speed := facts.get("speed"):
        rows = speed["rows"]
        batches = list(rows[0]["ms"])
        head = " | ".join(f"ms per row at batch size {batch}" for batch in batches)
        speed_words = (
            f"Speed on {speed['cpu']}, {timing_conditions(speed)}; medians of interleaved repeats:"
        )
        lines += ["", speed_words, "", f"| Engine | Precision | {head} |"]
        lines.append("|---|---|" + "---|" * len(batches))
        for row in rows:
            cells = " | ".join(f"{row['ms'][batch]:.2f}" for batch in batches)
            lines.append(f"| {row['engine']} | {row['precision']} | {cells} |")
    return lines


def timing_conditions(speed: Mapping[str, Any]) -> str:
    """The threads and, for texts, the tokens that speed was measured with."""
    tokens = f", {speed['tokens']} tokens a text" if speed["tokens"] else ""
    return f"{speed['threads']} thread{'s' * (speed['threads'] != 1)}{tokens}"


def usage_lines(form: str, task: str, name: str, threshold: bool) -> list[str]:
    """Instructions for using an export, as lines of Markdown; ``threshold``: whether it may
    abstain.
    """
    if form == "gguf":
        return DECODER_USE.format(name=name).splitlines()
    if form == "merged":
        return MERGED_USE.splitlines()
    text = IMAGES_USE if task in IMAGE_TASKS else TEXTS_USE
    below = (
        ["", "Below its threshold a prediction is `null`: have an annotator label these rows."]
        if threshold
        else []
    )
    return [*text.splitlines(), *below]


def write_space(export: Path, folder: Path, title: str, images: bool) -> None:
    """Write a complete Space into ``folder``: the export's files, the page and its Dockerfile."""
    shutil.copytree(export, folder, ignore=shutil.ignore_patterns(SPACE, CARD, FACTS))
    app = bundled_text("app.py").replace("PICTURES = False", f"PICTURES = {images}")
    write_text(folder / "app.py", app.replace('TITLE = ""', f"TITLE = {json.dumps(title)}"))
    write_text(folder / "Dockerfile", DOCKER)
    front = [
        "---",
        f"title: {json.dumps(title)}",
        "sdk: docker",
        f"app_port: {PORT}",
        "pinned: false",
        "---",
        "",
        f"A page that queries the model {title}. On your own machine: `python app.py`.",
        "",
    ]
    write_text(folder / CARD, "\n".join(front))
