"""The headline of a run and the advice whether to use the model, for terminal, report and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.core.decisions import STARTING_ADAPTER
from holdfast.core.metric_names import LOWER_IS_BETTER, metric_name, metric_words
from holdfast.core.wording import lower_first
from holdfast.report.answer.score import (
    GUESSES,
    PHRASES,
    Headline,
    Use,
    advantage_text,
    cheaper_text,
    compared_baseline,
    difference_text,
    headline_score,
    is_generation,
    paired_comparison,
    shows_guess,
    test_row_text,
)
from holdfast.report.numbers import interval, number
from holdfast.report.run_files import Block
from holdfast.report.view.episodes import meta_answer
from holdfast.report.view.folds import folds_advice, folds_answer
from holdfast.report.view.update import update_advice

NO_ADVICE = "Whether to use it is unknown: score it on labelled rows with `holdfast evaluate`."
WORTH_VERDICTS: Mapping[str, tuple[str, Use]] = {
    "yes": ("Worth using", "yes"),
    "no": ("Do not use it", "no"),
    "undecided": ("Inconclusive", "unsettled"),
}
GENERATION_FAULTS = {
    "repetition": "repeat the same words over and over",
    "empty": "are empty",
    "collapsed": "are the same text for different inputs",
}


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """``headline`` is the score with its interval and the baselines; ``advice`` says whether to use
    the model, and why; ``use`` is the advice as one word, which sets the colour.

    ``no``: the model is no better than a constant prediction on enough rows to show that, a
    significant comparison is against it, or most of its outputs are broken. ``unsettled``: the test
    rows show no difference from a simpler model, or the verdict is data leakage. ``unknown``:
    nothing was measured, or there is no baseline. Where the score is not above a baseline's, the
    headline begins with that.
    """

    headline: str
    advice: str
    use: Use


def answer(result: Mapping[str, Any]) -> RunAnswer:
    """Headline and advice from ``result.json``, for every task; tolerates absent parts.

    - one class (texts or images): accuracy in percent, with linear probe and most frequent class;
    - several labels: share of rows with all labels correct, then precision and recall over all
      labels; compared by micro F1;
    - a number: mean absolute error in the user's unit, with linear probe and training mean;
    - generated text: execution accuracy or exact match where scored and above 0, else ROUGE-L, else
      perplexity, with the untuned model. If half of the outputs are empty, repetitive or all the
      same, the model is of no use, whatever its score;
    - an update: the decision of its gate before the advice (``view/update.py``);
    - a meta-learned model: its accuracy on new tasks, and whether a new head on the base model is
      as good.

    A ``null`` value is given with its ``why``, a missing interval with its reason. The number of
    test rows is given below 100. Percentages are whole; they get a decimal where whole ones would
    hide a difference, or would round to 0 or 100.
    """
    result = Block(result)
    folds = result.block("cv")
    if folds.get("metrics") and not result.block("test").get("n"):
        return RunAnswer(folds_answer(folds), *folds_advice(folds))
    if isinstance(result.get("meta"), Mapping):
        return RunAnswer(*meta_answer(result.block("meta")))
    score = headline_score(result)
    if score is None:
        return RunAnswer("Not measured: no test rows were scored.", NO_ADVICE, "unknown")
    if score.value.value is None:
        why = score.value.why or "undefined"
        return RunAnswer(
            f"Not measured: {metric_name(score.name)} is undefined ({why}).", NO_ADVICE, "unknown"
        )
    better_baselines, headline = score.beaten_by(), score.text
    if better_baselines:
        simpler = PHRASES.get(better_baselines[0], better_baselines[0])
        paired = paired_comparison(result)
        is_inconclusive = paired is not None and not (paired.apart and paired.gain < 0)
        is_guess = better_baselines[0] in GUESSES
        unproven = is_inconclusive
        if is_guess:
            unproven = not _shows_guess(result, score, better_baselines[0])
        opening = f"{'Not shown to be better' if unproven else 'No better'} than the {simpler}"
        lower_loss = paired is not None and paired.apart and paired.gain > 0
        if lower_loss and is_generation(result) and not is_guess:
            texts = result.block("worth", "texts", "difference", "zero_shot")
            are = "worse" if texts.get("verdict") == "worse" else "not shown to be better"
            opening = f"Lower loss than the {simpler}, but the generated texts are {are}"
        headline = f"{opening}: {lower_first(headline)}"
    advice, use = update_advice(result, *_advice(result, score, better_baselines))
    folded = _out_of_fold(result, score, is_stated="out of fold" in advice)
    return RunAnswer(headline, f"{advice}{_rare_class(result)}{folded}", use)


# Below this number one row changes the recall of a class by more than ten points.
MIN_CLASS_ROWS = 10


def _rare_class(result: Block) -> str:
    """A sentence on a class too rare to show in the overall score: fewer than ten test rows, and
    at most a quarter of an even share; empty without such a class."""
    classes = result.block("test").table("per_class")
    rows = {name: int(one.get("n") or 0) for name, one in classes.items()}
    if not rows or min(rows.values()) >= MIN_CLASS_ROWS:
        return ""
    name = min(rows, key=lambda one: rows[one])
    if not 0 < 4 * len(rows) * rows[name] <= sum(rows.values()):
        return ""
    recall = classes[name].estimate("recall")
    if recall.value is None or recall.low is None or recall.high is None:
        return ""
    value, low, high = (f"{100 * one:.0f}" for one in (recall.value, recall.low, recall.high))
    has = f"{rows[name]} test row{'s' * (rows[name] > 1)}"
    return f" Class {name!r} has only {has}; its recall is {value} % (95 % CI {low}–{high})."


def _larger_folds(result: Block) -> Block:
    """The scores of the rows that are predicted out of fold, where they are more than the test
    rows: an accuracy of 60 rows may be 4 points off by chance. Empty in other runs."""
    valid = result.block("valid")
    is_larger = (valid.whole("n") or 0) > (result.block("test").whole("n") or 0)
    return valid if valid.get("out_of_fold") and is_larger else Block()


def _out_of_fold(result: Block, score: Headline, is_stated: bool) -> str:
    """The score of the ``_larger_folds``, with its difference from the linear probe, unless it
    ``is_stated`` already; empty in other runs."""
    valid = _larger_folds(result)
    other = valid.block("metrics").estimate(score.name)
    if other.value is None or other.low is None or other.high is None:
        return ""
    value, ends = number(other.value, score.name), interval(other, score.name)
    paired = paired_comparison(valid)
    compared = ""
    if paired is not None:
        probe = valid.block("baseline", "test", "metrics").estimate(score.name).value
        figure = "" if probe is None else f" {number(probe, score.name)}"
        difference = "" if is_stated else f" ({difference_text(paired)})"
        compared = f"; {PHRASES['linear probe']}{figure}{difference}"
    return (
        f" Out-of-fold {metric_words(score.name)} on the {valid['n']:,} rows outside the test set, "
        f"which also chose the checkpoint: {value} (95 % CI {ends}){compared}."
    )


def _advice(result: Block, score: Headline, better_baselines: Sequence[str]) -> tuple[str, Use]:
    # First, because repetitive texts may still score above a baseline.
    broken = _generation_fault(result)
    if broken:
        return f"Do not use it: {broken}.", "no"
    if better_baselines and better_baselines[0] in GUESSES:
        scores = (
            f"on {test_row_text(result)} the {GUESSES[better_baselines[0]]} scores at least as well"
        )
        if _shows_guess(result, score, better_baselines[0]):
            return f"Do not use it: {scores}, without reading the rows.", "no"
        return f"Inconclusive: {scores}; more test rows are needed.", "unsettled"
    paired = paired_comparison(result)
    other = compared_baseline(result)
    frozen = result.block("settings", "model").get("freeze") == "backbone"
    if paired is None:
        return (
            f"No paired comparison with a baseline was possible on {test_row_text(result)}.",
            "unknown",
        )
    by, worth_advice = advantage_text(paired), _worth_advice(result)
    # Of a generative model the texts may contradict the loss, which alone is compared here.
    is_disputed = worth_advice is not None and worth_advice[1] != "no"
    if paired.apart and paired.gain < 0 and not is_disputed:
        if paired.metric != score.name and score.others.get("linear probe") == score.value.value:
            return (
                f"Inconclusive: the {other} has the same {metric_words(score.name)}, and its loss "
                f"is lower {by}. {cheaper_text(other, frozen=frozen)}",
                "unsettled",
            )
        return f"Do not use it: the {other} is better {by}.", "no"
    # After the faults that count in any case: leakage makes a score too good, never too bad.
    if result.block("verdict").get("label") == "leaking":
        return "Do not rely on this score until the leakage below is resolved.", "unsettled"
    if worth_advice is not None and worth_advice[1] != "yes":
        return worth_advice
    if better_baselines and paired.apart:
        return (
            f"Inconclusive: it is better than the {other} {by}, but not by the metric above. "
            + cheaper_text(other, frozen=frozen),
            "unsettled",
        )
    if not paired.apart and not better_baselines and paired.gain > 0:
        folded = paired_comparison(_larger_folds(result))
        if folded is not None and folded.apart and folded.gain > 0:
            return (
                f"Worth using: out of fold it is better than the {other} {advantage_text(folded)}. "
                f"{test_row_text(result)} alone cannot show a difference "
                f"({difference_text(paired)}).",
                "yes",
            )
    if not paired.apart:
        costs_less = f" {cheaper_text(other, frozen=frozen)}" if better_baselines else ""
        words = f"Inconclusive: {test_row_text(result)} cannot show a difference from the {other}"
        return f"{words} ({difference_text(paired)}).{costs_less}", "unsettled"
    guess = next((what for what in score.others if what in GUESSES), None)
    if guess and _includes_guess(score, score.others[guess]):
        return (
            f"Inconclusive: the 95 % CI includes the score of the {GUESSES[guess]}.",
            "unsettled",
        )
    return worth_advice or (f"Worth using: better than the {other} {by}.", "yes")


def _shows_guess(result: Block, score: Headline, guess: str) -> bool:
    """``shows_guess``, by the number of rows that have a score."""
    written = result.block("generations", "counts", "test").whole("n")
    rows = written or result.block("test").whole("n") or 0
    return shows_guess(score.value, score.name, score.others[guess], rows)


def _worth_advice(result: Block) -> tuple[str, Use] | None:
    """The advice from ``worth`` on a generative model, which is compared with its base model under
    several prompts; ``None`` where nothing was compared."""
    block = result.block("worth")
    _, colon, reason = block.text("because").partition(": ")
    if not colon or block.get("verdict") not in WORTH_VERDICTS:
        return None
    words, use = WORTH_VERDICTS[block["verdict"]]
    return f"{words}: {reason}", use


def _includes_guess(score: Headline, other: float) -> bool:
    """Whether the score's interval includes the score of a constant prediction."""
    if score.name in LOWER_IS_BETTER:
        return score.value.high is not None and score.value.high >= other
    return score.value.low is not None and score.value.low <= other


