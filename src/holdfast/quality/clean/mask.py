"""Personal data and secrets, each in place of itself a word that says what it was.

What is taken out is written nowhere, so that this cannot be undone. ``quality/personal.py`` says
what is known, and how.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.quality.clean.treatment import RowTreatment, add
from holdfast.quality.personal import KINDS, SEEN, find_personal


@dataclass(frozen=True, slots=True)
class Mask:
    """``only`` these kinds (``quality/personal.py`` names them); all where it is empty."""

    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from holdfast.core.discovery import nearest
        from holdfast.core.errors import RecipeError

        for kind in self.only:
            if kind not in KINDS:
                rule = "is no kind of personal data"
                raise RecipeError("treat.mask.only", rule, kind, nearest(str(kind), list(KINDS)))


def masked(text: str, settings: Mask | None = None) -> str:
    """The text with ``[EMAIL]`` in place of an address, and so on.

    >>> masked("write to jo@example.com")
    'write to [EMAIL]'
    """
    only = settings.only if settings is not None else ()
    parts, end = [], 0
    for one in find_personal(text):
        if only and one.kind not in only:
            continue
        parts += [text[end : one.start], f"[{one.kind.upper()}]"]
        end = one.end
    return "".join([*parts, text[end:]]) if parts else text


add(
    RowTreatment(
        "mask",
        Mask,
        masked,
        seen=SEEN,
        because="held personal data or secrets",
        order=60,
        answers=True,
        fixes=("personal_data",),
        hides=True,
    )
)
