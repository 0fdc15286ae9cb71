"""Rows of what a model knew before: some are measured at every evaluation (the general probe),
others are held on to by what guards against forgetting (``replay``, ``ewc``).

No row is in both, none is a copy of a row of the run, whatever its split: what is held out must not
be learned, and what is measured must not be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import General, PreparedData
from holdfast.core.decisions import decisions_and_findings, notify, record_decisions
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.chats.chat import chats_from_prompts
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.data.texts.general import BUILT_IN, GENERAL_PASSAGES, SKIPPED
from holdfast.duplicates.duplicates import combine_tables, duplicates_of
from holdfast.methods.registry import all_methods
from holdfast.models.generators.causal import CausalNetwork
from holdfast.models.generators.samples import sample_texts
from holdfast.recipe import Recipe
from holdfast.tasks.lm.losses import EncodedTokens
from holdfast.training.task import Examples

if TYPE_CHECKING:
    from holdfast.models.base import LoadedModel


PROBE, ROWS = "probes.forgetting.data", "data.general"
# Copies are looked for among all pairs, and a run replays no more.
MAX_ROWS = 10_000
MIN_PROBE_ROWS = 10
WRITTEN_TOKENS = 128


def with_general(prepared: PreparedData, known: Sequence[Table]) -> PreparedData:
    """What is prepared, with the general rows that the recipe asks for.

    ``known`` are all tables of the run, whose copies are left out; nothing else is read of them.
    Raises ``RecipeError`` where a method needs general rows and none are named, ``DataError`` where
    too few are left.
    """
    recipe = prepared.recipe
    needing = methods_with_general(recipe)
    probe_from = recipe.probes.forgetting.data or recipe.data.general
    rows_from = recipe.data.general or recipe.probes.forgetting.data
    if probe_from is None and not needing:
        return prepared
    with record_decisions() as log:
        probe = examples = None
        if probe_from is not None and rows_from is not None:
            probe, rows = _split_general(prepared, known, probe_from, rows_from, bool(needing))
            examples = probe_examples(_encoded(prepared, probe), prepared.loaded)
        elif recipe.task in DECODER_TASKS:
            rows = _write_rows(prepared, needing)
        else:
            raise missing_rows_error(needing[0])
        rows_examples = None if rows is None else _encoded(prepared, rows)
    return replace(
        prepared,
        general=General(probe, examples, rows, rows_examples, *decisions_and_findings(log)),
    )


def methods_with_general(recipe: Recipe) -> tuple[str, ...]:
    """The methods that are on and ask for general rows."""
    known = all_methods()
    active = (name for name, given in recipe.methods.items() if given is not False)
    return tuple(name for name in active if name in known and known[name].needs_general)


def missing_rows_error(method: str) -> RecipeError:
    return RecipeError(
        f"methods.{method}",
        "needs rows of what the model knew before",
        None,
        f"Name a file of them with {ROWS}.",
    )


def general_examples(
    prepared: PreparedData, recipe: Recipe, loaded: LoadedModel
) -> tuple[Examples | None, Examples | None]:
    """The general probe of a fit and the rows that its methods hold on to, in the units and within
    the limits of what it ``loaded``. Raises ``RecipeError`` where it switches a method on for which
    nothing was prepared."""
    needing, general, kind = methods_with_general(recipe), prepared.general, prepared.definition
    if needing and (general is None or general.rows_examples is None):
        raise missing_rows_error(needing[0])
    if general is None:
        return None, None

    def side(rows: Table | None, examples: Examples | None) -> Examples | None:
        if rows is None or examples is None:
            return examples
        return kind.transform_examples(examples, loaded, rows)

    probe = side(general.probe, general.probe_examples)
    return probe, side(general.rows, general.rows_examples) if needing else None


def _split_general(
    prepared: PreparedData,
    known: Sequence[Table],
    probe_from: str,
    rows_from: str,
    rows_needed: bool,
) -> tuple[Table, Table | None]:
    """The probe's rows, and those that are held on to where that is requested; of one file first
    the probe's, by chance."""
    recipe, same_file = prepared.recipe, probe_from == rows_from
    tables = {"probe": _read(prepared, probe_from, PROBE, known)}
    if rows_needed and not same_file:
        tables["rows"] = _read(prepared, rows_from, ROWS, known)
    remaining = _remove_copies(tables, known, recipe.seed)
    order = generator(recipe.seed, "general probe").permutation(len(remaining["probe"]))
    # Of one file both need rows: a file of few is halved.
    share = len(order) // 2 if same_file and rows_needed else len(order)
    count = min(recipe.probes.forgetting.rows, share)
    probe = remaining["probe"].take(np.sort(order[:count]))
    if len(probe) < MIN_PROBE_ROWS:
        rule = (
            f"leaves {count_phrase(len(probe), 'row')} to measure forgetting on; "
            f"{MIN_PROBE_ROWS} tell"
        )
        raise DataError(probe_from, rule, None, "Name a file with more rows.")
    rows = None
    if rows_needed:
        rows = remaining["probe"].take(np.sort(order[count:])) if same_file else remaining["rows"]
        if not len(rows):
            raise DataError(rows_from, "leaves no general row", None, "Name a file with more rows.")
    because = f"of {probe_from}, drawn by chance; measured at every look, and never learned from"
    if recipe.task in DECODER_TASKS:
        because += f"; neither their end token nor the first {SKIPPED} tokens of a text are scored"
    notify(Decision("general probe", count_phrase(len(probe), "row"), because))
    if rows is not None:
        because = f"of {rows_from}, none of them in the probe"
        notify(Decision("general rows", count_phrase(len(rows), "row"), because))
    return probe, rows


