"""Templates → pages: every page of the dashboard is rendered here, only from values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from starlette.responses import HTMLResponse

from holdfast._version import __version__
from holdfast.core.printable import printable
from holdfast.plugins.dashboard.runs import score_bar, score_text
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import duration
from holdfast.report.page import TEMPLATES as REPORT
from holdfast.report.page import UNPRINTABLE, environment

HERE = Path(__file__).parent
STATIC: Mapping[str, tuple[Path, str]] = {
    "report.css": (REPORT, "text/css"),
    "explained.css": (REPORT, "text/css"),
    "report.js": (REPORT, "text/javascript"),
    "dashboard.css": (HERE / "static", "text/css"),
    "dashboard.js": (HERE / "static", "text/javascript"),
    "icon.svg": (HERE / "static", "image/svg+xml"),
}
# The base path of the page that is rendered.
BASE: ContextVar[str] = ContextVar("base", default="")
# Matches only the page's own markup: in texts of the data every quotation mark is escaped.
_OWN_ADDRESS = re.compile(r'(?<= )(href|action|data-address)="(?=/(?!static/))')
MENU = (("/", "Runs"), ("/data", "Data"), ("/service", "Service"), ("/label", "Label"))


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A static file of the dashboard, with an address that changes with its content."""

    content: bytes
    media_type: str
    address: str


@cache
def files() -> Mapping[str, StaticFile]:
    """The styles and scripts, read once."""
    static_files = {}
    for name, (folder, media_type) in STATIC.items():
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:12]
        static_files[name] = StaticFile(content, media_type, f"/static/{digest}/{name}")
    return static_files


def render(template: str, **values: Any) -> str:
    """A page, or with a template of ``parts/`` a part of one, as printable text."""
    jinja_template = _template_environment().get_template(template)
    base = BASE.get()
    text = jinja_template.render(here=values.pop("here", ""), base=base, **values)
    return _OWN_ADDRESS.sub(rf'\1="{base}', text).translate(UNPRINTABLE)


def message_page(
    title: str, text: str, status: int, more: str = "", link: tuple[str, str] = ("/", "All runs")
) -> HTMLResponse:
    """A page that says what is wrong, and links to where to continue."""
    page = render("message.html.j2", title=title, text=text, more=more, link=link)
    return HTMLResponse(page, status)


def own_address(address: str) -> str:
    """An address of this dashboard with its base path, for a redirect."""
    return BASE.get() + address


def _template_environment() -> Environment:
    """The report's environment with the dashboard's templates and functions; a glossary for each
    page."""
    jinja = environment(Glossary(), HERE / "templates")
    jinja.globals |= {
        "files": {name: one.address for name, one in files().items()},
        "menu": MENU,
        "version": __version__,
        "at": run_address,
        "score_text": score_text,
        "score_bar": score_bar,
    }
    jinja.filters |= {"ago": ago, "moment": moment_of, "duration": duration}
    return jinja


def load_templates() -> None:
    """Import what a run page needs, and compile the templates."""
    import pyarrow.parquet  # noqa: F401

    jinja = _template_environment()
    own_templates = [
        str(path.relative_to(HERE / "templates")) for path in (HERE / "templates").rglob("*.j2")
    ]
    sections = [f"sections/{path.name}" for path in (REPORT / "sections").glob("*.j2")]
    for name in (*own_templates, "answer.html.j2", "parts.html.j2", "macros.html.j2", *sections):
        jinja.get_template(name)


def run_address(name: str, tab: str = "", part: str = "") -> str:
    """The address of a run, of one of its tabs, or of a part of the report there."""
    address = "/run/" + quote(name, safe="/") + (f"?tab={quote(tab)}" if tab else "")
    return address + (f"#{part}" if part else "")


def moment_of(at: float) -> str:
    """A time as text, the same everywhere: ``2026-01-02 03:10 UTC``."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "unknown"


def ago(at: float, now: float) -> str:
    """How long ago, in one unit: ``5 min ago``."""
    seconds = max(0.0, now - at)
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}\u00a0{unit} ago"
    return "now" if seconds < 5 else f"{int(seconds)}\u00a0s ago"


def plain(text: object, limit: int = 300) -> str:
    """An untrusted text as one printable line."""
    return printable(" ".join(str(text).split()), limit)
