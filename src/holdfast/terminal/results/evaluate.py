"""The text of ``holdfast evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.printable import shorten
from holdfast.core.wording import count_phrase, signed, unit_phrase
from holdfast.terminal.layout import format_interval, wrap

GENERATION_METRICS = (
    "token_loss",
    "perplexity",
    "rouge1",
    "rouge2",
    "rouge_l",
    "rouge_lsum",
    "bleu",
    "chrf",
)
# Of the classes.
MAX_CLASSES = 10
NOT_RATES = (*GENERATION_METRICS, "loss", "ece", "mae", "rmse", "r2", "spearman")


def evaluate_text(block: Mapping[str, Any], columns: int, *, data: str) -> str:
    """The scores on ``data`` (its name), then what other rows and scores say about them."""
    if "task" in block:
        return "\n".join(
            [f"{block['n']} items of {data}", "", *_metrics(block), *_task_start(block, columns)]
        )
    parts = [
        _scores(block, data, columns),
        *_classes(block.get("without_seen") or block),
        *_start_lines(block, columns),
        *_comparison_lines(block, columns),
        *_threshold(block),
        *_ensemble(block, columns),
    ]
    return "\n".join(parts)


def _scores(block: Mapping[str, Any], data: str, columns: int) -> str:
    """The metrics as a small table; first without the rows seen in training, if there are any."""
    rows = f"{block['n']} rows of {data}{_units(block)}"
    others = block.get("without_seen")
    lines = [*_warning(block, data, columns)]
    if others is None:
        return "\n".join([rows, "", *lines, *_metrics(block)])
    if others["n"]:
        unseen = f"{others['n']} rows not seen in training{_units(others)}"
        lines += [unseen, "", *_metrics(others), ""]
    return "\n".join([*lines, f"{rows}, including those seen in training", "", *_metrics(block)])


def _units(block: Mapping[str, Any]) -> str:
    units = unit_phrase(block)
    return f", of {units}" if units else ""


def _start_lines(block: Mapping[str, Any], columns: int) -> list[str]:
    """The base model's score, and the paired difference of the losses."""
    start = block.get("start")
    if start is None:
        return []
    unseen = start.get("without_seen")
    gap, which = (unseen or start)["loss_difference"], " not seen in training" if unseen else ""
    limits = (
        ""
        if gap["low"] is None
        else f" (95 % CI {signed(gap['low'], '+.3f')} to {signed(gap['high'], '+.3f')})"
    )
    sentence = (
        f"Loss per token, fine-tuned minus base model, on the same {gap['n']} rows{which}: "
        f"{signed(gap['value'], '+.3f')}{limits}. Below 0, the fine-tuned model has the lower loss."
    )
    return ["", "base model", "", *_metrics(start), "", *wrap(sentence, columns)]


def _task_start(block: Mapping[str, Any], columns: int) -> list[str]:
    """The base model's right answers, and how many more or fewer the run has."""
    start = block.get("start")
    if start is None:
        return []
    gap = start["difference"]
    values = (signed(100 * gap[key]) for key in ("value", "low", "high"))
    sentence = "Fine-tuned minus base model, same items: {} points (95 % CI {} to {}): {}.".format(
        *values, start["verdict"]
    )
    return ["", "base model", "", *_metrics(start), "", *wrap(sentence, columns)]


def _comparison_lines(block: Mapping[str, Any], columns: int) -> list[str]:
    """The comparison with the run's test rows, and what may explain a difference."""
    comparison = block.get("against_run") or {}
    if "because" not in comparison:
        return []
    mark = "!  " if comparison["differs"] else ""
    because = f"{mark}{comparison['because'][:1].upper()}{comparison['because'][1:]}."
    lines = ["", *wrap(because, columns, "", "   ")]
    marks = {True: "found", False: "not found", None: "unknown"}
    for one in comparison["reasons"]:
        text = f"{one['check']} ({marks[one['found']]}): {one['because']}"
        lines += wrap(text, columns, "   - ", "     ")
    if comparison["differs"] and not any(one["found"] for one in comparison["reasons"]):
        left = "rows that are easier or harder in another way, or chance in one of the two sets"
        lines += wrap(f"Remaining explanations: {left}.", columns, "   ")
    return lines


