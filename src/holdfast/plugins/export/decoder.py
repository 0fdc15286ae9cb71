"""Export of a causal language model to GGUF, verified token for token with plain Transformers, with
a Modelfile for Ollama.

The tokenizer's Jinja template is not translated into Ollama's template language. It is rendered
with marks in place of the turns; the text between the marks is what Ollama has to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from holdfast.contract.run_folder import model_of
from holdfast.core.decisions import notify, stage, tick
from holdfast.core.errors import ModelError, RunError
from holdfast.core.files import disk_errors, write_text
from holdfast.core.input_errors import reading_errors
from holdfast.core.machine import resource_bounds
from holdfast.core.records import Decision
from holdfast.data.chats.chat import form_of, read_row_turns
from holdfast.models.adapters.save import load_adapted
from holdfast.models.generators.causal import load_saved_causal
from holdfast.models.loading.adapter_folder import is_adapter_folder
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plugins.export.formats import FORMATS, common_facts, validation_rows
from holdfast.plugins.export.gguf_file import check_decoder, round_to_q8, write_gguf
from holdfast.plugins.export.graphs import silenced
from holdfast.plugins.export.model import merge_adapter
from holdfast.plugins.export.proof import check_gap
from holdfast.runs.finished_run import FinishedRun
from holdfast.tasks.lm.chat_tokens import LONGEST_S, MOST_MEMORY, render

# Rows of the run that are read back in addition to the built-in texts.
RUN_ROWS, MOST_CHARACTERS = 4, 500
ITS_OWN = "the run was scored in it"
# Tokens that are generated after each text.
GENERATED_TOKENS = 20
# Texts of several scripts and with difficult cases for tokenizers, to expose any difference.
TEXTS = (
    "The quick brown fox can't jump over 12345 lazy dogs.",
    "Ça déjà vu — 東京 и Москва, 😀!",
    "  two  spaces,\n\na line\tand a tab ",
    'def f(x):\n    return {"a": x ** 2}',
)


def write_decoder(
    finished_run: FinishedRun, folder: Path, name: str, *, int8: bool = False
) -> dict[str, Any]:
    """Write everything but card and ``export.json`` into the folder ``folder``; returns the
    facts. With ``int8`` the weight matrices are in Q8_0, llama.cpp's blocks of 32 bytes with one
    scale."""
    form = FORMATS["gguf"]
    with stage("reading the model"):
        model, tokenizer = _load_model(model_of(finished_run.run))
    check_decoder(model.config)
    path = folder / form.file
    with stage(f"writing {form.file}"), disk_errors(folder):
        gguf_tokenizer = write_gguf(model, tokenizer, path, name, int8=int8)
    texts, cost = _texts(finished_run, tokenizer), None
    if int8:
        with stage("measuring what 8-bit weights change"):
            exact, model = model, round_to_q8(model)
            cost = _rounding_cost(exact, model, tokenizer, texts)
    comparison = read_back(model, tokenizer, path, texts)
    check_gap(form.file, comparison.gap)
    write_text(
        folder / "Modelfile",
        modelfile(tokenizer, gguf_tokenizer.template, form.file, gguf_tokenizer.adds_bos),
    )
    like = "the model with the same 8-bit weights" if int8 else "the model"
    because = (
        f"read back with Transformers, it gives the tokens of {like} for {comparison.texts} texts, "
        f"and the same {comparison.tokens} generated tokens"
    )
    notify(Decision("file", form.file, because))
    return {
        **common_facts(
            finished_run,
            form,
            "q8_0" if int8 else "float32",
            "--int8 was given" if int8 else ITS_OWN,
        ),
        "max_logit_gap": comparison.gap,
        "read_back": {"texts": comparison.texts, "tokens": comparison.tokens},
        "quantization": cost,
        "tokenizer": gguf_tokenizer.model,
        "chat_template": gguf_tokenizer.template is not None,
        # Nothing here runs a GGUF file at its native speed.
        "speed": None,
    }


def write_merged(
    finished_run: FinishedRun, folder: Path, *, bfloat16: bool = False
) -> dict[str, Any]:
    """Write the model with its adapter merged and its tokenizer as plain Transformers load them, in
    float32 or, at half the size, ``bfloat16``; returns the facts. Raises ``RunError`` where the
    folder would be a copy of the run's model."""
    form, saved = FORMATS["merged"], model_of(finished_run.run)
    if not bfloat16 and not is_adapter_folder(saved):
        rule = "has no separate adapter: its model folder is already a plain model"
        remedy = f"Use {saved}, or add --bfloat16 for half its size."
        raise RunError(str(finished_run.run), rule, None, remedy)
    with stage("reading and merging the model"):
        exact = load_saved_causal(saved)[0].plain
        merged, tokenizer = _load_model(saved)
    if bfloat16:
        _cast_weights(merged, torch.bfloat16)
    with stage("writing the model"), disk_errors(folder), quiet_transformers():
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    texts, cost, expected = _texts(finished_run, tokenizer), None, exact
    if bfloat16:
        with stage("measuring what bfloat16 changes"):
            _cast_weights(merged, torch.float32)
            expected = merged
            cost = _rounding_cost(exact, expected, tokenizer, texts)
    comparison = read_back(expected, tokenizer, folder, texts)
    check_gap(form.file, comparison.gap)
    like = "model with weights rounded to bfloat16" if bfloat16 else "base model with the adapter"
    because = (
        f"read back with Transformers, it generates the same {comparison.tokens} tokens as the "
        f"{like}"
    )
    notify(Decision("file", form.file, because))
    precision, chosen_because = (
        ("bfloat16", "--bfloat16 was given") if bfloat16 else ("float32", ITS_OWN)
    )
    return {
        **common_facts(finished_run, form, precision, chosen_because),
        "max_logit_gap": comparison.gap,
        "read_back": {"texts": comparison.texts, "tokens": comparison.tokens},
        "quantization": cost,
        "speed": None,
    }


