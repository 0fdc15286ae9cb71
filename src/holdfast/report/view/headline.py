"""The top of the page: the answer, whether to use the model, and the verdict in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from holdfast.core.wording import interval_phrase
from holdfast.report.answer.answer import answer, discarded_sentence
from holdfast.report.answer.score import Use
from holdfast.report.numbers import NBSP, compact, count, duration, p_value, sentence
from holdfast.report.public import base_name, public_name
from holdfast.report.run_files import Block, RunFiles

# label: (tone, the word shown beside the mark, the sentence)
VERDICT_SENTENCES: Mapping[str, tuple[str, str]] = {
    "learning": ("good", "Its validation loss fell during training."),
    "healthy": ("good", "It converged, and its validation loss did not rise."),
    "underfit": ("warn", "It has not learned enough yet."),
    "overfit": ("warn", "It overfitted: it fits its training rows much better than new ones."),
    "memorizing": ("warn", "It fits nearly all training rows, and scores lower on new ones."),
    "miscalibrated": ("warn", "Its predicted probabilities became overconfident."),
    "diverging": ("bad", "The training diverged."),
    "leaking": ("bad", "The result is implausibly good: the data may leak."),
    "noisy_labels": ("warn", "A notable share of the labels looks wrong."),
    "forgetting": ("warn", "It lost some of what the base model knew."),
    "inconclusive": ("unsure", "There is too little evidence to judge this run."),
}
# What stands before a label's sentence where the test rows do not confirm it, and after it.
BY_VALIDATION, UNCONFIRMED = "By the validation rows: ", " The test rows do not confirm this."
ABOUT_DISCARDED = " The verdict is about the discarded steps: "
# A good course above a model of no use must not sound like one that is worth something.
NO_FAULT = "The training itself shows no fault; its result is the score above."
HARMS = {
    "answers": "predictions",
    "certainty": "only predicted probabilities",
    "both": "predictions and their probabilities",
}
TONES = {"good": "Good", "warn": "Caution", "bad": "Bad", "unsure": "Unclear"}
USE_TONES: Mapping[Use, str] = {
    "yes": "good",
    "unsettled": "unsure",
    "no": "bad",
    "unknown": "unsure",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """``answer`` is empty on the page of a log or of another trainer's run: both have no test
    rows. The verdict: ``tone`` colours it, ``tone_word`` and ``label`` say the same in words.
    ``evidence`` are lines of name, value, interval and step; ``remedies`` what to do, with the
    words of a command that does it."""

    title: str
    tone: str
    tone_word: str
    label: str
    sentence: str
    because: str
    facts: tuple[tuple[str, str], ...]
    answer: str = ""
    advice: str = ""
    use_tone: str = ""
    cause: str = ""
    evidence: tuple[tuple[str, str, str, str], ...] = ()
    remedies: tuple[tuple[str, str], ...] = ()


def headline(run: RunFiles) -> Headline:
    """An unknown label (a newer run) is shown as it is, in the neutral tone. A good verdict is
    green only over a model that is worth using: a run can go well and end at nothing. One that the
    test rows do not confirm is neutral, and says so."""
    verdict, run_answer = run.part("verdict"), answer(run.result)
    label = verdict.text("label", "inconclusive")
    tone, verdict_sentence = VERDICT_SENTENCES.get(label, ("unsure", f"The verdict is “{label}”."))
    if run.result.get("policy") == "off" and label == "overfit":
        # A guard that only observed another trainer kept no state.
        verdict_sentence = "It overfitted, and its last checkpoint is the one that remains."
    discarded_text = discarded_sentence(run.result)
    if tone == "good" and (discarded_text or run_answer.use == "no"):
        verdict_sentence = NO_FAULT
    tone, verdict_sentence = unless_unconfirmed(verdict, tone, verdict_sentence)
    if discarded_text:
        verdict_sentence = f"{discarded_text}{ABOUT_DISCARDED}{lower_first(verdict_sentence)}"
    # The guard never sees the test rows of another trainer: its verdict is what the page is about.
    is_other_trainer, word = bool(run.result.get("trainer")), TONES[tone]
    if not is_other_trainer and tone == "good" and (discarded_text or run_answer.use != "yes"):
        tone, word = "unsure", "Verdict on the training"
    return Headline(
        title=title(run),
        answer="" if is_other_trainer else run_answer.headline,
        advice="" if is_other_trainer else run_answer.advice,
        use_tone="" if is_other_trainer else USE_TONES[run_answer.use],
        tone=tone,
        tone_word=word,
        label=label.replace("_", " "),
        sentence=verdict_sentence,
        because=verdict.text("because", "The run gave no reason."),
        facts=_fact_lines(run, verdict),
        cause=verdict.text("cause"),
        evidence=tuple(map(evidence_line, verdict.blocks("evidence"))),
        remedies=tuple(
            (sentence(raw.text("do")), settings_words(raw.texts("set")))
            for raw in verdict.blocks("remedies")
        ),
    )


class RemedyJson(TypedDict):
    """One remedy as a verdict's JSON has it: what to do, and the settings that do it."""

    do: str
    set: list[str]


