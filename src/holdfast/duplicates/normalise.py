"""The normal form of a text: without case, space and punctuation.

Two texts are *exact duplicates* if their normal forms are equal. The normal form is

1. Unicode NFKC (full-width letters, ligatures, no-break spaces), with Cyrillic and Greek letters
   that look like Latin ones replaced by these, then lower case;
2. without punctuation (``\\p{P}``, ASCII symbols such as ``$`` and ``+``, control and format
   characters, variation selectors) and without space; but
3. one mark stays in place of space or punctuation between two digits: ``1.5`` is not ``15``.

Other symbols stay: "good 👍" and "good 👎" differ, and so do prices in € and £. A text that
consists of punctuation ("!!!", "?") would be empty, and all such texts would be duplicates. Its
normal form is therefore the result of step 1 without space, so "! !" and "!!" are duplicates, and
"!!" and "??" are not. An empty text is a duplicate of empty texts only.

All steps except that of look-alike letters run in Arrow's kernels, at several hundred thousand
short texts per second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.data.texts.general import LOOK_ALIKE_PATTERN, TO_LATIN

PAIR_MARK = "␟"
"""The separator between the two texts of a pair: a symbol that the normal form keeps."""

# A character of Unicode's private use area, which none of the steps removes.
_DIGIT_SEPARATOR = "\ue000"
_PUNCTUATION = r"\p{P}\p{Cc}\p{Cf}$+<=>^`|~\x{FE00}-\x{FE0F}"
# RE2's ``\s`` covers ASCII only.
_SPACES = r"\s\p{Z}\x{0085}"
_NO_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


def to_arrow(texts: Sequence[str]) -> Any:
    """The texts as one Arrow array; what UTF-8 cannot encode (a lone surrogate) becomes ``?``."""
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return pa.array([t.encode("utf-8", "replace").decode() for t in texts], pa.large_string())


def fold_texts(texts: pa.Array) -> pa.Array:
    """Step 1: NFKC, look-alike letters in one script, and lower case.

    Each letter that looks like a Latin one is replaced by it: a row rewritten in such letters is a
    duplicate. Texts entirely in those scripts change in the same way in every split.
    """
    texts = pc.utf8_normalize(texts, "NFKC")
    has_look_alikes = pc.match_substring_regex(texts, LOOK_ALIKE_PATTERN)
    if pc.any(has_look_alikes).as_py():
        latin = [text.translate(TO_LATIN) for text in texts.filter(has_look_alikes).to_pylist()]
        texts = pc.replace_with_mask(texts, has_look_alikes, pa.array(latin, texts.type))
    return pc.utf8_lower(texts)


def spaced_words(fold: pa.Array) -> pa.Array:
    """Folded texts without punctuation, with words separated by spaces, and spaces around each
    letter of a script without spaces (Chinese, Japanese, Thai …)."""
    # Matches cannot overlap, so the second pass handles what the first leaves of "1.2.3".
    digits_marked = _mark_between_digits(_mark_between_digits(fold, r"[\p{P}]+"), r"[\p{P}]+")
    # A control character that separates words (tab, newline) must not join its neighbours.
    spaced = pc.replace_substring_regex(digits_marked, rf"[{_SPACES}]+", " ")
    bare = pc.replace_substring_regex(spaced, rf"[{_PUNCTUATION}]+", "")
    # These scripts are never ASCII: a cheap test avoids the expression. ``None``: no texts.
    if pc.all(pc.string_is_ascii(bare)).as_py() in (True, None):
        return bare
    return pc.replace_substring_regex(bare, _NO_SPACES, r" \1 ")


def normal_forms(texts: pa.Array) -> pa.Array:
    """The normal forms of an Arrow array of strings, as an Arrow array of strings."""
    fold = fold_texts(texts)
    return join_forms(fold, spaced_words(fold))


def join_forms(fold: pa.Array, words: pa.Array) -> pa.Array:
    """The normal forms, from folded texts and their separated ``words`` (``spaced_words``)."""
    # Twice, for the same reason as in ``spaced_words``.
    marked = _mark_between_digits(_mark_between_digits(words, " +"), " +")
    form = pc.replace_substring(marked, " ", "")
    # For texts that consist of punctuation, which would be empty otherwise.
    punctuation_only = pc.replace_substring_regex(fold, rf"[{_SPACES}]+", "")
    return pc.if_else(pc.equal(pc.binary_length(form), 0), punctuation_only, form)


def content_keys(strings: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit BLAKE2b hash of each string [n], the same on every machine and in every version.

    Among 2 million different strings any two collide with a probability of 1e-7.
    """
    digests = [
        hashlib.blake2b(value.encode(), digest_size=8).digest() for value in strings.to_pylist()
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _mark_between_digits(strings: pa.Array, separators: str) -> pa.Array:
    return pc.replace_substring_regex(
        strings, f"([0-9]){separators}([0-9])", rf"\1{_DIGIT_SEPARATOR}\2"
    )
