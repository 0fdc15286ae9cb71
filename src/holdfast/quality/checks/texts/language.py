"""Words of another language than the others, and words that are probably typing errors."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter

from holdfast.core.wording import count_phrase
from holdfast.data.texts.general import identify_language
from holdfast.quality.check import CheckResult, check, has_texts
from holdfast.quality.clean.spelling import (
    CAPITAL,
    ENGLISH,
    PROGRAM,
    SHORT_WORD,
    dictionary,
    most_likely_word,
)
from holdfast.quality.single import sampled_texts, text_finding
from holdfast.quality.views import ThoroughRows

_MAX_ROWS = 20_000
_LEAST_ROWS, _MIN_MAIN_SHARE = 50, 0.8
# Set by judgement: the figures of the docstring are of the same real sets that were looked at.
_MIN_LETTERS, _MIN_PROBABILITY = 40, 0.9
_LETTER = re.compile(r"[^\W\d_]")


@check(
    ThoroughRows,
    cannot_see="Texts of fewer than 40 letters, texts of two languages, dialects.",
    error_rate="Eleven real sets, 1,000 texts each, sentences in eight languages in one row of "
    "twenty: recall 1.00. As they are it names 44 reviews of MR, all Spanish, Portuguese or "
    "French; two of 5,000 questions to tables that quote another script, wrongly; two Latin "
    "passages of novels; and nothing else in 56,000 rows.",
    applies_to=has_texts,
)
def wrong_language(view: ThoroughRows) -> CheckResult | None:
    """Lists the rows of 40 letters and more that py3langid is sure of (0.9) and that are not in the
    language of the others, where at least 50 rows can be told and eight in ten agree. At most
    20,000 rows are read. Score: their share of those.

    Both halves of a text must be in that language too: a quotation or a list of names is no
    foreign text.
    """
    rows = view.rows
    step = -(-len(rows.sample) // _MAX_ROWS)
    identified: list[tuple[int, str, str]] = []
    for position, text in zip(
        rows.sample[::step].tolist(), rows.sampled.to_pylist()[::step], strict=True
    ):
        if len(_LETTER.findall(text[:2000])) < _MIN_LETTERS:
            continue
        language, probability = identify_language(text[:2000])
        if probability >= _MIN_PROBABILITY:
            identified.append((position, text, language))
    if len(identified) < _LEAST_ROWS:
        return None
    (main, count), *_ = Counter(language for _, _, language in identified).most_common(1)
    if count < _MIN_MAIN_SHARE * len(identified):
        return None
    notes = [
        (position, f"{language}: {text[:60]!r}")
        for position, text, language in identified
        if language != main and _both_halves(text, language, main)
    ]
    others = Counter(note.partition(":")[0] for _, note in notes)
    shown = ", ".join(f"{name} {n}" for name, n in others.most_common(5))
    return text_finding(
        rows,
        notes,
        f"a text in another language than the others, which are in {main!r} ({shown})",
        "If the model reads one language only, leave them out (`treat.rows`) or translate them; "
        "else take a model of several languages.",
    )


def _both_halves(text: str, language: str, main: str) -> bool:
    """Whether each half is rather in that language than in the main one."""
    words = text[:2000].split()
    if len(words) < 6:
        return True
    middle = len(words) // 2
    return all(
        identify_language(" ".join(half))[0] == language
        for half in (words[:middle], words[middle:])
    )


# A word that more rows have is one of their subject.
_MAX_ROWS_WITH_ERROR = 5
_MIN_KNOWN_SHARE = 0.5
_LOWERCASE_WORD = re.compile(r"^[^a-zA-Z]*[A-Z][a-z]*|(?<![^\W\d_])[a-z]+(?![^\W\d_])")


def _why_no_words(view: ThoroughRows) -> str:
    """Why no word is looked up; empty where some are."""
    if importlib.util.find_spec("symspellpy") is None:
        return "symspellpy is not installed: pip install 'holdfast[spelling]'"
    texts = [text for _, text in sampled_texts(view.rows) if SHORT_WORD.search(text)]
    if not any(_is_english(text) for text in texts):
        return "no text is English with capital letters, without which a name looks misspelt"
    return ""


@check(
    ThoroughRows,
    cannot_see="Words that a mistake turned into another word (form for from), names, "
    "abbreviations, and languages other than English.",
    error_rate="One planted into each of 50 rows of 1,500, three draws a set on which nothing "
    "was chosen: 96 % found in BANKING77, 97 % in TREC, 89 % in written answers. It lists 1 % "
    "of their rows as they are, some for a rare word that is right.",
    applies_to=has_texts,
    skip_reason=_why_no_words,
)
def typing_errors(view: ThoroughRows) -> CheckResult | None:
    """Lists the rows with a word of four small letters or more that no English dictionary has, is
    one letter (more, less, other, or two that changed places) away from a usual word with the same
    first letter, and stands in five rows at most. Programs, texts without a capital letter and
    texts that are not English are not looked at, and are counted: of their words with a small
    letter half must be in the dictionary, and seven in ten with those that are near one. Score: the
    share of the rows.
    """
    rows, left_out = view.rows, 0
    words: dict[int, set[str]] = {}
    for at, text in sampled_texts(rows):
        if SHORT_WORD.search(text):
            if _is_english(text):
                words[at] = {word[0] for word in SHORT_WORD.finditer(text)}
            else:
                left_out += 1
    row_counts = Counter(word for notes in words.values() for word in notes)
    notes = []
    for at, row_words in words.items():
        wrong = sorted(
            word
            for word in row_words
            if row_counts[word] <= _MAX_ROWS_WITH_ERROR and _is_misspelt(word)
        )
        if wrong:
            notes.append((at, ", ".join(f"{word} ({most_likely_word(word)}?)" for word in wrong)))
    skipped = f" ({count_phrase(left_out, 'text')} skipped: no capital letter, code or not English)"
    skipped_note = skipped if left_out else ""
    return text_finding(
        rows,
        notes,
        f"what is probably a typing error{skipped_note}",
        "`treat.spelling` corrects those that have one likely correction. People who write to your "
        "model make them too, so that leaving them is usually fine.",
        severity="info",
    )


def _is_misspelt(word: str) -> bool:
    return len(word) >= 4 and most_likely_word(word) != word


def _is_english(text: str) -> bool:
    """Whether the words of a text are looked up: with a capital letter somewhere, since a name
    without one looks like any word."""
    if PROGRAM.search(text) or not CAPITAL.search(text):
        return False
    words_ = [re.sub(r"[^a-z]", "", word.lower()) for word in _LOWERCASE_WORD.findall(text)]
    words = [word for word in words_ if len(word) > 2]
    known = sum(word in dictionary().words for word in words)
    misspelt = sum(map(_is_misspelt, words))
    return known >= _MIN_KNOWN_SHARE * len(words) and known + misspelt >= ENGLISH * len(words)
