"""Several sources as one table: columns, labels and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.data.chats.chat import load_chats, read_row_turns
from holdfast.data.mix import MixSource, mix_sources
from holdfast.quality.clean.apply import plan_cleaning
from holdfast.quality.clean.table import clean_table

Write = Callable[..., Path]


@pytest.fixture
def two(tmp_path: Path, write_csv: Write) -> tuple[str, str]:
    first = [("a good film", "pos"), ("a bad film", "neg")] * 4
    second = [("positive", "I like this phone"), ("negative", "I hate this phone")] * 3
    (tmp_path / "other").mkdir()
    return (
        str(write_csv(tmp_path / "films.csv", first)),
        str(write_csv(tmp_path / "other" / "films.csv", second, ("sentiment", "review"))),
    )


def test_columns_and_labels_get_one_name_and_rows_keep_their_order(two: tuple[str, str]) -> None:
    labels = {"positive": "pos", "negative": "neg"}
    found = mix_sources([MixSource(two[0]), MixSource(two[1], name="phones", labels=labels)])
    rows = found.rows.to_pylist()
    assert found.names == ("films", "phones")
    assert rows[0] == {"text": "a good film", "label": "pos", "source": "films"}
    assert rows[8] == {"text": "I like this phone", "label": "pos", "source": "phones"}
    assert len(rows) == 14
    assert found.findings == ()
    assert [one.what for one in found.decisions] == ["source films", "source phones"]
    assert "2 labels renamed" in found.decisions[1].because


def test_labels_of_one_source_alone_are_told_with_their_likely_twin(two: tuple[str, str]) -> None:
    found = mix_sources([MixSource(two[0]), MixSource(two[1])])
    assert found.names == ("films", "films 2")
    (told,) = found.findings
    assert (told.check, told.severity, told.count) == ("labels_by_source", "warn", 4)
    assert "'neg' and 'negative' are the same" in told.because


def test_what_cannot_be_mixed_is_refused(
    two: tuple[str, str], tmp_path: Path, write_csv: Write
) -> None:
    with pytest.raises(RecipeError, match="two sources"):
        mix_sources([MixSource(two[0])])
    with pytest.raises(RecipeError, match="same name"):
        mix_sources([MixSource(two[0], name="a"), MixSource(two[1], name="a")])
    with pytest.raises(RecipeError, match="renames a label"):
        mix_sources([MixSource(two[0], labels={"poss": "pos"}), MixSource(two[1])])
    pairs = [(f"who is {k} there", f"it is {k} only", "yes") for k in "abcdef"]
    both = write_csv(tmp_path / "pairs.csv", pairs, ("premise", "hypothesis", "label"))
    with pytest.raises(DataError, match="pairs of texts in some"):
        mix_sources([MixSource(two[0]), MixSource(str(both))])


def test_chats_of_any_form_become_messages(tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    told.write_text(
        "".join(
            json.dumps({"instruction": f"Say {i}.", "output": f"{i}."}) + "\n" for i in range(3)
        )
    )
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": turns[:1]}))
    found = mix_sources([MixSource(str(told)), MixSource(str(chats), name="mine")], "chats")
    rows = found.rows.to_pylist()
    assert [row["source"] for row in rows] == ["told", "told", "told", "mine"]
    assert json.loads(rows[0]["messages"]) == [
        {"role": "user", "content": "Say 0."},
        {"role": "assistant", "content": "0."},
    ]
    assert json.loads(rows[3]["messages"]) == turns
    # The prompt without an answer is dropped, and told.
    assert [one.count for one in found.findings] == [1]
    assert [one.chosen for one in found.decisions] == ["3 rows", "1 rows"]


def test_an_answer_of_weight_0_stays_context_when_mixed_and_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    context = {"role": "assistant", "content": "SchÃ¶n.", "weight": 0}
    turns = [
        {"role": "user", "content": "Hi"},
        context,
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "Yes."},
    ]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    mixed = mix_sources([MixSource(str(path)), MixSource(str(path), name="again")], "chats")
    written = tmp_path / "mixed.jsonl"
    written.write_text("".join(json.dumps(row) + "\n" for row in mixed.rows.to_pylist()))
    cleaned = clean_table(load_chats(str(written)), plan_cleaning({"encoding": True}))
    assert cleaned.counts == {"encoding": 2}
    for found in read_row_turns(cleaned.table):
        assert found == [turns[0], context | {"content": "Schön."}, *turns[2:]]


def test_pairs_keep_their_targets_and_chats_do_not_mix_with_texts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.jsonl"
    first.write_text("dialogue,summary\n" + "".join(f"long talk {i},short {i}\n" for i in range(4)))
    second.write_text(
        "".join(json.dumps({"q": f"ask {i}", "a": f"tell {i}"}) + "\n" for i in range(3))
    )
    parts = [MixSource(str(first)), MixSource(str(second), text=("q",), label="a")]
    rows = mix_sources(parts, "pairs").rows.to_pylist()
    assert rows[0] == {"text": "long talk 0", "target": "short 0", "source": "a"}
    assert rows[4] == {"text": "ask 0", "target": "tell 0", "source": "b"}
    with pytest.raises(RecipeError, match="these rows have none"):
        mix_sources([parts[0], MixSource(str(second), labels={"x": "y"})], "pairs")
    (tmp_path / "plain.txt").write_text("One passage.\n\nAnother one.\n")
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"instruction": "Say.", "output": "So."}))
    with pytest.raises(DataError, match="chats in some sources and plain texts in others"):
        mix_sources([MixSource(str(chats)), MixSource(str(tmp_path / "plain.txt"))], "chats")
