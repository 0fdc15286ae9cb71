"""Which language a text is in."""

from __future__ import annotations

from functools import cache
from typing import Any


def language_of(text: str) -> tuple[str, float]:
    """The ISO 639 code of a text's language and how probable it is, by py3langid.

    >>> language_of("Der schnelle braune Fuchs springt über den faulen Hund.")[0]
    'de'
    """
    code, sure = _identifier().classify(text)
    return str(code), float(sure)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
