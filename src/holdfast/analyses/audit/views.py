"""The views that the audit checks read, each built once, and why a view could not be built."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.audit.rows import AuditRows
from holdfast.analyses.audit.tokenized import MOST_CHECKED, silent_token_checks
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.seeds import derive_seed
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS, IMAGE_TASKS
from holdfast.data.chats.chat import form_of
from holdfast.data.chats.turns import choose_template
from holdfast.data.images.decode import read_image
from holdfast.data.table import Table
from holdfast.data.texts.general import passages
from holdfast.duplicates.duplicates import CombinedRows, Duplicates, combine_tables
from holdfast.duplicates.engines import RayDataEngine
from holdfast.duplicates.loose_duplicates import find_loose_duplicates
from holdfast.duplicates.words import RowTexts
from holdfast.quality.inflation import ProbeInflationEstimator
from holdfast.quality.reference_texts import filler_texts
from holdfast.quality.token_rows import MASKED, TokenRow, spread
from holdfast.quality.tokens import check_tokens
from holdfast.quality.views import (
    Embedded,
    Images,
    ImageSample,
    TableCopies,
    TableRows,
    ThoroughRows,
    Tokenized,
    image_sample,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.prepare.embedding import Encoder, Vectors

NO_LIMIT = 1 << 30
# The current step, how much of it is done, and its total; ``None`` if unknown.
Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Views:
    """``available`` views; ``missing`` says why others were not made, by the name of their type;
    ``all_rows`` are all rows with their duplicates; ``findings`` are of the rows as tokens of a
    language model."""

    available: tuple[Any, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    all_rows: CombinedRows | None = None
    findings: tuple[Finding, ...] = ()

    def get(self, view_type: type) -> Any:
        """The view of this type, or ``None``."""
        return next((view for view in self.available if type(view) is view_type), None)


def make_views(audit_rows: AuditRows, progress: Progress) -> Views:
    """Make every view that these rows allow."""
    if audit_rows.recipe.audit.folds and audit_rows.recipe.audit.tuned:
        rule = "exclude each other: use fine-tuned features, or the folds of a run"
        raise RecipeError("audit.tuned and audit.folds", rule, None, "Leave one of them out.")
    if audit_rows.recipe.audit.tuned:
        # PyTorch is loaded only where a model is used.
        from holdfast.analyses.audit.fold_predictions import refuse_untunable

        refuse_untunable(audit_rows.recipe, audit_rows.table)
    rows = TableRows(audit_rows.table, audit_rows.other_columns["source"])
    progress("searching for duplicates", None, None)
    seed = derive_seed(audit_rows.recipe.seed, "copies")
    engine = RayDataEngine() if audit_rows.recipe.audit.engine == "ray" else None
    all_rows = combine_tables(audit_rows.table, audit_rows.other_tables, seed, engine)
    other_columns = {
        name: each for name, each in audit_rows.other_columns.items() if name != "source"
    }
    copies_view = TableCopies(rows, all_rows, tuple(audit_rows.splits), other_columns)
    if audit_rows.recipe.audit.loose is not None:
        texts, share = RowTexts(*all_rows.tables.values()), audit_rows.recipe.audit.loose
        copies_view = replace(
            copies_view, loose_copies=find_loose_duplicates(texts, share=share, engine=engine)
        )
    missing = {f"columns of {name}": why for name, why in audit_rows.missing_columns.items()}
    if audit_rows.recipe.task in IMAGE_TASKS:
        missing[Embedded.__name__] = "the rows are images"
        missing[Tokenized.__name__] = "images have no tokens"
        image_views = (
            rows,
            ThoroughRows(rows),
            copies_view,
            _pictures(rows, audit_rows.other_tables),
            image_sample(rows),
        )
        return Views(image_views, missing, all_rows)
    views, reasons, findings = _read_by_model(audit_rows, rows, all_rows.duplicates, progress)
    embedded = next((view for view in views if isinstance(view, Embedded)), None)
    if embedded is not None:
        copies_view = replace(copies_view, inflation=ProbeInflationEstimator(embedded))
    of_texts = dict.fromkeys((Images.__name__, ImageSample.__name__), "the rows are texts")
    missing |= {**reasons, **of_texts}
    return Views((rows, ThoroughRows(rows), copies_view, *views), missing, all_rows, findings)


def _pictures(rows: TableRows, other_tables: Mapping[str, Table] = MappingProxyType({})) -> Images:
    paths: list[str] = rows.table.column("path")
    others = {name: _pictures(TableRows(table)) for name, table in other_tables.items()}
    return Images(rows, paths, lambda at: read_image(paths[at]).image, others=others)


def _read_by_model(
    audit_rows: AuditRows, rows: TableRows, copies: Duplicates, progress: Progress
) -> tuple[list[Any], dict[str, str], tuple[Finding, ...]]:
    """The rows as the model reads them: as feature vectors and as tokens, with the faults of chats
    as tokens."""
    settings = audit_rows.recipe.audit
    if not settings.rows:
        why = "audit.rows is 0, so no model was used"
        return [], {Embedded.__name__: why, Tokenized.__name__: why}, ()
    install, otherwise = "torch transformers", "add --set audit.rows=0, for checks without a model"
    need_packages("audit", "torch", "transformers", install=install, otherwise=otherwise)
    from holdfast.prepare.embedding import load_encoder

    progress("loading the model", None, None)
    encoder, decisions = load_encoder(audit_rows.recipe)
    notify(*decisions)
    sample = _sample(audit_rows.table, copies, settings.rows)
    part = (
        rows
        if sample is None
        else TableRows(rows.table.take(sample), rows.other_columns.take(sample))
    )
    if sample is not None:
        because = (
            f"audit.rows is {settings.rows:,} of {len(rows.table):,}: a sample by content, "
            "independent of their order; duplicates and checks of single rows use every row"
        )
        notify(Decision("rows read by the model", f"{len(sample):,}", because, prominent=True))
    embedded = _embedded(audit_rows, part, encoder, progress)
    tokens, why, findings = _tokenized(audit_rows, part, encoder)
    return [embedded, *tokens], {Tokenized.__name__: why} if why else {}, findings


def _sample(table: Table, copies: Duplicates, most: int) -> Ints | None:
    """The positions of the rows with the lowest content hashes, in the table's order; ``None`` if
    the table has few enough rows."""
    if len(table) <= most:
        return None
    contents = copies.contents[: len(table)]
    return np.sort(np.lexsort((np.arange(len(table)), contents))[:most])


def _embedded(
    audit_rows: AuditRows, rows: TableRows, encoder: Encoder, progress: Progress
) -> Embedded:
    from holdfast.prepare.embedding import MIDDLE_DEPTH

    most = audit_rows.recipe.audit.rows
    tables = {name: _spread_sample(table, most) for name, table in audit_rows.other_tables.items()}
    pool = None if audit_rows.unlabelled is None else _spread_sample(audit_rows.unlabelled, most)
    texts = [rows.texts, *(TableRows(table).texts for table in tables.values())]
    texts += [] if pool is None else [TableRows(pool).texts]
    total, n_done = sum(len({*each}) for each in texts), 0

    def embed(part: list[str]) -> Vectors:
        nonlocal n_done
        start = n_done
        vectors = encoder(part, lambda n: progress("reading the texts", start + n, total))
        n_done = start + len({*part})
        return vectors

    started = time.perf_counter()
    source_vectors = encoder.at_depths(
        (1.0, MIDDLE_DEPTH), texts[0], lambda n: progress("reading the texts", n, total)
    )
    seconds = time.perf_counter() - started
    n_done = len({*texts[0]})
    others = {
        name: (table, embed(part))
        for (name, table), part in zip(tables.items(), texts[1:], strict=False)
    }
    tuned = None
    if audit_rows.recipe.audit.tuned:
        from holdfast.analyses.audit.fold_predictions import tuned_log_probabilities

        tuned = tuned_log_probabilities(rows, audit_rows.recipe, encoder.name, seconds, progress)
    if audit_rows.recipe.audit.folds:
        from holdfast.analyses.audit.fold_predictions import fold_log_probabilities

        tuned = fold_log_probabilities(rows, Path(audit_rows.recipe.audit.folds))
    return Embedded(
        rows,
        source_vectors[0],
        _name_for_readers(encoder.name),
        encoder,
        others=others,
        tuned_log_p=tuned,
        middle_vectors=source_vectors[1],
        seed=audit_rows.recipe.seed,
        unlabelled=None if pool is None else (pool, embed(texts[-1])),
        references=references(encoder),
    )


def _name_for_readers(model: str) -> str:
    from holdfast.core.packaged_models import EMBEDDED

    return "MiniLM (embedded)" if model == EMBEDDED else model


def references(encoder: Encoder) -> dict[str, Vectors]:
    """General sentences and filler sentences, as feature vectors of the audited rows' encoder."""
    from holdfast.prepare.embedding import MIDDLE_DEPTH

    general = [part for text in passages() for part in re.split(r"(?<=[.!?])\s+", text)]
    both = {"general": general, "filler": filler_texts()}
    return {
        name: np.concatenate(encoder.at_depths((1.0, MIDDLE_DEPTH), texts), axis=1)
        for name, texts in both.items()
    }


