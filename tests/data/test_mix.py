"""Several sources as one table: columns, labels and names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.data.mix import MixSource, mix_sources

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
