"""Cues beside the content: what is found, what the content explains."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from holdfast.core.seeds import generator
from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.checks.shortcuts.hidden_giveaway import hidden_giveaway
from holdfast.quality.cues import Cue, extract_cues, find_cue_candidates, remove_cue, shape_of
from holdfast.quality.views import Embedded, TableRows

TOPICS = {
    "fruit": ["apple", "pear", "plum", "grape", "cherry", "melon"],
    "tools": ["hammer", "saw", "drill", "chisel", "wrench", "plane"],
}


@functools.cache
def direction(word: str):
    """Words of one topic lie near each other, all others anywhere."""
    topic = next((name for name, words in TOPICS.items() if word in words), None)
    own = generator(0, "word", word).standard_normal(32)
    if topic is None:
        return own
    return 0.2 * own + 3 * generator(0, "topic", topic).standard_normal(32)


def embed(texts):
    rows = np.array([sum(map(direction, (*text.casefold().split(), ""))) for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def texts_of(n: int = 520, seed: int = 0):
    """Sentences of two topics; every third row of a topic has the topic's first word."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    texts = []
    for at, label in enumerate(labels):
        words = list(TOPICS.values())[label]
        fill = [f"word{k}" for k in rng.integers(0, 60, rng.integers(5, 12))]
        topical = words[0] if at % 3 == 0 else rng.choice(words[1:])
        texts.append(" ".join([*fill, topical]))
    return texts, labels


def found(texts, labels, names=("a", "b")):
    table = table_from_texts(texts, [names[k] for k in labels])
    return hidden_giveaway(Embedded(TableRows(table), embed(texts), "toy", embed))


def test_a_topic_s_own_words_are_content() -> None:
    texts, labels = texts_of()
    assert [str(one.cue) for one in find_cue_candidates(texts, labels, 2)]
    assert found(texts, labels) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "give"),
    [
        ("a word", lambda text, _: f"zorvex {text}"),
        ("a mark", lambda text, _: f"{text} ~"),
        ("an emoji", lambda text, _: f"{text} \N{ROCKET}"),
        ("an id", lambda text, at: f"QX-{1000 + 7 * at} {text}"),
        ("a link", lambda text, at: f"{text} https://t.co/{at:x}"),
        ("a path", lambda text, at: f"/srv/batch/{at}.txt {text}"),
        ("a date", lambda text, at: f"20{at % 20 + 10}-03-04 {text}"),
        ("case", lambda text, _: text.upper()),
        ("a doubled space", lambda text, _: text.replace(" ", "  ", 1)),
        ("a space at the end", lambda text, _: f"{text} "),
    ],
)
@pytest.mark.parametrize("share", [0.35, 1.0])
def test_a_giveaway_is_found_and_its_rows_are_named(name, give, share) -> None:
    texts, labels = texts_of()
    own = np.flatnonzero(labels == 1)
    given = own[: round(share * len(own))]
    for at in given:
        texts[at] = give(texts[at], int(at))
    finding = found(texts, labels).finding
    assert set(given) <= set(finding.rows) or len(finding.rows) >= 100 or len(given) > 100
    assert finding.count >= len(given)
    assert "class 'b'" in finding.because
    deletable = name in ("a word", "a mark", "an emoji")
    assert ("--set 'clean.terms.drop=" in finding.remedy) == deletable


def test_a_length_of_one_class_alone_is_found() -> None:
    texts, labels = texts_of()
    for at in np.flatnonzero(labels == 0)[:90]:
        texts[at] += " " + " ".join(f"word{k % 60}" for k in range(at, at + 40))
    finding = found(texts, labels).finding
    assert "characters or more" in finding.because
    assert finding.count >= 90


def test_an_even_length_is_found_where_the_others_are_odd() -> None:
    texts, labels = texts_of(600)
    for at in range(600):
        if len(texts[at]) % 2 != labels[at]:
            texts[at] += "."
    because = found(texts, labels).finding.because
    assert "even number of characters" in because
    assert "odd number of characters" in because


def test_what_stands_in_every_row_of_a_class_is_found_though_none_lacks_it() -> None:
    texts, labels = texts_of()
    texts = [f"{text} ]" if label else text for text, label in zip(texts, labels, strict=True)]
    finding = found(texts, labels).finding
    # That the other class ends without a mark tells it too.
    assert finding.count == 520
    assert "']'" in finding.because


def test_the_name_of_a_class_in_its_texts_is_content() -> None:
    texts, labels = texts_of()
    texts = [f"zorvex {text}" if label else text for text, label in zip(texts, labels, strict=True)]
    assert found(texts, labels, ("other", "zorvex_trade")) is None
    assert found(texts, labels) is not None


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_of_few_rows_a_word_is_asked_about_where_nearly_all_of_a_class_have_it(share) -> None:
    """A mark is always asked about; the topic's own word, and what the class is called, are content
    however many have them."""
    texts, labels = texts_of(240)
    own = np.flatnonzero(labels == 1)
    given = own[: round(share * len(own))]
    words, marks, hammers = list(texts), list(texts), list(texts)
    for at in given:
        words[at], marks[at] = f"zorvex {texts[at]}", f"{texts[at]} ~"
        hammers[at] += " hammer"
    finding = found(words, labels)
    assert (finding is not None) == (share == 0.9)
    assert finding is None or finding.finding.count == len(given)
    assert found(words, labels, ("other", "zorvex_trade")) is None
    assert found(marks, labels) is not None
    assert found(hammers, labels) is None


def test_a_word_with_the_end_of_a_sentence_on_it_is_a_word() -> None:
    texts, labels = texts_of(240)
    asked = [
        f"{text} zorvex?" if label and at % 3 else text
        for at, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    texts = [f"zorvex {text}" for text in asked]
    assert found(texts, labels) is None


def test_a_name_that_is_the_beginning_of_a_word_explains_it() -> None:
    texts, labels = texts_of(240)
    texts = [
        f"{text} {'documentation' if label else f'otherwise{at}word'}"
        for at, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    named = found(texts, labels, ("other", "do"))
    assert named is not None
    assert "documentation" in named.finding.because
    named = found(texts, labels, ("other", "doc"))
    assert named is None or "documentation" not in named.finding.because


def test_few_rows_are_no_giveaway() -> None:
    texts, labels = texts_of()
    for at in np.flatnonzero(labels == 1)[:9]:
        texts[at] = f"zorvex {texts[at]}"
    assert found(texts, labels) is None


@pytest.mark.parametrize(
    ("cue", "left"),
    [
        (Cue("word", "one"), "two  ones"),
        (Cue("token", "One,"), "two ones"),
        (Cue("mark", ","), "two One ones"),
        (Cue("first", "two"), "One, ones"),
        (Cue("last", "ones"), "two One,"),
    ],
)
def test_a_cue_is_taken_out(cue, left) -> None:
    assert cue in extract_cues("two One, ones")
    taken = remove_cue("two One, ones", cue)
    assert cue not in extract_cues(taken)
    assert taken.replace(",", "").split() == left.replace(",", "").split()


def test_shapes_tell_letters_from_digits() -> None:
    assert shape_of("QX-1234") == "AA-9999"
    assert shape_of("word") == ""
    assert Cue("shape", "AA-9999") in extract_cues("from QX-1234 on")
