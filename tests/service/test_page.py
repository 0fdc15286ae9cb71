"""The page of a service in a browser that reaches nothing else: a text tried, a label sent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ARGS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
PROGRAM = Path(__file__).parent / "stand_in.py"


@pytest.fixture
def loaded(tmp_path: Path) -> Path:
    """What the service waits for before its model is there."""
    return tmp_path / "loaded"


@pytest.fixture
def url(tmp_path: Path, loaded: Path) -> Iterator[str]:
    given = json.dumps({"store": str(tmp_path / "store.db"), "loaded": str(loaded)})
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), given], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGS)
        try:
            yield browser.new_page(viewport={"width": 390, "height": 800})
        finally:
            browser.close()


def test_a_text_is_tried_and_a_label_sent_without_another_host(
    url: str, page: Any, tmp_path: Path, loaded: Path
) -> None:
    from holdfast.plugins.store.store import open_store

    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: wrong.append(str(one)))
    loaded.touch()
    page.goto(url)
    page.wait_for_selector("textarea")
    wrong.clear()
    script = "<script>document.title='taken'</script>x"
    page.fill("textarea", script)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#answer") in ("good", "bad")
    assert page.locator("#classes tr").count() == 2
    assert page.title() == "reviews · Holdfast"
    page.select_option("#choice", "good")
    page.click("#teach button")
    page.locator("#taught", has_text="number 1").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []
    assert {one.removeprefix(url).split("?")[0] for one in asked if one.startswith("http")} == {
        "/",
        "/model",
        "/predict",
        "/feedback",
    }
    (label,) = open_store(str(tmp_path / "store.db")).feedback()
    assert (label.label, label.who, label.suggestion) == ("good", "page", "seen")
    assert (label.row or {})["text"] == script


@pytest.mark.slow
def test_the_page_says_that_the_model_loads_and_goes_on_by_itself(
    url: str, page: Any, loaded: Path
) -> None:
    page.goto(url)
    page.locator("#facts", has_text="The model is loading").wait_for()
    assert page.inner_text("#error") == ""
    assert page.locator("textarea").count() == 0
    loaded.touch()
    page.wait_for_selector("textarea")
    assert page.inner_text("#facts") == "text-classification · float32 · 2 classes"
