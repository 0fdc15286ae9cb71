"""The top of the page: the score, whether to use the model, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from holdfast.core.labels import verdict_title
from holdfast.core.wording import interval_phrase, lower_first
from holdfast.report.answer.answer import answer, discarded_sentence
from holdfast.report.answer.score import Use
from holdfast.report.numbers import compact, count, duration, p_value, sentence, strength
from holdfast.report.public import base_name, public_name
from holdfast.report.run_files import Block, RunFiles

# label: (tone, sentence)
VERDICT_SENTENCES: Mapping[str, tuple[str, str]] = {
    "learning": ("good", "The validation loss fell during training."),
    "healthy": ("good", "The run converged: its validation loss shows no significant rise."),
    "underfit": ("warn", "Underfitting: the model has not learned enough yet."),
    "overfit": ("warn", "Overfitting: the validation loss rose, but the training loss did not."),
    "memorizing": (
        "warn",
        "Memorization: training rows are fitted better than new rows, or repeated.",
    ),
    "miscalibrated": ("warn", "Miscalibration: the predicted probabilities became overconfident."),
    "diverging": ("bad", "The training diverged."),
    "leaking": (
        "bad",
        "Possible data leakage: validation rows or their labels may have been visible in training.",
    ),
    "noisy_labels": ("warn", "Noisy labels: a notable share of the labels looks wrong."),
    "forgetting": ("warn", "Forgetting: the model lost some of what the base model knew."),
    "inconclusive": ("unsure", "There is too little evidence to judge this run."),
}
# Put before and after a label's sentence where the test rows do not confirm the label.
BY_VALIDATION, UNCONFIRMED = "By the validation rows, ", " The test rows do not confirm this."
ABOUT_DISCARDED = " The verdict is about the discarded steps. "
# A good verdict on the training must not sound like praise for a model that is not worth using.
NO_FAULT = "The training itself shows no fault. The score above is its result."
HARMS = {
    "answers": "predictions",
    "certainty": "only predicted probabilities",
    "both": "predictions and their probabilities",
}
# What the verdict's first step is called; these two are about the whole run.
SINCE = {"learning": "", "underfit": "", "healthy": "Converged at step"}
# Shown before the label. The tone adds a sign and a colour only.
VERDICT = "Verdict"
# Names of evidence for readers; any other name is shown with spaces.
EVIDENCE_NAMES = {
    "valid_above_best": "validation loss minus its lowest (calibrated)",
    "valid_refined_loss_above_best": "validation loss minus its lowest (calibrated)",
    "valid_loss_above_best": "validation loss minus its lowest (raw)",
    "valid_recent_change": "recent change of the validation loss",
    "valid_best_against_first": "lowest validation loss minus the first",
    "valid_against_first": "validation loss minus the first",
    "valid_last_part": "change of the validation loss in the last part of the run",
    "valid_last_quarter": "change of the validation loss in the last quarter",
    "valid_above_linear_probe": "validation loss minus that of the linear probe",
    "valid_loss_above_train_probe": "validation loss minus loss of the training sample",
    "valid_accuracy": "validation accuracy",
    "valid_accuracy_above_best": "validation accuracy minus its highest",
    "accuracy_train_probe_above_valid": "accuracy gap (training − validation)",
    "train_probe_loss": "loss of the training sample",
    "train_probe_rise": "rise of the loss of the training sample",
    "train_probe_change_since_best": "change of the training sample's loss since the lowest",
    "train_rows": "training rows of the linear probe",
    "probe_loss_gain_of_the_last_doubling": "relative fall of the probe's loss, last doubling",
    "p_value_above_best": "p of the rise above the lowest loss",
    "best_temperature": "temperature",
    "loss_of_the_class_frequencies": "loss of predicting the class frequencies",
    "share_of_the_commonest_class": "share of the most frequent class",
    "general_loss_above_first": "rise of the loss on general texts",
    # Of another program's log.
    "valid_lowest": "lowest smoothed loss (or 1 − metric)",
    "valid_end": "last smoothed loss (or 1 − metric)",
    "valid_rise_since_lowest": "rise since then (0 if still lowest)",
    "valid_rise_as_share_of_lowest": "that rise ÷ the lowest",
    "valid_rise_as_share_of_what_was_learned": "that rise ÷ the earlier fall",
    "valid_rise_that_noise_may_show": "rise that noise may cause",
    "valid_rise_come_back_from_before": "largest earlier rise that was recovered",
    "valid_fall_over_last_quarter": "validation fall over the last quarter",
    "train_start": "highest of the first three training losses",
    "train_end": "last smoothed training loss",
    "train_change_since_valid_lowest": "training loss: change since that lowest",
    "train_as_share_of_valid": "training loss ÷ validation loss",
    "valid_metric_gain_since_valid_lowest": "metric gain since the lowest loss",
    "metric_gap_train_less_valid": "metric gap (training − validation)",
    "train_measured_in_evaluation_mode": "evaluation-mode training loss (1 = yes)",
    "losses_rescaled_by": "factor of the removed step, both losses",
    "gap_of_the_metric": "metric gap at the last evaluation",
    "gap_at_the_best_evaluation": "metric gap at the best evaluation",
}
USE_TONES: Mapping[Use, str] = {
    "yes": "good",
    "unsettled": "unsure",
    "no": "bad",
    "unknown": "unsure",
}


@dataclass(frozen=True, slots=True)
class HeadlineView:
    """The top of a page. ``answer`` is empty for a log and for another trainer's run: neither has
    test rows. Of the verdict, ``tone`` sets sign and colour; ``tone_word`` stands before its
    ``label``. ``evidence`` has lines of name, value, interval and step; ``remedies`` has pairs
    of what to do and its command-line options."""

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


def headline(run: RunFiles) -> HeadlineView:
    """The top of a run's page.

    An unknown label (from a newer version) is shown as it is, in the neutral tone. A good verdict
    is green only for a model that is worth using: a run without faults may still give a useless
    model. A verdict that the test rows do not confirm is neutral, and says so."""
    verdict, run_answer = run.part("verdict"), answer(run.result)
    label = verdict.text("label", "inconclusive")
    tone, verdict_sentence = VERDICT_SENTENCES.get(label, ("unsure", f"The verdict is “{label}”."))
    if run.result.get("policy") == "off" and label == "overfit":
        # A guard that only observed another trainer saved no best checkpoint.
        verdict_sentence = "Overfitting: the model that remains is the last checkpoint."
    discarded_text = discarded_sentence(run.result)
    if tone == "good" and (discarded_text or run_answer.use == "no"):
        verdict_sentence = NO_FAULT
    tone, verdict_sentence = unless_unconfirmed(verdict, tone, verdict_sentence)
    if discarded_text:
        verdict_sentence = f"{discarded_text}{ABOUT_DISCARDED}{verdict_sentence}"
    # The guard never sees test rows of another trainer, so the page is about the verdict only.
    is_other_trainer, word = bool(run.result.get("trainer")), VERDICT
    if not is_other_trainer and tone == "good" and (discarded_text or run_answer.use != "yes"):
        tone, word = "unsure", "Verdict on the training"
    return HeadlineView(
        title=title(run),
        answer="" if is_other_trainer else run_answer.headline,
        advice="" if is_other_trainer else run_answer.advice,
        use_tone="" if is_other_trainer else USE_TONES[run_answer.use],
        tone=tone,
        tone_word=word,
        label=verdict_title(label),
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
    """A remedy in a verdict's JSON: what to do, and the settings that do it."""

    do: str
    set: list[str]