def _threshold(block: Mapping[str, Any]) -> list[str]:
    """The effect of the run's threshold on these rows."""
    threshold = block.get("threshold")
    if threshold is None:
        return []
    sentence = (
        f"The run's threshold leaves {threshold['answered']} of {threshold['n']} rows with a "
        "prediction"
    )
    precision = threshold["precision"]
    if precision["value"] is not None:
        low, high = (f"{100 * precision[end]:.1f}" for end in ("low", "high"))
        sentence += f"; {100 * precision['value']:.1f} % of them are correct (95 % CI {low}–{high})"
    return ["", f"{sentence}."]


def _ensemble(block: Mapping[str, Any], columns: int) -> list[str]:
    """How several runs were combined: which ones, with which weights, and why."""
    ensemble = block.get("ensemble")
    if ensemble is None:
        return []
    passes = ensemble["cost"]["passes"]
    cost = f"{passes} forward pass{'es' if passes > 1 else ''} per row"
    sentence = f"Predicted by the {ensemble['kind']} of {len(ensemble['members'])} runs ({cost}): "
    lines = wrap(sentence + ensemble["because"] + ".", columns)
    for one in ensemble["members"]:
        loss = "" if one["valid_loss"] is None else f"  validation loss {one['valid_loss']:.4f}"
        lines.append(f"  {one['weight']:.3f}  {one['run']}{loss}")
    return ["", *lines]


def _warning(block: Mapping[str, Any], data: str, columns: int) -> list[str]:
    """How many rows were seen in training, or that this is unknown."""
    seen_rows, warnings = block["seen"], []
    trained, validation = seen_rows["train"], seen_rows["valid"]
    if trained["n"] or validation["n"]:
        parts = [f"{trained['n']} were training rows"] if trained["n"] else []
        parts += [f"{validation['n']} were validation rows"] if validation["n"] else []
        copies = trained["copies"] + validation["copies"]
        copied = f" ({copies} of them as duplicates)" if copies else ""
        left = block["without_seen"]["n"]
        rest = "No row is left that the run has not seen"
        if left:
            rest = f"Only the other {left} measure{'s' * (left == 1)} performance on new rows"
        warnings.append(
            f"!! Of {block['n']} rows of {data}, {' and '.join(parts)}{copied}. {rest}."
        )
    if seen_rows["why"]:
        warnings.append(f"!  The run's training rows are not fully known: {seen_rows['why']}.")
    wrapped = ["\n".join(wrap(line, columns, "", "   ")) for line in warnings]
    return [*wrapped, ""] if wrapped else []


def _metrics(block: Mapping[str, Any]) -> list[str]:
    metrics = dict(block["metrics"])
    if metrics.get("token_loss") == metrics.get("loss"):
        # The same by its older name.
        metrics.pop("token_loss", None)
    lines = []
    for name, estimate in metrics.items():
        shown = format_interval(estimate, rate=name not in NOT_RATES)
        # Of two classes, the note says which one the ranking looks for.
        note = (estimate.get("note") or "").partition(";")[0]
        positive = f"  {note}" if name == "average_precision" and ": " in note else ""
        lines.append(f"  {name:18} {shown}{positive}")
    return lines


def _classes(block: Mapping[str, Any]) -> list[str]:
    """Recall and precision by class, the lowest recall first."""
    classes = block.get("per_class") or {}
    order = sorted(classes, key=lambda name: (classes[name]["recall"]["value"] or 0.0, name))
    if not order:
        return []
    head = f"  {'Class':18} {'Rows':>6}   {'Recall (95 % CI)':20}  Precision (95 % CI)"
    lines = []
    for name in order[:MAX_CLASSES]:
        rows = classes[name].get("n") or ""
        recall, precision = (_rate(classes[name][key]) for key in ("recall", "precision"))
        lines.append(f"  {shorten(name, 18):18} {rows:>6}   {recall:20}  {precision}")
    if (more := len(order) - MAX_CLASSES) > 0:
        lines.append(f"  and {count_phrase(more, 'class', 'classes')} more")
    return ["", head, *lines]


def _rate(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "undefined"
    value = f"{100 * estimate['value']:.1f} %"
    low, high = estimate.get("low"), estimate.get("high")
    return value if low is None or high is None else f"{value} ({100 * low:.1f}–{100 * high:.1f})"
