"""Forms of texts, one way after the other, against what can be counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from holdfast.augment.texts import wordnet as wordnet_room
from holdfast.augment.texts.model_forms import like_first
from holdfast.augment.texts.user_function import load_function
from holdfast.augment.texts.word_edits import (
    MARKS,
    Aeda,
    Cutout,
    Delete,
    Eda,
    Insert,
    Swap,
    Synonyms,
    put,
    split,
)
from holdfast.augment.texts.wordnet import PLACES, wordnet
from holdfast.core.errors import MachineError, RecipeError

TEXT = "the quick brown fox jumps over a very lazy dog near this small old river bank"
WORDS = TEXT.split()


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def english() -> wordnet_room.WordNet:
    if not any((folder / "index.noun").is_file() for folder in PLACES):
        pytest.skip("needs the files of WordNet: apt-get install wordnet-base")
    return wordnet()


def test_a_swap_loses_no_word_and_moves_two_a_time() -> None:
    for seed in range(30):
        new = Swap(strength=0.1).change(TEXT, rng(seed)).split()
        assert Counter(new) == Counter(WORDS)
        # 16 words, a tenth of them: two swaps, of four words at most.
        assert 2 <= sum(a != b for a, b in zip(new, WORDS, strict=True)) <= 4 or new == WORDS


def test_each_word_is_deleted_as_often_as_asked_for() -> None:
    gone: Counter[str] = Counter()
    for seed in range(300):
        left = Delete(strength=0.2).change(TEXT, rng(seed)).split()
        rest = iter(WORDS)
        assert all(word in rest for word in left), "not in their order"
        gone += Counter(WORDS) - Counter(left)
    assert binomtest(sum(gone.values()), 300 * len(WORDS), 0.2).pvalue > 1e-3
    assert chisquare([gone[word] for word in WORDS]).pvalue > 1e-3


def test_of_one_word_nothing_is_deleted() -> None:
    assert Delete(strength=0.9).change("dog", rng(0)) == "dog"
    assert all(Delete(strength=0.9).change("a b", rng(seed)).strip() for seed in range(50))


def test_marks_are_put_in_and_nothing_else() -> None:
    counts = []
    for seed in range(200):
        new = Aeda().change(TEXT, rng(seed)).split()
        assert [word for word in new if word not in MARKS] == WORDS
        counts.append(len(new) - len(WORDS))
    # 1 … ⌊16 ÷ 3⌋, each as likely.
    assert set(counts) == {1, 2, 3, 4, 5}
    assert chisquare([counts.count(k) for k in range(1, 6)]).pvalue > 1e-3


def test_a_stretch_is_cut_out_of_any_place() -> None:
    begins = set()
    for seed in range(100):
        new = Cutout(strength=0.25).change(TEXT, rng(seed)).split()
        assert len(new) == len(WORDS) - 4
        begin = next(k for k in range(len(WORDS)) if new[:k] + WORDS[k : k + 4] + new[k:] == WORDS)
        begins.add(begin)
    assert min(begins) == 0
    assert max(begins) == len(WORDS) - 4


def test_nothing_is_cut_where_a_number_stands_in_every_stretch() -> None:
    text = "in 1 on 2 at 3 by"
    assert Cutout(strength=0.5).change(text, rng(0)) == text


@pytest.mark.parametrize(
    ("form", "synonym"),
    [
        ("movies", "films"),
        ("bought", "purchased"),
        ("quickly", "rapidly"),
        ("biggest", "largest"),
        ("studied", "examined"),
        ("film", "movie"),
    ],
)
def test_a_synonym_is_in_the_form_of_its_word(
    english: wordnet_room.WordNet, form: str, synonym: str
) -> None:
    assert synonym in english.synonyms(form)


@pytest.mark.parametrize("form", ["great", "running", "who", "zzzz", "Berlin", "set"])
def test_a_word_that_is_not_clear_has_none(english: wordnet_room.WordNet, form: str) -> None:
    assert english.synonyms(form) == ()


@pytest.mark.parametrize(
    ("lemma", "forms"),
    [
        ("try", {"s": "tries", "ed": "tried", "ing": "trying"}),
        ("play", {"s": "plays", "ed": "played", "ing": "playing"}),
        ("stop", {"s": "stops", "ed": "stopped", "ing": "stopping"}),
        ("watch", {"s": "watches", "ed": "watched", "ing": "watching"}),
        ("agree", {"s": "agrees", "ed": "agreed", "ing": "agreeing"}),
        ("make", {"s": "makes", "ing": "making"}),
        ("fix", {"s": "fixes", "ed": "fixed", "ing": "fixing"}),
        ("big", {"er": "bigger", "est": "biggest"}),
        ("happy", {"er": "happier", "est": "happiest"}),
        ("large", {"er": "larger", "est": "largest"}),
    ],
)
def test_regular_words_are_inflected_as_english_does(lemma: str, forms: dict[str, str]) -> None:
    found = {ending: wordnet_room._inflected(lemma, ending) for ending in forms}
    assert found == forms


def test_every_synonym_shares_the_first_synset(english: wordnet_room.WordNet) -> None:
    """Against the files themselves, read another way."""
    folder = next(folder for folder in PLACES if (folder / "data.noun").is_file())
    synsets = (folder / "data.noun").read_text("ascii").splitlines()
    of_words = [set(line.split(" | ")[0].split()) for line in synsets if line[:1].isdigit()]
    for form in ("film", "house", "doctor", "town", "answer", "car", "idea"):
        for synonym in english.synonyms(form):
            assert any({form, synonym} <= words for words in of_words), (form, synonym)


def test_words_of_content_are_replaced_up_to_the_strength(english: wordnet_room.WordNet) -> None:
    text = "they bought the movie quickly and studied the film in Berlin"
    seen = [Synonyms(strength=0.3).change(text, rng(seed)) for seed in range(20)]
    changes = [sum(a != b for a, b in zip(text.split(), new.split(), strict=True)) for new in seen]
    assert set(changes) == {3}
    assert all(new.startswith("they ") and new.endswith("in Berlin") for new in seen)


@pytest.mark.parametrize(
    ("text", "place", "new", "right"),
    [
        ("It is a great day", 3, "outstanding", "It is an outstanding day"),
        ("An old car", 1, "used", "An used car"),
        ("An old car", 1, "shabby", "A shabby car"),
        ("Movies are fun", 0, "films", "Films are fun"),
        ("WATCH MOVIES NOW", 1, "films", "WATCH FILMS NOW"),
    ],
)
def test_case_and_article_follow(text: str, place: int, new: str, right: str) -> None:
    assert str(put(split(text), place, new)) == right


def test_an_inserted_word_is_a_synonym_of_one_that_is_there(english: wordnet_room.WordNet) -> None:
    text = "they bought the movie quickly and went home again to sleep"
    for seed in range(20):
        more = Counter(Insert(strength=0.1).change(text, rng(seed)).split())
        more.subtract(text.split())
        assert min(more.values()) == 0
        (added,) = [word for word, count in more.items() if count]
        assert added in {new for word in text.split() for new in english.synonyms(word)}


def test_eda_does_one_of_four_things(english: wordnet_room.WordNet) -> None:
    text = "they bought the movie quickly and went home again to sleep"
    sizes = Counter(
        len(Eda(strength=0.1).change(text, rng(seed)).split()) - 11 for seed in range(200)
    )
    assert {-1, 0, 1} <= set(sizes)


@pytest.mark.parametrize("spec", ["mine.py", "mine.py:", ":flip", ":", ""])
def test_half_a_function_is_refused_with_how_to_write_one(spec: str) -> None:
    with pytest.raises(RecipeError, match="is not a function") as caught:
        load_function(spec)
    assert caught.value.remedy == "Write module:function or path.py:function."


def test_without_wordnet_the_error_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wordnet_room, "PLACES", (tmp_path,))
    wordnet.cache_clear()
    with pytest.raises(MachineError, match="needs the files of WordNet") as caught:
        wordnet()
    assert "apt-get install wordnet-base" in caught.value.remedy
    wordnet.cache_clear()


def test_a_translation_begins_in_the_case_of_its_text() -> None:
    assert like_first("the day", "The day") == "the day"
    assert like_first("The day", "The day") == "The day"
    assert like_first("usa today", "USA today") == "USA today"


def test_a_vector_alone_is_that_of_the_company_and_like_meanings_are_near() -> None:
    from holdfast.augment.text_forms import meaning

    texts = ["the film was a joy", "the movie was a delight", "how do I reset my password ?"]
    together, alone = meaning().vectors(texts), [meaning().vectors([text])[0] for text in texts]
    assert np.allclose(together, alone, atol=1e-5)
    near, far = meaning().likeness(texts[:1] * 2, texts[1:])
    assert near > 0.6 > 0.3 > far
