"""``holdfast lr``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import (
    Group,
    Label,
    Model,
    Seed,
    Source,
    Task,
    Test,
    Text,
    Verbose,
    check_how,
)
from holdfast.core.machine import refuse_too_little
from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.search.rate_range import RateRange


def command(
    source: Source,
    model: Model = None,
    task: Task = None,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    test: Test = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any key of a recipe, e.g. train.batch_size=8."
        ),
    ] = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: nothing of the way to it.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Find a learning rate for SOURCE: about a hundred updates at rates that rise. Trains nothing
    that is kept, and writes nothing."""
    refuse_too_little("torch")
    check_how(quiet, verbose, task)
    from holdfast.contract.request import Request
    from holdfast.search.rate_range import range_test
    from holdfast.terminal.say import Teller, width

    request = Request(
        source,
        model=model,
        task=task,
        text=text,
        label=label,
        group=group,
        test=test,
        seed=seed,
        settings=set_ or [],
    )
    notify = Teller(quiet, verbose)
    notify.title(f"holdfast lr {source}")
    found = range_test(request.recipe(), notify)
    typer.echo(json_text(found.to_json()) if as_json else printable(shown(found, width())))


def shown(found: RateRange, columns: int) -> str:
    """The picture, what is suggested, and why."""
    from holdfast.cli.text.rate_curve import rate_chart
    from holdfast.core.wording import counted
    from holdfast.terminal.say import entry

    swept = (
        f"{counted(len(found.points), 'update')} of the phase {found.phase}, on "
        f"{counted(found.rows, 'training row')}"
    )
    entries = [("Swept", swept)]
    if found.suggested is None:
        entries.append(("Suggested", "no rate"))
    else:
        entries.append(
            ("Suggested", f"{found.suggested:.2g} (--set train.learning_rate={found.suggested:g})")
        )
        entries.append(("Region", f"{found.low:.2g} to {found.high:.2g}"))
    entries += [("Planned", f"{found.planned:.2g}, which train takes"), ("Because", found.because)]
    lines = [line for name, value in entries for line in entry(name, value, columns)]
    chart = [rate_chart(found, columns)] if len(found.points) > 1 else []
    return "\n".join([*chart, *lines])