def unless_unconfirmed(verdict: Mapping[str, object], tone: str, sentence: str) -> tuple[str, str]:
    """Tone and sentence of a label; neutral, with a remark, if the test rows do not confirm it."""
    if verdict.get("test_agrees") is not False:
        return tone, sentence
    return "unsure", f"{BY_VALIDATION}{lower_first(sentence)}{UNCONFIRMED}"


def title(run: RunFiles) -> str:
    """The data and the base model, by their public names."""
    return f"{data_name(run)} · {public_name(run.part().text('model', 'model'))}"


def data_name(run: RunFiles) -> str:
    """The last part of the data's path or hub name."""
    settings = (run.part("settings", "data"), Block(run.recipe).block("data"))
    path = next((one.text("path") for one in settings if one.get("path")), "")
    return base_name(path) if path else run.part().text("task", "Fine-tuning run")


def _fact_lines(run: RunFiles, verdict: Block) -> tuple[tuple[str, str], ...]:
    # A confidence of 0 % in "inconclusive" would mislead.
    confidence = None if verdict.get("label") == "inconclusive" else verdict.get("confidence")
    agrees, compared = verdict.get("test_agrees"), verdict.block("test_comparison")
    words = "not contradicted" if agrees else "no"
    of_test = f"{words} ({compared.get('test')}, {p_value(compared.get('p_value'))})"
    facts = [
        ("Strength of evidence", "–" if confidence is None else strength(confidence)),
        (SINCE.get(str(verdict.get("label")), "Began at step"), count(verdict.get("since_step"))),
        ("Confirmed on test rows", "–" if agrees is None else of_test),
        ("What got worse", HARMS.get(str(verdict.get("harm")), "–")),
        ("Best checkpoint", count(run.result.get("best_step"))),
        ("Last step", count(run.result.get("last_step"))),
        ("Total time", duration(run.part("timing").get("total_s"))),
    ]
    return tuple((name, value) for name, value in facts if name and value != "–")


def evidence_name(name: str) -> str:
    """The name of a piece of evidence for readers."""
    return EVIDENCE_NAMES.get(name, name.replace("_", " "))


def evidence_line(raw: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """One piece of evidence for the verdict: its name, value, interval and step."""
    step, name = raw.get("at_step"), str(raw.get("name", ""))
    return (
        evidence_name(name),
        evidence_value(raw.get("value")),
        interval_phrase(raw.get("low"), raw.get("high"), evidence_value, "\u00a0–\u00a0"),
        "" if step is None else count(step),
    )


def evidence_value(value: float | None) -> str:
    """A count without decimals, any other number with three."""
    is_integer = value is not None and abs(value) >= 10 and float(value).is_integer()
    return count(value) if is_integer else compact(value)


def settings_words(settings: Iterable[str]) -> str:
    """The command-line options that set ``settings``."""
    return " ".join(f"--set {setting}" for setting in settings)