def _spread_sample(table: Table, most: int) -> Table:
    """Evenly spaced rows of a table that is too large to embed completely."""
    if len(table) <= most:
        return table
    return table.take(np.linspace(0, len(table) - 1, most).astype(np.int64))


def _tokenized(
    audit_rows: AuditRows, rows: TableRows, encoder: Encoder
) -> tuple[list[Tokenized], str, tuple[Finding, ...]]:
    """Lengths and unknown tokens by the model to be trained, or why they are not known; the faults
    of chats as tokens."""
    model = audit_rows.recipe.model
    tokenizer, limit = encoder.tokenizer, encoder.max_length
    name = _name_for_readers(encoder.name)
    if audit_rows.recipe.task in GENERATIVE_TASKS:
        if model.name == encoder.name:
            return (
                [],
                f"{name} is not a generative model: name the model to train with --set "
                "model.name=NAME",
                (),
            )
        from holdfast.models.loading.source import find_model
        from holdfast.models.loading.tokenizer import (
            choose_max_length,
            load_tokenizer,
            usual_length,
        )
        from holdfast.models.loading.weights import configuration

        name = model.name
        try:
            source = find_model(name, revision=model.revision, trust=model.trust_remote_code)
            tokenizer = load_tokenizer(source, model.trust_remote_code, need_pad=False)
            config = configuration(source, None, ())
            decoder = audit_rows.recipe.task in DECODER_TASKS
            most = usual_length(form_of(audit_rows.table) if decoder else "text")
            limit, _ = choose_max_length(
                source.folder, config, tokenizer, model.max_length, most=most
            )
        except (ModelError, AttributeError) as error:
            return [], f"the tokens of {name} cannot be counted: {error}", ()
    counted = _count_tokens(rows, tokenizer, limit, name)
    if audit_rows.recipe.task not in DECODER_TASKS:
        return [counted], "", ()
    form, template = form_of(rows.table), audit_rows.recipe.data.template
    if form == "text":
        # A plain text becomes blocks of that length, and loses no token.
        return [replace(counted, rendered=np.minimum(counted.lengths, limit))], "", ()
    try:
        tokenizer.chat_template, reason = choose_template(tokenizer, form, template)
        lengths, findings = _chats_as_tokens(rows.table, tokenizer, limit)
    except RecipeError as error:
        # ``train`` would stop here.
        because = f"{error.what} {error.rule}"
        found = Finding(
            "unusable_template", "error", 1.0, len(rows.table), (), because, error.remedy
        )
        return [], f"the chats cannot be rendered: {because}", (found,)
    checked = min(len(rows.table), MOST_CHECKED)
    notify(reason, silent_token_checks(findings, checked, len(rows.table)))
    return [replace(counted, rendered=lengths)], "", findings