def _cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Only the weights: buffers, such as the frequencies of positions, stay as they are loaded."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def _texts(finished_run: FinishedRun, tokenizer: Any) -> list[str]:
    """The beginnings of some validation rows, chats as their template renders them."""
    table = validation_rows(finished_run)
    if table is None:
        return []
    sample = table.take(range(min(RUN_ROWS, len(table))))
    if form_of(sample) == "text" or not tokenizer.chat_template:
        texts = [str(one) for one in sample.column("text")]
    else:
        texts = [render(tokenizer, chat, answer_next=False) for chat in read_row_turns(sample)]
    return [one[:MOST_CHARACTERS] for one in texts]


def _load_model(folder: Path) -> tuple[Any, Any]:
    """The plain model of a saved folder with its adapter merged, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    network, tokenizer = load_saved_causal(folder)
    if not is_adapter_folder(folder):
        return network.plain, tokenizer
    adapted = load_adapted(folder, AutoModelForCausalLM)
    return merge_adapter(adapted).eval(), tokenizer


def _rounding_cost(
    exact: Any, rounded: Any, tokenizer: Any, texts: Sequence[str]
) -> dict[str, float]:
    """What rounded weights change in the distribution of the next token, over the tokens of some
    texts: the mean KL divergence Σ_v p_v log(p_v ÷ q_v), in nats, and the share of tokens after
    which the most probable one is the same (as ``llama-perplexity --kl-divergence``)."""
    divergences, equal = [], []
    limit = int(exact.config.max_position_embeddings)
    for text in (*TEXTS, *texts):
        ids = torch.tensor([tokenizer(text)["input_ids"][:limit]], dtype=torch.long)
        if not ids.numel():
            continue
        with torch.inference_mode():
            before, after = (
                model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
                for model in (exact, rounded)
            )
        divergences.append((before.exp() * (before - after)).sum(-1))
        equal.append(before.argmax(-1) == after.argmax(-1))
    same = torch.cat(equal).float()
    return {
        "kl": float(torch.cat(divergences).mean()),
        "same_top": float(same.mean()),
        "tokens": len(same),
    }


@dataclass(frozen=True, slots=True)
class ReadBackResult:
    """Result of the comparison: ``texts`` with equal tokens, ``tokens`` generated alike, and the
    largest difference of a logit, as a share of the largest where that exceeds 1.
    """

    texts: int
    tokens: int
    gap: float


def read_back(model: Any, tokenizer: Any, path: Path, texts: Sequence[str] = ()) -> ReadBackResult:
    """Load a GGUF file, or a folder, through ``AutoModelForCausalLM`` and ``AutoTokenizer`` and
    compare, token for token, on ``texts`` and some built-in ones. Raises ``ModelError`` at the
    first difference.
    """
    with stage("reading it back with Transformers"):
        return _read_back(model, tokenizer, path, texts)


def _read_back(model: Any, tokenizer: Any, path: Path, texts: Sequence[str]) -> ReadBackResult:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, file = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    with (
        silenced(),
        quiet_transformers(),
        reading_errors(path.name, ModelError, "cannot be read back"),
    ):
        read_model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **file)
        read_model.eval()
        read_tokenizer = AutoTokenizer.from_pretrained(folder, **file)
    tokens, gap = 0, 0.0
    for number, text in enumerate((*TEXTS, *texts)):
        tick(number, len(TEXTS) + len(texts))
        expected_ids, read_ids = tokenizer(text)["input_ids"], read_tokenizer(text)["input_ids"]
        if expected_ids != read_ids:
            rule = f"tokenises a text differently from the model's tokenizer: {read_ids[:12]}"
            remedy = "Holdfast has no exact form for this tokenizer."
            raise ModelError(path.name, rule, expected_ids[:12], remedy)
        if not expected_ids:
            continue
        ids = torch.tensor(
            [expected_ids[: max(1, int(model.config.max_position_embeddings) - GENERATED_TOKENS)]]
        )
        generated = torch.cat([ids, _greedy_tokens(model, ids)], dim=1)
        logits, read_logits = (_last_logits(one, generated) for one in (model, read_model))
        chosen, read_chosen = logits.argmax(-1).tolist(), read_logits.argmax(-1).tolist()
        if chosen != read_chosen:
            raise ModelError(
                path.name, f"generates other tokens than the model: {read_chosen[:12]}", chosen[:12]
            )
        tokens += len(chosen)
        gap_here = float((logits - read_logits).abs().max()) / max(1.0, float(logits.abs().max()))
        gap = max(gap, gap_here)
    return ReadBackResult(len(TEXTS) + len(texts), tokens, gap)


def _greedy_tokens(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The greedy tokens [1, GENERATED_TOKENS] after ``ids`` [1, T]."""
    found, past = [], None
    with torch.inference_mode():
        for _ in range(GENERATED_TOKENS):
            output = model(input_ids=ids, past_key_values=past, use_cache=True)
            past, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
            found.append(ids)
    return torch.cat(found, dim=1)


