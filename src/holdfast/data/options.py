"""Options for reading the rows of a source, for every task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from holdfast.data.raw import Raw
    from holdfast.data.table import Table

RareClasses = Literal["refuse", "drop", "merge"]
LabelSpelling = Literal["merged", "exact"]
Links = Literal["skip", "follow"]
# One value per split.
RARE_BELOW = 3


@dataclass(frozen=True, slots=True)
class RowOptions:
    """What the user says about a source; ``None`` is inferred. Each reader uses the fields that its
    task knows.

    Parameters
    ----------
    text, label, group : columns. Two text columns are a pair, three or more are joined; the label
        is a class, several labels, a number, the target of a pair, the answer of a prompt or the
        tags.
    template : joins columns to one text; for chats also a chat template (``chats/turns.py``).
    messages : the column of chats.
    encoding : of a text file; without it, UTF-8 or an error that names the likely one.
    config : of a data set of the hub; overrides the one in its name.
    kind, separator : ``class``, ``several`` or ``number``, and the separator of several labels;
        without it cells are JSON lists, or ``|`` or ``;`` is found.
    classes : the labels, tags or classes of a run; others are refused. Without them, all found.
    need_label : if false, the label's column may be missing, and a row whose label is missing or
        unknown is kept (its class is then -1, its target empty).
    labels : ``merged`` or ``exact`` (``labels/spelling.py``); with ``exact``, tags that break their
        scheme are kept as they are.
    rare, rare_below : what to do with a class of fewer than ``rare_below`` distinct texts
        (``labels/classes.py``). Not used when ``classes`` are given or labels are not needed.
    links : whether links to images are followed (``list_images``).
    like : the table that the rows are split or scored with: its label type, ranges and strata.
    view : a function applied to the source before it is read further: renames its columns.
    """

    text: Sequence[str] | None = None
    label: str | None = None
    group: str | None = None
    template: str | None = None
    messages: str | None = None
    encoding: str | None = None
    config: str | None = None
    label_kind: str | None = None
    separator: str | None = None
    classes: Sequence[str] | None = None
    need_label: bool = True
    labels: LabelSpelling = "merged"
    rare: RareClasses = "refuse"
    rare_below: int = RARE_BELOW
    links: Links = "skip"
    like: Table | None = None
    view: Callable[[Raw], Raw] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.text, str):
            object.__setattr__(self, "text", (self.text,))
