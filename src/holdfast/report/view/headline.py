"""The top of the page: the verdict in one sentence of plain words, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from holdfast.report.numbers import NBSP, compact, count, duration, sentence
from holdfast.report.read import RunFiles

# label: (tone, the word shown beside the mark, the sentence)
PLAIN: Mapping[str, tuple[str, str]] = {
    "learning": ("good", "It was still learning when the run ended."),
    "healthy": ("good", "It learned, and what it learned holds up."),
    "underfit": ("warn", "It has not learned enough yet."),
    "overfit": ("warn", "It began to overfit; the state from before that was kept."),
    "memorizing": ("warn", "It memorizes its training rows without getting better."),
    "miscalibrated": ("warn", "Its answers hold up, its confidence does not."),
    "diverging": ("bad", "The training came apart."),
    "leaking": ("bad", "The result is too good to be believed."),
    "noisy_labels": ("warn", "Its labels cannot be trusted as they are."),
    "forgetting": ("warn", "It forgot what it knew before."),
    "inconclusive": ("unsure", "There is too little evidence to judge this run."),
}
TONES = {"good": "Good", "warn": "Caution", "bad": "Bad", "unsure": "Unclear"}


@dataclass(frozen=True, slots=True)
class EvidenceLine:
    """One number behind the verdict, as text."""

    name: str
    value: str
    span: str
    step: str


@dataclass(frozen=True, slots=True)
class RemedyLine:
    """Something to try, with the command-line words that try it."""

    do: str
    command: str


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict: ``tone`` colours it, ``tone_word`` and ``label`` say the same in words."""

    title: str
    tone: str
    tone_word: str
    label: str
    sentence: str
    because: str
    facts: tuple[tuple[str, str], ...]
    cause: str
    evidence: tuple[EvidenceLine, ...]
    remedies: tuple[RemedyLine, ...]


def headline(run: RunFiles) -> Headline:
    """An unknown label (a newer run) is shown as it is, in the neutral tone."""
    verdict = run.part("verdict")
    label = str(verdict.get("label") or "inconclusive")
    tone, sentence = PLAIN.get(label, ("unsure", f"The verdict is “{label}”."))
    if run.result.get("policy") == "off" and label == "overfit":
        # A guard that only observed another trainer kept no state.
        sentence = "It began to overfit, and its last state is what it ends with."
    return Headline(
        title=f"{data_name(run)} · {run.result.get('model') or 'model'}",
        tone=tone, tone_word=TONES[tone], label=label.replace("_", " "), sentence=sentence,
        because=str(verdict.get("because") or "The run gave no reason."),
        facts=_facts(run, verdict), cause=str(verdict.get("cause") or ""),
        evidence=tuple(_evidence(e) for e in run.records("verdict", "evidence")),
        remedies=tuple(_remedy(r) for r in run.records("verdict", "remedies")),
    )  # fmt: skip


def data_name(run: RunFiles) -> str:
    """The last part of the data's path or hub name."""
    for settings in (run.part("settings", "data"), run.recipe.get("data")):
        if isinstance(settings, Mapping) and settings.get("path"):
            return PurePath(str(settings["path"])).name
    return str(run.result.get("task") or "Fine-tuning run")


def _facts(run: RunFiles, verdict: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    confidence = verdict.get("confidence")
    facts = [
        ("Verdict’s confidence", "–" if confidence is None else f"{100 * confidence:.0f}{NBSP}%"),
        ("Since step", count(verdict.get("since_step"))),
        ("Kept step", count(run.result.get("best_step"))),
        ("Last step", count(run.result.get("last_step"))),
        ("Whole run", duration(run.part("timing").get("total_s"))),
    ]
    return tuple((name, value) for name, value in facts if value != "–")


def _evidence(raw: Mapping[str, Any]) -> EvidenceLine:
    low, high = raw.get("low"), raw.get("high")
    known = low is not None and high is not None
    return EvidenceLine(
        name=str(raw.get("name", "")).replace("_", " "), value=compact(raw.get("value")),
        span=f"{compact(low)}\u00a0–\u00a0{compact(high)}" if known else "",
        step=count(raw.get("at_step")) if raw.get("at_step") is not None else "",
    )  # fmt: skip


def _remedy(raw: Mapping[str, Any]) -> RemedyLine:
    command = " ".join(f"--set {setting}" for setting in raw.get("set") or ())
    return RemedyLine(do=sentence(str(raw.get("do", ""))), command=command)
