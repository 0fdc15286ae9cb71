"""The rows that the guard evaluates: a fixed sample of the training rows, held-out rows, and the
rows of a ``transformers.Trainer``, measured with its own collator and its own loss.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Trainer

from holdfast.core.errors import DataError
from holdfast.core.input_errors import first_line
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.plan.defaults import LEARNING_RATE_REGIONS, model_size
from holdfast.plugins.trainers.foreign import MOST_EVALUATIONS, user_code
from holdfast.plugins.trainers.losses import NEXT_TOKENS, Formula, find_formula, losses_only
from holdfast.plugins.trainers.watch import GuardHandle
from holdfast.plugins.trainers.weights import separate_generators, without_side_effects
from holdfast.quality.token_rows import token_rows
from holdfast.quality.tokens import check_tokens
from holdfast.tasks.generation.losses import IGNORED
from holdfast.training.plan import INFORMATIVE_PROBE_ROWS, MOST_PROBE_ROWS, affordable_evaluations
from holdfast.training.task import Measurements

LABELS = ("label", "labels", "label_ids")
MIN_ROWS = 2
LEAST_EVALUATIONS = 3
# Characters that are compared, each read once before the first step: some seconds.
MAX_COMPARED = 50_000_000
# Values whose text is their full content.
PLAIN_TYPES = {str, bytes, bool, int, float, complex, type(None)}


def training_sample(train: int, valid: int, requested: int | None, seed: int) -> Ints:
    """Positions of the training sample, ascending: as many as there are evaluation rows, but at
    least ``INFORMATIVE_PROBE_ROWS`` and at most ``MOST_PROBE_ROWS``, as in ``holdfast train``,
    unless ``requested`` gives the number. The same seed gives the same positions."""
    default = min(max(valid, INFORMATIVE_PROBE_ROWS), MOST_PROBE_ROWS)
    count = min(train, requested or default)
    return np.sort(generator(seed, "train_probe").permutation(train)[:count])


def default_evaluations(trained: float, epochs: float, evaluated: int) -> int:
    """How many evaluations the guard makes where nothing else says so, ``evaluated`` rows each,
    in a run that trains on ``trained`` rows in ``epochs``: as many as cost a tenth of the training,
    at least ``LEAST_EVALUATIONS`` and one per epoch, at most ``MOST_EVALUATIONS``."""
    affordable = affordable_evaluations(trained, evaluated)
    return min(MOST_EVALUATIONS, max(affordable, LEAST_EVALUATIONS, math.ceil(epochs)))


def evaluation_steps(steps: int, count: int) -> tuple[int, ...]:
    """About ``count`` steps, ascending, evenly over ``steps``, the last among them."""
    # With more evaluations than steps some round to 0, where the baseline evaluation is.
    return tuple(sorted({round((i + 1) * steps / count) for i in range(count)} - {0}))


def count_rows(dataset: Any, name: str) -> int:
    """The number of rows; refuses a data set that has no length or is not read by position.

    >>> count_rows([1, 2, 3], "the training rows")
    3
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        rule = "stream, so that no fixed sample of them can be measured repeatedly"
        remedy = "Give rows that have a length and are read by position, e.g. a `datasets.Dataset`."
        raise DataError(name, rule, type(dataset).__name__, remedy)
    return len(dataset)


def count_copied_rows(train: Any, valid: Any) -> tuple[int, int] | None:
    """How many evaluation rows are among the training rows too, whatever their labels, and of how
    many.

    ``None`` where reading them all would take too long, by the size of the first, or where a row
    holds an object with unknown content.
    """
    first = _contents(valid[0]) if len(valid) else None
    if first is None or len(first) * (len(train) + len(valid)) > MAX_COMPARED:
        return None
    train_keys, valid_keys = (
        [row_key(rows[i]) for i in range(len(rows))] for rows in (train, valid)
    )
    if None in train_keys or None in valid_keys:
        return None
    keys = set(train_keys)
    return sum(key in keys for key in valid_keys), len(valid)


