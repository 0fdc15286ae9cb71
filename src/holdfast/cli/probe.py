"""``holdfast probe``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from holdfast.cli.options import Output
from holdfast.core.errors import RecipeError
from holdfast.core.machine import refuse_low_memory
from holdfast.terminal.layout import entries

NAMES = {
    "loss": "by the loss",
    "conditioned": "by the loss, for what the row is",
    "ratio": "by the loss relative to the base model's",
    "errors": "by wrong tokens",
}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What MODEL learned from and what it never saw, and how these files are read."""

    members: Annotated[
        str | None, typer.Option(help="Rows that MODEL learned from, in any format of train.")
    ] = None
    others: Annotated[str | None, typer.Option(help="Rows of the same kind that it never saw.")] = (
        None
    )
    start: Annotated[
        str | None, typer.Option(help="The model that a writing MODEL was tuned from.")
    ] = None
    text: Annotated[list[str] | None, typer.Option(help="The text column.")] = None
    label: Annotated[str | None, typer.Option(help="The column of the label or answer.")] = None
    encoding: Annotated[
        str | None, typer.Option(help="Of the files, where it is not UTF-8, e.g. cp1252.")
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
    """What RUN remembers of its training rows, and what it forgot; or what MODEL remembers of
    --members that it does not know of --others."""
    refuse_low_memory("torch")
    from holdfast.api.commands import probe

    if (files.members is None) != (files.others is None):
        raise RecipeError(
            "holdfast probe",
            "needs both --members and --others",
            None,
            "One holds rows that the model learned from, the other rows that it never saw.",
        )
    with output.heard() as teller:
        document = probe(model, **asdict(files), notify=teller)
    output.show(document, lambda columns: probe_text(document, columns))


def probe_text(document: Mapping[str, Any], columns: int) -> str:
    """The answer first, then the numbers."""
    memory = document["memorization"]
    if "auc" not in memory:
        return f"Not known: {memory.get('why')}"
    reasons = [memory["because"], *(b["because"] for b in _other_attacks(memory))]
    lines = [line for text in reasons for line in textwrap.wrap(text, columns)]
    told = [
        ("" if i else "AUC", f"{_area(one['auc'])} {NAMES.get(name, name)}")
        for i, (name, one) in enumerate(memory["attacks"].items())
    ]
    told.append(
        ("", f"{_area(memory['blind_auc'])} by words and lengths only (the model is not used)")
    )
    told += [("" if i else "Found", _share(one)) for i, one in enumerate(memory["tpr"])]
    exposed = [f"{one['row']} ({one['risk']:.3g})" for one in memory["exposed"]]
    if exposed:
        description = f"highest by {memory['risk_by']}, row (score): {', '.join(exposed)}"
        told.append(("Risk", description))
    forgetting = document["forgetting"]
    if forgetting:
        told.append(("Forgot", _forgotten(forgetting)))
    alarms = memory.get("false_alarms") or {}
    if alarms.get("runs"):
        wrongly = f"false alarms: {alarms['alarms']} of {alarms['runs']} {alarms['what']}"
        told.append(("Errors", wrongly))
    return "\n".join([*lines, "", *entries(told, columns)])


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
    return f"{rate}: {raw['value']:.1%} of training rows (95 % CI {low}–{high})"


def _forgotten(raw: Mapping[str, object]) -> str:
    rise = raw.get("rise")
    reason = raw.get("because") or raw.get("why")
    if reason or not isinstance(rise, Mapping) or rise.get("value") is None:
        return str(reason or "not known")
    return (
        f"the loss on {raw['n']} general rows rose by {rise['value']:.3f} "
        f"({rise['low']:.3f} to {rise['high']:.3f})"
    )
