"""``holdfast evaluate``: score a finished run on other labelled rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

TEXTS = ("token_loss", "perplexity", "rouge1", "rouge2", "rouge_l", "rouge_lsum", "bleu", "chrf")


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    data: Annotated[str, typer.Argument(help="Labelled rows, in any format that train reads.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score RUN on the labelled rows of DATA, with intervals."""
    from holdfast.pipeline.use import evaluate

    block = evaluate(run, data)
    if as_json:
        typer.echo(json.dumps(block, indent=2, ensure_ascii=False))
        return
    typer.echo(show(block, data))


def show(block: dict[str, Any], data: str) -> str:
    """The metrics as a small table."""
    from holdfast.cli.say import interval, plain_interval

    lines = [f"{block['n']} rows of {data}", ""]
    for name, estimate in block["metrics"].items():
        if name in ("loss", "ece") or name in TEXTS:
            lines.append(f"  {name:18} {plain_interval(estimate)}")
        else:
            lines.append(f"  {name:18} {interval(estimate)}")
    return "\n".join(lines)
