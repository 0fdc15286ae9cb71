"""``holdfast export``: a finished run's model in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Output
from holdfast.core.shapes import anything, document, optional, text
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.plugins.export.folder import timing_conditions
from holdfast.terminal.layout import wrap

if TYPE_CHECKING:
    from holdfast.plugins.export.export import Exported


DOCUMENT = document(
    {
        **dict.fromkeys(("holdfast", "format", "file", "precision", "task", "model"), text),
        "kept_because": text,
        "folder": text,
        "pushed": optional(text),
        "max_logit_gap": anything,
        "speed": anything,
    },
    ("format", "precision", "kept_because", "max_logit_gap", "speed"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="onnx|openvino|gguf|merged",
            help="onnx or openvino for a classifier or tagger; gguf or merged (plain Transformers) "
            "for a language model.",
        ),
    ],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Use 8-bit weights: gguf always (Q8_0), onnx and openvino if they lose less "
            "than a point and are faster on this machine.",
        ),
    ] = False,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="With merged: 16-bit weights, half the size.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Upload it to the Hugging Face hub as a private model."),
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Add a demo Space: a page that queries the model.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The new folder; default RUN/export/FORMAT.")
    ] = None,
    *,
    output: Output,
) -> None:
    """Write the model of RUN as a file that runs without Holdfast. The file is verified against the
    saved model at several batch sizes and lengths, scored on the validation rows, and timed on this
    machine.
    """
    from holdfast.plugins.export.export import export

    with output.heard(f"holdfast export {run} --to {to}", progress=True):
        exported = export(run, to, int8=int8, bfloat16=bfloat16, push=push, space=space, out=out)
    output.show(exported.to_json(), lambda columns: summary(exported, columns))


FINER = (
    "Fewer bits by llama.cpp, from the float32 file (without --int8): llama-quantize model.gguf "
    "model-q4_k_m.gguf Q4_K_M."
)


def summary(exported: Exported, columns: int) -> str:
    """Where the file is, how close it is to the model, its speed, and why this precision."""
    facts = exported.facts
    lines = [f"{exported.folder}/{facts['file']}  ({facts['precision']})", ""]
    sentences = [f"Largest logit difference from the model: {facts['max_logit_gap']:.1e}."]
    if cost := facts.get("quantization"):
        weights = "8-bit" if facts["format"] == "gguf" else facts["precision"]
        sentences = [
            f"On {cost['tokens']:,} tokens, the next-token distribution with {weights} weights "
            f"differs from that of the float32 model by {cost['kl']:.2g} nats on average (KL "
            "divergence), and the most probable token is the same for "
            f"{percent_phrase(cost['same_top'], 1)}.",
            *([FINER] if facts["format"] == "gguf" else []),
        ]
    valid = facts.get("valid")
    if valid and valid["n"]:
        changed = (
            count_phrase(valid["changed"], "prediction") if valid["changed"] else "no prediction"
        )
        verb = "change" if valid["changed"] > 1 else "changes"
        rows = count_phrase(valid["n"], "validation row")
        sentences.append(f"On {rows} {changed} {verb} (metric: {valid['metric']}).")
    elif valid:
        sentences.append(f"Not scored: {valid['why']}.")
    sentences.append(f"{facts['precision']} was chosen because {facts['kept_because']}.")
    for one in sentences:
        lines += wrap(one, columns)
    if facts.get("speed"):
        lines += ["", *_speed(facts)]
    for repository_type, address in exported.pushed.items():
        lines.append(f"{repository_type}: {address}")
    return "\n".join(lines)


def _speed(facts: dict[str, object]) -> list[str]:
    speed = facts["speed"]
    assert isinstance(speed, dict)
    batches = list(speed["rows"][0]["ms"])
    head = "".join(f"{f'batch {batch}':>12}" for batch in batches)
    lines = [f"Milliseconds per row ({timing_conditions(speed)})", f"  {'':22}{head}"]
    for row in speed["rows"]:
        cells = "".join(f"{row['ms'][batch]:12.2f}" for batch in batches)
        lines.append(f"  {row['engine'] + ' ' + row['precision']:22}{cells}")
    return lines
