"""An engine answers as ``predict`` does, for every kind of task and of labels."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contracts.test_predictors import fitted_of, reloaded

from holdfast.analyses.vectors import predict_with_vectors
from holdfast.core.errors import InputError
from holdfast.plugins.service.engine.engine import ModelEngine
from holdfast.plugins.service.engine.open import engine_of
from holdfast.plugins.service.engine.precision import choose_precision
from holdfast.plugins.service.records import RowPrediction, RowPredictions
from holdfast.recipe import override
from holdfast.runs.predictor import Predictor

__all__ = ["fitted_of"]
CLOSE = 1e-5


@pytest.fixture
def served(
    request: pytest.FixtureRequest, sample: Any, fitted_of: Any, tmp_path: Path
) -> Iterator[tuple[Any, Predictor, ModelEngine]]:
    sample, fitted = fitted_of(request.node.callspec.params["sample"])
    use, recipe = reloaded(fitted, tmp_path / "model"), fitted.recipe
    if recipe.task == "text-classification" and not recipe.data.text:
        # The recipe of a run names its columns.
        recipe = override(recipe, ["data.text=[text]"])
        use = replace(use, recipe=recipe)
    predictor = Predictor(use, recipe.data)
    made = choose_precision(None, predictor, "float32", lambda _: None)
    engine = engine_of(predictor, recipe, made, tmp_path, "model@1")
    engine.warm()
    yield sample, predictor, engine
    engine.close()


def rows_of(source: Path) -> tuple[list[dict[str, Any]], Any]:
    """The rows of a sample as JSON, and what ``predict`` is given of them."""
    if source.is_file():
        return [json.loads(line) for line in source.read_text("utf-8").splitlines()], str(source)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    pictures = [{"image": base64.b64encode(path.read_bytes()).decode()} for path in files]
    return pictures, [str(path) for path in files]


def close(found: RowPrediction, expected: Any) -> None:
    if isinstance(expected.prediction, float):
        assert found.prediction == pytest.approx(expected.prediction, rel=CLOSE, abs=CLOSE)
    else:
        assert found.prediction == expected.prediction
    assert found.confidence == pytest.approx(expected.confidence, abs=CLOSE)
    assert (found.probabilities is None) == (expected.probabilities is None)
    for name, chance in (expected.probabilities or {}).items():
        assert found.probabilities is not None
        assert found.probabilities[name] == pytest.approx(chance, abs=CLOSE)


@pytest.mark.slow
def test_an_engine_answers_as_predict_does(served: Any) -> None:
    """All rows at once, and each in a request of its own beside others."""
    sample, predictor, engine = served
    rows, data = rows_of(Path(sample.recipe.data.path))
    expected = list(predictor.predict(data, probabilities=bool(predictor.names)))

    async def asked() -> tuple[RowPredictions, list[RowPredictions]]:
        whole = await engine.answer(rows)
        return whole, await asyncio.gather(*(engine.answer([row]) for row in rows))

    whole, apart = asyncio.run(asked())
    assert len(whole.answers) == len(expected)
    for place, said in enumerate(expected):
        close(whole.answers[place], said)
        close(apart[place].answers[0], said)
    assert whole.model == "model@1"
    figures = engine.figures()
    assert figures["rows_total"] == 2 * len(expected)
    assert figures["requests_total"] == 1 + len(rows)
    assert figures["tokens_waiting"] == figures["rows_waiting"] == 0


@pytest.mark.slow
def test_vectors_come_with_the_answers(served: Any) -> None:
    sample, predictor, engine = served
    rows, data = rows_of(Path(sample.recipe.data.path))
    table = predictor.read_rows(data).table
    _, expected = predict_with_vectors(predictor, table)
    whole = asyncio.run(engine.answer(rows))
    assert whole.vectors is not None
    found = whole.vectors[table.column("row")]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_rows_that_cannot_be_read_are_refused_as_predict_refuses_them(served: Any) -> None:
    _, _, engine = served
    with pytest.raises(InputError) as error:
        asyncio.run(engine.answer([{"no such column": "a"}]))
    assert "/tmp" not in str(error.value)
    assert asyncio.run(engine.answer([])).answers == ()


def test_what_writes_has_no_measured_precision_and_says_so(served: Any, tmp_path: Path) -> None:
    sample, predictor, _ = served
    if sample.definition.name not in ("seq2seq", "causal-lm"):
        return
    made = choose_precision(tmp_path, predictor, "auto", lambda _: None)
    assert made.precision == "float32"
    assert "this model is generative" in made.because