def _read(prepared: PreparedData, source: str, key: str, known: Sequence[Table]) -> Table:
    if source == BUILT_IN:
        # The file of our own general text, for a model that goes on with texts.
        if prepared.recipe.task not in DECODER_TASKS:
            rule = f"is plain text when it is {BUILT_IN}, on which no loss exists for"
            raise RecipeError(key, rule, prepared.recipe.task, "Name a file of general rows.")
        source = str(GENERAL_PASSAGES)
    refuse_missing(source)
    table = prepared.definition.read_general(source, prepared.recipe.data, prepared.rows)
    if len(table) <= MAX_ROWS:
        return table
    rng = generator(prepared.recipe.seed, "general rows", key)
    return table.take(np.sort(rng.permutation(len(table))[:MAX_ROWS]))


def _remove_copies(
    tables: Mapping[str, Table], known: Sequence[Table], seed: int
) -> dict[str, Table]:
    """The rows of each lot that copy no row of the run, and of the second lot none of the first's;
    a finding counts the others."""
    first, *others = known
    given = {f"known {i}": table for i, table in enumerate(others)} | dict(tables)
    gathered = combine_tables(first, given, seed)
    compared = np.ones(len(gathered.duplicates), dtype=bool)
    for name in tables:
        compared[gathered.span(name)] = False
    remaining = {}
    for name, table in tables.items():
        own_rows = gathered.mask(name)
        copied = duplicates_of(gathered.duplicates, compared, own_rows)
        # The next lot must not copy this one either.
        compared = compared | own_rows
        remaining[name] = table.take(np.flatnonzero(~copied))
        if copied.any():
            count = int(copied.sum())
            because = (
                f"{count:,} of {len(table):,} general rows of {table.source} are copies of rows of "
                "the run or of the general probe: left out"
            )
            share = count / len(table)
            notify(Finding("general_rows", "info", share, count, (), because, "", True))
    return remaining


def _encoded(prepared: PreparedData, rows: Table) -> Examples:
    return prepared.definition.encode(rows, prepared.loaded, prepared.recipe)


def probe_examples(examples: Examples, loaded: LoadedModel) -> Any:
    """Encoded rows as what a model knows is measured on them: of a language model without what
    tuning on answers changes whatever is forgotten."""
    if not isinstance(examples, EncodedTokens):
        return examples
    return examples.as_probe(loaded.tokenizer.eos_token_id, SKIPPED)


def _write_rows(prepared: PreparedData, needing: Sequence[str]) -> Table:
    """Rows that the model writes itself, before anything is learned."""
    recipe, loaded = prepared.recipe, prepared.loaded
    if recipe.model.adapter.kind == "prompt":
        raise missing_rows_error(needing[0])
    replay = recipe.methods.get("replay")
    given = replay if isinstance(replay, Mapping) else {}
    count = int(given.get("written", all_methods()["replay"].settings().written))
    length = min(loaded.max_length or WRITTEN_TOKENS, WRITTEN_TOKENS)
    assert isinstance(loaded.network, CausalNetwork)
    texts = sample_texts(loaded.network, loaded.tokenizer, count, length, recipe.seed)
    if not texts:
        raise missing_rows_error(needing[0])
    rows = chats_from_prompts(texts, "text")
    shown = texts[0] if len(texts[0]) <= 80 else f"{texts[0][:79]}…"
    because = (
        f"written by the model before its first step, of at most {length} tokens: {ROWS} names no "
        f"others; e.g. {shown!r}"
    )
    notify(Decision("general rows", count_phrase(len(rows), "row"), because))
    return rows
