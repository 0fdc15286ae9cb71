"""The data map on the page: every row once, and the suspects named."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.report.page import write_report

KINDS = {"easy": 0.95, "memorized": 0.4, "unlearnable": 0.1, "forgotten": 0.3, "relearned": 0.35}


def write_rows(run: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), run / "examples.parquet")


def row(number: int, kind: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "row": number,
        "split": "train",
        "label": "<b>spam</b>",
        "confidence": KINDS[kind],
        "variability": 0.2,
        "aum": KINDS[kind] - 0.5,
        "last": 0.5,
        "learnt_at": 1,
        "forgotten": 0,
        "passes": 5,
        "kind": kind,
    }
    return plain | changes


def test_every_kind_is_counted_and_the_lowest_margin_comes_first(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run", classes=2)
    made = [row(i, kind) for i, kind in enumerate([*KINDS, "easy", "unlearnable"])]
    write_rows(run, [*made, row(900, "easy", split="valid")])
    page = write_report(run)
    text = read_page(page).text
    assert "Of 7 training rows: 2 unlearnable, 1 forgotten, 1 learned late, 1 relearned." in text
    html = page.read_text(encoding="utf-8")
    assert html.count('class="dot map easy"') == 2 * 2, "two rows, in two sizes"
    assert "Row 900" not in html
    assert "<b>spam" not in html
    listed = html[html.index("Rows to check first") :]
    assert listed.index("unlearnable: never") < listed.index("learned late: correct at the end")


def test_a_page_of_many_rows_stays_small_and_says_so(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run", classes=2)
    write_rows(run, [row(i, "easy" if i % 10 else "memorized") for i in range(5000)])
    page = write_report(run)
    assert page.read_text(encoding="utf-8").count('class="dot map memorized"') == 2 * 500
    assert "more rows not drawn" in read_page(page).text


def test_without_the_file_or_without_a_pass_there_is_no_section(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run", classes=2)
    assert "Data map" not in read_page(write_report(run)).text
    write_rows(run, [row(0, "easy", passes=0, confidence=None)])
    assert "Data map" not in read_page(write_report(run)).text


def test_rows_seen_too_seldom_are_not_drawn_and_the_page_says_why(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run", classes=2)
    write_rows(run, [row(i, "easy", passes=2) | {"kind": "unclear"} for i in range(40)])
    page = write_report(run)
    assert "dot map" not in page.read_text("utf-8").split("</style>")[1]
    text = read_page(page).text
    assert "No data map: 40 of 40 training rows were seen in fewer than three epochs" in text
    assert "at most 2 epochs" in text


def test_a_few_rows_seen_too_seldom_are_left_out_and_counted(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run", classes=2)
    made = [row(i, "easy") for i in range(10)]
    seldom = [row(20 + i, "easy", passes=1) | {"kind": "unclear"} for i in range(3)]
    write_rows(run, [*made, *seldom])
    page = write_report(run)
    body = page.read_text("utf-8").split("</style>")[1]
    assert body.count('class="dot map easy"') == 2 * 10
    assert "map unclear" not in body
    assert "3 more rows were seen in fewer than three epochs and are left out." in (
        read_page(page).text
    )
