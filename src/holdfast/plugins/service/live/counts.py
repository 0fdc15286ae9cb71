"""Which labels count for a verdict: those that do not depend on the answer that was shown."""

from __future__ import annotations

from holdfast.plugins.store.records import Feedback

# How a row was drawn, where chance alone drew it.
BY_CHANCE = ("uniform", "unlike")


def why_apart(feedback: Feedback) -> str | None:
    """Why a label does not count, in words; ``None`` where it does.

    A person corrects what looks wrong and passes over what looks right, so rows that somebody chose
    to label are more often ones that the shown model has wrong: a challenger no better would win.
    Who sees an answer first is drawn towards it, and the shown model would win.
    """
    if feedback.source == "model":
        return "labelled by a model"
    if feedback.drawn == "volunteered":
        return "labelled by whoever wished to, which depends on the answer that was shown"
    if feedback.drawn not in BY_CHANCE:
        return "chosen by what the shown model was unsure of"
    if feedback.suggestion == "seen":
        return "labelled with the shown answer in sight"
    if feedback.suggestion == "unknown":
        return "it is not known whether the shown answer was in sight"
    return None
