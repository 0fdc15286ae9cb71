"""A causal language model → GGUF, read back by plain Transformers token for token, with a Modelfile
for Ollama.

The Jinja template of the tokenizer is not translated into that of Ollama but asked: rendered with
marks for what people say, its text between the marks is what Ollama has to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from holdfast.contract.run_folder import model_of
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError
from holdfast.core.files import write_text
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision
from holdfast.models.adapters.save import is_adapter_folder, load_adapted
from holdfast.models.generators.causal import load_saved_causal
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plugins.export.formats import FORMATS, about, valid_rows
from holdfast.plugins.export.gguf_file import check_decoder, write_gguf
from holdfast.plugins.export.graphs import hushed
from holdfast.plugins.export.model import merged
from holdfast.plugins.export.proof import check_gap
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

    with hushed(), quiet_transformers(), reading_errors(path.name, ModelError, "cannot be read back"):
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


SYSTEM, PROMPT, ANSWER = "\ue000system\ue000", "\ue000prompt\ue000", "\ue000answer\ue000"
AGAIN = "\ue000again\ue000"


@dataclass(frozen=True, slots=True)
class Turns:
    """The text before, between and after what is said; ``system`` stands around the system's words,
    ``None`` where the template has no place for them, and ``default`` are those that the template
    has where nobody gives any."""

    begin: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    end: str
    default: str | None = None


def turns_of(tokenizer: Any, template: str) -> Turns | None:
    """How a template writes turns; ``None`` where it does more than write them one after the other
    (it cuts or changes what is said)."""

    def render(*said: tuple[str, str], more: bool = False) -> str | None:
        messages = [{"role": role, "content": text} for role, text in said]
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=more
                )
            )
        # A template refuses what it has no place for with an error of its own.
        except Exception:
            return None

    asked = render(("user", PROMPT), more=True)
    told = render(("user", PROMPT), ("assistant", ANSWER))
    if asked is None or told is None or asked.count(PROMPT) != 1 or told.count(ANSWER) != 1:
        return None
    before, after = asked.split(PROMPT)
    end = told.split(ANSWER)[1]
    first = render(("system", SYSTEM), ("user", PROMPT), more=True)
    system = default = None
    begin, opening = "", before
    if first is not None and first.count(SYSTEM) == 1 and first.endswith(PROMPT + after):
        ahead, rest = first.split(SYSTEM)
        between = rest[: -len(PROMPT + after)]
        # What stands before both kinds of turn begins the text.
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(ahead, before, strict=False))
        same = len(list(alike))
        if between.endswith(before[same:]) and before[same:]:
            begin, opening = before[:same], before[same:]
            system = (ahead[same:], between[: -len(opening)])
        elif ahead == before[: len(ahead)] and between.endswith(before[len(ahead) :]):
            begin, opening = ahead, before[len(ahead) :]
            system = ("", between[: len(between) - len(opening)])
        elif before.startswith(ahead) and before.endswith(between):
            # A later turn has no system's words before it, not even the template's own.
            later = render(("user", PROMPT), ("assistant", ANSWER), ("user", AGAIN)) or ""
            opening = later.partition(ANSWER)[2].partition(AGAIN)[0].removeprefix(end)
            if not opening or not between.endswith(opening):
                return None
            system = (ahead, between.removesuffix(opening))
            default = before[len(ahead) :].removesuffix(between)
    return Turns(begin, system, (opening, after), end, default)


def modelfile(tokenizer: Any, template: str | None, file: str, begins: bool) -> str:
    """The text of a Modelfile for ``file``. Without a template, or with one that cannot be written,
    the prompt is passed on as it is. ``begins`` says that a start token is added by itself, so the
    template may not write it again."""
    turns = turns_of(tokenizer, template) if template else None
    body, default, stops = "{{ .Prompt }}", None, [str(tokenizer.eos_token or "")]
    if turns is not None:
        begin, opening, default = turns.begin, turns.user[0], turns.default
        start = str(tokenizer.bos_token or "")
        if begins and turns.begin:
            begin = begin.removeprefix(start)
        elif begins:
            opening = opening.removeprefix(start)
        system = ""
        if turns.system is not None:
            before, after = turns.system
            system = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ end }}}}"
        said = f"{opening}{{{{ .Prompt }}}}{turns.user[1]}{{{{ .Response }}}}{turns.end}"
        body = f"{begin}{system}{said}"
        stops.insert(0, turns.end.strip().split("\n")[0])
    lines = [f"FROM ./{file}", f'TEMPLATE """{body}"""']
    if default:
        lines.append(f'SYSTEM """{default}"""')
    for stop in dict.fromkeys(one for one in stops if one.strip() and '"' not in one):
        lines.append(f'PARAMETER stop "{stop}"')
    return "\n".join([*lines, ""])