def hold_out(dataset: Any, share: float, seed: int) -> tuple[Any, Any]:
    """``(training rows, held-out rows)``; exact duplicates stay in one split.

    Full groups of duplicates, in an order drawn from ``seed``, are held out until ``share`` of the
    rows is reached. Labels take no part in the comparison, so that a text with two labels is its
    own duplicate. The result is of the same kind for a ``datasets.Dataset``, else a
    ``torch.utils.data.Subset``. Raises ``DataError`` where one split would have fewer than two
    rows.
    """
    count = count_rows(dataset, "the training rows")
    # A row with unknown content is nobody's duplicate.
    keys = [row_key(dataset[i]) or str(i).encode() for i in range(count)]
    held_out = held_out_positions(keys, share, seed)
    training = np.setdiff1d(np.arange(count), held_out)
    if min(len(held_out), len(training)) < MIN_ROWS:
        rule = f"leave fewer than {MIN_ROWS} rows in a split when {share:g} of them are held out "
        rule += "by full groups of duplicates"
        remedy = "Give evaluation rows (`eval_dataset=`), or more training rows."
        raise DataError("the training rows", rule, count, remedy)
    if hasattr(dataset, "select"):
        return dataset.select(training.tolist()), dataset.select(held_out.tolist())
    from torch.utils.data import Subset

    return Subset(dataset, training.tolist()), Subset(dataset, held_out.tolist())


def held_out_positions(keys: Sequence[bytes], share: float, seed: int) -> Ints:
    """Positions [n] to hold out, ascending; equal keys are all in or all out."""
    _, group = np.unique(np.array(keys, dtype="S16"), return_inverse=True)
    sizes = np.bincount(group)
    order = generator(seed, "hold_out").permutation(len(sizes))
    rows_before = np.cumsum(sizes[order]) - sizes[order]
    selected_groups = order[rows_before < share * len(keys)]
    return np.flatnonzero(np.isin(group, selected_groups))


def row_key(row: Any) -> bytes | None:
    """A digest of a row without its labels; ``None`` where its content is unknown."""
    contents = _contents(row)
    if contents is None:
        return None
    encoded = contents.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=8).hexdigest().encode()


def _contents(row: Any) -> str | None:
    """The content of a row without its labels; ``None`` where a part of it is unknown."""
    if isinstance(row, Mapping):
        inputs = [(str(k), v) for k, v in row.items() if k not in LABELS]
        parts = sorted(inputs, key=lambda item: item[0]) or list(row.items())
    elif isinstance(row, (tuple, list)) and len(row) > 1:
        # In PyTorch's data sets the label comes last by convention.
        parts = [(str(i), value) for i, value in enumerate(row[:-1])]
    else:
        parts = [("row", row)]
    named_texts = [(name, _text_of(value)) for name, value in parts]
    if any(text is None for _, text in named_texts):
        return None
    return "".join(f"{name}={text};" for name, text in named_texts)


def _text_of(value: Any) -> str | None:
    """The full content of a value, which its own text may lack: an array's leaves the middle out,
    an object's is a memory address.
    """
    if type(value) in PLAIN_TYPES:
        return repr(value)
    if hasattr(value, "tolist"):
        return _text_of(value.tolist())
    if isinstance(value, Mapping):
        value = sorted(([str(key), one] for key, one in value.items()), key=lambda pair: pair[0])
    if isinstance(value, (list, tuple)):
        if set(map(type, value)) <= PLAIN_TYPES:
            return repr(list(value))
        parts = [_text_of(one) for one in value]
        joined = [one for one in parts if one is not None]
        return f"[{', '.join(joined)}]" if len(joined) == len(parts) else None
    if all(hasattr(value, name) for name in ("tobytes", "mode", "size")):
        # An image of PIL.
        return f"{value.mode}{value.size}{value.tobytes()!r}"
    return None


MIN_FULL_SHARE = 0.5
# Training rows of a language model that are checked before the first step, and what of them.
CHECKED_ROWS = 200
TOKEN_NAMES = ("input_ids", "labels", "attention_mask")


class LoaderRows:
    """One set of rows of a trainer and the collator that makes its batches."""

    def __init__(self, loader: Any, positions: Ints | None = None) -> None:
        self.dataset = loader.dataset
        self.collate = loader.collate_fn
        self.positions = np.arange(len(loader.dataset)) if positions is None else positions

    def spread(self, count: int) -> LoaderRows:
        """At most ``count`` of the rows, spread over the set."""
        at = np.unique(np.linspace(0, len(self.positions) - 1, count).astype(int))
        fewer = copy.copy(self)
        fewer.positions = self.positions[at]
        return fewer

    def spread_batch(self, size: int) -> tuple[int, Any]:
        """One batch of rows spread over the set, which may be sorted by class."""
        positions = self.spread(size).positions
        return len(positions), self._batch(positions)

    def batches(self, size: int) -> Iterator[tuple[int, Any]]:
        """Batches of up to ``size`` rows in order, each with its number of rows."""
        for start in range(0, len(self.positions), size):
            part = self.positions[start : start + size]
            yield len(part), self._batch(part)

    def measure(
        self,
        formula: Formula | None,
        size: int,
        predict: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
        row_loss: Callable[[Any], float],
    ) -> Measurements:
        """Measure the rows with ``formula`` from the logits and labels that ``predict`` returns for
        batches of ``size``; without a formula, each row with ``row_loss``.
        """
        if formula is None:
            return losses_only(np.array([row_loss(batch) for _, batch in self.batches(1)]))
        return formula.measure_batches(predict(batch) for _, batch in self.batches(size))

    def _batch(self, positions: Ints) -> Any:
        with user_code("the data set or its collator"):
            return self.collate([self.dataset[int(i)] for i in positions])


