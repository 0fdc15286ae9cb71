"""Speed by turns, and which form of a model is kept for what was measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from holdfast.core.errors import MachineError, RecipeError
from holdfast.plugins.export import formats
from holdfast.plugins.export.measurements import (
    FormMeasurements,
    ModelForm,
    Times,
    choose_form,
    faster,
    inferiority,
    measure,
)

STEADY = np.linspace(1.0, 1.1, 21)


def times(**factors: float) -> tuple[Times, ...]:
    seconds = {name.replace("_", " "): STEADY * factor for name, factor in factors.items()}
    return tuple(Times(batch, seconds) for batch in (1, 16))


def measured(good: bool, quick: float, n: int = 2000) -> FormMeasurements:
    ones = np.ones(n)
    worse = ones.copy()
    worse[: n // 20] = 0
    fine, poor = inferiority(ones, ones), inferiority(ones, worse)
    forms = (
        ModelForm("torch", "float32"),
        ModelForm("onnx", "float32", fine),
        ModelForm("onnx", "int8", fine if good else poor),
    )
    took = times(torch_float32=1.0, onnx_float32=0.5, onnx_int8=quick)
    return FormMeasurements(forms, took, 20, 1, "a processor")


def test_engines_take_turns_and_a_slow_minute_hits_them_all() -> None:
    clock = itertools.count()
    asked: list[str] = []
    found = measure(
        4,
        {"a": lambda: asked.append("a"), "b": lambda: asked.append("b")},
        clock=lambda: float(next(clock)),
    )
    assert asked[:6] == ["a", "b"] * 3
    assert len(found.seconds["a"]) == len(found.seconds["b"]) >= 7
    # A tick of the clock is one second, of four rows.
    assert found.median_ms("a") == 250.0


def test_the_ratio_is_of_the_same_turn() -> None:
    drift = np.exp(np.random.default_rng(0).standard_normal(21))
    both = Times(1, {"a": drift, "b": 2 * drift})
    assert both.ratio("b", "a") == pytest.approx((2.0, 2.0, 2.0))


def test_the_interval_of_the_median_holds_it_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        drawn = Times(1, {"a": np.exp(generator.standard_normal(15)), "b": np.ones(15)})
        _, low, high = drawn.ratio("a", "b")
        held += low <= 1 <= high
    assert held / 400 >= 0.94


def test_what_is_as_fast_as_the_other_is_not_faster() -> None:
    generator = np.random.default_rng(2)
    noise = {name: 1 + 0.1 * generator.random(21) for name in "ab"}
    assert not faster([Times(1, noise)], "a", "b")[0]
    surely, said = faster(times(a=0.5, b=1.0), "a", "b")
    assert surely
    assert said == "2.0 times as fast at batch 1 and 2.0 times as fast at batch 16"


def test_eight_bits_are_kept_where_they_are_no_worse_and_faster() -> None:
    found = measured(good=True, quick=0.2)
    kept, because = choose_form(found, found.forms[1], found.forms[2:], "accuracy", {})
    assert kept.precision == "int8"
    assert "2.5 times as fast at batch 1" in because
    assert "keeps at most 4 in 100" in because
    assert found.fastest().name == "onnx int8"


@pytest.mark.parametrize(
    ("good", "quick", "n", "said"),
    [
        (False, 0.2, 2000, "it is 5.0 points worse in accuracy on 2000 validation rows"),
        (True, 0.6, 2000, "not shown to be faster on this machine"),
        (True, 0.2, 60, "more rows would decide"),
    ],
)
def test_what_is_worse_slower_or_not_known_is_not_kept(
    good: bool, quick: float, n: int, said: str
) -> None:
    found = measured(good, quick, n)
    kept, because = choose_form(found, found.forms[1], found.forms[2:], "accuracy", {})
    assert kept.precision == "float32"
    assert said in because


def test_the_fastest_is_never_one_that_may_be_worse() -> None:
    assert measured(good=False, quick=0.2).fastest().name == "onnx float32"
    assert measured(good=True, quick=0.2, n=60).fastest().name == "torch float32"


def test_a_form_that_could_not_be_made_is_told() -> None:
    found = measured(good=True, quick=0.2)
    _, because = choose_form(found, found.forms[1], [], "accuracy", {"int8": "no such operator"})
    assert because == "int8 cannot be written: no such operator"


def test_formats_name_the_task_and_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="does not support the task causal-lm") as refused:
        formats.format_of("onnx", "causal-lm")
    assert "gguf" in refused.value.remedy
    with pytest.raises(RecipeError, match="does not support the task seq2seq"):
        formats.format_of("gguf", "seq2seq")
    with pytest.raises(RecipeError, match="is not a format"):
        formats.format_of("tflite", "text-classification")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="onnxruntime") as lacking:
        formats.format_of("onnx", "text-classification")
    assert "holdfast[export]" in lacking.value.remedy
