"""A causal language model → GGUF, read back token for token, with a Modelfile for Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import model_of
from holdfast.core.decisions import DecisionListener as Notify
from holdfast.core.files import write_text
from holdfast.core.records import Decision
from holdfast.models.adapters.save import is_adapter_folder, load_adapted
from holdfast.models.generators.causal import load_saved_causal
from holdfast.plugins.export.facts import about, too_far, valid_rows
from holdfast.plugins.export.formats import FORMATS
from holdfast.plugins.export.gguf_file import check_decoder, write_gguf
from holdfast.plugins.export.gguf_proof import read_back
from holdfast.plugins.export.network import merged
from holdfast.plugins.export.ollama import modelfile
from holdfast.plugins.export.proof import TOLERANCE
from holdfast.runs.finished_run import FinishedRun

MODELFILE = "Modelfile"
# Rows of the run that are read back beside the made ones.
ROWS = 4


def write_decoder(again: FinishedRun, made: Path, name: str, notify: Notify) -> dict[str, Any]:
    """Write everything but card and ``export.json`` into the folder ``made``; the facts."""
    form = FORMATS["gguf"]
    source = model_of(again.run)
    model, tokenizer = _loaded(source)
    check_decoder(model.config)
    path = made / form.file
    words = write_gguf(model, tokenizer, path, name)
    table, _ = valid_rows(again, notify)
    texts = _texts(table)
    found = read_back(model, tokenizer, path, texts)
    if not found.gap <= TOLERANCE:
        raise too_far(form.file, found.gap, TOLERANCE)
    write_text(made / MODELFILE, modelfile(tokenizer, words.template, form.file, words.begins))
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


def _texts(table: Any) -> list[str]:
    if table is None:
        return []
    column = next((c for c in ("text", "prompt") if c in table.rows.column_names), None)
    if column is None:
        return []
    return [str(one)[:500] for one in table.take(range(min(ROWS, len(table)))).column(column)]
