"""Scales, ticks and the three charts, read back from the SVG."""

from __future__ import annotations

import dataclasses
import itertools
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.charts.curves import ChartSeries, CurvesChart, DiscardedCurve, draw_curves
from holdfast.report.charts.dots import Dot, draw_dots
from holdfast.report.charts.svg import AxisScale, element, tick_labels, ticks
from holdfast.report.view.calibration import Bin, reliability
from holdfast.report.view.division import stacked_bar


def parse(markup: Markup) -> ET.Element:
    return ET.fromstring(f"<all>{markup}</all>")


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(2, 8))
def test_ticks_cover_their_range_and_are_few_and_rising(
    low: float, width: float, wanted: int
) -> None:
    found = ticks(low, low + width, wanted)
    assert found[0] <= low + 1e-6 * width
    assert found[-1] >= low + width - 1e-6 * width
    assert found == sorted(set(found))
    assert len(found) <= 2 * wanted + 3


@given(st.floats(0, 1e5), st.floats(0.01, 1e5))
def test_tick_labels_tell_the_ticks_apart(low: float, width: float) -> None:
    found = ticks(low, low + width)
    labels = tick_labels(found)
    assert len(set(labels)) == len(labels)


def test_an_element_escapes_what_it_is_given() -> None:
    made = element("text", "<b>&", title='"x"')
    assert made == '<text title="&#34;x&#34;">&lt;b&gt;&amp;</text>'


def test_a_scale_is_straight() -> None:
    scale = AxisScale(0, 10, 100, 200)
    assert [scale(0), scale(5), scale(10)] == [100, 150, 200]


def test_a_dot_stands_inside_its_whisker_and_in_order() -> None:
    lines = [Dot("a", Estimate(0.9, 0.85, 0.94), "main"), Dot("b", Estimate(0.7, 0.6, 0.78))]
    root = parse(draw_dots("k", lines, "accuracy", "t"))
    for svg in root.findall("svg"):
        at = [float(g.attrib["data-x"]) for g in svg.iter("g") if "data-x" in g.attrib]
        assert at[0] > at[1]
        for group in (g for g in svg.iter("g") if "data-x" in g.attrib):
            whisker = next(e for e in group.findall("line"))
            ends = float(whisker.attrib["x1"]), float(whisker.attrib["x2"])
            assert ends[0] < float(group.attrib["data-x"]) < ends[1]


def test_a_dot_without_value_has_no_mark_but_its_reason() -> None:
    made = draw_dots(
        "k", [Dot("a", Estimate(0.9)), Dot("b", Estimate(None, why="one class"))], "accuracy", "t"
    )
    assert made.count("tabindex") == 2  # wide and narrow of the one mark
    assert "one class" in made
    assert draw_dots("k", [Dot("b", Estimate(None))], "accuracy", "t") == ""


def chart(values: tuple[float | None, ...], best: int | None = 10) -> CurvesChart:
    steps = tuple(10 * i for i in range(len(values)))
    return CurvesChart(
        "k",
        "t",
        "loss",
        steps,
        tuple(None for _ in steps),
        (ChartSeries("Validation", "valid", values),),
        best,
    )


def test_every_look_has_a_band_and_the_bands_tile_the_chart() -> None:
    for svg in parse(draw_curves(chart((3.0, 2.0, 1.5, 1.4)))).findall("svg"):
        rects = [g.find("rect") for g in svg.iter("g") if "band" in g.attrib.get("class", "")]
        spans = [(float(r.attrib["x"]), float(r.attrib["width"])) for r in rects if r is not None]
        assert len(spans) == 4
        for (x, width), (following, _) in itertools.pairwise(spans):
            assert x + width == pytest.approx(following, abs=0.02)


def test_a_missing_value_leaves_a_gap_in_the_line() -> None:
    made = draw_curves(chart((3.0, None, 1.5, float("nan"), 1.2)))
    path = next(e for e in parse(made).iter("path") if "curve" in e.attrib["class"])
    assert path.attrib["d"].count("M") == 3


def test_only_the_kept_look_is_reached_by_tab() -> None:
    for svg in parse(draw_curves(chart((3.0, 2.0, 1.5)))).findall("svg"):
        reached = [g for g in svg.iter("g") if g.attrib.get("tabindex") == "0"]
        assert len(reached) == 1
        assert "best checkpoint" in reached[0].attrib["aria-label"]


@pytest.mark.parametrize("values", [(1.0,), (0.0, 0.0), (1e9, 1.0), (-2.0, 3.0)])
def test_odd_curves_are_drawn_too(values: tuple[float, ...]) -> None:
    assert len(parse(draw_curves(chart(values, best=None))).findall("svg")) == 2


def test_curves_without_a_number_are_no_chart() -> None:
    assert draw_curves(chart((None, float("inf")))) == ""


