"""The views that an audit's checks see, each made once, and why one could not be made."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.audit.fold_predictions import folded_answers, refuse_untunable, tuned_answers
from holdfast.analyses.audit.rows import AuditRows
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision, Ints
from holdfast.core.seeds import derive_seed
from holdfast.core.tasks import OF_PICTURES, WRITERS
from holdfast.data.images.picture import read_picture
from holdfast.data.table import Table
from holdfast.data.texts.general import passages
from holdfast.duplicates.duplicates import AllRows, Copies, gather
from holdfast.duplicates.engines import RayMap
from holdfast.duplicates.loose import find_loose_copies
from holdfast.duplicates.words import RowTexts
from holdfast.quality.price import Pricing
from holdfast.quality.reference_texts import filler
from holdfast.quality.views import (
    Closely,
    Copied,
    Embedded,
    ImageSample,
    Pictures,
    TableRows,
    Tokenized,
    pixels_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.prepare.embedding import Encoder, Vectors

# What is going on, how much of it is done, and how much there is; nothing known is None.
Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Views:
    """``made`` views, ``without`` why others were not made, by the name of their type; ``gathered``
    are all rows and their copies."""

    made: tuple[Any, ...]
    without: Mapping[str, str] = field(default_factory=dict)
    gathered: AllRows | None = None

    def of(self, kind: type) -> Any:
        """The view of a type, or ``None``."""
        return next((view for view in self.made if type(view) is kind), None)


def make_views(found: AuditRows, progress: Progress) -> Views:
    """Every view of these rows that can be made."""
    if found.recipe.audit.folds and found.recipe.audit.tuned:
        rule = "stand for each other: tuned features, or the folds of a run"
        raise RecipeError("audit.tuned and audit.folds", rule, None, "Leave one out.")
    if found.recipe.audit.tuned:
        refuse_untunable(found.recipe, found.table)
    rows = TableRows(found.table, found.beside["source"])
    progress("looking for copies", None, None)
    seed = derive_seed(found.recipe.seed, "copies")
    engine = RayMap() if found.recipe.audit.engine == "ray" else None
    gathered = gather(found.table, found.given, seed, engine)
    others = {name: each for name, each in found.beside.items() if name != "source"}
    copied = Copied(rows, gathered, tuple(found.sides), others)
    if found.recipe.audit.loose is not None:
        texts, share = RowTexts(*gathered.tables.values()), found.recipe.audit.loose
        copied = replace(copied, loose=find_loose_copies(texts, share=share, engine=engine))
    without = {f"columns of {name}": why for name, why in found.without.items()}
    if found.recipe.task in OF_PICTURES:
        without[Embedded.__name__] = "these are pictures"
        without[Tokenized.__name__] = "pictures have no tokens"
        seen = (rows, Closely(rows), copied, _pictures(rows, found.given), pixels_of(rows))
        return Views(seen, without, gathered)
    views, reasons = _read_by_model(found, rows, gathered.copies, progress)
    embedded = next((view for view in views if isinstance(view, Embedded)), None)
    if embedded is not None:
        copied = replace(copied, pricing=Pricing(embedded))
    of_texts = dict.fromkeys((Pictures.__name__, ImageSample.__name__), "these are texts")
    without |= {**reasons, **of_texts}
    return Views((rows, Closely(rows), copied, *views), without, gathered)


def _pictures(rows: TableRows, given: Mapping[str, Table] = MappingProxyType({})) -> Pictures:
    paths: list[str] = rows.table.column("path")
    others = {name: _pictures(TableRows(table)) for name, table in given.items()}
    return Pictures(rows, paths, lambda at: read_picture(paths[at]).image, others=others)


def _read_by_model(
    found: AuditRows, rows: TableRows, copies: Copies, progress: Progress
) -> tuple[list[Any], dict[str, str]]:
    """The rows as the model reads them: in its geometry and as its tokens."""
    from holdfast.prepare.embedding import load_encoder

    settings = found.recipe.audit
    if not settings.rows:
        why = "audit.rows is 0: no model was asked"
        return [], {Embedded.__name__: why, Tokenized.__name__: why}
    progress("loading the model", None, None)
    encoder, told = load_encoder(found.recipe)
    notify(*told)
    chosen = _sample(found.table, copies, settings.rows)
    part = rows if chosen is None else TableRows(rows.table.take(chosen), rows.beside.take(chosen))
    if chosen is not None:
        because = (
            f"audit.rows is {settings.rows:,} of {len(rows.table):,}: a sample by content, the "
            "same whatever the order; copies and checks of single rows see every row"
        )
        notify(Decision("rows read by the model", f"{len(chosen):,}", because, prominent=True))
    embedded = _embedded(found, part, encoder, progress)
    tokens, why = _tokenized(found, part, encoder)
    return [embedded, *tokens], {Tokenized.__name__: why} if why else {}


def _sample(table: Table, copies: Copies, most: int) -> Ints | None:
    """The positions of the rows with the lowest content hashes, in the table's order; ``None``
    where all are few enough."""
    if len(table) <= most:
        return None
    contents = copies.contents[: len(table)]
    return np.sort(np.lexsort((np.arange(len(table)), contents))[:most])


def _embedded(found: AuditRows, rows: TableRows, encoder: Encoder, progress: Progress) -> Embedded:
    from holdfast.prepare.embedding import EMBEDDED, MIDDLE_DEPTH

    most = found.recipe.audit.rows
    tables = {name: _first(table, most) for name, table in found.given.items()}
    waiting = None if found.unlabelled is None else _first(found.unlabelled, most)
    texts = [rows.texts, *(TableRows(table).texts for table in tables.values())]
    texts += [] if waiting is None else [TableRows(waiting).texts]
    total, through = sum(len({*each}) for each in texts), 0

    def embed(part: list[str]) -> Vectors:
        nonlocal through
        start = through
        made = encoder(part, lambda n: progress("reading the texts", start + n, total))
        through = start + len({*part})
        return made

    begun = time.perf_counter()
    own = encoder.at_depths((1.0, MIDDLE_DEPTH), texts[0], lambda n: progress("reading the texts", n, total))
    seconds = time.perf_counter() - begun
    through = len({*texts[0]})
    others = {
        name: (table, embed(part))
        for (name, table), part in zip(tables.items(), texts[1:], strict=False)
    }
    tuned = None
    if found.recipe.audit.tuned:
        tuned = tuned_answers(rows, found.recipe, encoder.name, seconds, progress)
    if found.recipe.audit.folds:
        tuned = folded_answers(rows, Path(found.recipe.audit.folds))
    return Embedded(
        rows,
        own[0],
        "the embedded model" if encoder.name == EMBEDDED else encoder.name,
        encoder,
        others=others,
        tuned=tuned,
        inner=own[1],
        seed=found.recipe.seed,
        unlabelled=None if waiting is None else (waiting, embed(texts[-1])),
        references=references(encoder),
    )


def references(encoder: Encoder) -> dict[str, Vectors]:
    """Sentences of many subjects, and such as say nothing, in the geometry of ``probed``."""
    from holdfast.prepare.embedding import MIDDLE_DEPTH

    general = [part for text in passages() for part in re.split(r"(?<=[.!?])\s+", text)]
    both = {"general": general, "filler": filler()}
    return {
        name: np.concatenate(encoder.at_depths((1.0, MIDDLE_DEPTH), texts), axis=1)
        for name, texts in both.items()
    }


def _first(table: Table, most: int) -> Table:
    """A spread of rows over a table that is too large to be embedded whole."""
    if len(table) <= most:
        return table
    return table.take(np.linspace(0, len(table) - 1, most).astype(np.int64))


def _tokenized(found: AuditRows, rows: TableRows, encoder: Encoder) -> tuple[list[Tokenized], str]:
    """Lengths and unknown tokens by the model that is to be trained, or why they are not known."""
    model = found.recipe.model
    tokenizer, limit, name = encoder.tokenizer, encoder.max_length, encoder.name
    if found.recipe.task in WRITERS:
        if model.name == encoder.name:
            return [], (
                f"{name} is no model that writes: --set model.name=NAME names the one to be trained"
            )
        from holdfast.models.loading.source import find_model
        from holdfast.models.loading.tokenizer import choose_max_length, load_tokenizer
        from holdfast.models.loading.weights import configuration

        name = model.name
        try:
            source = find_model(name, revision=model.revision, trust=model.trust_remote_code)
            tokenizer = load_tokenizer(source, model.trust_remote_code, need_pad=False)
            config = configuration(source, None, ())
            limit = choose_max_length(source.folder, config, tokenizer, model.max_length)[0]
        except (ModelError, AttributeError) as error:
            return [], f"the tokens of {name} cannot be counted: {error}"
    return [_counted(rows, tokenizer, limit, name)], ""


def _counted(
    rows: TableRows, tokenizer: PreTrainedTokenizerBase, limit: int, name: str
) -> Tokenized:
    texts, unknown = rows.texts, tokenizer.unk_token_id
    lengths, unread, words = (np.zeros(len(texts), dtype=np.int64) for _ in range(3))
    for start in range(0, len(texts), 4096):
        part = texts[start : start + 4096]
        for at, ids in enumerate(tokenizer(part, verbose=False)["input_ids"], start):
            lengths[at] = len(ids)
            unread[at] = ids.count(unknown) if unknown is not None else 0
            words[at] = len(texts[at].split())
    special = tokenizer.num_special_tokens_to_add()
    return Tokenized(rows, lengths, unread, words, limit, name, special)
