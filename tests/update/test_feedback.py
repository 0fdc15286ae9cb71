"""Feedback in a file or a store: under which names its columns are found, and what is learned."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from holdfast.analyses.row_texts import labels_of_rows
from holdfast.core.errors import DataError
from holdfast.data.chats.chat import load_chats, read_row_turns
from holdfast.data.labels.texts import load_labelled
from holdfast.data.options import RowOptions
from holdfast.data.pairs import load_pairs
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table
from holdfast.plugins.store.records import Feedback, StoredPrediction, StoredRequest, StoredText
from holdfast.plugins.store.store import open_store
from holdfast.plugins.update.feedback import FeedbackRows, read_feedback
from holdfast.plugins.update.merge import refuse_rendered


def read(path: str) -> Raw:
    return read_source(path, None, None)


def feedback(folder: Path, content: str) -> FeedbackRows:
    """Feedback for a run whose columns are ``review`` and ``verdict``."""
    source, given = folder / "reviews.csv", folder / "feedback.csv"
    source.write_text("review,verdict\nso it is,no\n", encoding="utf-8")
    given.write_text(content, encoding="utf-8")
    columns = Columns(("review",), "verdict")
    return read_feedback(str(given), columns, read(str(source)), read)


def test_the_usual_names_stand_for_those_of_the_run(tmp_path: Path) -> None:
    found = feedback(tmp_path, "label,text\nyes,well done\nno,\n")
    assert found.rows.to_pydict() == {"review": ["well done", ""], "verdict": ["yes", "no"]}
    assert {one.chosen for one in found.decisions} == {"text as review", "label as verdict"}


def test_a_column_with_the_run_s_name_is_taken_before_the_usual_one(tmp_path: Path) -> None:
    found = feedback(tmp_path, "text,review,label\nanother,well done,yes\n")
    assert found.rows.to_pydict() == {"review": ["well done"], "verdict": ["yes"]}
    assert [one.chosen for one in found.decisions] == ["label as verdict"]


def test_a_column_under_neither_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'verdict'"):
        feedback(tmp_path, "text,stars\nwell done,5\n")


def stored(path: Path, rows: Sequence[tuple[dict[str, Any], Any]]) -> str:
    """A store of requests with these rows, each labelled by an annotator."""
    with closing(open_store(str(path))) as store:
        for at, (row, label) in enumerate(rows):
            request = f"{at:04d}"
            prediction = StoredPrediction(0, "m@1", "MODEL SAID")
            text = StoredText(0, row)
            store.add_requests(
                [StoredRequest(request, at, "m@1", 1, 0.1, None, (prediction,), (text,))]
            )
            store.add_feedback(
                Feedback(request, 0, label, "ann", at, "m@1", "page", "uniform", "hidden")
            )
    return str(path)


def joined(folder: Path, table: Table, source: str, where: str) -> str:
    """The rows of a store in the columns of a run on ``source``, as a file."""
    rows = read_feedback(where, table.columns, read(source), read)
    assert rows.unusable["no_text"] == 0
    path = folder / "joined.parquet"
    parquet.write_table(rows.rows, path)
    return str(path)


ASKED = {"role": "user", "content": "how are you"}
TURNS = [ASKED, {"role": "assistant", "content": "MODEL SAID"}, {"role": "user", "content": "why"}]
CHATS = {
    "messages": {"messages": [ASKED, {"role": "assistant", "content": "well"}]},
    "prompt": {"prompt": "how are you", "completion": "well"},
    "question": {"question": "how are you", "answer": "well"},
    "instruction": {"instruction": "translate", "input": "gut", "output": "good"},
}


@pytest.mark.parametrize("form", CHATS)
def test_a_label_is_the_last_answer_of_its_conversation(form: str, tmp_path: Path) -> None:
    """In each form of a run's chats, of requests with one turn and with several."""
    source = tmp_path / "source.jsonl"
    source.write_text((json.dumps(CHATS[form]) + "\n") * 3, encoding="utf-8")
    table = load_chats(source)
    where = stored(
        tmp_path / "live.db", [({"prompt": "hello"}, "one"), ({"messages": TURNS}, "two")]
    )
    # What an update learns: the old rows and the new ones in one file.
    new = parquet.read_table(joined(tmp_path, table, str(source), where))
    both = tmp_path / "both.parquet"
    parquet.write_table(pa.concat_tables([read(str(source)).table, new]), both)
    *_, first, second = read_row_turns(load_chats(both))
    assert first == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "one"}]
    assert second == [*TURNS, {"role": "assistant", "content": "two"}]


def test_turns_are_not_joined_to_texts_with_the_markers_of_a_template(tmp_path: Path) -> None:
    rendered = "<|im_start|>user\nhow are you<|im_end|>\n<|im_start|>assistant\nwell<|im_end|>\n"
    source = tmp_path / "source.jsonl"
    source.write_text((json.dumps({"text": rendered}) + "\n") * 3, encoding="utf-8")
    where = stored(tmp_path / "live.db", [({"prompt": "hello"}, "one")])
    with pytest.raises(DataError, match="the run's chats are texts rendered as chatml"):
        refuse_rendered(load_chats(source), where)
    refuse_rendered(load_chats(source), str(source))


def test_a_target_named_by_data_target_is_learned(tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text('{"dialogue": "a b", "summary": "c"}\n' * 3, encoding="utf-8")
    options = RowOptions(("dialogue",), "summary")
    table = load_pairs(str(source), options)
    where = stored(tmp_path / "live.db", [({"dialogue": "hello"}, "one")])
    found = load_pairs(joined(tmp_path, table, str(source), where), options)
    assert (found.column("text"), found.column("target")) == (["hello"], ["one"])


def test_several_labels_are_joined_by_the_separator_of_the_run(tmp_path: Path) -> None:
    source = tmp_path / "source.csv"
    source.write_text("text,label\nup,a;b\ndown,a\nleft,b\n", encoding="utf-8")
    options = RowOptions(("text",), "label", label_kind="several", separator=";")
    table = load_labelled(str(source), options)
    labels = [["b", "a"], ["b"], []]
    where = stored(tmp_path / "live.db", [({"text": f"t{i}"}, one) for i, one in enumerate(labels)])
    path = joined(tmp_path, table, str(source), where)
    found = load_labelled(path, dataclasses.replace(options, classes=("a", "b")))
    assert labels_of_rows(found) == [["a", "b"], ["b"], []]