def _chats_as_tokens(
    table: Table, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[Ints, tuple[Finding, ...]]:
    """The length [n] of each chat as it is trained, before truncation, and the faults of what is
    left of the chats, of ``MOST_CHECKED`` at most."""
    from holdfast.tasks.lm.losses import encode, join_examples
    from holdfast.tasks.lm.task import truncation

    lengths = np.zeros(len(table), dtype=np.int64)
    whole = encode(table, tokenizer, NO_LIMIT)
    lengths[whole.positions] = whole.lengths
    # Rendering takes the time: the chats are cut here as ``encode`` cuts them.
    cut = [
        (whole.ids[begin : begin + limit][:size], whole.targets[begin : begin + limit][:size], at)
        for begin, size, at in zip(whole.offsets, whole.lengths, whole.positions, strict=False)
    ]
    kept = [one for one in cut if one[1].any()]
    read = join_examples(kept, whole.table_rows, lengths > limit)
    examples = [
        TokenRow(int(row), ids, np.where(targets, ids, MASKED), np.ones(len(ids), dtype=bool))
        for row, (ids, targets, _) in zip(read.rows, kept, strict=True)
    ]
    found = check_tokens(spread(examples, MOST_CHECKED), tokenizer)
    # Chats that are cut and keep an answer are those of ``truncated_texts``.
    lost = truncation(read, limit, "source") if read.left_out else ()
    return lengths, (*lost, *found)


def _count_tokens(
    rows: TableRows, tokenizer: PreTrainedTokenizerBase, limit: int, name: str
) -> Tokenized:
    texts, unknown = rows.texts, tokenizer.unk_token_id
    lengths, unknown_counts, word_counts = (np.zeros(len(texts), dtype=np.int64) for _ in range(3))
    for start in range(0, len(texts), 4096):
        part = texts[start : start + 4096]
        for at, ids in enumerate(tokenizer(part, verbose=False)["input_ids"], start):
            lengths[at] = len(ids)
            unknown_counts[at] = ids.count(unknown) if unknown is not None else 0
            word_counts[at] = len(texts[at].split())
    special = tokenizer.num_special_tokens_to_add()
    return Tokenized(rows, lengths, unknown_counts, word_counts, limit, name, special)
