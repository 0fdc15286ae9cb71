"""The dashboard in Chromium: how soon a page is there, how soon a new look, what it costs idle.

``python benchmarks/dashboard.py`` starts ``holdfast dashboard`` over synthetic runs (200 with 2,000
looks each, and 10,000 with a recipe alone) and opens it in a browser that can reach nothing else.
First paint is the browser's own first contentful paint; a new look is timed from its line in
``events.jsonl`` to the changed heading; idle is the server's processor time while a list and a
running run are open and nothing changes. ``kB`` came over the wire, with and without the styles
and scripts that a browser keeps. Demanded: first paint 0.5 s, a new look 2 s, idle 1 % of a core,
150 kB a page.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, average, table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "dashboard.jsonl"
COMMAND = "from holdfast.cli.main import main; main()"
RUNS, LOOKS, MANY = 200, 2_000, 10_000
REPEATS, POINTS, IDLE_S, WARM_MS = 5, 10, 20.0, 3_000
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
PAGES = {
    "list": "/",
    "search": "/?q=run-1&sort=-score",
    "run": "/run/run-007",
    "compare": "/compare?run=run-001&run=run-002&run=run-003",
}
CELLS = [
    *grid(what=["first paint"], runs=[RUNS], page=list(PAGES)),
    {"what": "first paint", "runs": MANY, "page": "list"},
    {"what": "new look", "runs": RUNS, "page": "a running run"},
    {"what": "idle", "runs": RUNS, "page": "a list and a running run"},
]


def make_runs(root: Path, runs: int) -> None:
    """Synthetic finished runs of 2,000 looks, one of them running; or many with a recipe alone."""
    if runs == MANY:
        for place in range(runs):
            (root / f"run-{place:05d}").mkdir()
            text = "task: text-classification\n"
            (root / f"run-{place:05d}" / "recipe.yaml").write_text(text, encoding="utf-8")
        return
    path = HERE.parent / "tests" / "report" / "make_run.py"
    spec = importlib.util.spec_from_file_location("make_run", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    first = made.make_run(root / "run-000", classes=6, looks=LOOKS)
    for place in range(1, runs):
        shutil.copytree(first, root / f"run-{place:03d}")
    going = root / "going"
    shutil.copytree(first, going)
    (going / "result.json").unlink()


@contextmanager
def served(root: Path) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """The command over ``root``: its process, the address, and the seconds until it was told."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "dashboard", str(root), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        yield process, found[0], time.monotonic() - began
    finally:
        process.kill()
        process.communicate()


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=ARGS)
        yield launched
        launched.close()


def painted(page: Any, address: str) -> tuple[float, int]:
    """Seconds to the first contentful paint, and the bytes that came over the wire."""
    page.goto(address, wait_until="load")
    page.wait_for_timeout(300)
    found = page.evaluate(
        """() => [performance.getEntriesByName('first-contentful-paint')[0].startTime,
          [...performance.getEntriesByType('navigation'),
           ...performance.getEntriesByType('resource').filter(e => /static/.test(e.name))]
            .reduce((sum, e) => sum + e.transferSize, 0)]"""
    )
    return found[0] / 1e3, int(found[1])


def run_one(cell: Cell) -> Result:
    with tempfile.TemporaryDirectory(prefix="dashboard-") as folder:
        root = Path(folder)
        make_runs(root, cell["runs"])
        with served(root) as (process, url, started), browser() as chromium:
            base = url.partition("/?")[0]
            context = chromium.new_context(viewport={"width": 1280, "height": 850})
            page = context.new_page()
            outside: list[str] = []

            def note(request: Any) -> None:
                if not request.url.startswith(base):
                    outside.append(request.url)

            page.on("request", note)
            if cell["what"] == "first paint":
                result = _paint(page, url, PAGES[cell["page"]]) | {"started_s": started}
            elif cell["what"] == "new look":
                page.goto(url)
                result = _points(page, page.url.rstrip("/"), root / "going" / "events.jsonl")
            else:
                page.goto(url)
                result = _idle(context, page, page.url.rstrip("/"), process.pid)
            return {**result, "outside_requests": len(outside)}


