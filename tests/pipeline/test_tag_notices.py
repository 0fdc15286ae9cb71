"""What is said of training words that are not read, and of tags that no training word has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.tasks.tags.losses import EncodedWords
from holdfast.tasks.tags.task import check_examples


def learnt(tags: list[int], count: int) -> EncodedWords:
    """One sentence of ``count`` words, of which the first ones are read."""
    nothing, read = np.zeros(0, dtype=np.int64), len(tags)
    one = np.array([0])
    return EncodedWords(
        ids=nothing,
        types=None,
        offsets=np.array([0, 0]),
        places=np.arange(read),
        words=np.arange(read),
        tags=np.array(tags),
        starts=np.array([0, read]),
        rows=one,
        kept=one,
        counts=np.array([count]),
        cut=np.array([count - read]),
        table_rows=one,
    )


def loaded(*names: str) -> Any:
    return SimpleNamespace(network=SimpleNamespace(classes=names), max_length=4)


@pytest.mark.parametrize(
    ("names", "tags", "unread"),
    [(("O", "B-X"), [1, 1], "O"), (("NOUN", "VERB"), [0, 1, 1], "VERB")],
)
def test_the_tag_of_words_beyond_the_limit_is_the_one_they_get(
    names: tuple[str, ...], tags: list[int], unread: str
) -> None:
    found = {
        one.check: one
        for one in check_examples(learnt(tags, len(tags) + 1), loaded(*names), "training")
    }
    assert f"such words get the tag {unread}" in found["truncated_sentences"].because


def test_a_type_without_training_words_is_a_warning_and_a_mark_of_a_known_type_is_not() -> None:
    names = ("O", "B-X", "I-X", "B-Y", "I-Y")
    (mark,) = check_examples(learnt([0, 1, 2, 3], 4), loaded(*names), "training")
    assert (mark.check, mark.severity) == ("tags_without_training_words", "info")
    assert "I-Y" in mark.because
    (whole,) = check_examples(learnt([0, 1, 2], 3), loaded(*names), "training")
    assert whole.severity == "warn"
    assert "B-Y, I-Y" in whole.because
