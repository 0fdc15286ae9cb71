"""The report as a person meets it: in Chromium, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.page import write_report

KINDS = ["two", "six", "many", "hostile", "small", "known"]

CONTRAST = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number);
    return m.length < 4 ? [...m, 1] : m; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat([1]);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (seen.has(e) || !walker.currentNode.data.trim() || !e.checkVisibility()) continue;
    seen.add(e);
    if (e.closest('script, style, title, desc')) continue;
    const chain = []; for (let n = e; n; n = n.parentElement) chain.unshift(n);
    let back = [255, 255, 255, 1];
    for (const n of chain) back = over(parse(getComputedStyle(n).backgroundColor), back);
    const style = getComputedStyle(e);
    const ink = over(parse(e.closest('svg') ? style.fill : style.color), back);
    const [x, y] = [light(ink), light(back)].sort((a, b) => b - a);
    const ratio = (x + 0.05) / (y + 0.05);
    if (ratio < 4.5) bad.push([ratio, e.tagName, e.textContent.slice(0, 40)]);
  }
  return bad;
}"""


@dataclass
class Tab:
    """An open page and what went wrong on it."""

    page: Any
    troubles: list[str] = field(default_factory=list)


def noted(result: dict[str, Any]) -> None:
    """Every number has two remarks, and the widest that a rate can be."""
    for block in (result["test"], result["valid"], result["train_probe"]):
        for name, value in block["metrics"].items():
            if value["value"] is not None:
                value |= {"value": 1.0, "low": 0.963, "high": 1.0, "note": f"{name}; few rows"}


def known(result: dict[str, Any]) -> None:
    """Four things to know before one relies on it, one with a word that no line holds."""
    rate = {"value": 0.41, "low": 0.3, "high": 0.52, "level": 0.95}
    worst = {"slice": "texts with " + "w" * 300, "n": 30, "value": rate, "rest": rate}
    area = {"value": 0.83, "low": 0.75, "high": 0.9, "level": 0.95}
    memory = {"verdict": "memorized", "because": "It remembers.", "auc": area}
    forgot = {"forgot": True, "because": "It forgot some of what it knew: by 0.3 nats."}
    promise = {"precision": 0.9, "threshold": 0.7, "test": {"coverage": rate, "precision": rate}}
    result |= {
        "slices": {"what": "wrong", "n_candidates": 1, "found": [worst], "undecided": []},
        "probes": {"memorization": memory, "forgetting": forgot},
        "thresholds": {"promises": [promise]},
    }


@pytest.fixture(scope="module")
def reports(runs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reports")
    made = {
        "two": runs.make_run(root / "two", classes=2, verdict="overfit"),
        "six": runs.make_run(root / "six"),
        "many": runs.make_run(root / "many", classes=77, n_test=3080, verdict="leaking"),
        "hostile": runs.make_run(root / "hostile", names=runs.HOSTILE),
        "small": runs.make_run(root / "small", classes=2, n_test=9, looks=3, valid=False),
        "noted": runs.make_run(root / "noted", classes=2, edit=noted),
        "known": runs.make_run(root / "known", edit=known),
    }
    return {name: write_report(run) for name, run in made.items()}


@pytest.fixture
def visit(browser: Any, reports: dict[str, Path]) -> Iterator[Any]:
    contexts = []

    def go(name: str, width: int = 1280, scheme: str = "light", **options: Any) -> Tab:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True, **options
        )
        contexts.append(context)
        tab = Tab(context.new_page())
        url = reports[name].as_uri()
        tab.page.on("console", lambda m: tab.troubles.append(m.text))
        tab.page.on("pageerror", lambda e: tab.troubles.append(str(e)))
        tab.page.on("requestfailed", lambda r: tab.troubles.append(r.url))
        tab.page.on("request", lambda r: r.url == url or tab.troubles.append(r.url))
        tab.page.on("dialog", lambda d: (tab.troubles.append(d.message), d.dismiss()))
        tab.page.goto(url)
        return tab

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", KINDS)
def test_it_opens_offline_without_an_error_or_a_request(visit: Any, name: str) -> None:
    tab = visit(name)
    assert tab.troubles == []
    assert tab.page.evaluate("getComputedStyle(document.body).margin") == "0px"  # style applied


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_page_never_scrolls_sideways(visit: Any, name: str) -> None:
    page = visit(name).page
    for width in (1280, 700, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_who_has_ten_seconds_reads_answer_advice_and_what_to_know_without_scrolling(
    visit: Any,
) -> None:
    page = visit("known").page
    rely = page.locator(".rely")
    box = rely.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 800
    assert rely.locator("li").count() == 4
    rely.locator("a", has_text="Memorization").click()
    assert page.url.endswith("#memory")


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_hovering_over_a_look_shows_its_numbers(visit: Any, width: int) -> None:
    page = visit("six", width).page
    bands = page.locator("svg.chart:visible .band")
    bands.nth(5).scroll_into_view_if_needed()
    bands.nth(5).hover(force=True)
    tip = page.locator("#tip")
    assert tip.is_visible()
    words = tip.inner_text()
    assert words.startswith("Step 125")
    assert "Training sample: " in words
    assert "Validation, calibrated: " in words
    box = tip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.mouse.move(1, 1)
    assert tip.is_hidden()


@pytest.mark.slow
def test_the_keyboard_reaches_every_look(visit: Any) -> None:
    page = visit("six").page
    kept = page.locator("svg.wide .band[tabindex='0']").first
    kept.focus()
    assert "best checkpoint" in page.locator("#tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text().startswith("Step 325")
    page.keyboard.press("Home")
    assert page.locator("#tip").inner_text().startswith("Step 0")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.slow
def test_tab_walks_through_the_page_and_can_leave_it(visit: Any) -> None:
    page = visit("two").page
    seen = []
    for _ in range(120):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "(e => e === document.body ? null : e.closest('section, header, nav, .skip')?.id "
            "|| e.className.toString())(document.activeElement)"
        )
        if here is None:
            break
        seen.append(here)
    assert seen[0] == "skip"
    for section in ("score", "learning", "confusion", "calibration", "load"):
        assert section in seen
    assert len(seen) < 100


@pytest.mark.slow
def test_everything_that_scrolls_can_be_focused(visit: Any) -> None:
    page = visit("many", 360).page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    stuck = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => /auto|scroll/.test("
        "getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
    )
    assert stuck == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["six", "many", "known"])
