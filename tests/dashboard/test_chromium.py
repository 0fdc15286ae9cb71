"""The dashboard as a person meets it: in Chromium, with nothing but this machine to reach."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOSTILE = "/run/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
# Every text against what lies behind it, as the report's own test has it.
CONTRAST = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number);
    return m.length < 4 ? [...m, 1] : m; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat([1]);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility()) continue;
    if (e.closest('script, style, title, desc, option, :disabled')) continue;
    const chain = []; for (let n = e; n; n = n.parentElement) chain.unshift(n);
    let back = [255, 255, 255, 1];
    for (const n of chain) back = over(parse(getComputedStyle(n).backgroundColor), back);
    const style = getComputedStyle(e);
    const ink = over(parse(e.closest('svg') ? style.fill : style.color), back);
    const [x, y] = [light(ink), light(back)].sort((a, b) => b - a);
    if ((x + 0.05) / (y + 0.05) < 4.5) bad.push([(x + 0.05) / (y + 0.05), e.textContent]);
  }
  return bad;
}"""
UNNAMED = """() => [...document.querySelectorAll('a, button, input, select, textarea, [tabindex]')]
  .filter(e => e.checkVisibility() && e.type !== 'hidden'
    && !(e.textContent || '').trim() && !e.getAttribute('aria-label')
    && !(e.labels && e.labels.length) && !e.getAttribute('aria-labelledby')
    && e.id !== 'main').map(e => e.outerHTML)"""


class Served:
    """A dashboard in a thread of this process, on a free port."""

    def __init__(self, root: Path, store: Any = None) -> None:
        import uvicorn

        from holdfast.plugins.dashboard.access import Access
        from holdfast.plugins.dashboard.app import application, local_socket
        from holdfast.plugins.dashboard.resources import Dashboard
        from holdfast.plugins.dashboard.runs import Runs

        self.place = local_socket(0)
        self.access = Access(self.place.getsockname()[1])
        self.dashboard = Dashboard(Runs(root), self.access, store)
        config = uvicorn.Config(application(self.dashboard), log_level="error", lifespan="on")
        self.server = uvicorn.Server(config)
        self.dashboard.closing = lambda: self.server.should_exit
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.place]}, daemon=True
        )
        self.thread.start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.access.port}"

    @property
    def pages(self) -> str:
        """Below which its pages lie, for browsers that have come in."""
        return self.base + self.access.base

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.place.close()


