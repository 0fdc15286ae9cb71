"""Finished runs as teachers: their saved models' outputs for rows, or for a student's batches.

The output for a row depends only on the row, so it is computed once, with the teacher's own
tokenizer or processor. A target token has as many outputs as the vocabulary has words: a generative
teacher is queried at every pass, with the student's tokens. So is any teacher where rows are
enriched.

Also pairs the blocks of an encoder and of its teacher, for ``distill.hidden`` and
``distill.attention``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.contract.inference import run_recipe
from holdfast.contract.run_folder import MODEL
from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Ints
from holdfast.core.tasks import LABELLED_TEXT_TASKS, TAGGING_TASKS
from holdfast.core.updates import ForwardPass, logits_of
from holdfast.data.table import Table
from holdfast.methods.teacher import InnerStateLoss, ModuleOutputs
from holdfast.models.depth import select_blocks
from holdfast.models.encoders.general import TextNetwork
from holdfast.models.loading.adapter_folder import is_adapter_folder
from holdfast.recipe import Recipe
from holdfast.tasks import task_definition
from holdfast.tasks.classes.answers import TextPredictor
from holdfast.tasks.classes.encoding import TextModel, run_texts
from holdfast.tasks.images.losses import VisionModel, forward_images
from holdfast.tasks.images.task import ImagePredictor
from holdfast.tasks.lines import take_lines
from holdfast.tasks.tags.answers import TagPredictor
from holdfast.tasks.tags.losses import EncodedWords, TokenClassification, encode_words
from holdfast.tasks.tags.scores import word_outputs
from holdfast.training.task import TARGETS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.training.task import Batch, Examples, TrainingTask


# Rows whose tokens are compared to test whether two tokenizers are equivalent.
COMPARED_ROWS = 100


@dataclass(frozen=True, slots=True, eq=False)
class RowAnswers:
    """``values`` [m, outputs] of each row, or where ``starts`` [rows + 1] is given, of the words of
    each row; ``known`` [m] whether the teacher read it, where some may be missing."""

    values: Floats
    starts: Ints | None = None
    known: Any = None


class Teacher(Protocol):
    """One finished run that is queried for its outputs, in the student's order."""

    @property
    def network(self) -> Any:
        """The plain model."""

    def rows(self, table: Table, examples: Examples | None) -> RowAnswers | None:
        """Its outputs for each row of ``table``, which the student reads as ``examples``; ``None``
        where it can only be queried at every pass."""

    def batch(self, task: TrainingTask, batch: Batch) -> torch.Tensor:
        """Its logits for a batch of the student's."""

    def differs(self, prepared: PreparedData) -> str | None:
        """Why it cannot read the student's batches, as a clause; ``None`` where it can."""


def load_teachers(runs: Sequence[Path], prepared: PreparedData) -> tuple[Teacher, ...]:
    """The runs as teachers for the prepared rows.

    Raises ``RecipeError`` where they have other classes than the rows.
    """
    rows, task = prepared.rows, str(prepared.recipe.task)
    loaded_runs: Any = [task_definition(task).use_runs([run]) for run in runs]
    names = rows.classes if rows.columns.one_class else rows.names
    teachers: list[Teacher] = []
    for run, one in zip(runs, loaded_runs, strict=True):
        if isinstance(one, TextPredictor):
            label_type = rows.columns.label_kind or "class"
            if one.label_kind != label_type:
                raise _mismatch(run, f"label type is {one.label_kind}", label_type)
            teachers += [
                TextTeacher(
                    m, None if label_type == "number" else _class_order(run, m.classes, names)
                )
                for m in one.models
            ]
        elif isinstance(one, ImagePredictor):
            teachers += [ImageTeacher(m, _class_order(run, m.classes, names)) for m in one.models]
        elif isinstance(one, TagPredictor):
            teachers += [
                TagTeacher(m, _class_order(run, m.classes, rows.names)) for m in one.models
            ]
        else:
            teachers.append(GenerativeTeacher(one.network.eval(), one.tokenizer))
    return tuple(teachers)


def _class_order(run: Path, known: Sequence[str], required: Sequence[str]) -> Ints:
    if set(known) != set(required):
        other = ", ".join(sorted(set(known) ^ set(required))[:5])
        raise _mismatch(run, "classes are not those of the rows", other)
    index_of = {name: i for i, name in enumerate(known)}
    return np.array([index_of[name] for name in required], dtype=np.int64)


def _mismatch(run: Path, fault: str, value: str) -> RecipeError:
    rule = f"names {run}, whose {fault}: it cannot teach them"
    return RecipeError("distill.teacher", rule, value, "Name runs that were trained on these rows.")


