"""What a report says of one subject, declared once by whoever knows the subject: page, model card,
terminal and dashboard read it from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.report.run_files import RunFiles

# What a subject says before the model is relied on where there is nothing to say.
CLEAN, UNDECIDED = "clean", "undecided"


@dataclass(frozen=True, slots=True)
class RelianceCheck:
    """What a subject says under "Before you rely on it". ``looked_for`` names what was looked for;
    ``find`` gives the fault that was found as a sentence, ``CLEAN``, ``UNDECIDED`` where the rows
    are too few, or ``None`` where the run was not asked. The faults of the lowest ``rank`` come
    first. ``is_use`` marks a way to use the model, which is no fault."""

    looked_for: str
    find: Callable[[RunFiles], str | None]
    rank: int
    is_use: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page. ``key`` is its anchor, ``title`` its heading; ``view`` makes of the
    run's files a ``Document``, or what ``template`` shows, a path in the package (of the report's
    own ``templates/sections/KEY.html.j2``). Where it gives nothing the section is left out, unless
    it is shown ``always`` and says itself what is missing.

    ``reliance`` is what a user must know of it first. ``own_texts`` are the keys of result.json
    under which the user's own texts stand: they are shown as they are, where other texts lose the
    paths of the machine."""

    key: str
    title: str
    view: Callable[[RunFiles], Any]
    template: str = ""
    always: bool = False
    reliance: RelianceCheck | None = None
    own_texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PagePart:
    """A section with what it shows: its anchor, its heading, and what its ``template``
    is given."""

    id: str
    title: str
    data: Any
    template: str = ""
