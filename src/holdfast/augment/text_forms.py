"""Text augmentation of training rows: draw, check and count forms."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.augment.registry import Row, TextEnrichment
from holdfast.augment.source import BLOCK, RowTurn, check_train
from holdfast.augment.texts.word_edits import lost
from holdfast.core.errors import Defect
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import derive_seed, generator
from holdfast.data.table import Table, TrainSplit
from holdfast.models.encoders.network import masked_mean
from holdfast.models.loading.packaged import packaged_folder
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    import pyarrow as pa


BATCH = 32
TOKENS = 256


class MeaningModel:
    """The embedded MiniLM (English), whatever model is trained. Vectors of a model that was not
    trained to compare sentences are all similar, so a threshold would be useless."""

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        with quiet_transformers():
            folder = packaged_folder(EMBEDDED)
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModel.from_pretrained(folder).eval()

    def vectors(self, texts: Sequence[str], batch: int = BATCH) -> Floats:
        """Unit vectors [n, 384], computed ``batch`` texts at a time. With ``batch`` = 1 the last
        bits do not depend on the other texts."""
        import torch

        embeddings = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), batch):
            batch_rows = order[start : start + batch]
            read = self._tokenizer(
                [texts[place] for place in batch_rows],
                padding=True,
                truncation=True,
                max_length=TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = self._model(**read).last_hidden_state
            mean = masked_mean(hidden, read["attention_mask"])
            embeddings[batch_rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return embeddings

    def likeness(self, ones: Sequence[str], others: Sequence[str]) -> Floats:
        """The cosine similarity of each pair [n]."""
        cosines: Floats = (self.vectors(ones) * self.vectors(others)).sum(axis=1)
        return cosines


@functools.cache
def meaning() -> MeaningModel:
    """The encoder, loaded once per process."""
    return MeaningModel()


SOURCES, ANSWERS = ("text", "text_pair", "question"), ("target", "answer")
# The text columns, and the parts of a chat by role.
TEXTS = ("text", "text_pair", "target")
ROLES = {"user": "question", "assistant": "answer"}


@dataclass(frozen=True, slots=True)
class RowForms:
    """A form of a row: its texts, and why the form is not used (``kept``); then the row is
    unchanged."""

    row: Row
    kept: str | None


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Training rows in other forms. One of ``enrichments``, drawn at random, makes each form.

    ``places`` [examples] is the position in the table of each training example's row; ``encode``
    makes examples from a table like that of ``train``. ``added`` are examples after those of the
    table; they are never changed.

    A form is not used if it lost numbers, negation, names or protected terms (``lost``), is too
    dissimilar to its text (``MeaningModel``), or does not give exactly one example: then the row is
    used unchanged.
    """

    train: TrainSplit
    places: Ints
    enrichments: Mapping[str, TextEnrichment]
    encode: Callable[[Table], Any]
    seed: int
    added: Any = None
    steps: int = BLOCK
    _known: dict[tuple[str, int, int], Row] = field(default_factory=dict, repr=False)
    _vectors: dict[str, Floats] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_train(self.train)

    def __call__(self, rows: Ints, turns: Sequence[RowTurn]) -> tuple[Any, Ints]:
        """See ``MakesForms``."""
        is_table_row = np.asarray(rows) < len(self.places)
        if is_table_row.all():
            return self._of_table(rows, turns)
        added_rows = self.added.take(np.asarray(rows)[~is_table_row] - len(self.places))
        if not is_table_row.any():
            return added_rows, np.arange(len(added_rows))
        mine = [turn for turn, one in zip(turns, is_table_row, strict=True) if one]
        examples, at = self._of_table(rows[is_table_row], mine)
        places = np.empty(len(is_table_row), dtype=np.int64)
        places[is_table_row], places[~is_table_row] = at, len(examples) + np.arange(len(added_rows))
        return examples.extended(added_rows, added_rows.weights), places

    def _of_table(self, rows: Ints, turns: Sequence[RowTurn]) -> tuple[Any, Ints]:
        block = self._block(np.asarray(self.places[rows], dtype=np.int64))
        plain = read_rows(block, self.train.table)
        forms = self._forms(block.column("row").to_pylist(), plain, turns)
        examples, at = self._encoded(block, forms)
        if (at < 0).any():
            # A form that gives no example or several is replaced by the row itself.
            forms = [plain[k] if at[k] < 0 else forms[k] for k in range(len(forms))]
            examples, at = self._encoded(block, forms)
        if (at < 0).any():
            raise Defect("enrichment", "received a row that does not give exactly one example")
        return examples, at

    def _forms(
        self, source: Sequence[int], plain: Sequence[Row], turns: Sequence[RowTurn]
    ) -> list[Row]:
        """The rows ``plain``, from these ``source`` positions, each in the form of its turn."""
        drawn = [self._drawn(row, turn) for row, turn in zip(source, turns, strict=True)]
        forms = list(plain)
        for name, one in self.enrichments.items():
            known: dict[tuple[str, int, int], Row] = self._known if one.copies else {}
            keys = {k: (name, source[k], seed) for k, (by, seed) in enumerate(drawn) if by == name}
            new = [k for k, key in keys.items() if key not in known]
            rewritten = self._rewrite(name, [plain[k] for k in new], [drawn[k][1] for k in new])
            known.update((keys[k], form.row) for k, form in zip(new, rewritten, strict=True))
            for k, key in keys.items():
                forms[k] = known[key]
        return forms

    def _drawn(self, row: int, turn: RowTurn) -> tuple[str | None, int]:
        """The enrichment that changes a row in a turn (``None``: unchanged), and the form's
        seed."""
        rng = generator(self.seed, "enrich", row, turn.epoch, turn.again)
        names = list(self.enrichments)
        name = names[int(rng.integers(len(names)))]
        one = self.enrichments[name]
        if rng.random() >= one.share:
            return None, 0
        which = f"{turn.epoch}.{turn.again}"
        if one.copies:
            which = str((turn.epoch + turn.again) % one.copies)
        return name, derive_seed(self.seed, "form", name, row, which)

    def _rewrite(self, name: str, rows: Sequence[Row], seeds: Sequence[int]) -> list[RowForms]:
        """Forms of these rows, each with the reason if it is not used."""
        one = self.enrichments[name]
        if not rows:
            return []
        parts = [p for p in rows[0] if p in SOURCES or (one.answers and p in ANSWERS)]
        new = one.forms(rows, parts, seeds)
        faults = [_fault(row, form, parts, one) for row, form in zip(rows, new, strict=True)]
        candidates = [k for k, fault in enumerate(faults) if fault is None]
        if one.similarity and candidates:
            for part in parts:
                pairs = [(str(rows[k][part]), str(new[k][part])) for k in candidates]
                for k, (old, form) in zip(candidates, pairs, strict=True):
                    # Encode each original text only once.
                    if old not in self._vectors:
                        self._vectors[old] = meaning().vectors([old])[0]
                    if float(self._vectors[old] @ meaning().vectors([form])[0]) < one.similarity:
                        faults[k] = "similarity"
        return [
            RowForms(form if fault is None else old, fault)
            for old, form, fault in zip(rows, new, faults, strict=True)
        ]

    def _block(self, places: Ints) -> pa.Table:
        return self.train.table.rows.with_format("arrow")[places.tolist()]

    def _encoded(self, block: pa.Table, rows: Sequence[Row]) -> tuple[Any, Ints]:
        """The examples of these rows, and the example of each row [n]: −1 for none or several."""
        import datasets
        import pyarrow as pa

        changed = write_rows(block, rows)
        at = changed.column_names.index("row")
        changed = changed.set_column(at, "row", pa.array(np.arange(len(rows), dtype=np.int64)))
        dataset = datasets.Dataset(datasets.table.InMemoryTable(changed))
        examples = self.encode(replace(self.train.table, rows=dataset))
        of_row = np.asarray(examples.rows)
        counts = np.bincount(of_row, minlength=len(rows))
        positions = np.full(len(rows), -1, dtype=np.int64)
        positions[of_row] = np.arange(len(of_row))
        positions[counts != 1] = -1
        return examples, positions


