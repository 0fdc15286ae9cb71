"""The result of a run in one line, and whether to use the model: the same in the terminal and at
the top of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.report.answer.score import (
    GUESSES,
    LOWER_IS_BETTER,
    PHRASES,
    Headline,
    Use,
    advantage_text,
    difference_text,
    headline_score,
    is_generation,
    paired_comparison,
    test_row_text,
)
from holdfast.report.numbers import metric_name
from holdfast.report.run_files import Block
from holdfast.report.view.episodes import meta_answer
from holdfast.report.view.folds import ADVICE, folds_answer
from holdfast.report.view.update import update_advice

NO_ADVICE = "Whether to use it cannot be said: score it on labelled rows with `holdfast evaluate`."
WORTH_VERDICTS: Mapping[str, tuple[str, Use]] = {
    "yes": ("Worth using", "yes"),
    "no": ("Do not use it", "no"),
    "undecided": ("Inconclusive", "unsettled"),
}
GENERATION_FAULTS = {
    "repetition": "repeat themselves over and over",
    "empty": "are empty",
    "collapsed": "are the same text for unlike questions",
}


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """``headline``: the score with its interval, and what it must beat; ``advice``: whether to use
    the model, and by what; ``use`` the same as a word, to colour it by.

    ``no``: it does no better than an answer that reads nothing, a comparison beyond chance is
    against it, or what it writes is broken. ``unsettled``: the test rows cannot tell it from what
    is simpler, or its verdict is that the rows leak. ``unknown``: nothing was measured, or nothing
    stands beside it. Where the score is at or below a baseline's, the headline begins with that.
    """

    headline: str
    advice: str
    use: Use

    @property
    def lines(self) -> tuple[str, str]:
        """Both, in the order in which they are read."""
        return self.headline, self.advice


def answer(result: Mapping[str, Any]) -> RunAnswer:
    """The answer in ``result.json``, whatever its task; a pure function, tolerant of absent parts.

    - one class: accuracy in percent, the linear probe, the majority class;
    - several labels: rows whose labels are all correct, then precision and recall over all labels;
      judged by micro F1;
    - a number: the mean error in the user's unit, beside the probe and the mean;
    - written text: execution accuracy or exact match where that was scored and is above 0, else
      ROUGE-L, else perplexity; beside the untuned model. What is empty,
      repetitive or always the same in half of the rows is of no use, whatever its score;
    - pictures as classes;
    - an update: its gate's decision before the advice (``answer_update.py``);
    - a start for new tasks: its accuracy on tasks that it never met, and whether a head that is
      fitted anew to an ordinary embedding does as well.

    A number that is ``null`` is told with its ``why``, an absent interval with its reason; fewer
    than 100 test rows are named. Percentages are whole, and get a decimal where whole ones would
    hide a difference or round to all or nothing.
    """
    result = Block(result)
    folds = result.block("cv")
    if folds.get("metrics") and not result.block("test").get("n"):
        return RunAnswer(folds_answer(folds), ADVICE, "unknown")
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
        unproven = is_inconclusive and better_baselines[0] not in GUESSES
        opening = "Not shown to be better than" if unproven else "No better than"
        if headline[1:2].islower():
            # "accuracy 88 % …" inside a sentence; "ROUGE-L 0.41 …" stays.
            headline = f"{headline[:1].lower()}{headline[1:]}"
        headline = f"{opening} the {simpler}: {headline}"
    advice, use = update_advice(result, *_advice(result, score, better_baselines))
    return RunAnswer(headline, f"{advice}{_rare_class(result)}", use)


# Of such a class one row more or less is ten points of its recall.
MIN_CLASS_ROWS = 10


def _rare_class(result: Block) -> str:
    """That a class has next to no test rows, of which a score over all rows says nothing: fewer
    than ten, and a quarter of its even share or less; empty where none is so rare."""
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
    return f" Class {name!r} has {has}: its recall is {value} % (95 % CI {low}–{high})."


def _advice(result: Block, score: Headline, better_baselines: Sequence[str]) -> tuple[str, Use]:
    # First of all: texts that repeat themselves may still score above a baseline.
    broken = _generation_fault(result)
    if broken:
        return f"Do not use it: {broken}.", "no"
    if better_baselines and better_baselines[0] in GUESSES:
        return (
            f"Do not use it: on {test_row_text(result)} the {GUESSES[better_baselines[0]]} scores "
            "as well, and "
            "reads nothing.",
            "no",
        )
    paired = paired_comparison(result)
    other = "untuned model" if is_generation(result) else "linear probe (baseline)"
    if paired is None:
        return (
            f"No paired comparison with a baseline was possible on {test_row_text(result)}.",
            "unknown",
        )
    by = advantage_text(paired)
    if paired.apart and paired.gain < 0:
        return f"Do not use it: the {other} is better {by}.", "no"
    # After what is bad in any case: a leak makes a number too good, never too bad.
    if result.block("verdict").get("label") == "leaking":
        return "Do not rely on this number before the leak below is settled.", "unsettled"
    worth_advice = _worth_advice(result)
    if worth_advice is not None and worth_advice[1] != "yes":
        return worth_advice
    if better_baselines and paired.apart:
        return (
            f"Inconclusive: it is better than the {other} {by}, but not by the metric above. "
            f"The {other} costs less.",
            "unsettled",
        )
    if not paired.apart:
        costs_less = f" The {other} costs less." if better_baselines else ""
        words = f"Inconclusive: {test_row_text(result)} show no difference from the {other}"
        return f"{words} ({difference_text(paired)}).{costs_less}", "unsettled"
    guess = next((what for what in score.others if what in GUESSES), None)
    if guess and _includes_guess(score, score.others[guess]):
        return (
            f"Inconclusive: the 95 % CI includes the score of the {GUESSES[guess]}.",
            "unsettled",
        )
    return worth_advice or (f"Worth using: better than the {other} {by}.", "yes")


def _worth_advice(result: Block) -> tuple[str, Use] | None:
    """What ``worth`` says of a model that writes, which is asked beside its start model in more
    ways than one; ``None`` where it has nothing to compare."""
    block = result.block("worth")
    _, colon, reason = block.text("because").partition(": ")
    if not colon or block.get("verdict") not in WORTH_VERDICTS:
        return None
    words, use = WORTH_VERDICTS[block["verdict"]]
    return f"{words}: {reason}", use


def _includes_guess(score: Headline, other: float) -> bool:
    """Whether the score's interval reaches what a guess gets."""
    if score.name in LOWER_IS_BETTER:
        return score.value.high is not None and score.value.high >= other
    return score.value.low is not None and score.value.low <= other


