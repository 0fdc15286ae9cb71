"""``holdfast choose``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import ResultOutput, Seed, Source, TrainingRowOptions, set_option
from holdfast.terminal.layout import entries, wrap

if TYPE_CHECKING:
    from holdfast.search.choice.adaptation import AdaptedModel
    from holdfast.search.choice.candidate import ModelCandidate
    from holdfast.search.choice.models import Choice

# Of a model's name, in the table.
MAX_NAME = 26
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """Further pretraining of the chosen model, and where the result is written."""

    adapt: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Unlabelled texts to pretrain the chosen model on."),
    ] = None
    extend: Annotated[
        int, typer.Option(metavar="N", help="Add at most N words of the rows to its vocabulary.")
    ] = 0
    out: Annotated[
        Path | None, typer.Option(help="Write the adapted model here, if it is shown to be better.")
    ] = None


def command(
    source: Source,
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]...",
            help="Base models, separated by commas: folders, Hugging Face names, or embedded. "
            "Default: the encoders on this machine.",
        ),
    ] = "",
    *,
    rows: TrainingRowOptions,
    set_: Annotated[
        list[str] | None, set_option("Set a key of the recipe, e.g. model.max_length=128.")
    ] = None,
    seed: Seed = None,
    adapted: AdaptOptions,
    output: ResultOutput,
) -> None:
    """Compare base models on SOURCE: a linear probe scores each, and the best two are fine-tuned
    briefly.

    Prints the scores with confidence intervals; it does not predict the score after fine-tuning.
    The test rows are not used. Only an adapted model is written.
    """
    request = rows.request(source, seed=seed, settings=set_ or [])
    from holdfast.search.choice.adaptation import adaptation_options
    from holdfast.search.choice.models import choose_model

    adapting = adaptation_options(adapted.adapt, adapted.extend, adapted.out)
    with output.heard(f"holdfast choose {source}"):
        named = models.split(",") if models else None
        choice = choose_model(request.recipe(), named, adaptation=adapting)
    output.show(choice.to_json(), lambda columns: choice_text(choice, columns))


def choice_text(choice: Choice, columns: int) -> str:
    """The result, a table of the models, and facts about each."""
    lines = [*wrap(choice.because, columns), "", *_table(choice)]
    for candidate in choice.candidates:
        lines += ["", *wrap(candidate.name, columns)]
        lines += entries(_candidate_facts(candidate), columns)
    for one in choice.left_out:
        lines += ["", *wrap(f"Skipped: {one.name}: {one.because}", columns)]
    if choice.adapted is not None:
        lines += ["", *wrap(f"Adapted: {_adapted_text(choice.adapted)}", columns)]
    for why in dict.fromkeys(str(one["why"]) for one in choice.predicted):
        lines += ["", *wrap(f"{why[0].upper()}{why[1:]}.", columns)]
    return "\n".join(lines)


def _adapted_text(adapted_model: AdaptedModel) -> str:
    before, after = adapted_model.pieces
    steps = []
    if adapted_model.pretrained is not None:
        pretraining = adapted_model.pretrained
        losses = f"{pretraining.loss_before:.3f} to {pretraining.loss_after:.3f} nats per token"
        steps.append(f"pretrained on {pretraining.blocks:,} texts (held-out loss {losses})")
    if adapted_model.words:
        shown = "" if before is None else f" ({before:.2f} to {after:.2f} tokens per word)"
        steps.append(f"extended by {len(adapted_model.words):,} words{shown}")
    where = "" if adapted_model.folder is None else f" Use it with --model {adapted_model.folder}"
    return f"{adapted_model.model}, {' and '.join(steps)}: {adapted_model.because}.{where}"


def _table(choice: Choice) -> list[str]:
    """Score, speed and size, at 80 columns."""
    evidence = "Linear probe (95 % CI)" if choice.candidates[0].frozen else "Few updates (95 % CI)"
    head = f"{'Model':<{MAX_NAME}} {evidence:<22} {'Tuned':>6} {'MB':>6} {'Rows/s':>7}"
    lines = [f"{head}   {choice.metric}" if len(head) + len(choice.metric) < 78 else head]
    for candidate in choice.candidates:
        evidence_value, short = candidate.evidence, candidate.short
        score = "" if evidence_value.value is None else f"{evidence_value.value:.3f}"
        if evidence_value.low is not None and evidence_value.high is not None:
            score += f" ({evidence_value.low:.2f}–{evidence_value.high:.2f})"
        short_score = (
            "" if short is None else f"{short.score if choice.higher else -short.score:.3f}"
        )
        lines.append(
            f"{_short(candidate.name):<{MAX_NAME}} {score:<22} {short_score:>6} "
            f"{candidate.facts.memory_mb:>6,.0f} {candidate.rows_per_s:>7,.0f}"
        )
    return lines


def _short(name: str) -> str:
    """The end of a long name: in a path, the end is what differs."""
    return name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"


def _candidate_facts(candidate: ModelCandidate) -> list[tuple[str, str]]:
    facts = candidate.facts
    languages = ", ".join(facts.languages[:8]) or UNKNOWN
    lines = [("Licence", f"{facts.licence or UNKNOWN}; language: {languages}")]
    if facts.max_length is not None:
        cut = "" if facts.cut is None else f"; {100 * facts.cut:.1f} % of the rows are longer"
        lines.append(("Length", f"{facts.max_length:,} tokens{cut}"))
    if facts.unknown is not None:
        pieces = facts.tokens_per_word
        words = "" if pieces is None else f"{pieces:.2f} tokens per word, "
        lines.append(("Tokenizer", f"{words}{100 * facts.unknown:.1f} % unknown tokens"))
    lines += [("Evidence", _evidence(candidate))]
    return [*lines, *(("Warning", doubt) for doubt in facts.doubts)]


def _evidence(candidate: ModelCandidate) -> str:
    frozen, texts = candidate.frozen, candidate.texts
    if frozen is not None:
        explained = "" if frozen.h_score is None else f"H-score {frozen.h_score:.3f}, "
        return f"best layer {frozen.layer.name}; {explained}LogME {frozen.log_evidence:.3f}"
    texts_evidence: Any = texts
    return (
        f"{texts_evidence.after:.3f} bits per byte after {texts_evidence.steps} updates; "
        f"perplexity per token {texts_evidence.perplexity:,.1f} before"
    )