def _generation_fault(result: Block) -> str:
    """A fault of at least half of the generated texts; empty where there is none."""
    generated = result.block("generations")
    counts = generated.block("counts", "test")
    n = counts.get("n") or 0
    fault = max(GENERATION_FAULTS, key=lambda name: counts.get(name) or 0)
    fault_count = counts.get(fault) or 0
    if n and 2 * fault_count >= n:
        return f"{fault_count} of the {n} generated texts {GENERATION_FAULTS[fault]}"
    overlap = generated.block("scores", "test").estimate("rouge_l")
    # Four short answers without a common word may be four wrong ones.
    if n and overlap.value is not None and overlap.value <= 0 and (overlap.high or 0) < 0.5:
        return "the generated texts share no words with the references (ROUGE-L 0)"
    return ""


# The name of the decision by which ``diagnose`` reports this for a run.
DISCARDED = "fine-tuning discarded"
# The name of the decision on the best checkpoint, and its name in older runs.
CHECKPOINT_CHOICE = ("best checkpoint", "kept state")


def checkpoint_decision(result: Mapping[str, Any]) -> Block:
    """The decision on the best checkpoint; empty for a run without one."""
    decisions = Block(result).blocks("decisions")
    return next(
        (one for one in reversed(decisions) if one.get("what") in CHECKPOINT_CHOICE), Block()
    )


