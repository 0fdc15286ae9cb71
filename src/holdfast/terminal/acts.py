"""What was done to a run, in the words of the person who watches it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from holdfast.core.actions import (
    Action,
    Continue,
    Extend,
    Freeze,
    ResetHead,
    Reshuffle,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    SetWeightDecay,
    Shorten,
    StrengthenAugmentation,
    SwitchOn,
    Unfreeze,
    to_record,
)


def in_words(actions: Sequence[Action]) -> list[str]:
    """A line for those in a row that have one reason, the reason once. ``Continue`` is its reason:
    that a trial is kept."""
    lines = []
    for because, found in groupby(actions, lambda one: one.because):
        done = [_words(action) for action in found if not isinstance(action, Continue)]
        lines.append(f"{', '.join(done)}: {because}" if done else because)
    return lines


def _words(action: Action) -> str:
    """Of an action that has no words here: its name and what it holds."""
    match action:
        case RollBack(to_step=step):
            return f"back to step {step}"
        case ScaleLearningRate(factor=factor):
            return f"learning rate × {factor:.3g}"
        case SetWeightDecay(weight_decay=decay):
            return f"weight decay {decay:g}"
        case SetDropout(dropout=rate):
            return f"dropout {rate:g}"
        case Freeze(layers=layers):
            return f"frozen: {', '.join(layers)}"
        case Unfreeze(layers=layers):
            return "every layer learns" if "*" in layers else f"unfrozen: {', '.join(layers)}"
        case Extend(steps=steps) if steps is not None:
            return f"{steps} updates more"
        case Shorten(to_step=step):
            return f"to end at step {step}"
        case SwitchOn(method=method, settings=settings):
            with_ = ", ".join(f"{name} {value}" for name, value in settings.items())
            return f"{method} switched on{f' ({with_})' if with_ else ''}"
        case StrengthenAugmentation():
            return "the rows in stronger forms"
        case ResetHead():
            return "the last layer as at the first look"
        case Reshuffle():
            return "the rows in another order"
    record = to_record(action)
    what = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    return f"{record['action']}{f' ({what})' if what else ''}"
