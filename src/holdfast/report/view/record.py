"""The record of the run: findings, decisions, timeline, settings, versions, how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.core.wording import HIDDEN
from holdfast.report.numbers import compact, count, duration, plural, sentence
from holdfast.report.purposes import purpose_of
from holdfast.report.run_files import RunFiles

SEVERITIES = {"error": "bad", "warn": "warn", "info": "info"}
WRITERS = {"seq2seq": "AutoModelForSeq2SeqLM", "causal-lm": "AutoModelForCausalLM"}
ORDER = {"error": 0, "warn": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class FindingLine:
    """Something the audit saw, as text."""

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


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at a step: a change of verdict, or an action."""

    step: str
    kind: str
    what: str
    because: str


def findings(run: RunFiles) -> tuple[FindingLine, ...]:
    """Worst first."""
    found = sorted(
        run.records("data", "findings"),
        key=lambda f: (ORDER.get(str(f.get("severity")), 3), -(f.get("score") or 0)),
    )
    return tuple(_finding(raw) for raw in found)


def decisions(run: RunFiles) -> tuple[ChoiceView, ...]:
    """Those of result.json, then the notes of events.jsonl that say something else."""
    choices = [
        ChoiceView(
            str(raw.get("what", "")), _plain(raw.get("chosen", "")), str(raw.get("because", ""))
        )
        for raw in [*run.records("decisions"), *run.notes]
    ]
    known: dict[tuple[str, str], ChoiceView] = {}
    for choice in choices:
        known.setdefault((choice.what, choice.because), choice)
    return tuple(known.values())


def moments(run: RunFiles) -> tuple[Moment, ...]:
    """Changes of verdict and actions in order, and why the run ended."""
    lines, label = [], None
    for event in run.timeline or run.records("actions"):
        if event.get("event") == "verdict":
            if event.get("label") == label:
                continue
            label = event.get("label")
        lines.append(_moment(event))
    if run.result.get("stopped_because"):
        last = count(run.result.get("last_step"))
        lines.append(
            Moment(last, "end", "Training ended", sentence(str(run.result["stopped_because"])))
        )
    return tuple(lines)


def settings(run: RunFiles) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The resolved recipe, one table a section, dotted keys below it."""
    recipe = _without_command(run.part("settings") or run.recipe)
    top = tuple((k, _plain(v)) for k, v in recipe.items() if not isinstance(v, Mapping))
    rest = tuple(
        (str(key), tuple(_flat(value)))
        for key, value in recipe.items()
        if isinstance(value, Mapping) and value
    )
    return ((("run", top), *rest)) if top else rest


def _without_command(settings: Mapping[str, object]) -> Mapping[str, Any]:
    """A command that alerts run may hold secrets; a recipe and older runs have it in full."""
    alert = settings.get("alert")
    if not isinstance(alert, Mapping) or alert.get("command") is None:
        return settings
    return {**settings, "alert": {**alert, "command": HIDDEN}}


def facts(run: RunFiles) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Model, versions, machine, time and memory."""
    versions = dict(run.part("versions"))
    versions.setdefault("holdfast", run.result.get("holdfast", "–"))
    blocks = [
        ("Model", [(k, _fact(v)) for k, v in run.part("model_facts").items()]),
        ("Time and memory", [*_timing(run)]),
        ("Versions", [(k, _plain(v)) for k, v in versions.items()]),
        ("Machine", [(k, _plain(v)) for k, v in run.part("machine").items()]),
        *(
            (f"Probe: {key}", list(_flat(value)))
            for key, value in run.part("probes").items()
            # These two have sections of their own.
            if isinstance(value, Mapping) and key not in ("memorization", "forgetting")
        ),
    ]
    return tuple((name, tuple(lines)) for name, lines in blocks if lines)


