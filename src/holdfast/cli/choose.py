"""``holdfast choose``."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import ResultOutput, RowOptions, Seed, Source, set_option
from holdfast.core.machine import refuse_too_little
from holdfast.terminal.layout import entries

if TYPE_CHECKING:
    from holdfast.search.choice.adaptation import AdaptedModel
    from holdfast.search.choice.candidate import ModelCandidate
    from holdfast.search.choice.models import Choice

# Of a model's name, in the table.
LONGEST = 26
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """What the chosen model is pretrained on, and where it goes then."""

    adapt: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Texts without labels to pretrain the chosen model on."),
    ] = None
    extend: Annotated[
        int, typer.Option(metavar="N", help="New words of the rows for its vocabulary, at most N.")
    ] = 0
    out: Annotated[
        Path | None, typer.Option(help="Where the adapted model goes, if it is shown to be better.")
    ] = None


def command(
    source: Source,
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]...", help="Folders, Hugging Face names, or embedded, by commas."
        ),
    ],
    rows: RowOptions,
    set_: Annotated[
        list[str] | None, set_option("Any key of a recipe, e.g. model.max_length=128.")
    ] = None,
    seed: Seed = None,
    *,
    adapted: AdaptOptions,
    output: ResultOutput,
) -> None:
    """Choose a model for SOURCE: a linear probe scores each, and the best two are fine-tuned
    for a short while. Prints the scores of both with intervals; the score after fine-tuning is not
    predicted. Writes nothing but an adapted model; test rows stay closed."""
    refuse_too_little("torch")
    from holdfast.search.choice.adaptation import adaptation_options
    from holdfast.search.choice.models import choose_model

    request = rows.request(source, seed=seed, settings=set_ or [])
    adapting = adaptation_options(adapted.adapt, adapted.extend, adapted.out)
    with output.heard(f"holdfast choose {source}"):
        found = choose_model(request.recipe(), models.split(","), adaptation=adapting)
    output.show(found.to_json(), lambda columns: shown(found, columns))


def shown(found: Choice, columns: int) -> str:
    """The answer, a line a model, and what stands beside each."""
    lines = [*textwrap.wrap(found.because, columns), "", *_table(found)]
    for candidate in found.candidates:
        lines += ["", *textwrap.wrap(candidate.name, columns)]
        lines += entries(_beside(candidate), columns)
    for one in found.left_out:
        lines += ["", *textwrap.wrap(f"Left out: {one.name}: {one.because}", columns)]
    if found.adapted is not None:
        lines += ["", *textwrap.wrap(f"Adapted: {_adapted(found.adapted)}", columns)]
    for why in dict.fromkeys(str(one["why"]) for one in found.predicted):
        lines += ["", *textwrap.wrap(f"{why[0].upper()}{why[1:]}.", columns)]
    return "\n".join(lines)


def _adapted(made: AdaptedModel) -> str:
    before, after = made.pieces
    done = []
    if made.pretrained is not None:
        losses = f"{made.pretrained.before:.3f} to {made.pretrained.after:.3f} nats a token"
        done.append(f"pretrained on {made.pretrained.blocks:,} texts ({losses} held out)")
    if made.words:
        shown = "" if before is None else f" ({before:.2f} to {after:.2f} tokens a word)"
        done.append(f"given {len(made.words):,} new words{shown}")
    where = "" if made.folder is None else f" Use it with --model {made.folder}"
    return f"{made.model}, {' and '.join(done)}: {made.because}.{where}"


def _table(found: Choice) -> list[str]:
    """Score, speed and size, at 80 columns."""
    evidence = "Linear probe (95 % CI)" if found.candidates[0].frozen else "Few updates (95 % CI)"
    head = f"{'Model':<{LONGEST}} {evidence:<22} {'Short':>6} {'MB':>6} {'Rows/s':>7}"
    lines = [f"{head}   {found.metric}" if len(head) + len(found.metric) < 78 else head]
    for candidate in found.candidates:
        measured, short = candidate.evidence, candidate.short
        score = "" if measured.value is None else f"{measured.value:.3f}"
        if measured.low is not None and measured.high is not None:
            score += f" ({measured.low:.2f}–{measured.high:.2f})"
        tried = "" if short is None else f"{short.score if found.higher else -short.score:.3f}"
        lines.append(
            f"{_short(candidate.name):<{LONGEST}} {score:<22} {tried:>6} "
            f"{candidate.facts.memory_mb:>6,.0f} {candidate.rows_per_s:>7,.0f}"
        )
    return lines


def _short(name: str) -> str:
    """The end of a long name: of a folder that is what tells it from others."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _beside(candidate: ModelCandidate) -> list[tuple[str, str]]:
    facts = candidate.facts
    languages = ", ".join(facts.languages[:8]) or UNKNOWN
    said = [("Licence", f"{facts.licence or UNKNOWN}; language: {languages}")]
    if facts.max_length is not None:
        cut = "" if facts.cut is None else f", {facts.cut:.1%} of the rows are longer"
        said.append(("Length", f"{facts.max_length:,} tokens{cut}"))
    if facts.unknown is not None:
        pieces = facts.tokens_per_word
        words = "" if pieces is None else f"{pieces:.2f} tokens a word, "
        said.append(("Words", f"{words}{facts.unknown:.1%} of the tokens unknown"))
    said += [("Evidence", _evidence(candidate))]
    return [*said, *(("But", doubt) for doubt in facts.doubts)]


def _evidence(candidate: ModelCandidate) -> str:
    frozen, texts = candidate.frozen, candidate.texts
    if frozen is not None:
        explained = "" if frozen.h_score is None else f"H-score {frozen.h_score:.3f}, "
        return f"best layer {frozen.layer.name}; {explained}LogME {frozen.log_evidence:.3f}"
    made: Any = texts
    return (
        f"{made.after:.3f} bits a byte after {made.steps} updates; perplexity a token "
        f"{made.perplexity:,.1f} before"
    )
