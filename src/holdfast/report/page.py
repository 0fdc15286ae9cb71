"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import CodeType

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.bccache import Bucket
from markupsafe import Markup

from holdfast._version import __version__
from holdfast.core.errors import HoldfastError, RunError
from holdfast.core.files import write_text
from holdfast.core.run_files import is_sealed
from holdfast.report.contents import report_sections
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import moment
from holdfast.report.public import strip_paths
from holdfast.report.run_files import RunFiles, read_run
from holdfast.report.section import PagePart
from holdfast.report.view import headline, mistakes, reliance


class TemplateCache(BytecodeCache):
    """Compiled templates, in memory. All environments that share one must have the same settings,
    which are compiled in. Differs from Jinja's own cache in that it outlives its environment: each
    page has its own environment, because it has its own glossary."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._code[bucket.key, bucket.checksum] = bucket.code


PACKAGE = Path(__file__).parents[1]
TEMPLATES = PACKAGE / "report" / "templates"
COMPILED = TemplateCache()
# Characters that HTML does not allow; a lone surrogate cannot be encoded.
UNPRINTABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(55296, 57344)), "�")


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from the files of the run folder ``run`` only.

    The same files give the same bytes, whatever the name of the folder. The page works offline and
    makes no requests: its content policy allows only its own style and script, by their hashes.
    Raises ``RunError`` when ``result.json`` or ``events.jsonl`` is missing or any file is broken.
    Sections without data say so or are left out.
    """
    path, files = run / "report.html", read_run(run)
    try:
        page = render(files)
    except Exception as error:
        # With a seal the values are ours, so this is a defect of Holdfast.
        if isinstance(error, HoldfastError) or is_sealed(files.result) or "trainer" in files.result:
            raise
        raise RunError(
            str(run / "result.json"),
            "does not hold the values that Holdfast writes, so no report can be made",
            f"{type(error).__name__}: {error}",
            "Copy the run folder again from its original location.",
        ) from error
    write_text(path, page)
    return path


def render(run: RunFiles) -> str:
    """The page as text, without local paths."""
    run = strip_paths(run)
    parts, result = sections(run), run.part()
    return _page(
        Glossary(),
        headline.headline(run),
        parts,
        task=result.text("task"),
        version=result.text("holdfast"),
        pictures=mistakes.has_images(run),
        rely=reliance.reliance(run, {"words", *(part.id for part in parts)}),
        created=moment(result.text("created")),
        absent=run.absent,
        seed=result.get("seed"),
    )


def standalone(
    top: headline.HeadlineView,
    parts: Sequence[PagePart],
    words: Glossary,
    task: str,
    *,
    more_style: str = "",
    pictures: bool = False,
) -> str:
    """A self-contained page that is not on a run: the summary ``top`` and the sections ``parts``,
    followed by the glossary ``words``. It has no timestamp, so the same input gives the same bytes.
    ``more_style`` is a further style sheet; ``pictures`` allows images as data URIs."""
    return _page(
        words, top, parts, task=task, version=__version__, pictures=pictures, more_style=more_style
    )


def _page(
    words: Glossary,
    top: headline.HeadlineView,
    parts: Sequence[PagePart],
    *,
    pictures: bool,
    more_style: str = "",
    **facts: object,
) -> str:
    """The page as text; ``facts`` are further facts of a run."""
    style, script = asset("report.css"), asset("report.js")
    if more_style:
        style = Markup(style + "\n" + asset(more_style))
    parts = (*parts, PagePart("words", "Glossary", words))
    given = {"rely": None, "created": "", "absent": (), "seed": None, **facts}
    page = (
        environment(words)
        .get_template("page.html.j2")
        .render(
            top=top,
            titles={part.id: part.title for part in parts},
            sections=parts,
            style=style,
            script=script,
            policy=content_policy(style, script, pictures),
            **given,
        )
    )
    return page.translate(UNPRINTABLE)


def sections(run: RunFiles) -> tuple[PagePart, ...]:
    """The sections of the page in reading order; a section without data is left out."""
    parts = ((one, one.view(run)) for one in report_sections())
    return tuple(
        PagePart(one.key, one.title, data, one.template)
        for one, data in parts
        if one.always or data
    )


def environment(words: Glossary, *folders: Path) -> Environment:
    """A Jinja environment that escapes everything and raises an error for unknown names. The filter
    ``words`` marks the terms of the glossary ``words``; each page has its own glossary. Templates
    are searched in ``folders`` first."""
    jinja = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES, PACKAGE]),
        bytecode_cache=COMPILED,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    # A filter with a context is never evaluated while a template is compiled.
    @pass_context
    def mark(_: object, text: object) -> Markup:
        return words.mark(text)

    jinja.filters["words"] = mark
    jinja.globals["glossary"] = words
    return jinja


def content_policy(style: str, script: str, pictures: bool = False) -> str:
    """A content policy that allows this style and this script only, and no request; with
    ``pictures`` also images as data URIs."""
    images = "img-src data:; " if pictures else ""
    return (
        f"default-src 'none'; {images}style-src '{_content_hash(style)}'; "
        f"script-src '{_content_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _content_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def asset(name: str) -> Markup:
    """The text of a file in the templates folder, which is put into the page unchanged."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