class TrainerRows:
    """Measures the training sample and the evaluation rows of one trainer (of several named sets
    the first); says how their losses are computed.

    The rows of a batch go through the model together, and the loss of each is computed from the
    logits by the formula whose mean is the model's own loss (label smoothing is left out). Where
    the trainer computes its loss in a way of its own, or no formula gives the model's number, each
    row goes through ``trainer.compute_loss`` by itself; ``formula`` is then ``None``.
    """

    def __init__(self, guard: GuardHandle, trainer: Any, train_loader: Any) -> None:
        count_rows(trainer.train_dataset, "the training rows")
        name, sets = None, trainer.eval_dataset
        if isinstance(sets, dict):
            name = next(iter(sets))
            because = f"the trainer has several sets: {', '.join(sets)}"
            guard.promise(Decision("evaluation rows", str(name), because))
        loader = trainer.get_eval_dataloader(name)
        n_valid = count_rows(loader.dataset, "the evaluation rows")
        if not n_valid:
            raise DataError("the evaluation rows", "are empty", 0, "Give eval_dataset=… some rows.")
        self.trainer = trainer
        self.train_rows = len(train_loader.dataset)
        self.formula: Formula | None = None
        sample = training_sample(self.train_rows, n_valid, guard.sample_rows, guard.seed)
        self.evaluated_rows = len(sample) + n_valid
        self._probe, self._valid = LoaderRows(train_loader, sample), LoaderRows(loader)
        self._size = max(1, int(trainer.args.per_device_eval_batch_size))
        with (
            without_side_effects(trainer.model, guard.seed),
            separate_generators(loader.collate_fn),
        ):
            because = self._find_formula()
            self.n_copied = count_copied_rows(train_loader.dataset, loader.dataset)
            faults = self._checked_tokens()
        loss_source = (
            f"the formula for {self.formula.name}" if self.formula else "the trainer's own"
        )
        guard.promise(Decision("losses of rows", loss_source, because))
        for one in faults:
            guard.promise(one)

    def _checked_tokens(self) -> tuple[Decision, ...]:
        """What is told of the tokens of the training rows. Nothing about them stops a run: what
        cannot be checked is told."""
        try:
            faults = self._token_faults()
        except Exception as error:
            because = f"{type(error).__name__}: {first_line(error)}"
            return (Decision("tokens of the training rows", "not checked", because),)
        return tuple(
            Decision(
                f"training rows, {one.check.replace('_', ' ')}",
                f"Warning: {one.because}",
                one.remedy,
            )
            for one in faults
        )

    def _token_faults(self) -> tuple[Finding, ...]:
        """Faults of the training rows of a language model, as its collator makes them: what is
        masked, trained, cut or lost (``quality/tokens.py``)."""
        tokenizer: Any = getattr(self.trainer, "processing_class", None)
        writes = self.formula is not None and self.formula.name == NEXT_TOKENS
        if not writes or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return ()
        sample = self._probe.spread(CHECKED_ROWS)
        collated = [
            {name: value[0].tolist() for name, value in dict(batch).items() if name in TOKEN_NAMES}
            for _, batch in sample.batches(1)
        ]
        rows = token_rows(collated, tokenizer)
        numbered = [
            replace(row, number=int(number))
            for row, number in zip(rows, sample.positions, strict=True)
        ]
        return check_tokens(numbered, tokenizer)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of a classifier, in the order of the logits."""
        names = getattr(self.trainer.model.config, "id2label", None) or {}
        classifies = self.formula is not None and self.formula.is_classification
        return tuple(str(names[i]) for i in sorted(names)) if classifies else ()

    def __call__(self) -> tuple[Measurements, Measurements]:
        with separate_generators(self._probe.collate, self._valid.collate):
            probe, valid = (
                part.measure(self.formula, self._size, self._predict, self._row_loss)
                for part in (self._probe, self._valid)
            )
        return probe, valid

    def _find_formula(self) -> str:
        """Decide how losses are computed, from one batch of evaluation rows with the model in
        evaluation mode; returns the reason.
        """
        if reason := custom_loss_reason(self.trainer):
            return f"{reason}, so each row goes through compute_loss by itself"
        count, batch = self._valid.spread_batch(self._size)
        tensors = [value for value in dict(batch).values() if torch.is_tensor(value)]
        if not all(tensor.dim() > 0 and len(tensor) == count for tensor in tensors):
            # A collator without padding concatenates its rows.
            self._size = 1
            _, batch = self._valid.spread_batch(1)
        labels, outputs = self._forward(batch)
        loss, logits = _read(outputs, "loss"), _read(outputs, "logits")
        if labels is not None and loss is not None:
            self.formula = find_formula(logits, labels, float(loss))
        if self.formula is not None:
            return f"its mean over a batch is the model's own loss ({float(loss):.6g})"
        why = "no known formula gives the model's own loss"
        return f"{why}, so each row goes through compute_loss by itself"

    def _predict(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        labels, outputs = self._forward(batch)
        return _read(outputs, "logits"), labels

    def _forward(self, batch: Any) -> tuple[Any, Any]:
        inputs = self._to_device(batch)
        with user_code("the model"):
            return inputs.get("labels"), self.trainer.model(**inputs)

    def _row_loss(self, batch: Any) -> float:
        # TRL's trainers collect means of what passes through compute_loss, for their logs.
        inputs = self._to_device(batch)
        if _without_target(inputs.get("labels")):
            # The mean over no targets is undefined. In a batch such a row takes no part.
            return 0.0
        collected = copy.deepcopy(getattr(self.trainer, "_metrics", None))
        with user_code("compute_loss"):
            loss = float(self.trainer.compute_loss(self.trainer.model, inputs))
        if collected is not None:
            self.trainer._metrics = collected
        return loss

    def _to_device(self, batch: Any) -> dict[str, Any]:
        from accelerate.utils import send_to_device

        sent: dict[str, Any] = dict(send_to_device(batch, self.trainer.args.device))
        return sent


def custom_loss_reason(trainer: Any) -> str:
    """Why this trainer's loss is not the model's own; empty where it is."""
    if getattr(trainer, "compute_loss_func", None) is not None:
        return "the trainer has a compute_loss_func"
    owner = next(k for k in type(trainer).__mro__ if "compute_loss" in vars(k))
    loss_type = str(getattr(trainer.args, "loss_type", "nll"))
    # Under ``nll`` TRL's own method returns the mean cross-entropy of the tokens and collects
    # figures for its log.
    if owner.__module__ == "trl.trainer.sft_trainer":
        return "" if loss_type == "nll" else f"the trainer's loss_type is {loss_type}"
    return "" if owner is Trainer else f"{owner.__name__} has a compute_loss of its own"


def run_facts(trainer: Any, rows: TrainerRows, steps: int) -> RunFacts:
    """What the trainer knows about its run."""
    model = trainer.model
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trainable = sum(size for size, learns in sizes if learns)
    if rows.formula is not None and rows.formula.is_generative:
        task = "seq2seq" if getattr(model.config, "is_encoder_decoder", False) else "causal-lm"
    else:
        pictures = getattr(model, "main_input_name", "") == "pixel_values"
        task = "image-classification" if pictures else "text-classification"
    size = model_size(trainable)
    regions = {
        "text-classification": size,
        "seq2seq": "seq2seq",
        "causal-lm": f"{size} decoder",
        "image-classification": "vision",
    }
    # An adapter, or only a head, needs other learning rates than the full network.
    full_training = trainable >= MIN_FULL_SHARE * sum(size for size, _ in sizes)
    half = trainer.args.fp16 or trainer.args.bf16 or model.dtype != torch.float32
    return RunFacts(
        task=task,
        classes=model.config.num_labels
        if rows.formula and rows.formula.is_classification
        else None,
        planned_steps=steps,
        train_rows=rows.train_rows,
        trainable=trainable,
        usual_rates=LEARNING_RATE_REGIONS.get(regions[task]) if full_training else None,
        copied_valid=rows.n_copied,
        # A setting that remedies name and that the trainer already has.
        refused=() if half else ("train.precision=float32",),
    )


def _without_target(labels: Any) -> bool:
    """Whether cross-entropy ignores every label of a batch."""
    has_class_labels = torch.is_tensor(labels) and not labels.is_floating_point()
    return has_class_labels and labels.numel() > 0 and bool((labels == IGNORED).all())


def _read(outputs: Any, name: str) -> Any:
    value = outputs.get(name) if hasattr(outputs, "get") else None
    return value[0] if isinstance(value, (tuple, list)) and value else value