@dataclass(frozen=True, slots=True)
class FormSurvey:
    """The result of changing ``rows`` training rows once by each enrichment: how many rows it
    ``changed``, how many forms were not used by reason (``kept``), the median cosine similarity of
    text and form (``alike``), and an example (``shown``). All by the name of the enrichment."""

    rows: int
    changed: Mapping[str, int]
    kept: Mapping[str, Mapping[str, int]]
    alike: Mapping[str, float]
    shown: Mapping[str, tuple[str, str]]


MOST_SURVEYED, MOST_COMPARED = 500, 50


def survey(forms: Rewriting) -> FormSurvey:
    """Survey the forms of up to 500 rows before training; measure similarity on 50 pairs."""
    count = len(forms.train)
    rng = generator(forms.seed, "enrich", "survey")
    places = np.sort(rng.permutation(count)[:MOST_SURVEYED])
    plain = read_rows(forms._block(places), forms.train.table)
    changed: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    alike: dict[str, float] = {}
    shown: dict[str, tuple[str, str]] = {}
    for name in forms.enrichments:
        seeds = [derive_seed(forms.seed, "survey", name, int(place)) for place in places]
        rewritten = forms._rewrite(name, plain, seeds)
        counts[name] = dict(Counter(one.kept for one in rewritten if one.kept not in (None, SAME)))
        pairs = [
            (str(old[part]), str(one.row[part]))
            for old, one in zip(plain, rewritten, strict=True)
            for part in old
            if one.kept is None and part in SOURCES and old[part] != one.row[part]
        ]
        changed[name] = sum(one.kept is None for one in rewritten)
        if pairs:
            some = pairs[:MOST_COMPARED]
            likeness = meaning().likeness([a for a, _ in some], [b for _, b in some])
            alike[name] = float(np.median(likeness))
            shown[name] = min(pairs, key=lambda pair: abs(len(pair[0]) - 60))
    return FormSurvey(len(places), changed, counts, alike, shown)


