"""A section of the report, declared once by the module that computes it. Page, model card, terminal
and dashboard read it from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.report.run_files import RunFiles

# Results of a ``RelianceCheck`` that found no fault.
CLEAN, UNDECIDED = "clean", "undecided"


@dataclass(frozen=True, slots=True)
class RelianceCheck:
    """A line for the list "Before you rely on it". ``looked_for`` names the fault. ``find`` returns
    the fault as a sentence, ``CLEAN``, ``UNDECIDED`` where the rows are too few, or ``None`` where
    the run was not tested. Faults with the lowest ``rank`` come first. ``is_use`` marks advice on
    how to use the model, which is not a fault."""

    looked_for: str
    find: Callable[[RunFiles], str | None]
    rank: int
    is_use: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page.

    ``key`` is its anchor, ``title`` its heading. ``view`` turns the run's files into a
    ``Document``, or into the data of ``template``, a path in the package (default:
    ``templates/sections/KEY.html.j2``). Where it returns nothing, the section is left out, unless
    it is shown ``always`` and says itself what is missing.

    ``reliance`` is its line in the list "Before you rely on it". ``own_texts`` are the keys of
    result.json with the user's own texts: these are shown unchanged, while local paths are removed
    from other texts."""

    key: str
    title: str
    view: Callable[[RunFiles], Any]
    template: str = ""
    always: bool = False
    reliance: RelianceCheck | None = None
    own_texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PagePart:
    """A section with its content: its anchor, its heading, and the ``data`` for its
    ``template``."""

    id: str
    title: str
    data: Any
    template: str = ""
