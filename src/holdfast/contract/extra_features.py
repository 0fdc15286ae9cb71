"""A linear layer over feature columns, added to a text classifier's logits:

    z = s · z_text + W · x + b

with x the columns as ``data/columns/extra.py`` reads them. On disk it is plain:
``features/features.json`` (the columns and how they are read, s) and
``features/features.safetensors`` (``weight`` [classes, width], ``bias`` [classes], float64).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.contract.run_folder import open_run
from holdfast.core.errors import DataError, RunError
from holdfast.core.files import disk_errors, write_json
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision, Finding, Floats, Ints, log_sum_exp
from holdfast.core.run_files import check_files
from holdfast.data.columns.extra import (
    COLUMN_PREFIX,
    TEXT_FEATURES,
    Column,
    ColumnRequest,
    column_cells,
)
from holdfast.data.table import Table

FOLDER, JSON, WEIGHTS = "features", "features.json", "features.safetensors"


@dataclass(frozen=True)
class ExtraFeaturesLayer:
    """The layer over feature columns. ``classes`` are those of the text part, in the order of its
    logits.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    weight: Floats
    bias: Floats
    scale: float = 1.0

    @property
    def required_columns(self) -> tuple[ColumnRequest, ...]:
        """The columns that rows must have, including facts of the text."""
        return tuple(ColumnRequest(column.name, column.kind) for column in self.columns)

    def encode(self, table: Table) -> Floats:
        """The rows' columns as numbers [n, width]. Raises ``DataError`` where one is missing."""
        there = {name.removeprefix(COLUMN_PREFIX) for name in table.rows.column_names} | set(
            TEXT_FEATURES
        )
        lacking = [column.name for column in self.columns if column.name not in there]
        if lacking:
            raise DataError(
                table.source,
                f"lacks the feature columns {', '.join(map(repr, lacking))}, which the model reads",
                None,
                "Use a table with these columns in addition to the text.",
            )
        return encode_columns(self.columns, table)

    def add(self, logits: Floats, table: Table, classes: Sequence[str]) -> Floats:
        """The text part's ``logits`` [n, classes] of these rows plus those of the columns; in the
        order ``classes``.
        """
        order = [self.classes.index(name) for name in classes]
        feature_logits = self.encode(table) @ self.weight.T + self.bias
        return np.asarray(
            self.scale * np.asarray(logits, dtype=np.float64) + feature_logits[:, order]
        )

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        from safetensors.numpy import save_file

        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            weights = {"weight": self.weight, "bias": self.bias}
            plain = {name: np.ascontiguousarray(value) for name, value in weights.items()}
            save_file(plain, folder / WEIGHTS)
            columns = [{**asdict(column), "width": column.width} for column in self.columns]
            about = {"schema": 1, "classes": list(self.classes), "scale": self.scale}
            write_json(folder / JSON, {**about, "columns": columns})


def saved_layer(run: Path) -> ExtraFeaturesLayer | None:
    """The layer of a finished run, ``None`` where it has none. Raises ``RunError`` where its files
    were changed since the run ended."""
    result = open_run(run)
    wrapper = result.get("wrapper")
    if not wrapper or wrapper.get("kind") != FOLDER:
        return None
    check_files(run, result, [f"{FOLDER}/{JSON}", f"{FOLDER}/{WEIGHTS}"])
    return load_extra_features(run / FOLDER)


def load_extra_features(folder: Path) -> ExtraFeaturesLayer:
    """Load the layer that ``save`` wrote. Raises ``RunError`` where a file is broken."""
    from safetensors.numpy import load_file

    with reading_errors(str(folder), RunError, "cannot be read", "Restore it from a copy."):
        about: dict[str, Any] = json.loads((folder / JSON).read_text("utf-8"))
        weights = load_file(folder / WEIGHTS)
        columns = tuple(Column(c["name"], c["kind"], c["facts"]) for c in about["columns"])
        layer = ExtraFeaturesLayer(
            columns,
            tuple(about["classes"]),
            weights["weight"],
            weights["bias"],
            float(about["scale"]),
        )
        if layer.weight.shape != (len(layer.classes), sum(c.width for c in columns)):
            raise ValueError("the shape of the weights does not fit these columns")
        return layer


def encode_columns(columns: Sequence[Column], table: Table) -> Floats:
    """Columns of a table, concatenated [n, Σ width]."""
    parts = [column.encode(column_cells(table, column.name)) for column in columns]
    return np.column_stack(parts) if parts else np.zeros((len(table), 0))


def fit_extra_features(x: Floats, labels: Ints, offset: Floats, c: float) -> tuple[Floats, Floats]:
    """Fit W [classes, width] and b [classes] that minimise the mean of −log softmax(offset + x·W +
    b) plus ‖W‖² ÷ (2 c n).

    This is logistic regression in which the text's logits ``offset`` [n, classes] have the
    coefficient 1.
    """
    from scipy.optimize import minimize

    n, classes = offset.shape
    rows, width = np.arange(n), x.shape[1]

    def value(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(classes, width + 1)
        logits = offset + x @ table[:, :-1].T + table[:, -1]
        sums = log_sum_exp(logits)
        loss = (sums - logits[rows, labels]).sum() + (table[:, :-1] ** 2).sum() / (2 * c)
        gap = np.exp(logits - sums[:, None])
        gap[rows, labels] -= 1
        slope = np.column_stack([gap.T @ x + table[:, :-1] / c, gap.sum(axis=0)])
        return float(loss) / n, slope.reshape(-1) / n

    first = np.zeros(classes * (width + 1))
    solution = minimize(value, first, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    table = solution.reshape(classes, width + 1)
    return np.asarray(table[:, :-1]), np.asarray(table[:, -1] - table[:, -1].mean())


@dataclass(frozen=True, slots=True)
class ExtraFeaturesResult:
    """Result of the feature columns: the ``layer`` over them, or ``None`` where they did not prove
    useful; ``block`` is ``wrapper`` of ``result.json``.
    """

    layer: ExtraFeaturesLayer | None
    decision: Decision
    block: Mapping[str, Any]
    findings: tuple[Finding, ...]