SAME = "unchanged"


def _fault(old: Row, new: Row, parts: Sequence[str], one: TextEnrichment) -> str | None:
    """Why a form is not used; ``None`` if it is."""
    if all(old[part] == new[part] for part in parts):
        return SAME
    found = (
        lost(str(old[part]), str(new[part]), one.protect, names=one.keeps_names) for part in parts
    )
    return next((fault for fault in found if fault is not None), None)


def read_rows(block: pa.Table, table: Table) -> list[Row]:
    """The texts of rows by part name, and their label under ``label``; for a chat the last
    ``question`` and ``answer``."""
    if "turns" in block.column_names:
        chats = [
            {turn["role"]: turn["content"] for turn in json.loads(cell)}
            for cell in block.column("turns").to_pylist()
        ]
        parts = {part: [last.get(role, "") for last in chats] for role, part in ROLES.items()}
        labels: list[Any] = [None] * len(chats)
    else:
        parts = {
            name: block.column(name).to_pylist() for name in TEXTS if name in block.column_names
        }
        given = next((name for name in ("value", "labels") if name in block.column_names), "label")
        labels = block.column(given).to_pylist()
        if given == "label":
            labels = [table.classes[k] if k >= 0 else None for k in labels]
    return [
        {**{name: texts[k] for name, texts in parts.items()}, "label": label}
        for k, label in enumerate(labels)
    ]


def write_rows(block: pa.Table, rows: Sequence[Row]) -> pa.Table:
    """The block with these texts instead of its own."""
    import pyarrow as pa

    if "turns" in block.column_names:
        chats = [json.loads(cell) for cell in block.column("turns").to_pylist()]
        for turns, row in zip(chats, rows, strict=True):
            for role, part in ROLES.items():
                last = [turn for turn in turns if turn["role"] == role][-1:]
                for turn in last:
                    turn["content"] = str(row[part])
        at = block.column_names.index("turns")
        return block.set_column(at, "turns", pa.array([json.dumps(turns) for turns in chats]))
    for name in TEXTS:
        if name in block.column_names:
            at, column_type = block.column_names.index(name), block.schema.field(name).type
            block = block.set_column(at, name, pa.array([row[name] for row in rows], column_type))
    return block
