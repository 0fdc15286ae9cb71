"""Stand-ins for a fine-tuned encoder that train in a second or a few, through the whole pipeline.

``vectors``: a text is one frozen MiniLM vector → residual blocks x + g · W₂ gelu(W₁ dropout(x)) →
head. ``GAIN`` scales what an update does, so that the rates that suit it are those that suit
MiniLM, whose line and region of the table of defaults it shares by its size.
``upper``: a text is its tokens' states under MiniLM's last block → that block, which learns →
mean → head: a real encoder whose lower five blocks are frozen, without computing them again.

Both are text classifiers like any other to the pipeline: the probe that a run begins with, groups
by layer, dropouts that can be set, layers that can be frozen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import balance
import numpy as np
import torch
from recorded.features import table_of
from recorded.from_probe import embedded, encoder
from recorded.store import folder
from torch import nn

from holdfast.contract.fit import PreparedData
from holdfast.core.errors import RecipeError
from holdfast.data.memory.texts import table_from_texts
from holdfast.models.base import Layer, LoadedModel
from holdfast.models.encoders.network import EncoderClassifier, masked_mean
from holdfast.models.layers import new_head
from holdfast.plan.control import STOP
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, as_settings, override
from holdfast.tasks import task_definition
from holdfast.tasks.classes.encoding import EncodedTexts
from holdfast.training.machine.machine import MachineChoice
from peers.rows import Rows, clean_set
from peers.sets import first_words

Model = Literal["vectors", "upper", "minilm"]
Array = np.ndarray[Any, Any]
BLOCKS, HIDDEN, DROPOUT, GAIN = 2, 128, 0.1, 10.0
WORDS = 16


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.up, self.down = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        inside = nn.functional.gelu(self.up(self.dropout(x)))
        return x + GAIN * self.down(inside)  # type: ignore[no-any-return]


class Upper(nn.Module):
    """MiniLM's last block, as it was pretrained."""

    def __init__(self) -> None:
        super().__init__()
        import copy

        self.block = copy.deepcopy(encoder()[1].encoder.layer[-1])

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        found = self.block(x, hidden)
        return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]


