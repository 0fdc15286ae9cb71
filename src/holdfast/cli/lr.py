"""``holdfast lr``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from holdfast.cli.options import ResultOutput, Seed, SourceOptions, set_option
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries

if TYPE_CHECKING:
    from holdfast.search.rate_range import RateRange


def command(
    rows: SourceOptions,
    set_: Annotated[
        list[str] | None, set_option("Any key of a recipe, e.g. train.batch_size=8.")
    ] = None,
    seed: Seed = None,
    *,
    output: ResultOutput,
) -> None:
    """Find a learning rate for SOURCE: about a hundred updates at rates that rise. Trains nothing
    that is kept, and writes nothing."""
    refuse_low_memory("torch")
    from holdfast.search.rate_range import range_test

    request = rows.request(seed=seed, settings=set_ or [])
    with output.heard(f"holdfast lr {rows.source}"):
        found = range_test(request.recipe())
    output.show(found.to_json(), lambda columns: shown(found, columns))


def shown(found: RateRange, columns: int) -> str:
    """The picture, what is suggested, and why."""
    from holdfast.cli.charts import rate_chart

    swept = (
        f"{count_phrase(len(found.points), 'update')} of the phase {found.phase}, on "
        f"{count_phrase(found.rows, 'training row')}"
    )
    told = [("Swept", swept)]
    if found.suggested is None:
        told.append(("Suggested", "no rate"))
    else:
        told.append(
            ("Suggested", f"{found.suggested:.2g} (--set train.learning_rate={found.suggested:g})")
        )
        told.append(("Region", f"{found.low:.2g} to {found.high:.2g}"))
    told += [("Planned", f"{found.planned:.2g}, which train takes"), ("Because", found.because)]
    chart = [rate_chart(found, columns)] if len(found.points) > 1 else []
    return "\n".join([*chart, *entries(told, columns)])