def _last_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The logits [GENERATED_TOKENS, V] that chose the last tokens of ``ids`` [1, T], in one pass:
    equal choices after equal beginnings are the same generated text."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return logits[0, -GENERATED_TOKENS - 1 : -1].float()


SYSTEM, PROMPT, ANSWER = "\ue000system\ue000", "\ue000prompt\ue000", "\ue000answer\ue000"
SECOND_PROMPT = "\ue000again\ue000"


@dataclass(frozen=True, slots=True)
class Turns:
    """The template's text before, between and after the messages.

    ``system`` surrounds the system message, ``None`` where the template has no place for one;
    ``default`` is the template's own system message where none is given.
    """

    begin: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    end: str
    default: str | None = None


def chat_turns(tokenizer: Any, template: str) -> Turns | None:
    """How a template renders turns; ``None`` where it does more than concatenate them (it cuts or
    changes messages).
    """

    def rendered(*turns: tuple[str, str], more: bool = False) -> str | None:
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            with resource_bounds(LONGEST_S, MOST_MEMORY):
                return str(
                    tokenizer.apply_chat_template(
                        messages, chat_template=template, tokenize=False, add_generation_prompt=more
                    )
                )
        # A template raises an error of its own for what it does not support.
        except Exception:
            return None

    prompt_text = rendered(("user", PROMPT), more=True)
    answer_text = rendered(("user", PROMPT), ("assistant", ANSWER))
    if (
        prompt_text is None
        or answer_text is None
        or prompt_text.count(PROMPT) != 1
        or answer_text.count(ANSWER) != 1
    ):
        return None
    before, after = prompt_text.split(PROMPT)
    end = answer_text.split(ANSWER)[1]
    first = rendered(("system", SYSTEM), ("user", PROMPT), more=True)
    system = default = None
    begin, opening = "", before
    if first is not None and first.count(SYSTEM) == 1 and first.endswith(PROMPT + after):
        system_start, after_system = first.split(SYSTEM)
        between = after_system[: -len(PROMPT + after)]
        # What precedes both kinds of turn opens the text.
        common = takewhile(lambda pair: pair[0] == pair[1], zip(system_start, before, strict=False))
        n_common = len(list(common))
        if between.endswith(before[n_common:]) and before[n_common:]:
            begin, opening = before[:n_common], before[n_common:]
            system = (system_start[n_common:], between[: -len(opening)])
        elif system_start == before[: len(system_start)] and between.endswith(
            before[len(system_start) :]
        ):
            begin, opening = system_start, before[len(system_start) :]
            system = ("", between[: len(between) - len(opening)])
        elif before.startswith(system_start) and before.endswith(between):
            # A later turn has no system message before it, not even the template's own.
            second_turn = (
                rendered(("user", PROMPT), ("assistant", ANSWER), ("user", SECOND_PROMPT)) or ""
            )
            opening = second_turn.partition(ANSWER)[2].partition(SECOND_PROMPT)[0].removeprefix(end)
            if not opening or not between.endswith(opening):
                return None
            system = (system_start, between.removesuffix(opening))
            default = before[len(system_start) :].removesuffix(between)
    return Turns(begin, system, (opening, after), end, default)