def _generation_fault(result: Block) -> str:
    """What is wrong with half or more of the texts that were written; empty where nothing is."""
    generated = result.block("generations")
    counts = generated.block("counts", "test")
    n = counts.get("n") or 0
    fault = max(GENERATION_FAULTS, key=lambda name: counts.get(name) or 0)
    fault_count = counts.get(fault) or 0
    if n and 2 * fault_count >= n:
        return f"{fault_count} of the {n} texts that it wrote {GENERATION_FAULTS[fault]}"
    overlap = generated.block("scores", "test").estimate("rouge_l").value
    if n and overlap is not None and overlap <= 0:
        return "its texts share no word in order with the references"
    return ""


# What the decision is called that says so of a run that is diagnosed.
DISCARDED = "fine-tuning discarded"


def discarded_sentence(result: Mapping[str, Any]) -> str | None:
    """One sentence on what is kept in the place of the fine-tuned model; ``None`` where a later
    step is kept, an average of weights, or where nobody chose (another trainer's run that was only
    watched)."""
    last = result.get("last_step")
    if result.get("best_step") != 0 or not isinstance(last, int) or last < 1:
        return None
    if result.get("policy") == "off":
        return None
    # What was decided of the kept checkpoint; of another trainer's run nothing.
    choices = [one for one in result.get("decisions") or () if one.get("what") == "kept state"]
    kept_choice = str(choices[-1].get("chosen") or "") if choices else ""
    if "average" in kept_choice:
        return None
    head = " with a linear probe as its last layer" if "linear probe" in kept_choice else ""
    saved = "the student before distillation" if result.get("distilled") else "the base model"
    # An update may begin with the weights of the run that it is to replace.
    start = ((result.get("update") or {}).get("start") or {}).get("start")
    saved = "the served model" if start == "warm" else saved
    steps = "its only step was not" if last == 1 else f"none of its {last:,} steps was"
    return f"Fine-tuning was discarded: {steps} kept, so the saved model is {saved}{head}."