def test_a_bin_that_is_right_as_often_as_it_says_lies_on_the_diagonal() -> None:
    made = reliability([Bin(0.5, 0.6, 30, 0.55, 0.55), Bin(0.9, 1, 10, 0.95, 0.6)])
    for svg in parse(made).findall("svg"):
        line = next(e for e in svg.iter("line") if e.attrib["class"] == "diagonal")
        x1, y1, x2, y2 = (float(line.attrib[k]) for k in ("x1", "y1", "x2", "y2"))
        off = []
        for circle in svg.iter("circle"):
            x, y = float(circle.attrib["cx"]), float(circle.attrib["cy"])
            off.append(y - (y1 + (x - x1) / (x2 - x1) * (y2 - y1)))
        assert off[0] == pytest.approx(0, abs=0.1)
        assert off[1] > 20  # below the diagonal: too sure


def test_a_stacked_bar_is_as_long_as_its_share() -> None:
    rects = list(parse(stacked_bar([("train", 30), ("valid", 0), ("test", 20)], 100)).iter("rect"))
    assert [float(r.attrib["width"]) for r in rects] == [30, 20]
    assert stacked_bar([("train", 0)], 0) == ""


def test_the_fixture_maker_is_found(runs: ModuleType) -> None:
    assert callable(runs.make_run)


@given(
    st.lists(st.tuples(st.floats(1e-4, 5e5), st.floats(0.01, 0.9)), min_size=1, max_size=4),
    st.sampled_from(["accuracy", "perplexity", "mae"]),
    st.text("abcdefghij ", min_size=1, max_size=40),
)
def test_no_mark_or_whisker_is_overprinted_by_its_number(
    found: list[tuple[float, float]], metric: str, label: str
) -> None:
    """In the wide chart texts stand beside the marks: the narrowest font puts six pixels under a
    character, a wide one 7.7."""
    scale = 1 / 5e5 if metric == "accuracy" else 1.0
    lines = [
        Dot(label, Estimate(v * scale, (1 - w) * v * scale, min(1.9, 1 + w) * v * scale))
        for v, w in found
    ]
    wide, narrow = parse(draw_dots("k", lines, metric, "t")).findall("svg")
    for group in wide.iter("g"):
        value = next((t for t in group.findall("text") if t.attrib["class"] == "value"), None)
        mark = next((g for g in group.findall("g") if "mark" in g.attrib["class"]), None)
        if value is None or mark is None:
            continue
        begins = float(value.attrib["x"]) - 7.7 * len("".join(value.itertext()))
        ends = [float(e.attrib["x2"]) for e in mark.iter("line")] + [float(mark.attrib["data-x"])]
        assert max(ends) < begins
    for group in narrow.iter("g"):
        texts = [t for t in group.findall("text") if "tick" not in t.attrib["class"]]
        if len(texts) == 2:
            used = sum(7.7 * len("".join(t.itertext())) for t in texts)
            assert used <= 340 or len(texts[0].text or "") <= 8


def test_a_curve_far_from_zero_is_not_pressed_into_a_strip() -> None:
    for svg in parse(draw_curves(chart((7.3, 7.1, 7.0, 6.96)))).findall("svg"):
        path = next(e for e in svg.iter("path") if "curve" in e.attrib["class"])
        heights = [float(part.split()[1]) for part in path.attrib["d"][1:].split("L")]
        assert max(heights) - min(heights) > 0.6 * (float(svg.attrib["height"]) - 66)


def test_what_a_run_left_is_drawn_faint_and_is_part_of_the_axes() -> None:
    plain = CurvesChart(
        key="k",
        title="t",
        metric="loss",
        steps=(0, 2, 4),
        epochs=(None, None, None),
        series=(ChartSeries("Validation", "valid", (1.0, 0.8, 0.7)),),
        best=4,
    )
    left = DiscardedCurve("valid", (2, 4, 6), (0.8, 1.4, 2.0))
    for root in map(
        parse, (draw_curves(plain), draw_curves(dataclasses.replace(plain, left=(left,))))
    ):
        for svg in root.findall("svg"):
            drawn = [p.attrib["d"] for p in svg.iter("path") if "left" in p.attrib["class"]]
            lines = [p.attrib["d"] for p in svg.iter("path") if p.attrib["class"] == "curve valid"]
            assert len(lines) == 1
            if not drawn:
                continue
            (faint,) = drawn
            # Both begin a stretch at step 2; the left one ends the widest and the highest.
            points = [tuple(map(float, p.split())) for p in faint.replace("L", "M").split("M")[1:]]
            kept = [tuple(map(float, p.split())) for p in lines[0].replace("L", "M").split("M")[1:]]
            assert points[0] == kept[1]
            assert points[-1][0] > kept[-1][0]
            assert points[-1][1] < min(y for _, y in kept)