def modelfile(tokenizer: Any, template: str | None, file: str, adds_bos: bool) -> str:
    """The text of a Modelfile for ``file``.

    Without a template, or with one that cannot be translated, the prompt is passed on unchanged.
    ``adds_bos`` says that the tokenizer adds a start token, so the template must not write it
    again.
    """
    turns = chat_turns(tokenizer, template) if template else None
    body, default, stops = "{{ .Prompt }}", None, [str(tokenizer.eos_token or "")]
    if turns is not None:
        begin, opening, default = turns.begin, turns.user[0], turns.default
        start = str(tokenizer.bos_token or "")
        if adds_bos and turns.begin:
            begin = begin.removeprefix(start)
        elif adds_bos:
            opening = opening.removeprefix(start)
        system = ""
        if turns.system is not None:
            before, after = turns.system
            system = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ end }}}}"
        turn_template = f"{opening}{{{{ .Prompt }}}}{turns.user[1]}{{{{ .Response }}}}{turns.end}"
        body = f"{begin}{system}{turn_template}"
        stops.insert(0, turns.end.strip().split("\n")[0])
    lines = [f"FROM ./{file}", f'TEMPLATE """{body}"""']
    if default:
        lines.append(f'SYSTEM """{default}"""')
    for stop in dict.fromkeys(one for one in stops if one.strip() and '"' not in one):
        lines.append(f'PARAMETER stop "{stop}"')
    return "\n".join([*lines, ""])