def _paint(page: Any, url: str, path: str) -> Result:
    # The first time nothing of this page was read; the browser has no file of it either.
    page.goto(url.replace("/?token", "/keys?token"))
    address = page.url.removesuffix("/keys") + path
    # The server loads what it will need while a person looks at the first page.
    page.wait_for_timeout(WARM_MS)
    first, own = painted(page, address)
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    _, weight = painted(page, address)
    later = [painted(page, address)[0] for _ in range(REPEATS)]
    return {
        "first_s": first,
        "later_median_s": statistics.median(later),
        "later_max_s": max(later),
        "page_kB": round(own / 1e3, 1),
        "with_files_kB": round(weight / 1e3, 1),
    }


def _points(page: Any, base: str, events: Path) -> Result:
    lines = events.read_text(encoding="utf-8").splitlines()
    look = json.loads(next(one for one in reversed(lines) if '"snapshot"' in one))
    page.goto(f"{base}/run/going")
    page.wait_for_timeout(1_500)
    waited = []
    for place in range(1, POINTS + 1):
        step = look["step"] + place
        with events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(look | {"step": step}) + "\n")
        began = time.monotonic()
        page.wait_for_selector(f"h1:has-text('{step:,}')", timeout=20_000)
        waited.append(time.monotonic() - began)
        # Not in step with the server's own clock.
        page.wait_for_timeout(730)
    return {"later_median_s": statistics.median(waited), "later_max_s": max(waited)}


def _idle(context: Any, page: Any, base: str, pid: int) -> Result:
    import psutil

    page.goto(f"{base}/run/going")
    other = context.new_page()
    other.goto(f"{base}/")
    other.wait_for_timeout(3_000)
    process = psutil.Process(pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    other.wait_for_timeout(1_000 * IDLE_S)
    used = sum(process.cpu_times()[:2]) - before
    return {
        "core_%": 100 * used / (time.monotonic() - began),
        "memory_MB": round(process.memory_info().rss / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    cells = [one for one in CELLS if given.only in (one["what"], "")]
    run_cells("dashboard", cells, run_one, RESULTS)


def finding(lines: Lines) -> str:
    first = [line for line in lines if line.get("first_s") is not None]
    later = [line["later_median_s"] for line in lines if line["what"] == "new look"]
    idle = [line["core_%"] for line in lines if line["what"] == "idle"]
    parts = (
        [f"a page of {RUNS} runs is drawn within {max(line['first_s'] for line in first):.2f} s"]
        if first
        else []
    )
    parts += [f"a new evaluation is shown after {later[0]:.2f} s"] if later else []
    parts += [f"an idle dashboard takes {idle[0]:.1f} % of a core"] if idle else []
    return f"In a browser, {'; '.join(parts)} (one machine)."


CLAIM = Claim(
    "dashboard",
    "Service",
    "The dashboard",
    """\
`holdfast dashboard` over synthetic runs, 200 with 2,000 evaluations each, in a browser on the
same machine. A page is timed to the browser's first contentful paint: the first load, and the
median of later ones. A new evaluation is timed from its line in `events.jsonl` to the changed
heading. Targets: 0.5 s a page, 2 s a new evaluation, 1 % of a core when idle, 150 kB a page.""",
    lambda: CELLS,
    finding,
    [
        lambda lines: table(
            {"what": "Measured", "page": "Page"},
            {
                "First load, s": average("first_s", 1, 2),
                "Median, s": average("later_median_s", 1, 2),
                "Page, kB": average("page_kB", 1, 1),
                "Core, %": average("core_%", 1, 2),
                "Memory, MB": average("memory_MB", 1, 0),
                "Requests to other hosts": average("outside_requests", 1, 0),
            },
        )([{**line, "what": line["what"].replace("look", "evaluation")} for line in lines])
    ],
    (
        "The pages of one run and of comparisons, and a list of 10,000 runs, were planned and "
        "have not been measured."
    ),
)


if __name__ == "__main__":
    main()
