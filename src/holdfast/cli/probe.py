"""``holdfast probe``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from holdfast.cli.options import Output
from holdfast.core.errors import RecipeError
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import percent_phrase
from holdfast.terminal.layout import entries, wrap

NAMES = {
    "loss": "from the loss",
    "conditioned": "from the loss, given the row's words and length",
    "ratio": "from the loss relative to the base model's",
    "errors": "from wrong tokens",
}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Files of rows that MODEL was and was not trained on, and how they are read."""

    members: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows that MODEL was trained on.")
    ] = None
    others: Annotated[
        str | None, typer.Option(metavar="FILE", help="Similar rows that MODEL was not trained on.")
    ] = None
    start: Annotated[str | None, typer.Option(help="The base model of a generative MODEL.")] = None
    text: Annotated[list[str] | None, typer.Option(help="The text column.")] = None
    label: Annotated[str | None, typer.Option(help="The column of labels or target texts.")] = None
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of the files if not UTF-8, e.g. cp1252.")
    ] = None


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A finished run; or any saved model, with --members and --others.",
        ),
    ],
    files: FileOptions,
    output: Output,
) -> None:
    """Measure how much RUN memorized its training rows, and what it forgot of the base model's
    abilities. For any other MODEL: whether it memorized the rows of --members."""
    refuse_low_memory("torch")
    from holdfast.api.commands import probe

    if (files.members is None) != (files.others is None):
        raise RecipeError(
            "holdfast probe",
            "needs both --members and --others",
            None,
            "Give rows that the model was trained on, and rows that it was not trained on.",
        )
    with output.heard(progress=True) as printer:
        document = probe(model, **asdict(files), notify=printer)
    output.show(document, lambda columns: probe_text(document, columns))


def probe_text(document: Mapping[str, Any], columns: int) -> str:
    """The result first, then the numbers."""
    memory = document["memorization"]
    if "auc" not in memory:
        return f"Not measured: {memory.get('why')}"
    reasons = [memory["because"], *(b["because"] for b in _other_attacks(memory))]
    lines = [line for text in reasons for line in wrap(text, columns)]
    facts = [
        ("" if i else "AUC", f"{_area(one['auc'])} {NAMES.get(name, name)}")
        for i, (name, one) in enumerate(memory["attacks"].items())
    ]
    facts.append(("", f"{_area(memory['blind_auc'])} from words and lengths, without the model"))
    facts += [("" if i else "Detected", _share(one)) for i, one in enumerate(memory["tpr"])]
    exposed = [f"{one['row']} ({one['risk']:.3g})" for one in memory["exposed"]]
    if exposed:
        description = f"most exposed rows by {memory['risk_by']}, row (score): {', '.join(exposed)}"
        facts.append(("Risk", description))
    forgetting = document["forgetting"]
    if forgetting:
        facts.append(("Forgetting", _forgotten(forgetting)))
    alarms = memory.get("false_alarms") or {}
    if alarms.get("runs"):
        measured = f"false alarms: {alarms['alarms']} of {alarms['runs']} {alarms['what']}"
        facts.append(("Error rate", measured))
    return "\n".join([*lines, "", *entries(facts, columns)])


def _other_attacks(memory: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [memory[name] for name in ("extraction", "canaries") if memory.get(name)]


def _area(raw: Mapping[str, object]) -> str:
    if raw["value"] is None:
        return f"not measured ({raw['why']}),"
    return f"{raw['value']:.3f} (95 % CI {raw['low']:.3f}–{raw['high']:.3f})"


def _share(raw: Mapping[str, Any]) -> str:
    rate = f"at a false positive rate of at most {100 * raw['at_fpr']:.2g} %"
    if raw["value"] is None:
        return f"{rate}: {raw['why']}"
    low, high = (f"{100 * raw[end]:.1f}" for end in ("low", "high"))
    return f"{rate}: {percent_phrase(raw['value'], 1)} of training rows (95 % CI {low}–{high})"


def _forgotten(raw: Mapping[str, object]) -> str:
    rise = raw.get("rise")
    reason = raw.get("because") or raw.get("why")
    if reason or not isinstance(rise, Mapping) or rise.get("value") is None:
        return str(reason or "unknown")
    return (
        f"the loss on {raw['n']} general texts rose by {rise['value']:.3f} "
        f"(95 % CI {rise['low']:.3f} to {rise['high']:.3f})"
    )