def test_every_text_has_enough_contrast(visit: Any, name: str, scheme: str) -> None:
    page = visit(name, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_the_dark_page_is_dark(visit: Any) -> None:
    colours = {
        scheme: visit("six", scheme=scheme).page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        for scheme in ("light", "dark")
    }
    assert sum(colours["light"]) > 600
    assert sum(colours["dark"]) < 150


@pytest.mark.slow
def test_charts_and_tables_are_there_without_a_script(visit: Any) -> None:
    page = visit("six", java_script_enabled=False).page
    assert page.locator("svg.wide.chart").first.is_visible()
    assert page.locator("nav a").first.is_visible()


@pytest.mark.slow
def test_only_one_size_of_a_chart_is_seen(visit: Any) -> None:
    page = visit("six").page
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        total = page.locator("svg.chart").count()
        assert page.locator("svg.chart:visible").count() * 2 == total


@pytest.mark.slow
def test_a_screen_reader_is_told_the_structure(visit: Any) -> None:
    page = visit("six").page
    for role, name in (
        ("main", None),
        ("navigation", "Contents"),
        ("region", "Test score"),
        ("region", "Learning curves"),
        ("group", "Loss by step"),
        ("table", "Confusion matrix of the test rows"),
        ("link", "Skip to the summary"),
    ):
        options = {"name": name} if name else {}
        assert page.get_by_role(role, **options).count() >= 1, (role, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["many", "noted"])
def test_it_prints_to_paper_with_nothing_cut_off(visit: Any, tmp_path: Path, name: str) -> None:
    page = visit(name).page
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.locator("svg.wide.chart").first.is_visible()
    printed = page.pdf(path=str(tmp_path / "report.pdf"))
    assert printed.startswith(b"%PDF")
    folder = os.environ.get("HOLDFAST_SHOTS")
    if folder:
        shutil.copy(tmp_path / "report.pdf", folder)


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("width", [1280, 360])
def test_a_word_is_explained_by_pointer_and_by_key(visit: Any, width: int, script: bool) -> None:
    page = visit("six", width, java_script_enabled=script).page
    word = page.locator(".term", has_text="linear probe").first
    meaning = word.get_attribute("data-meaning")
    shown = "getComputedStyle(document.querySelectorAll('.term')[{}], '::after').content !== 'none'"
    at = page.locator(".term").evaluate_all("(all, one) => all.indexOf(one)", word.element_handle())
    for reach in (word.hover, word.focus):
        reach()
        if script:
            assert meaning in page.locator("#tip").inner_text()
            box = page.locator("#tip").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            page.keyboard.press("Escape")
        else:
            assert page.evaluate(shown.format(at))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.mouse.move(1, 1)
    if not script:
        page.evaluate("document.activeElement.blur()")
        assert not page.evaluate(shown.format(at))


@pytest.mark.slow
def test_a_table_that_is_cut_off_says_so(visit: Any) -> None:
    page = visit("six", 360).page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    # An observer of sizes marks all that is cut off once it is drawn.
    page.wait_for_selector(".scroll.more", state="attached")
    silent = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => (e.scrollWidth > e.clientWidth + 1)"
        " !== (getComputedStyle(e, '::before').content !== 'none')).length"
    )
    assert silent == 0
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_selector(".scroll.more", state="detached")


@pytest.mark.slow
def test_on_a_telephone_the_answer_comes_before_the_list_of_contents(visit: Any) -> None:
    for script in (True, False):
        page = visit("six", 360, java_script_enabled=script).page
        assert page.locator("h1").bounding_box()["y"] < 250
        wide = visit("six", 1280, java_script_enabled=script).page
        assert wide.locator("nav a").first.is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_headings_break_between_words_only(visit: Any, width: int) -> None:
    page = visit("six", width).page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    broken = page.evaluate("""() => {
      const bad = [];
      for (const e of document.querySelectorAll('h1, h2, h3, main th:not(.user), dt')) {
        if (!e.checkVisibility() || e.closest('.matrix')) continue;
        const walker = document.createTreeWalker(e, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) for (const m of walker.currentNode.data.matchAll(/[\\w-]+/g)) {
          const range = document.createRange();
          range.setStart(walker.currentNode, m.index);
          range.setEnd(walker.currentNode, m.index + m[0].length);
          const tops = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
          if (tops.size > 1) bad.push(m[0]);
        }
      }
      return bad;
    }""")
    assert broken == []


@pytest.mark.slow
def test_only_a_long_table_scrolls_up_and_down(visit: Any) -> None:
    for name, width in (("two", 360), ("six", 1280), ("many", 1280)):
        page = visit(name, width).page
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        short = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(e => "
            "e.scrollHeight > e.clientHeight + 2 && e.querySelectorAll('tbody tr').length < 25"
            ").length"
        )
        assert short == 0, name
