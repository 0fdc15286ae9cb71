"""The guard in SetFit's ``Trainer``: a head of the model's kind is fitted at each evaluation.

SetFit trains an encoder on pairs, then fits a classifier on its embeddings. The loss over pairs
says little about the classes, so an evaluation does what the end of SetFit's training does: it
embeds the training texts with the current encoder, fits a copy of the model's head on them, and
measures that head on the training sample and on the evaluation texts. The best encoder is restored
before SetFit fits the final head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Floats
from holdfast.core.run_facts import RunFacts
from holdfast.plugins.trainers.foreign import ForeignRun
from holdfast.plugins.trainers.losses import Formula
from holdfast.plugins.trainers.rows import training_sample
from holdfast.plugins.trainers.watch import GuardHandle
from holdfast.training.task import Measurements

CLASSES = Formula("classes")
MIN_PROBABILITY = 1e-12


def setfit_run(guard: GuardHandle, owner: Any, steps: int, pairs: int) -> ForeignRun:
    """A run of SetFit's ``Trainer``; ``pairs`` are its rows of an epoch."""
    rows = EmbeddedRows(guard, owner)
    body = owner.model.model_body
    guard.promise(
        Decision(
            "losses of rows",
            f"a {type(rows.head).__name__} on the embeddings",
            "SetFit fits its head after its encoder; the guard fits one at each evaluation",
        )
    )
    trainable = sum(p.numel() for p in body.parameters() if p.requires_grad)
    return ForeignRun(
        model=body,
        measure=rows,
        output=Path(owner.args.output_dir),
        trainer="SetFit Trainer",
        name=type(body).__name__,
        classes=rows.classes,
        rows_per_epoch=pairs,
        evaluated_rows=rows.evaluated_rows,
        run_facts=RunFacts(
            classes=len(rows.classes),
            planned_steps=steps,
            train_rows=len(rows.texts),
            trainable=trainable,
        ),
    )


class EmbeddedRows:
    """The texts of SetFit's trainer, measured by a head fitted on their current embeddings."""

    def __init__(self, guard: GuardHandle, owner: Any) -> None:
        self._model = owner.model
        self._batch = int(owner.args.embedding_batch_size)
        (self.texts, labels), (self._others, other_labels) = (
            (list(rows["text"]), list(rows["label"]))
            for rows in (owner.train_dataset, owner.eval_dataset)
        )
        self._values, self._labels = np.unique(labels, return_inverse=True)
        self.classes = tuple(str(value) for value in self._values)
        unknown_labels = sorted(set(other_labels) - set(self._values.tolist()))
        if unknown_labels or not len(other_labels):
            rule = "hold no row, or a label that no training row has"
            remedy = "Give evaluation rows of the trained classes."
            raise DataError("the evaluation rows", rule, unknown_labels or None, remedy)
        self._other_labels = np.searchsorted(self._values, other_labels)
        self._probe = training_sample(len(labels), len(other_labels), guard.sample_rows, guard.seed)
        self.head = _sklearn_head(self._model)
        # In pairs of texts, as the trainer counts its rows.
        self.evaluated_rows = (len(self.texts) + len(self._others)) // 2

    def __call__(self) -> tuple[Measurements, Measurements]:
        from sklearn.base import clone

        train, valid = self._embed(self.texts), self._embed(self._others)
        head = clone(self.head).fit(train, self._labels)
        return (
            _measure_head(head, train[self._probe], self._labels[self._probe]),
            _measure_head(head, valid, self._other_labels),
        )

    def _embed(self, texts: list[str]) -> Floats:
        embedded = self._model.model_body.encode(
            texts,
            batch_size=self._batch,
            convert_to_numpy=True,
            show_progress_bar=False,
            normalize_embeddings=self._model.normalize_embeddings,
        )
        return np.asarray(embedded, dtype=np.float64)


def _sklearn_head(model: Any) -> Any:
    """The model's scikit-learn head; logistic regression, SetFit's default, for a PyTorch head."""
    from sklearn.base import is_classifier
    from sklearn.linear_model import LogisticRegression

    if model.multi_target_strategy is not None:
        rule = "has several labels a row, which the guard cannot measure yet"
        remedy = "Train it without the guard's callback."
        raise DataError("the SetFit model", rule, model.multi_target_strategy, remedy)
    head = model.model_head
    usable = is_classifier(head) and hasattr(head, "predict_proba")
    return head if usable else LogisticRegression()


def _measure_head(head: Any, embedded: Floats, labels: Any) -> Measurements:
    # Nearest neighbours and trees give probabilities of 0. The softmax of log-probabilities returns
    # the probabilities, so they serve as logits.
    logits = np.log(np.maximum(head.predict_proba(embedded), MIN_PROBABILITY))
    losses = -logits[np.arange(len(labels)), labels]
    return CLASSES.measure(losses, logits)
