"""Texts in another language than nearly all others."""

from __future__ import annotations

import re
from collections import Counter

from holdfast.data.texts.language import language_of
from holdfast.quality.check import CheckResult, check, with_texts
from holdfast.quality.single import single_finding
from holdfast.quality.views import Closely

_MOST = 20_000
_LEAST_ROWS, _MAIN = 50, 0.8
# Set by judgement: the figures of the docstring are of the same real sets that were looked at.
_LETTERS, _SURE = 40, 0.9
_LETTER = re.compile(r"[^\W\d_]")


@check(
    Closely,
    cannot_see="Texts of fewer than 40 letters, texts of two languages, dialects.",
    error_rate="Eleven real sets, 1,000 texts each, sentences in eight languages in one row of "
    "twenty: recall 1.00. As they are it names 44 reviews of MR, all Spanish, Portuguese or "
    "French; two of 5,000 questions to tables that quote another script, wrongly; two Latin "
    "passages of novels; and nothing else in 56,000 rows.",
    holds_for=with_texts,
)
def wrong_language(view: Closely) -> CheckResult | None:
    """Lists the rows of 40 letters and more that py3langid is sure of (0.9) and that are not in the
    language of the others, where at least 50 rows can be told and eight in ten agree. At most
    20,000 rows are read. Score: their share of those.

    Both halves of a text must be in that language too: a quotation or a list of names is no
    foreign text.
    """
    rows = view.rows
    step = -(-len(rows.sample) // _MOST)
    known: list[tuple[int, str, str]] = []
    for position, text in zip(
        rows.sample[::step].tolist(), rows.sampled.to_pylist()[::step], strict=True
    ):
        if len(_LETTER.findall(text[:2000])) < _LETTERS:
            continue
        language, sure = language_of(text[:2000])
        if sure >= _SURE:
            known.append((position, text, language))
    if len(known) < _LEAST_ROWS:
        return None
    (main, count), *_ = Counter(language for _, _, language in known).most_common(1)
    if count < _MAIN * len(known):
        return None
    found = [
        (position, f"{language}: {text[:60]!r}")
        for position, text, language in known
        if language != main and _whole(text, language, main)
    ]
    others = Counter(note.partition(":")[0] for _, note in found)
    shown = ", ".join(f"{name} {n}" for name, n in others.most_common(5))
    return single_finding(
        rows,
        found,
        f"a text in another language than the others, which are in {main!r} ({shown})",
        "If the model reads one language only, leave them out (`treat.rows`) or translate them; "
        "else take a model of several languages.",
    )


def _whole(text: str, language: str, main: str) -> bool:
    """Whether each half is rather in that language than in the main one."""
    words = text[:2000].split()
    if len(words) < 6:
        return True
    middle = len(words) // 2
    return all(
        language_of(" ".join(half))[0] == language for half in (words[:middle], words[middle:])
    )
