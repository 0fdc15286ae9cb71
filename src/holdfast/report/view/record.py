"""The record of the run: findings, decisions, timeline, settings, versions, code to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.core.labels import verdict_title
from holdfast.core.setting_names import plain_key
from holdfast.core.tasks import pipeline_name
from holdfast.core.wording import HIDDEN_VALUE
from holdfast.report.numbers import compact, count, duration, plural, sentence
from holdfast.report.purposes import purpose_of
from holdfast.report.run_files import Block, RunFiles

SEVERITIES = {"error": "bad", "warn": "warn", "info": "info"}
TEXT_EXAMPLE = """\
inputs = tokenizer("A text to begin with.", return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=100)
print(tokenizer.decode(ids[0], skip_special_tokens=True))"""
CHAT_EXAMPLE = """\
turns = [{"role": "user", "content": "A question?"}]
inputs = tokenizer.apply_chat_template(
    turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
ids = model.generate(**inputs, max_new_tokens=100)
print(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
AUTO_MODELS = {
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "text-generation": "AutoModelForCausalLM",
}
ORDER = {"error": 0, "warn": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class FindingLine:
    """A finding of the audit, as text."""

    tone: str
    severity: str
    check: str
    rows: str
    examples: str
    because: str
    remedy: str
    fixed: bool


@dataclass(frozen=True, slots=True)
class ChoiceView:
    """An automatic decision."""

    what: str
    chosen: str
    because: str


def findings(run: RunFiles) -> tuple[FindingLine, ...]:
    """Worst first."""
    blocks = run.part("data").blocks("findings")
    blocks.sort(key=lambda f: (ORDER.get(str(f.get("severity")), 3), -(f.get("score") or 0)))
    return tuple(map(_finding, blocks))


def decisions(run: RunFiles) -> tuple[ChoiceView, ...]:
    """The decisions of result.json, then the other notes of events.jsonl."""
    known: dict[tuple[str, str], ChoiceView] = {}
    for raw in [*run.part().blocks("decisions"), *run.notes]:
        subject, because = str(raw.get("what", "")), str(raw.get("because", ""))
        choice = ChoiceView(subject, _value_text(raw.get("chosen", "")), because)
        known.setdefault((subject, because), choice)
    return tuple(known.values())


def timeline(run: RunFiles) -> tuple[tuple[str, str, str, str], ...]:
    """Changes of the verdict and actions in order, then why the run stopped: step, kind, what
    happened and why."""
    lines, label = [], None
    for event in run.timeline or run.part().blocks("actions"):
        step, because = count(event.get("step")), str(event.get("because", ""))
        if event.get("event") != "verdict":
            lines.append((step, "action", str(event.get("action", "")), because))
        elif event.get("label") != label:
            label = event.get("label")
            lines.append((step, "verdict", verdict_title(str(label or "")), because))
    if stopped := run.part().text("stopped_because"):
        last = count(run.result.get("last_step"))
        lines.append((last, "end", "Training stopped", sentence(stopped)))
    return tuple(lines)


def settings(run: RunFiles) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The resolved recipe: a table for each section, with dotted keys, by their plain names."""
    recipe: dict[str, Any] = {**(run.part("settings") or run.recipe)}
    alert = Block(recipe).block("alert")
    if alert.get("command") is not None:
        # The command of an alert may hold secrets; recipes and older runs hold it in full.
        recipe["alert"] = {**alert, "command": HIDDEN_VALUE}
    top = tuple((k, _value_text(v)) for k, v in recipe.items() if not isinstance(v, Mapping))
    rest = tuple(
        (
            plain_key(section),
            tuple(
                (plain_key(f"{section}.{key}").partition(".")[2], text)
                for key, text in _flat(value)
            ),
        )
        for section, value in Block(recipe).table().items()
        if value
    )
    return ((("run", top), *rest)) if top else rest


def facts(run: RunFiles) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Model, versions, machine, time and memory."""
    versions = dict(run.part("versions"))
    versions.setdefault("holdfast", run.result.get("holdfast", "–"))
    blocks = [
        ("Model", [(k, _fact_text(v)) for k, v in run.part("model_facts").items()]),
        ("Time and memory", [*_timing(run)]),
        ("Versions", [(k, _value_text(v)) for k, v in versions.items()]),
        ("Machine", [(k, _value_text(v)) for k, v in run.part("machine").items()]),
        *(
            (f"Probe: {key}", list(_flat(value)))
            for key, value in run.part().table("probes").items()
            # These two have their own sections.
            if key not in ("memorization", "forgetting")
        ),
    ]
    return tuple((name, tuple(lines)) for name, lines in blocks if lines)


ADAPTER_COMMENT = (
    "# pip install transformers peft\n"
    "# The base model is loaded from the path in model/adapter_config.json. For a merged model\n"
    "# that loads on any machine: holdfast export RUN --to merged\n"
)


def loading(run: RunFiles, folder: str = "model") -> str:
    """Code that loads the saved model with ``transformers`` only (an adapter with ``peft``); empty
    for a run of another trainer, which chooses where it saves its model."""
    if run.result.get("trainer"):
        return ""
    if auto_class := AUTO_MODELS.get(pipeline_name(str(run.result.get("task")))):
        adapter = saved_adapter(run)
        bits = _quantization_arguments(run.part("settings", "model")) if adapter else ""
        more = ", BitsAndBytesConfig" if bits else ""
        config = f"quantization_config=BitsAndBytesConfig({bits})"
        arguments = f',\n    dtype="float32", {config}' if bits else ""
        install_comment = ADAPTER_COMMENT if adapter else ""
        return (
            f"{install_comment}from transformers import {auto_class}, AutoTokenizer{more}\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
            f'model = {auto_class}.from_pretrained("{folder}"{arguments})\n'
            f"{CHAT_EXAMPLE if _has_chats(run) else TEXT_EXAMPLE}"
        )
    problem = run.result.get("problem")
    how = ', function_to_apply="none"' if problem == "regression" else ""
    how = ", top_k=None" if problem == "multi_label_classification" else how
    length = run.part("model_facts").whole("max_length")
    cut = "" if length is None else f", truncation=True, max_length={length}"
    example = purpose_of(run.result).example
    for mark, text in (("FOLDER", folder), ("HOW", how), ("CUT", cut)):
        example = example.replace(mark, text)
    return f"from transformers import pipeline\n{example}"


def saved_adapter(run: RunFiles) -> str:
    """The kind of adapter that the model's folder holds; empty where it holds a full model."""
    adapter = run.part("settings", "model").block("adapter")
    kind = adapter.text("kind", "none")
    return "" if kind == "none" or adapter.get("merge") else kind


def _has_chats(run: RunFiles) -> bool:
    """Whether a language model reads its prompts through a chat template."""
    return any(one.get("what") == "chat template" for one in run.part().blocks("decisions"))


def _quantization_arguments(model: Block) -> str:
    """The arguments that quantise the pretrained model of an adapter; empty where it was not
    quantised."""
    if model.get("quantize") not in ("4bit", "8bit"):
        return ""
    if model["quantize"] == "8bit":
        return "load_in_8bit=True"
    # As a literal: users copy these lines, and the run may come from somebody else.
    quant_type = json.dumps(str(model.get("quant_type")))
    return (
        f"load_in_4bit=True, bnb_4bit_quant_type={quant_type},\n        "
        f"bnb_4bit_use_double_quant={bool(model.get('double_quant'))}"
    )


def _finding(raw: Block) -> FindingLine:
    severity, rows = raw.text("severity", "info"), raw.texts("rows")
    return FindingLine(
        tone=SEVERITIES.get(severity, "info"),
        severity=severity,
        check=str(raw.get("check", "")).replace("_", " "),
        # A finding without rows counts something else: settings, documents, types of entity.
        rows=plural(raw["count"], "row") if rows and raw.get("count") else "",
        examples=", ".join([*rows[:8], "…"] if len(rows) > 8 else rows),
        because=str(raw.get("because", "")),
        remedy=str(raw.get("remedy", "")),
        fixed=bool(raw.get("fixed")),
    )


def _timing(run: RunFiles) -> Iterator[tuple[str, str]]:
    names = {
        "total_s": "total",
        "train_s": "training",
        "evaluate_s": "evaluation (part of training)",
        "guard_s": "guard (part of training)",
    }
    timing, memory = run.part("timing"), run.part().number("peak_memory_mb")
    yield from ((name, duration(timing[key])) for key, name in names.items() if key in timing)
    if (rows := timing.number("examples_per_s")) is not None:
        yield "training rows per second", f"{rows:,.1f}"
    if memory is not None:
        yield "peak memory", f"{count(memory)}\u00a0MB"


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _value_text(item)


def _fact_text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return compact(value) if isinstance(value, float) else _value_text(value)


def _value_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)
