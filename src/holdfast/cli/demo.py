"""``holdfast demo``: the main job on the data that ships with Holdfast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def command(out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None) -> None:
    """Train on descriptions of Debian packages, and compare with a careless random split."""
    from holdfast.cli.train import execute, summary
    from holdfast.pipeline.careless import add_careless
    from holdfast.recipe import read_recipe

    recipe = read_recipe(Path(__file__).parents[1] / "demo" / "recipe.yaml")
    result, run = execute(recipe, "demo", out, resume=False, quiet=False)
    result = add_careless(run)
    typer.echo(summary(result, run))
    typer.echo(careless(result))


def careless(result: dict[str, Any]) -> str:
    """The closing words: the score that a careless random split would have reported."""
    import textwrap

    from holdfast.cli.say import interval, width

    block = result["careless"]
    lines = [
        "", "What a careless random split would have said, by the same linear probe:", "",
        f"  Random rows         {interval(block['random_split'])}",
        f"  This division       {interval(block['honest'])}",
        textwrap.fill(f"  {block['because']}", width(), subsequent_indent="  "),
    ]  # fmt: skip
    return "\n".join(lines)
