"""Texts as vectors, before any fit: the mean of a frozen encoder's last hidden states, scaled to
unit length; and the input of the last layer of the run's base model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import PreparedData
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.tasks import LABELLED_TEXT_TASKS
from holdfast.models.compute.device import on_best_device
from holdfast.models.compute.processor import use_onednn
from holdfast.models.loading.card import purpose_of
from holdfast.models.network_copy import copy_network
from holdfast.recipe import Recipe
from holdfast.training.machine.machine import choose_machine, make_accelerator, use_threads
from holdfast.training.observe import Observer
from holdfast.training.plan import batches_by_length
from holdfast.training.task import Examples

if TYPE_CHECKING:
    from holdfast.models.encoders.classifier import LoadedClassifier


Vectors = npt.NDArray[np.float32]
TOKENS = 2048
# Texts tokenized at once: memory stays bounded, whatever their number.
BLOCK = 4096
# The relative depth of an encoder's middle, where it still represents wording; its end does not.
MIDDLE_DEPTH = 2 / 3
# The head is not used; a classifier needs at least two class names.
UNUSED_CLASSES = ("a", "b")


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder: ``encoder(texts)`` gives [n, d] float32 of unit length, the same row for
    equal texts. ``name`` is the model's, ``max_length`` the number of tokens at which texts are
    cut."""

    name: str
    loaded: LoadedClassifier

    @property
    def max_length(self) -> int:
        return self.loaded.max_length

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    def __call__(
        self, texts: Sequence[str], report_done: Callable[[int], None] = lambda _: None
    ) -> Vectors:
        """The vectors of ``texts``; calls ``report_done`` with the distinct texts done so far."""
        return self.at_depths((1.0,), texts, report_done)[0]

    def at_depths(
        self,
        depths: Sequence[float],
        texts: Sequence[str],
        report_done: Callable[[int], None] = lambda _: None,
    ) -> tuple[Vectors, ...]:
        """The vectors of ``texts`` at several relative depths in one pass; 1 is the encoder's last
        layer."""
        places = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        distinct = list(places)
        width = int(self.loaded.network.config.hidden_size)
        vectors = np.zeros((len(depths), len(distinct), width), dtype=np.float32)
        for start in range(0, len(distinct), BLOCK):
            part = distinct[start : start + BLOCK]
            block = vectors[:, start : start + BLOCK]
            self._fill(block, part, depths, lambda n, s=start: report_done(s + n))  # type: ignore[misc]
        order = [places[text] for text in texts]
        return tuple(one[order] for one in vectors)

    def _fill(
        self,
        into: Vectors,
        texts: list[str],
        depths: Sequence[float],
        report_done: Callable[[int], None],
    ) -> None:
        import torch

        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
        count, network = 0, self.loaded.network
        with torch.inference_mode(), on_best_device(network, len(texts)) as device:
            for batch_rows in batches_by_length(lengths, np.arange(len(texts)), TOKENS):
                rows = {name: [cells[at] for at in batch_rows] for name, cells in encoded.items()}
                batch = self.tokenizer.pad(rows, return_tensors="pt").to(device)
                last = depths == (1.0,)
                embedded = (
                    network.embed(**batch)[:, None] if last else network.embed_at(depths, **batch)
                )
                unit = torch.nn.functional.normalize(embedded.float(), dim=2)
                into[:, batch_rows] = unit.transpose(0, 1).cpu().numpy()
                count += len(batch_rows)
                report_done(count)


def load_encoder(recipe: Recipe) -> tuple[Encoder, tuple[Decision, ...]]:
    """The recipe's model if it is an encoder of texts, else the embedded one, with the reason.

    Raises ``ModelError`` where the model cannot be found or read.
    """
    from holdfast.models.encoders.classifier import load_classifier
    from holdfast.models.loading.options import LoadOptions

    model = recipe.model
    decisions: tuple[Decision, ...] = ()
    name = model.name_or_embedded
    purpose = purpose_of(name, model.revision)
    if purpose not in ("encoder", None):
        because = (
            f"comparing texts by their vectors needs an encoder, and {name} is none ({purpose})"
        )
        decisions, name = (Decision("vectors by", EMBEDDED, because),), EMBEDDED
    is_own = name == model.name_or_embedded
    options = LoadOptions(seed=recipe.seed)
    if is_own:
        options = replace(
            options,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            max_length=model.max_length,
        )
    loaded = load_classifier(name, UNUSED_CLASSES, options)
    loaded.network.eval()
    train_settings = recipe.train
    machine = choose_machine(train_settings.threads, "float32", train_settings.matmul)
    if machine.matmul == "onednn":
        use_onednn(loaded.network)
    machine_decisions = tuple(
        d for d in machine.decisions if d.what in ("train.threads", "train.matmul")
    )
    return Encoder(name, loaded), (*decisions, *machine_decisions)


def has_classes(prepared: PreparedData) -> bool:
    """Whether each row is one text with one class."""
    has_one_class = prepared.rows.columns.one_class
    return (
        prepared.recipe.task in LABELLED_TEXT_TASKS
        and has_one_class
        and not prepared.rows.has_pairs
    )


def last_layer_vectors(
    prepared: PreparedData, examples: Examples, positions: Ints | None = None
) -> Floats:
    """The input of the base model's last layer [n, width] for encoded rows."""
    use_threads(prepared.machine.threads)
    network = copy_network(prepared.loaded.network)
    if prepared.recipe.train.matmul == "onednn":
        use_onednn(network)
    accelerator = make_accelerator(prepared.machine.precision)
    network.to(accelerator.device)
    task = prepared.definition.make_task(prepared.loaded, prepared.rows, prepared.recipe, None)
    everything = np.arange(len(examples)) if positions is None else positions
    return Observer(accelerator, task, alone=True).features(network, examples, everything)
