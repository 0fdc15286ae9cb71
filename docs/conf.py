"""The site, which Sphinx builds from the pages of the repository: `make docs` writes it to `site/`.

The source folder is the root of the repository, so that a link between two pages leads to the same
page on the site and in the repository. The references of commands and of the Python API are
generated from the code.

Why Sphinx: it reads the docstrings, makes no request outside, searches offline, and fails on a
link that leads nowhere. Material for MkDocs ends in 2027, and its successor, Zensical, was at
version 0.1 when this was chosen.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import yaml  # noqa: E402
from reference import write_references  # noqa: E402

import holdfast  # noqa: E402

REPORT_STYLE = ROOT / "src" / "holdfast" / "report" / "templates" / "report.css"
# Furo's variable → the report's.
VARIABLES = {
    "color-background-primary": "paper",
    "color-background-secondary": "soft",
    "color-background-hover": "soft",
    "color-background-border": "line",
    "color-foreground-primary": "ink",
    "color-foreground-secondary": "muted",
    "color-foreground-muted": "muted",
    "color-brand-primary": "accent",
    "color-brand-content": "accent",
    "color-brand-visited": "train",
}


def report_colours(theme: str) -> dict[str, str]:
    """The colours and the font of reports and dashboard, as Furo's variables."""
    style = REPORT_STYLE.read_text("utf-8")
    light, dark, *_ = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", light if theme == "light" else dark))
    (font,) = re.findall(r"font: 1rem/1\.6 (.*?);", style, flags=re.DOTALL)
    chosen = {name: colours[value] for name, value in VARIABLES.items()}
    return {**chosen, "font-stack": " ".join(font.split())}


project = "Holdfast"
author = "The Holdfast developers"
copyright = author
release = version = holdfast.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "docs/*/*.md",
    "README.md",
    "SKILL.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "recipes/README.md",
    "src/holdfast/demo/ATTRIBUTION.md",
    "benchmarks/*.md",
    "benchmarks/results/*.md",
]
exclude_patterns = ["docs/plain_words"]
# The stored outputs are shown; `make notebooks` runs them.
nb_execution_mode = "off"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
# Files that are no pages (a script, a table of results) are linked as files.
suppress_warnings = ["myst.header"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False

html_theme = "furo"
html_title = "Holdfast"
html_static_path = ["_static"]
html_css_files = ["holdfast.css"]
html_theme_options = {
    f"{theme}_css_variables": report_colours(theme) for theme in ("light", "dark")
}
html_show_sourcelink = False
html_copy_source = False
# The page at the root leads to the first page.
html_extra_path = ["_root"]
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Any) -> None:
    app.connect("html-page-context", with_search_script)
    app.connect("source-read", with_search_words)
    app.connect("builder-inited", lambda _: write_references(ROOT / "docs" / "reference"))
    # Before Napoleon, which takes what stands behind the colon for a type.
    app.connect("autodoc-process-docstring", descriptions_below_names, priority=400)
    app.connect("autodoc-process-signature", without_private_defaults)


SEARCH_WORDS = yaml.safe_load((ROOT / "docs" / "search_words.yaml").read_text("utf-8"))


def with_search_words(app: Any, page: str, source: list[str]) -> None:
    """Entries of the index, which the search looks through, and which no reader of a page sees."""
    entries = ", ".join(f"! {words}" for words in SEARCH_WORDS.get(page, ()))
    if entries:
        source[0] += f"\n\n```{{index}} {entries}\n```\n"


def with_search_script(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    if page == "search":
        app.add_js_file("search.js", priority=900)


def without_private_defaults(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """A dataclass of settings would show the address of each default in memory."""
    if signature and " object at 0x" in signature and inspect.isclass(obj):
        return "(…)", returns
    return None


FIELD = re.compile(r"^([A-Za-z_][\w ,*]*) : (.+)$")
SECTIONS = ("Parameters", "Attributes", "Raises", "Returns")


def descriptions_below_names(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings describe a parameter behind its name and colon; put that on a line of its own. A
    paragraph after the parameters is a section of its own."""
    section, changed = "", []
    for at, line in enumerate(lines):
        is_rule = re.fullmatch(r"-{3,}", line)
        if lines[at + 1 : at + 2] and re.fullmatch(r"-{3,}", lines[at + 1]):
            section = line.strip()
        elif section in SECTIONS and line[:1].strip() and not is_rule:
            if field := FIELD.match(line):
                changed += [field[1], f"    {field[2]}"]
                continue
            changed += ["Notes", "-----"]
            section = ""
        changed.append(line)
    lines[:] = changed