@dataclass(frozen=True, slots=True, eq=False)
class TextTeacher:
    """A text classifier; ``order`` [outputs] are its outputs in the student's order."""

    model: TextModel
    order: Ints | None

    @property
    def network(self) -> Any:
        return self.model.network

    def rows(self, table: Table, examples: Examples | None) -> RowAnswers:
        outputs = 1 if self.order is None else len(self.order)
        model = self.model
        _, outputs_of_rows = run_texts(
            model.network, model.tokenizer, model.max_length, outputs, table
        )
        return RowAnswers(outputs_of_rows if self.order is None else outputs_of_rows[:, self.order])

    def batch(self, task: TrainingTask, batch: Batch) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name not in TARGETS}
        logits: torch.Tensor = self.model.network(**inputs)
        return logits if self.order is None else logits[:, self.order.tolist()]

    def differs(self, prepared: PreparedData) -> str | None:
        return _tokenization_difference(self.model.tokenizer, prepared, _texts)


@dataclass(frozen=True, slots=True, eq=False)
class ImageTeacher:
    """An image classifier."""

    model: VisionModel
    order: Ints

    @property
    def network(self) -> Any:
        return self.model.network

    def rows(self, table: Table, examples: Examples | None) -> RowAnswers:
        model = self.model
        known = model.classes
        forward = forward_images(model.network, model.processor, model.channels, known, table)
        return RowAnswers(forward.logits[:, self.order])

    def batch(self, task: TrainingTask, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = self.model.network(pixel_values=batch["pixel_values"])
        return logits[:, self.order.tolist()]

    def differs(self, prepared: PreparedData) -> str | None:
        student_processor, teacher_processor = (
            prepared.loaded.tokenizer.to_dict(),
            self.model.processor.to_dict(),
        )
        return (
            None
            if student_processor == teacher_processor
            else "its image processor changes images in another way"
        )


@dataclass(frozen=True, slots=True, eq=False)
class TagTeacher:
    """A tagger: its outputs for each word that the student reads, however either tokenizes the
    word."""

    model: TextModel
    order: Ints

    @property
    def network(self) -> Any:
        return self.model.network

    def rows(self, table: Table, examples: Examples | None) -> RowAnswers:
        assert isinstance(examples, EncodedWords)
        model = self.model
        task = TokenClassification(int(model.tokenizer.pad_token_id), model.classes)
        encoded = encode_words(table, model.tokenizer, model.max_length, need_words=False)
        word_logits: Any = word_outputs(model.network, encoded, task)[:, self.order]
        longest = int(encoded.counts.max(initial=0)) + 1
        teacher_words = np.repeat(np.arange(len(encoded)), encoded.read) * longest + encoded.words
        student_words = np.repeat(examples.kept, examples.read) * longest + examples.words
        places = np.minimum(
            np.searchsorted(teacher_words, student_words), max(0, len(teacher_words) - 1)
        )
        known = (
            teacher_words[places] == student_words
            if len(teacher_words)
            else np.zeros(len(student_words), dtype=bool)
        )
        values = (
            np.where(known[:, None], word_logits[places], 0.0)
            if len(teacher_words)
            else np.zeros((len(places), 1))
        )
        return RowAnswers(values.astype(np.float32), examples.starts, known)

    def batch(self, task: TrainingTask, batch: Batch) -> torch.Tensor:
        inputs = {k: v for k, v in batch.items() if k not in ("where", "tags", "counts")}
        logits: torch.Tensor = self.model.network(**inputs)
        return logits.flatten(0, 1)[batch["where"]][:, self.order.tolist()]

    def differs(self, prepared: PreparedData) -> str | None:
        return _tokenization_difference(self.model.tokenizer, prepared, _words)


@dataclass(frozen=True, slots=True, eq=False)
class GenerativeTeacher:
    """A generative model, queried at each target token."""

    network: Any
    tokenizer: Any

    def rows(self, table: Table, examples: Examples | None) -> None:
        return None

    def batch(self, task: TrainingTask, batch: Batch) -> torch.Tensor:
        return logits_of(task.forward(self.network, batch))

    def differs(self, prepared: PreparedData) -> str | None:
        return _tokenization_difference(self.tokenizer, prepared, _texts)


Read = Callable[[Any, Table], list[list[int]]]


def _texts(tokenizer: PreTrainedTokenizerBase, table: Table) -> list[list[int]]:
    ids: list[list[int]] = tokenizer([str(text) for text in table.column("text")], verbose=False)[
        "input_ids"
    ]
    return ids


def _words(tokenizer: PreTrainedTokenizerBase, table: Table) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(
        table.column("tokens"), is_split_into_words=True, verbose=False
    )["input_ids"]
    return ids


def _tokenization_difference(
    tokenizer: PreTrainedTokenizerBase, prepared: PreparedData, read: Read
) -> str | None:
    student_tokenizer, table = prepared.loaded.tokenizer, prepared.rows
    if tokenizer.get_vocab() != student_tokenizer.get_vocab():
        return "its vocabulary differs from the student's"
    sample = table.take(np.arange(min(COMPARED_ROWS, len(table))))
    same = read(tokenizer, sample) == read(student_tokenizer, sample)
    return None if same else "it tokenizes texts differently than the student"


def answers_at(answers: RowAnswers, places: Ints) -> RowAnswers:
    """The outputs for the examples at these places, one after the other."""
    if answers.starts is None:
        return RowAnswers(answers.values[places])
    positions = take_lines(np.arange(int(answers.starts[-1])), answers.starts, places)
    lengths = np.diff(answers.starts)[places]
    return RowAnswers(
        answers.values[positions],
        np.concatenate([[0], np.cumsum(lengths)]),
        answers.known[positions],
    )


# The submodule names of values in a block, and of queries and keys.
QUERY_KEY_NAMES = {"value": ("query", "key"), "v_lin": ("q_lin", "k_lin")}
QUERY_KEY_NAMES["value_proj"] = ("query_proj", "key_proj")
QUERY_KEY_NAMES["v"] = ("q", "k")
NOT_READ = ("labels", "where", "tags", "counts")


def load_inside_teacher(
    run: Path, prepared: PreparedData, differs: str | None
) -> TextNetwork | None:
    """The network of the run with its blocks, where the recipe distils from them.

    Raises ``RecipeError`` where they cannot be compared with the student's.
    """
    recipe = prepared.recipe
    weights = {"hidden": recipe.distill.hidden, "attention": recipe.distill.attention}
    keys = [f"distill.{name}" for name, weight in weights.items() if weight]
    if not keys:
        return None
    why = differs
    if recipe.task not in (*LABELLED_TEXT_TASKS, *TAGGING_TASKS):
        why = f"it does not support {recipe.task}"
    elif is_adapter_folder(run / MODEL):
        why = f"{run} is an adapter without its base model"
    elif recipe.model.static:
        why = "a static student's blocks are not its teacher's"
    elif recipe.model.freeze not in (None, "words", "none"):
        why = "with model.freeze some blocks are not computed"
    if why:
        raise RecipeError(keys[0], f"is not possible: {why}", None, "Leave it out.")
    teacher_recipe = run_recipe(run)
    teacher_model = teacher_recipe.model.model_copy(
        update={"name": str(run / MODEL), "layers": None}
    )
    loaded: Any = prepared.definition.load(
        teacher_recipe.model_copy(update={"model": teacher_model}), prepared.rows
    )
    network = loaded.network.eval()
    if recipe.distill.attention:
        _attention_modules(network)
        _attention_modules(prepared.loaded.network)
    assert isinstance(network, TextNetwork)
    return network


def inside_losses(recipe: Recipe, teacher: TextNetwork, student: TextNetwork) -> InnerStateLoss:
    """The additional losses of a fit whose network is ``student``."""
    teacher_blocks, student_blocks = _blocks(teacher), _blocks(student)
    distill, spread = recipe.distill, recipe.model.layers_kept
    pairs = _block_pairs(
        len(teacher_blocks), len(student_blocks), recipe.model.layers is not None, spread
    )
    heads = math.gcd(*(int(n.config.num_attention_heads) for n in (teacher, student)))
    modules: list[dict[str, Any]] = []
    for network, blocks in ((teacher, teacher_blocks), (student, student_blocks)):
        blocks_by_name = {f"block {i}": block for i, block in enumerate(blocks)}
        modules.append(
            {**blocks_by_name, **(_attention_modules(network) if distill.attention else {})}
        )

    def ask(passed: ForwardPass) -> None:
        inputs = {k: v for k, v in passed.batch.items() if k not in NOT_READ}
        teacher.to(inputs["input_ids"].device).hidden(**inputs)

    return InnerStateLoss(
        ask,
        ModuleOutputs(modules[0], always=True),
        ModuleOutputs(modules[1]),
        distill.hidden,
        distill.attention,
        [(f"block {a}", f"block {b}") for a, b in pairs],
        ("query", "key", "value") if distill.attention else (),
        heads,
    )


def _block_pairs(
    teacher_count: int, student_count: int, is_cut: bool, layers_kept: Literal["spread", "first"]
) -> list[tuple[int, int]]:
    """The teacher's block for each block of the student: the original block where the student is a
    part of the teacher, else the one at the same relative depth."""
    if is_cut and student_count <= teacher_count:
        return list(
            zip(
                select_blocks(teacher_count, student_count, layers_kept),
                range(student_count),
                strict=True,
            )
        )
    return [
        (max(0, round((i + 1) * teacher_count / student_count) - 1), i)
        for i in range(student_count)
    ]


def _blocks(network: TextNetwork) -> list[Any]:
    return [one.modules[0] for one in network.layers() if one.name.startswith("block.")]


def _attention_modules(network: Any) -> Mapping[str, Any]:
    """The queries, keys and values of the last block."""
    family, block = getattr(network, "family", None), _blocks(network)[-1]
    place = family.block.value if family is not None and family.block is not None else ""
    parent, _, name = place.rpartition(".")
    if name not in QUERY_KEY_NAMES:
        model = network.config.model_type if family is None else family.name
        rule = f"is not possible: {model} has no separate queries, keys and values that are known"
        raise RecipeError("distill.attention", rule, None, "Leave it out.")
    query, key = QUERY_KEY_NAMES[name]
    submodules = {"query": query, "key": key, "value": name}
    return {role: block.get_submodule(f"{parent}.{one}") for role, one in submodules.items()}
