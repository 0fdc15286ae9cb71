"""How numbers become words."""

from __future__ import annotations

import pytest

from holdfast.core.metric_names import metric_words
from holdfast.core.records import Estimate
from holdfast.report import numbers

NB = "\u00a0"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("accuracy", "accuracy"),
        ("entity_f1", "entity F1"),
        ("f1_macro", "macro F1"),
        ("r2", "R²"),
        ("rouge1", "ROUGE-1"),
        ("bits_per_byte", "bits per byte"),
    ],
)
def test_a_metric_keeps_its_capitals_inside_a_sentence(name: str, words: str) -> None:
    assert metric_words(name) == words


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.9125, "accuracy", f"91.2{NB}%"),
        (1.0, "f1_macro", f"100.0{NB}%"),
        (-0.0, "accuracy", f"0.0{NB}%"),
        (0.31249, "loss", "0.312"),
        (0.00002, "loss", "2.00e−05"),
        (5.6e-9, "ece", "0.000"),
        (-1.5, "mcc", "−1.500"),
        (None, "accuracy", "–"),
        (1.0, "top_k_3", f"100.0{NB}%"),
    ],
)
def test_a_number_is_written_by_its_kind(value: float | None, name: str, text: str) -> None:
    assert numbers.number(value, name) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0342, "+3.4"), (-0.0342, "−3.4"), (0.0001, "±0.0"), (None, "–")]
)
def test_a_difference_of_rates_is_signed_points(value: float | None, text: str) -> None:
    assert numbers.points(value) == text


def test_an_interval_names_its_unit_once() -> None:
    assert numbers.interval(Estimate(0.9, 0.876, 0.938), "accuracy") == "87.6–93.8"
    assert numbers.interval(Estimate(0.01, -0.02, 0.04)) == "−0.020 to 0.040"
    assert numbers.interval(Estimate(0.9), "accuracy") == ""


@pytest.mark.parametrize("raw", [None, "x", {"value": None}, {}, []])
def test_what_is_no_number_is_an_estimate_with_a_reason(raw: object) -> None:
    found = numbers.estimate(raw)
    assert found.value is None
    assert found.why


def test_an_estimate_survives_its_own_json_form() -> None:
    for value in (Estimate(0.5, 0.4, 0.6, note="few rows"), Estimate(None, why="one class")):
        assert numbers.estimate(value.to_json()) == value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, f"4.2{NB}s"), (200, f"3{NB}min 20{NB}s"), (3720, f"1{NB}h 02{NB}min"), (None, "–")],
)
def test_a_duration_is_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_a_moment_names_its_zone_and_leaves_other_text_alone() -> None:
    assert numbers.moment("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04 UTC"
    assert numbers.moment("yesterday") == "yesterday"


def test_a_p_value_below_a_thousandth_is_not_a_zero() -> None:
    assert numbers.p_value(0.00001) == f"p{NB}<{NB}0.001"
    assert numbers.p_value(0.0134) == f"p{NB}={NB}0.013"


def test_counts_and_plurals_agree() -> None:
    assert numbers.plural(1, "row") == "1 row"
    assert numbers.plural(12345, "row") == "12,345 rows"
    assert numbers.count(None) == "–"


def test_a_remark_becomes_a_sentence() -> None:
    assert numbers.sentence("all 20 steps were taken") == "All 20 steps were taken."
    assert numbers.sentence("Done.") == "Done."
    assert numbers.sentence(" ") == ""
