"""Predictions as `holdfast predict` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.analyses.evaluation import predict
from holdfast.runs.prediction_file import json_object


def predict_lines(runs: Sequence[Path], data: Any) -> list[str]:
    """The predictions as one JSON object per row."""
    predicted = predict(runs, data)
    return [
        json.dumps(row, ensure_ascii=False)
        for part in predicted.parts()
        for row in json_object(predicted, part)
    ]