def unless_unconfirmed(verdict: Mapping[str, object], tone: str, sentence: str) -> tuple[str, str]:
    """Tone and sentence of a label, or of one that the run's test rows do not confirm."""
    if verdict.get("test_agrees") is not False:
        return tone, sentence
    return "unsure", f"{BY_VALIDATION}{lower_first(sentence)}{UNCONFIRMED}"


def lower_first(text: str) -> str:
    """A sentence as it goes on behind a colon."""
    return text[:1].lower() + text[1:]


def title(run: RunFiles) -> str:
    """The data and the base model, by the names that others know."""
    return f"{data_name(run)} · {public_name(run.part().text('model', 'model'))}"


def data_name(run: RunFiles) -> str:
    """The last part of the data's path or hub name."""
    settings = (run.part("settings", "data"), Block(run.recipe).block("data"))
    path = next((one.text("path") for one in settings if one.get("path")), "")
    return base_name(path) if path else run.part().text("task", "Fine-tuning run")


def _fact_lines(run: RunFiles, verdict: Block) -> tuple[tuple[str, str], ...]:
    # "0 % sure" of having no verdict would say nothing.
    confidence = None if verdict.get("label") == "inconclusive" else verdict.get("confidence")
    agrees, compared = verdict.get("test_agrees"), verdict.block("test_comparison")
    words = "agree with the validation rows" if agrees else "do not confirm it"
    of_test = f"{words} ({compared.get('test')}, {p_value(compared.get('p_value'))})"
    facts = [
        ("Verdict’s confidence", "–" if confidence is None else f"{100 * confidence:.0f}{NBSP}%"),
        ("Since step", count(verdict.get("since_step"))),
        ("Test rows", "–" if agrees is None else of_test),
        ("What got worse", HARMS.get(str(verdict.get("harm")), "–")),
        ("Kept step", count(run.result.get("best_step"))),
        ("Last step", count(run.result.get("last_step"))),
        ("Whole run", duration(run.part("timing").get("total_s"))),
    ]
    return tuple((name, value) for name, value in facts if value != "–")


def evidence_line(raw: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """One number behind the verdict: its name, value, interval and step."""
    step = raw.get("at_step")
    return (
        str(raw.get("name", "")).replace("_", " "),
        evidence_value(raw.get("value")),
        interval_phrase(raw.get("low"), raw.get("high"), evidence_value, "\u00a0–\u00a0"),
        "" if step is None else count(step),
    )


def evidence_value(value: float | None) -> str:
    """A number of any kind: a count without decimals, anything else with three."""
    is_integer = value is not None and abs(value) >= 10 and float(value).is_integer()
    return count(value) if is_integer else compact(value)


def settings_words(settings: Iterable[str]) -> str:
    """The command-line words that set ``settings``."""
    return " ".join(f"--set {setting}" for setting in settings)
