"""``holdfast lr``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from holdfast.cli.options import ResultOutput, Seed, SourceOptions, set_option
from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries

if TYPE_CHECKING:
    from holdfast.search.rate_range import RateRange


def command(
    rows: SourceOptions,
    set_: Annotated[
        list[str] | None, set_option("Set a key of the recipe, e.g. train.batch_size=8.")
    ] = None,
    seed: Seed = None,
    *,
    output: ResultOutput,
) -> None:
    """Find a learning rate for SOURCE with a range test: about a hundred updates at increasing
    learning rates. Nothing is saved."""
    request = rows.request(seed=seed, settings=set_ or [])
    from holdfast.search.rate_range import range_test

    with output.heard(f"holdfast lr {rows.source}"):
        rate_range = range_test(request.recipe())
    output.show(rate_range.to_json(), lambda columns: rate_range_text(rate_range, columns))


def rate_range_text(rate_range: RateRange, columns: int) -> str:
    """The chart, the suggested learning rate, and the reason."""
    from holdfast.cli.charts import rate_chart

    swept = (
        f"{count_phrase(len(rate_range.points), 'update')} of the phase {rate_range.phase}, on "
        f"{count_phrase(rate_range.rows, 'training row')}"
    )
    lines = [("Test", swept)]
    if rate_range.suggested is None:
        lines.append(("Suggested", "none"))
    else:
        lines.append(
            (
                "Suggested",
                f"{rate_range.suggested:.2g} (--set train.learning_rate={rate_range.suggested:g})",
            )
        )
        lines.append(("Range", f"{rate_range.low:.2g} to {rate_range.high:.2g}"))
    lines += [
        ("Default", f"{rate_range.planned:.2g}, which train uses"),
        ("Reason", rate_range.because),
    ]
    chart = [rate_chart(rate_range, columns)] if len(rate_range.points) > 1 else []
    return "\n".join([*chart, *entries(lines, columns)])