class StandIn(EncoderClassifier):
    """``head(dropout(mean over tokens of blocks(table[ids])))``; row 0 of the table is padding."""

    def __init__(self, model: Model, table: torch.Tensor, classes: int, seed: int) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(seed)
        width = table.shape[1]
        self.words: nn.Embedding = nn.Embedding.from_pretrained(table, freeze=True)
        self.backbone = nn.ModuleList(
            [Residual(width) for _ in range(BLOCKS)] if model == "vectors" else [Upper()]
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.head = new_head(width, classes, seed)
        self.config = SimpleNamespace(hidden_size=width)

    def features(self, **inputs: torch.Tensor) -> torch.Tensor:
        states, mask = self.words(inputs["input_ids"]), inputs["attention_mask"]
        for block in self.backbone.children():
            states = block(states, mask)
        return masked_mean(states, mask)

    def layers(self) -> list[Layer]:
        blocks = [Layer(f"block.{i}", (block,)) for i, block in enumerate(self.backbone.children())]
        return [Layer("embeddings", (self.words,)), *blocks, Layer("head", (self.head,))]

    @property
    def word_embeddings(self) -> nn.Embedding:
        return self.words


class Numbers:
    """In the place of a tokenizer: a text is numbers of rows of the table, of which there are no
    other forms."""

    pad_token_id = 0

    @property
    def all_special_ids(self) -> list[int]:
        raise RecipeError("enrich", "does not apply to a stand-in", None, "Leave it out.")


@dataclass(frozen=True)
class Case:
    """Rows ready for fits: the labelled ones in ``prepared``, the ``test`` rows encoded like them,
    with their labels as they are and never wrong."""

    prepared: PreparedData
    test: EncodedTexts


def case(
    model: Model, texts: Sequence[str], labels: Sequence[str], test: Rows, settings: Any
) -> Case:
    """``settings`` are keys of a recipe, ``seed`` and ``train.…`` among them; ``minilm`` is no
    stand-in, but the model itself."""
    rows = table_from_texts(list(texts), list(labels))
    recipe = override(Recipe(task="text-classification"), as_settings(settings))
    if model == "minilm":
        whole = prepare(recipe.with_changes(train={"threads": 1}), rows)
        held = table_from_texts(list(test.texts), list(test.labels), classes=rows.classes)
        encoded = whole.definition.encode(held, whole.loaded, whole.recipe)
        assert isinstance(encoded, EncodedTexts)
        return Case(whole, encoded)
    decided = {"threads": 1, "precision": "float32", "matmul": "default", "cache_frozen": "off"}
    table, counts = states_of(model, (*texts, *test.texts))
    network = StandIn(model, table, len(rows.classes), recipe.seed)
    numbers = np.arange(1, len(table))
    cut = int(counts[: len(texts)].sum())
    marks = np.asarray(rows.column("label"), dtype=np.int64)
    of_test = np.array([rows.classes.index(label) for label in test.labels])
    prepared = PreparedData(
        recipe=recipe.with_changes(
            train=decided, control={"policy": recipe.control.policy or STOP}
        ),
        definition=task_definition("text-classification"),
        rows=rows,
        examples=_encoded(numbers[:cut], counts[: len(texts)], marks),
        loaded=LoadedModel(
            network, Numbers(), max(16, int(counts.max())), (), {}, settings={"pooling": "mean"}
        ),
        machine=MachineChoice(1, "float32", "default", ()),
        units=np.arange(len(marks)),
        findings=(),
        seconds=0.0,
    )
    return Case(prepared, _encoded(numbers[cut:], counts[len(texts) :], of_test))


def _encoded(ids: Array, counts: Array, labels: Array) -> EncodedTexts:
    return EncodedTexts(
        ids=ids.astype(np.int32),
        types=None,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        rows=np.arange(len(counts)),
        labels=labels,
        cut=np.zeros(len(counts), dtype=bool),
    )


def rows_of(data: str) -> Rows:
    """A whole set without copies."""
    return _whole(data)


@functools.cache
def _whole(data: str) -> Rows:
    return Rows(*balance.rows_of(data)) if data == "banking77" else clean_set(data)


KNOWN: dict[tuple[Model, str], torch.Tensor] = {}


def learn_vectors(data: str) -> None:
    """Know the vectors of every text of a set: made once and kept beside the recordings."""
    if data == "banking77":
        texts, found = rows_of(data).texts, _banking_vectors()
        where = {text: i for i, text in enumerate(texts)}
    else:
        table, where = table_of(data)
        found = table.numpy()
    KNOWN.update({("vectors", t): torch.from_numpy(found[i][None]) for t, i in where.items()})


def _banking_vectors() -> Array:
    kept = folder() / "stand-in-banking77.npy"
    if not kept.exists():
        found = embedded(rows_of("banking77").texts)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, ((found - found.mean(0)) / found.std()).numpy())
    return np.load(kept)  # type: ignore[no-any-return]


def states_of(model: Model, texts: tuple[str, ...]) -> tuple[torch.Tensor, Array]:
    """The rows of the table of these texts behind one of zeros, and how many each text has."""
    new = list(dict.fromkeys(text for text in texts if (model, text) not in KNOWN))
    if new:
        assert model == "upper", "learn_vectors(data) first"
        KNOWN.update({("upper", t): s for t, s in zip(new, _under_the_last(new), strict=True)})
    found = [KNOWN[model, text] for text in texts]
    zeros = torch.zeros(1, found[0].shape[1])
    return torch.cat([zeros, *found]), np.array([len(one) for one in found])


def _under_the_last(texts: Sequence[str]) -> list[torch.Tensor]:
    """The states that MiniLM's last block is given, of each text's first words."""
    tokenizer, model = encoder()
    cut = [first_words(text, WORDS) for text in texts]
    order = np.argsort([len(text) for text in cut], kind="stable")
    out: list[torch.Tensor] = [torch.empty(0)] * len(cut)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            batch = tokenizer([cut[i] for i in rows], padding=True, return_tensors="pt")
            states = model(**batch, output_hidden_states=True).hidden_states[-2]
            for place, row in enumerate(rows):
                out[row] = states[place, : int(batch["attention_mask"][place].sum())].clone()
    return out
