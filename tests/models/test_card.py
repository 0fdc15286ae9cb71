"""What a model's card says, and what a card that says nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.models.loading.card import Card, card_of, read_card
from holdfast.models.loading.source import find_model


@pytest.mark.parametrize(
    ("head", "licence", "languages"),
    [
        ("license: apache-2.0\nlanguage: en", "apache-2.0", ("en",)),
        ("license: other\nlicense_name: llama3\nlanguage:\n- no\n- de", "llama3", ("no", "de")),
        ("tags:\n- x", None, ()),
        ("license: [mit]\nlanguage: {a: b}", None, ()),
        ("- a list", None, ()),
    ],
)
def test_licence_and_languages_stand_in_its_head(
    head: str, licence: str | None, languages: tuple[str, ...]
) -> None:
    assert read_card(f"---\n{head}\n---\n# A model\nlicense: none\n") == Card(licence, languages)


def test_a_card_without_a_head_or_a_broken_one_says_nothing(tiny_model: Path) -> None:
    assert read_card("# A model\n---\nlicense: mit\n---\n") == Card()
    assert read_card("---\nlicense: mit\n") == Card()
    assert card_of(find_model(str(tiny_model))) == Card()
    assert card_of(find_model("embedded")) == Card("apache-2.0", ("en",))
    broken = tiny_model.parent / "broken"
    broken.mkdir(exist_ok=True)
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "README.md").write_text("---\nlicense: [mit\n---\n", encoding="utf-8")
    assert card_of(find_model(str(broken))) == Card()


def test_a_card_that_holdfast_wrote_is_known(finished_run: Path) -> None:
    assert read_card((finished_run / "model" / "README.md").read_text("utf-8")).fine_tuned
    assert not read_card("---\ntags:\n- sentence-similarity\n---\n").fine_tuned
