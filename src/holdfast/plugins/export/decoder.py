"""A causal language model → GGUF, read back by plain Transformers token for token, with a Modelfile
for Ollama."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from holdfast.contract.run_folder import model_of
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError
from holdfast.core.files import write_text
from holdfast.core.input_errors import door
from holdfast.core.records import Decision
from holdfast.models.adapters.save import is_adapter_folder, load_adapted
from holdfast.models.generators.causal import load_saved_causal
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plugins.export.formats import FORMATS, about, valid_rows
from holdfast.plugins.export.gguf_file import check_decoder, write_gguf
from holdfast.plugins.export.network import merged
from holdfast.plugins.export.ollama import modelfile
from holdfast.plugins.export.proof import check_gap
from holdfast.plugins.export.quiet import hushed
from holdfast.runs.finished_run import FinishedRun

# Rows of the run that are read back beside the made ones.
ROWS = 4
# Tokens that are written after each text.
WRITTEN = 20
# Of any script and with what tokenizers trip over, so that a cut that differs is seen.
TEXTS = (
    "The quick brown fox can't jump over 12345 lazy dogs.",
    "Ça déjà vu — 東京 и Москва, 😀!",
    "  two  spaces,\n\na line\tand a tab ",
    'def f(x):\n    return {"a": x ** 2}',
)


def write_decoder(again: FinishedRun, made: Path, name: str) -> dict[str, Any]:
    """Write everything but card and ``export.json`` into the folder ``made``; the facts."""
    form = FORMATS["gguf"]
    model, tokenizer = _loaded(model_of(again.run))
    check_decoder(model.config)
    path = made / form.file
    words = write_gguf(model, tokenizer, path, name)
    table, _ = valid_rows(again)
    texts = []
    if table is not None:
        column = next((c for c in ("text", "prompt") if c in table.rows.column_names), None)
        some = table.take(range(min(ROWS, len(table))))
        texts = [str(one)[:500] for one in some.column(column)] if column else []
    found = read_back(model, tokenizer, path, texts)
    check_gap(form.file, found.gap)
    write_text(made / "Modelfile", modelfile(tokenizer, words.template, form.file, words.begins))
    because = (
        f"read back by Transformers, it cut {found.texts} texts and wrote {found.tokens} tokens as "
        "the model does"
    )
    notify(Decision("file", form.file, because))
    return {
        **about(again, form, "float32", because),
        "max_logit_gap": found.gap,
        "read_back": {"texts": found.texts, "tokens": found.tokens},
        "tokenizer": words.model,
        "chat_template": words.template is not None,
        # Nothing here runs a GGUF file at its own speed.
        "speed": None,
    }


def _loaded(folder: Path) -> tuple[Any, Any]:
    """The plain model of a saved folder, an adapter merged in, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    network, tokenizer = load_saved_causal(folder)
    if not is_adapter_folder(folder):
        return network.plain, tokenizer
    adapted = load_adapted(folder, AutoModelForCausalLM)
    return merged(adapted).eval(), tokenizer


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What was compared: ``texts`` cut into the same tokens, ``tokens`` written alike, and the
    largest difference of a logit, as a share of the largest where that exceeds 1."""

    texts: int
    tokens: int
    gap: float


def read_back(model: Any, tokenizer: Any, path: Path, texts: Sequence[str] = ()) -> ReadBack:
    """Load the file through ``AutoModelForCausalLM`` and ``AutoTokenizer`` and compare, token for
    token, on ``texts`` and some made ones. Raises ``ModelError`` at the first difference."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with hushed(), quiet_transformers(), door(path.name, ModelError, "cannot be read back"):
        again: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        again.eval()
        cutter = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokens, gap = 0, 0.0
    for text in (*TEXTS, *texts):
        wanted, found = tokenizer(text)["input_ids"], cutter(text)["input_ids"]
        if wanted != found:
            raise ModelError(
                path.name,
                f"cuts a text otherwise than the model's tokenizer does: {found[:12]}",
                wanted[:12],
                "This tokenizer has no true GGUF form here.",
            )
        if not wanted:
            continue
        ids = torch.tensor([wanted[: max(1, int(model.config.max_position_embeddings) - WRITTEN)]])
        first, logits = _written(model, ids)
        second, others = _written(again, ids)
        if first != second:
            raise ModelError(
                path.name, f"writes other tokens than the model: {second[:12]}", first[:12]
            )
        tokens += len(first)
        apart = float((logits - others).abs().max()) / max(1.0, float(logits.abs().max()))
        gap = max(gap, apart)
    return ReadBack(len(TEXTS) + len(texts), tokens, gap)


def _written(model: Any, ids: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """The likeliest tokens after ``ids`` [1, T], and the logits [V] of each [WRITTEN, V]."""
    said, logits = [], []
    with torch.inference_mode():
        for _ in range(WRITTEN):
            found = model(input_ids=ids, use_cache=False).logits[0, -1].float()
            said.append(int(found.argmax()))
            logits.append(found)
            ids = torch.cat([ids, torch.tensor([[said[-1]]])], dim=1)
    return said, torch.stack(logits)
