"""No path of the machine leaves it in a report or a card; the user's own texts are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.card import write_card
from holdfast.report.page import write_report
from holdfast.report.public import POSIX, WINDOWS, base_name, is_local, public_name

HOME = "/home/somebody/my work"


def full_of_paths(result: dict[str, Any]) -> None:
    result["model"] = result["model_facts"]["name"] = f"{HOME}/tiny model"
    result["settings"]["model"]["name"] = f"{HOME}/tiny model"
    result["settings"]["data"] |= {"path": f"{HOME}/my reviews.csv", "test": "/srv/data/later.csv"}
    result["decisions"].append(
        {
            "what": "test rows",
            "chosen": "/srv/data/later.csv",
            "because": f"{HOME}/my reviews.csv has none; see /opt/x/y.log.",
        }
    )
    result["verdict"]["because"] = "As /opt/deep/folder/log.txt says, 70/15/15 and either/or."
    result["stopped_because"] = r"C:\Users\somebody\stop.txt was there"
    result["hardest"]["loss"][0]["text"] = "the user wrote /etc/passwd himself"


@pytest.mark.parametrize("write", [write_report, write_card])
def test_no_path_of_the_machine_is_written(runs: ModuleType, tmp_path: Path, write: Any) -> None:
    run = runs.make_run(tmp_path / "run", edit=full_of_paths)
    events = run / "events.jsonl"
    note = {"event": "note", "step": 0, "what": "x", "because": f"read from {HOME}/my reviews.csv"}
    events.write_text(events.read_text("utf-8") + json.dumps(note) + "\n", encoding="utf-8")
    text = write(run).read_text("utf-8")
    for part in ("somebody", "/srv/", "/opt/", "deep/folder", "Users", str(tmp_path)):
        assert part not in text, part
    assert "my reviews.csv" in text
    assert "tiny model" in text
    assert "70/15/15 and either/or" in text


def test_the_users_own_texts_are_left_alone(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", edit=full_of_paths)
    assert "the user wrote /etc/passwd himself" in write_report(run).read_text("utf-8")


@pytest.mark.parametrize(
    ("model", "local", "name"),
    [
        ("embedded", False, "sentence-transformers/all-MiniLM-L6-v2"),
        ("google/flan-t5-small", False, "google/flan-t5-small"),
        ("bert-base-uncased", False, "bert-base-uncased"),
        ("/srv/models/bert", True, "bert"),
        ("~/bert", True, "bert"),
        ("./models/bert/", True, "bert"),
        ("models/mine/bert", True, "bert"),
        ("C:\\models\\bert", True, "bert"),
        ("/srv/somebody/model", True, "model"),
    ],
)
def test_a_model_is_called_by_what_others_know(model: str, local: bool, name: str) -> None:
    assert is_local(model) is local
    assert public_name(model) == name


def test_the_model_of_a_run_is_called_by_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "chats-1" / "model"
    folder.mkdir(parents=True)
    assert public_name(str(folder)) == "model"
    (folder.parent / "result.json").write_text("{}")
    assert public_name(f"{folder}/") == "chats-1"


def test_the_last_part_of_a_path() -> None:
    assert base_name("/a/b/") == "b"
    assert base_name("plain.csv") == "plain.csv"
    assert base_name("/") == "/"


def test_a_run_s_model_has_the_name_of_the_run(runs: ModuleType, tmp_path: Path) -> None:
    first = runs.make_run(tmp_path / "first")
    (first / "model").mkdir(exist_ok=True)

    def goes_on(result: dict[str, Any]) -> None:
        result["model"] = result["settings"]["model"]["name"] = str(first / "model")

    second = runs.make_run(tmp_path / "second", edit=goes_on)
    heading = next(
        line for line in write_card(second).read_text("utf-8").splitlines() if line[:2] == "# "
    )
    assert heading.endswith(" · first")


@pytest.mark.parametrize(
    ("sentence", "public"),
    [
        ("read from /srv/alice/x.csv.", "read from x.csv."),
        ("read from file:///srv/alice/x.csv", "read from x.csv"),
        ("the model /srv/a&b/c/bert (12 layers)", "the model bert (12 layers)"),
        ("~/models/bert and C:\\models\\bert", "bert and bert"),
        (
            "and/or 3/4, owner/name, https://hub/owner/name",
            "and/or 3/4, owner/name, https://hub/owner/name",
        ),
    ],
)
def test_a_path_in_a_sentence_is_cut_to_its_last_part(sentence: str, public: str) -> None:
    assert WINDOWS.sub(r"\1", POSIX.sub(r"\1", sentence)) == public
