"""General rows, which represent what a model knew before training. Some are measured at every
evaluation (the general-text set); others are used by methods against forgetting (``replay``,
``ewc``).

No row is in both sets, and none is a duplicate of a row of the run in any split: held-out rows must
not be learned, and measured rows must not be replayed.
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
# Duplicates are searched among all pairs of rows; a run never replays more rows than this.
MAX_ROWS = 10_000
MIN_PROBE_ROWS = 10
WRITTEN_TOKENS = 128


def with_general(prepared: PreparedData, known: Sequence[Table]) -> PreparedData:
    """The prepared data with the general rows that the recipe requests.

    ``known`` are all tables of the run: general rows that duplicate their rows are dropped; nothing
    else is read from them. Raises ``RecipeError`` where a method needs general rows and none are
    named, ``DataError`` where too few are left.
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
    """The enabled methods that need general rows."""
    known = all_methods()
    active = (name for name, given in recipe.methods.items() if given is not False)
    return tuple(name for name in active if name in known and known[name].needs_general)


def missing_rows_error(method: str) -> RecipeError:
    return RecipeError(
        f"methods.{method}",
        "needs general rows, which represent what the model knew before training",
        None,
        f"Name a file of them with {ROWS}.",
    )


def general_examples(
    prepared: PreparedData, recipe: Recipe, loaded: LoadedModel
) -> tuple[Examples | None, Examples | None]:
    """The general-text set of a fit and the general rows for its methods, encoded as ``loaded``
    requires. Raises ``RecipeError`` where the fit enables a method for which no general rows were
    prepared."""
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
    """The rows of the general-text set, and those for methods where a method needs them. From one
    file, the general-text set is drawn first, at random."""
    recipe, same_file = prepared.recipe, probe_from == rows_from
    tables = {"probe": _read(prepared, probe_from, PROBE)}
    if rows_needed and not same_file:
        tables["rows"] = _read(prepared, rows_from, ROWS)
    remaining = _remove_copies(tables, known, recipe.seed)
    order = generator(recipe.seed, "general probe").permutation(len(remaining["probe"]))
    # If both come from one file, a small file is halved.
    share = len(order) // 2 if same_file and rows_needed else len(order)
    count = min(recipe.probes.forgetting.rows, share)
    probe = remaining["probe"].take(np.sort(order[:count]))
    if len(probe) < MIN_PROBE_ROWS:
        rule = (
            f"leaves {count_phrase(len(probe), 'row')} to measure forgetting on; at least "
            f"{MIN_PROBE_ROWS} are needed"
        )
        raise DataError(probe_from, rule, None, "Name a file with more rows.")
    rows = None
    if rows_needed:
        rows = remaining["probe"].take(np.sort(order[count:])) if same_file else remaining["rows"]
        if not len(rows):
            raise DataError(rows_from, "leaves no general row", None, "Name a file with more rows.")
    because = (
        f"drawn at random from {probe_from}; measured at every evaluation, never used for training"
    )
    if recipe.task in DECODER_TASKS:
        because += (
            f"; the end token and the first {SKIPPED} tokens of a text are not included in its loss"
        )
    notify(Decision("general-text set", count_phrase(len(probe), "row"), because))
    if rows is not None:
        because = f"from {rows_from}, none of them in the general-text set"
        notify(Decision("general rows", count_phrase(len(rows), "row"), because))
    return probe, rows


def _read(prepared: PreparedData, source: str, key: str) -> Table:
    if source == BUILT_IN:
        # The built-in general texts, for a model that continues texts.
        if prepared.recipe.task not in DECODER_TASKS:
            rule = f"cannot be {BUILT_IN}, which is plain text and has no loss for this task"
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
    """The rows of each table that duplicate no row of the run; rows of the second table must not
    duplicate the first either. A finding counts the dropped rows."""
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
        # The next table must not duplicate this one either.
        compared = compared | own_rows
        remaining[name] = table.take(np.flatnonzero(~copied))
        if copied.any():
            count = int(copied.sum())
            because = (
                f"{count:,} of {len(table):,} general rows of {table.source} were dropped: they "
                "duplicate rows of the run or of the general-text set"
            )
            share = count / len(table)
            notify(Finding("general_rows", "info", share, count, (), because, "", True))
    return remaining


def _encoded(prepared: PreparedData, rows: Table) -> Examples:
    return prepared.definition.encode(rows, prepared.loaded, prepared.recipe)


def probe_examples(examples: Examples, loaded: LoadedModel) -> Any:
    """Encoded rows with the targets on which a model's knowledge is measured. For a language model
    these exclude tokens that tuning on answers changes even without forgetting."""
    if not isinstance(examples, EncodedTokens):
        return examples
    return examples.as_probe(loaded.tokenizer.eos_token_id, SKIPPED)


def _write_rows(prepared: PreparedData, needing: Sequence[str]) -> Table:
    """Rows that the model generates before training."""
    recipe, loaded = prepared.recipe, prepared.loaded
    if recipe.model.adapter.method == "prompt":
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
        f"generated by the model before its first step, at most {length} tokens each, because "
        f"{ROWS} names no file; for example {shown!r}"
    )
    notify(Decision("general rows", count_phrase(len(rows), "row"), because))
    return rows