def discarded_sentence(result: Mapping[str, Any]) -> str | None:
    """A sentence on the model that was saved instead of the fine-tuned one. ``None`` where the best
    checkpoint is a later step or an average of weights, or where Holdfast only observed another
    trainer."""
    last = result.get("last_step")
    if result.get("best_step") != 0 or not isinstance(last, int) or last < 1:
        return None
    if result.get("policy") == "off":
        return None
    kept_choice = checkpoint_decision(result).text("chosen")
    if "average" in kept_choice:
        return None
    head = " with a linear probe as its last layer" if "linear probe" in kept_choice else ""
    saved = "the student before distillation" if result.get("distilled") else "the base model"
    if any(one.get("what") == STARTING_ADAPTER for one in Block(result).blocks("decisions")):
        saved = "the adapter that it began with"
    # An update may begin with the weights of the served run.
    start = ((result.get("update") or {}).get("start") or {}).get("start")
    saved = "the served model" if start == "warm" else saved
    steps = "its only step was not" if last == 1 else f"none of its {last:,} steps was"
    if Block(result).block("settings", "model").get("freeze") == "backbone":
        return (
            f"The encoder was frozen, and of the training of its last layer {steps} kept, so the "
            f"saved model is {saved}{head}."
        )
    return f"Fine-tuning was discarded: {steps} kept, so the saved model is {saved}{head}."
