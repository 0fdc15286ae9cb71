"""``holdfast audit``: what in the data would spoil a training, before an hour is spent on it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.core.errors import Defect, RunError
from holdfast.core.machine import refuse_too_little
from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.analyses.audit.audit import AuditRequest
    from holdfast.analyses.audit.fix import Fixed
    from holdfast.analyses.audit.result import Audit
    from holdfast.core.outputs import OutputFile


def command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A data file, a folder of pictures, a hub data set, a recipe, or a finished run.",
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Rows that DATA must not hold, e.g. the test rows; once each."
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="The text column; twice for pairs.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label column.")] = None,
    group: Annotated[str | None, typer.Option(help="Rows of one group belong together.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a recipe, e.g. audit.rows=0."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write a treated copy here, and OUT.changes.jsonl."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="local|ray", help="Where copies are looked for: here, or on Ray."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with examples to this file.")] = (
        None
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing beside the result.")] = False,
) -> None:
    """Look for what would spoil a training on DATA: copies, leaks, wrong labels, damage, bias.

    Nothing is changed and nothing is sent anywhere; --fix writes a file of its own.
    """
    refuse_too_little("torch")
    from holdfast.analyses.audit.audit import AuditRequest
    from holdfast.terminal.audit import audit_watched
    from holdfast.terminal.say import width

    settings = (*(set_ or ()), *((f"audit.engine={engine}",) if engine else ()))
    asked = AuditRequest(data, tuple(against or ()), text, label, group, settings)
    page = None if html is None else _target(html, asked, force)
    if fix is not None:
        from holdfast.analyses.audit.fix import check_fix

        check_fix(asked, fix, force)
        _refuse_one_file(fix, html)
    found = audit_watched(asked, quiet=quiet)
    if page is not None:
        _write(page, found)
    if as_json:
        document = found.to_json()
        if fix is not None:
            document["fixed"] = _fix(asked, found, fix, force).to_json()
        typer.echo(json_text(document))
    else:
        from holdfast.cli.text.audit import summary

        columns = min(80, width())
        typer.echo("\n".join(summary(found, columns)))
        if fix is not None:
            # After the summary: what was found must not be lost where the copy cannot be written.
            told = printable(str(_fix(asked, found, fix, force)))
            wrapped = textwrap.wrap(told, columns, break_long_words=False, break_on_hyphens=False)
            typer.echo("\n" + "\n".join(wrapped))
        if page is not None and not quiet:
            typer.echo(f"\nPage with examples: {page.path}")
    if found.broken:
        names = ", ".join(found.broken)
        raise Defect(
            names,
            "fell over; everything else in this audit is whole",
            "; ".join(found.broken.values()),
            "Set HOLDFAST_TRACEBACK=1 to see where, and please report it.",
        )


def _refuse_one_file(fix: Path, html: Path | None) -> None:
    from holdfast.analyses.audit.fix import LOG

    if html is None or html.resolve() not in (fix.resolve(), Path(f"{fix}{LOG}").resolve()):
        return
    rule = "names a file that --fix writes"
    raise RunError("--html", rule, str(html), "Give the page a name of its own.")


def _fix(asked: AuditRequest, found: Audit, out: Path, force: bool) -> Fixed:
    from holdfast.analyses.audit.fix import fix_audited

    return fix_audited(asked, found, out, force)


def _target(path: Path, asked: AuditRequest, force: bool) -> OutputFile:
    from holdfast.core.outputs import checked_output

    return checked_output(path, asked.inputs, force=force)


def _write(page: OutputFile, found: Audit) -> None:
    from holdfast.core.outputs import writing
    from holdfast.report.audit import render_audit

    text = render_audit(found.to_json(), found.shown())
    with writing(page) as stream:
        stream.write(text.encode("utf-8"))