def loading(run: RunFiles, folder: str = "model") -> str:
    """A few lines of plain ``transformers`` that load the saved model; empty for a run of another
    trainer, which saves its model where it likes."""
    if run.result.get("trainer"):
        return ""
    if writes := WRITERS.get(str(run.result.get("task"))):
        bits = _bits(run.part("settings").get("model") or {})
        more = ", BitsAndBytesConfig" if bits else ""
        config = f"quantization_config=BitsAndBytesConfig({bits})"
        arguments = f',\n    dtype="float32", {config}' if bits else ""
        return (
            f"from transformers import {writes}, AutoTokenizer{more}\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
            f'model = {writes}.from_pretrained("{folder}"{arguments})\n'
            'inputs = tokenizer("A text to begin with.", return_tensors="pt")\n'
            "ids = model.generate(**inputs, max_new_tokens=100)\n"
            "print(tokenizer.decode(ids[0], skip_special_tokens=True))"
        )
    problem = run.result.get("problem")
    how = ', function_to_apply="none"' if problem == "regression" else ""
    how = ", top_k=None" if problem == "multi_label_classification" else how
    length = run.part("model_facts").get("max_length")
    cut = f", truncation=True, max_length={length}" if isinstance(length, int) else ""
    example = purpose_of(run.result).example
    for mark, text in (("FOLDER", folder), ("HOW", how), ("CUT", cut)):
        example = example.replace(mark, text)
    return f"from transformers import pipeline\n{example}"


def _bits(model: Mapping[str, Any]) -> str:
    """How the pretrained model of an adapter is to be quantised again; empty where it is not."""
    merged = (model.get("adapter") or {}).get("merge")
    if merged or model.get("quantize") not in ("4bit", "8bit"):
        return ""
    if model["quantize"] == "8bit":
        return "load_in_8bit=True"
    # As a literal: these lines are there to be copied, and the run may be a stranger's.
    kind = json.dumps(str(model.get("quant_type")))
    return (
        f"load_in_4bit=True, bnb_4bit_quant_type={kind},\n        "
        f"bnb_4bit_use_double_quant={bool(model.get('double_quant'))}"
    )


def _finding(raw: Mapping[str, Any]) -> FindingLine:
    severity = str(raw.get("severity") or "info")
    rows = [str(row) for row in (raw.get("rows") or ())[:8]]
    more = "…" if len(raw.get("rows") or ()) > len(rows) else ""
    return FindingLine(
        tone=SEVERITIES.get(severity, "info"),
        severity=severity,
        check=str(raw.get("check", "")).replace("_", " "),
        # Without rows it counts something else: settings, documents, types of entity.
        rows=plural(raw["count"], "row") if raw.get("rows") and raw.get("count") else "",
        examples=", ".join([*rows, more] if more else rows),
        because=str(raw.get("because", "")),
        remedy=str(raw.get("remedy", "")),
        fixed=bool(raw.get("fixed")),
    )


def _moment(event: Mapping[str, object]) -> Moment:
    verdict = event.get("event") == "verdict"
    what = str(event.get("label", "")).replace("_", " ") if verdict else event.get("action", "")
    return Moment(
        step=count(event.get("step")),
        kind="verdict" if verdict else "action",
        what=str(what),
        because=str(event.get("because", "")),
    )


def _timing(run: RunFiles) -> Iterator[tuple[str, str]]:
    names = {
        "total_s": "whole run",
        "train_s": "training",
        "evaluate_s": "evaluation in it",
        "guard_s": "guard in it",
    }
    timing = run.part("timing")
    yield from ((name, duration(timing[key])) for key, name in names.items() if key in timing)
    if isinstance(timing.get("examples_per_s"), (int, float)):
        yield "training rows a second", f"{timing['examples_per_s']:,.1f}"
    if isinstance(run.result.get("peak_memory_mb"), (int, float)):
        yield "peak memory", f"{count(run.result['peak_memory_mb'])}\u00a0MB"


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(item)


def _fact(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return compact(value) if isinstance(value, float) else _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)
