"""``CommandResult``: the document of a command, as functions return it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

# Of the text in a notebook, in characters.
COLUMNS = 100


class CommandResult(dict[str, Any]):
    """The document that a command prints with ``--json``, a plain dictionary. A notebook shows what
    the command prints without ``--json``, which ``text`` makes of the document and a width."""

    def __init__(
        self, document: Mapping[str, Any], text: Callable[[Mapping[str, Any], int], str]
    ) -> None:
        super().__init__(document)
        self._text = text

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self._text(self, COLUMNS))}</pre>"