@pytest.fixture(scope="module")
def served(shelf: Path) -> Iterator[Served]:
    made = Served(shelf)
    yield made
    made.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page of a dashboard in a browser that has come in; ``troubles`` of it are what the
    browser complained of and every request that left the dashboard."""
    contexts = []

    def go(served: Served, address: str, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        contexts.append(context)
        page = context.new_page()
        page.troubles = []
        page.on("console", lambda m: page.troubles.append(m.text))
        page.on("pageerror", lambda e: page.troubles.append(str(e)))
        page.on("dialog", lambda d: (page.troubles.append(d.message), d.dismiss()))
        page.on(
            "request", lambda r: r.url.startswith(served.base + "/") or page.troubles.append(r.url)
        )
        page.goto(served.access.url)
        assert "token" not in page.url
        page.goto(served.pages + address)
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "address", ["/", "/run/fine", HOSTILE, f"{HOSTILE}?tab=right-and-wrong", "/run/going", "/data"]
)
def test_no_page_complains_asks_elsewhere_or_scrolls_sideways(
    visit: Any, served: Served, address: str
) -> None:
    page = visit(served, address)
    for width in (1280, 700, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(UNNAMED) == []
    assert page.troubles == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["/", "/run/going", "/compare?run=fine&run=project/worse"])
def test_every_text_has_enough_contrast(
    visit: Any, served: Served, address: str, scheme: str
) -> None:
    page = visit(served, address, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_another_name_for_this_machine_shows_nothing(visit: Any, served: Served) -> None:
    page = visit(served, "/")
    answer = page.goto(f"http://evil.example:{served.access.port}/")
    assert answer.status == 403
    assert "fine" not in page.content()


@pytest.mark.slow
def test_a_page_elsewhere_can_neither_read_nor_change(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.access.url)
    other = Served(tmp_path)
    try:
        # Another port of this machine: the same site, and still another page.
        page.goto(other.base + "/static/x/icon.svg")
        told = page.evaluate(
            """async base => {
              const read = await fetch(base + '/', {credentials: 'include'})
                .then(r => r.text(), () => 'refused');
              const sent = await fetch(base + '/try?run=fine',
                {method: 'POST', mode: 'no-cors', credentials: 'include', body: 'f.text=x'})
                .then(r => r.type, () => 'refused');
              return [read, sent];
            }""",
            served.pages,
        )
        assert told[0] == "refused"
        assert served.dashboard.model_trial._loaded is None
    finally:
        other.close()
        context.close()


@pytest.mark.slow
def test_the_list_searches_as_one_types_and_keeps_what_is_chosen(
    visit: Any, served: Served
) -> None:
    page = visit(served, "/")
    page.keyboard.press("/")
    page.keyboard.type("worse")
    rows = page.locator(".runs tbody tr")
    rows.nth(1).wait_for(state="detached")
    assert rows.count() == 1
    assert "q=worse" in page.url
    page.locator(".pick input").check()
    page.locator("#q").fill("")
    rows.nth(3).wait_for()
    assert page.locator(".pick input:checked").count() == 1
    assert page.locator("[data-compare] button").is_disabled()
    page.locator(".pick input[value=fine]").check()
    page.locator("[data-compare] button").click()
    page.wait_for_url("**/compare?*")
    assert page.locator("h1").inner_text() == "Compare runs"


@pytest.mark.slow
def test_lists_and_runs_work_without_a_script(visit: Any, served: Served) -> None:
    page = visit(served, "/?q=fine", java_script_enabled=False)
    page.locator(".runs tbody a").click()
    assert page.locator("svg.wide.chart").first.is_visible()
    page.goto(served.pages + "/")
    page.locator("#q").fill("worse")
    page.locator("[data-list] button").click()
    assert page.locator(".runs tbody tr").count() == 1


@pytest.mark.slow
def test_a_new_look_is_seen_without_a_reload(
    visit: Any, unfinished: Callable[..., Path], runs: ModuleType, tmp_path: Path
) -> None:
    run = unfinished(tmp_path / "runs" / "going", pid=1, classes=3, looks=6)
    lines = (run / "events.jsonl").read_text().splitlines()
    look = json.loads(next(one for one in reversed(lines) if '"snapshot"' in one))
    news = pytest.importorskip("holdfast.plugins.dashboard.news")
    served = Served(tmp_path / "runs")
    try:
        page = visit(served, "/run/going")
        assert "step 125" in page.locator("h1").inner_text()
        for step in (150, 175):
            with (run / "events.jsonl").open("a") as file:
                file.write(json.dumps(look | {"step": step}) + "\n")
            page.wait_for_selector(f"h1:has-text('step {step}')", timeout=100_000)
        # How often the file is asked while nothing is new.
        assert news.POLL_S <= 1.0
        assert "Step 175" in page.locator("#said").inner_text()
        # It ends, and the page becomes that of the whole run.
        done = runs.make_run(tmp_path / "other", classes=3)
        for name in ("events.jsonl", "predictions.parquet", "result.json"):
            (done / name).replace(run / name)
        (run / ".lock").unlink()
        page.wait_for_selector(".verdict .advice", timeout=100_000)
        assert page.troubles == []
    finally:
        served.close()


@pytest.mark.slow
def test_rows_are_labelled_by_the_keyboard_alone(visit: Any, shelf: Path, tmp_path: Path) -> None:
    from holdfast.plugins.store.records import StoredPrediction, StoredRequest, StoredText, new_id
    from holdfast.plugins.store.store import open_store

    store = open_store(str(tmp_path / "store.db"))
    now = time.time()
    for place in range(6):
        said = StoredPrediction(0, "m@1", "good", 0.9, {"good": 0.9, "bad": 0.1})
        text = StoredText(0, {"text": f"row {place}"})
        store.add_requests([StoredRequest(new_id(), now, "m@1", 1, 0.01, None, (said,), (text,))])
    served = Served(shelf, store)
    try:
        page = visit(served, "/label")
        page.locator("#who").press_sequentially("Ada")
        page.keyboard.press("Enter")
        page.locator(".task").wait_for()
        assert "0.9" not in page.content()

        def told(words: str) -> None:
            page.locator(f"#said:has-text('{words}')").wait_for()

        page.keyboard.press("2")
        assert page.locator(".labels input:checked").get_attribute("value") == "bad"
        page.keyboard.press("ArrowUp")
        assert page.locator(".labels input:checked").get_attribute("value") == "good"
        first = page.locator(".task").inner_text()
        page.keyboard.press("Enter")
        told("Stored")
        assert page.locator(".task").inner_text() != first
        page.keyboard.press("u")
        told("Undone")
        assert page.locator(".task").inner_text() == first
        page.keyboard.press("?")
        told("is shown")
        assert "The model predicts: good" in page.locator("#labelling").inner_text()
        page.keyboard.press("s")
        told("Skipped")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        told("Stored")
        (label,) = store.feedback()
        assert (label.who, label.label, label.suggestion) == ("Ada", "good", "hidden")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(CONTRAST) == []
        page.goto(served.pages + "/service")
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.troubles == []
    finally:
        served.close()
        store.close()
