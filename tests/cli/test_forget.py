"""``holdfast forget``: what it deletes, what it says, what it refuses."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.core.errors import DataError, RecipeError, StoreError
from holdfast.plugins.store.records import (
    Feedback,
    StoredPrediction,
    StoredRequest,
    StoredText,
    new_id,
    user_mark,
)
from holdfast.plugins.store.store import open_store


def filled(path: Path) -> list[str]:
    store, ids = open_store(str(path)), []
    for k, user in enumerate(("anna", "anna", "bob")):
        id = new_id(1e9 + k)
        said, kept = (
            (StoredPrediction(0, "m@1", "good"),),
            (StoredText(0, {"text": f"secret {k}"}),),
        )
        call = StoredRequest(id, 1e9 + k, "m@1", 1, 0.0, user_mark(user), said, kept)
        store.add_requests([call])
        store.add_feedback(Feedback(id, 0, "bad", "Mara", 1e9 + k))
        ids.append(id)
    store.close()
    return ids


def forget(path: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["forget", "--store", str(path), *more])


def test_a_user_a_request_or_a_person_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    ids = filled(path)
    said = forget(path, "--user", "anna").stdout
    assert "Deleted: 2 texts, 2 predictions, 2 labels, 2 requests." in " ".join(said.split())
    assert "`holdfast update`" in said
    found = json.loads(forget(path, "--request", ids[2], "--json").stdout)
    assert found["gone"]["requests"] == found["gone"]["feedback"] == 1
    assert found["erased"] is True
    assert b"secret" not in path.read_bytes()
    store = open_store(str(path))
    for one in ids:
        with pytest.raises(DataError, match="was deleted"):
            store.add_feedback(Feedback(one, 0, "bad", "Mara", 1.0))
    store.add_feedback(Feedback("file-1", 0, "bad", "Mara", 1.0))
    assert "1 label" in forget(path, "--who", "Mara").stdout
    assert store.feedback() == []
    store.close()
    assert "Nothing to delete was found" in forget(path, "--who", "Mara").stdout


@pytest.mark.parametrize("prefix", ["", "chatcmpl-", "cmpl-"])
def test_a_request_is_forgotten_by_its_id_as_openai_clients_see_it(
    tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "service.db"
    ids = filled(path)
    found = json.loads(forget(path, "--request", prefix + ids[0], "--json").stdout)
    assert found["gone"]["requests"] == found["gone"]["texts"] == 1


def _bytes(path: Path) -> bytes:
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-journal"))]
    return b"".join(file.read_bytes() for file in files if file.exists())


@pytest.mark.slow
@pytest.mark.parametrize("by", ["open", "expire"])
def test_bytes_that_a_reader_held_leave_with_whoever_has_the_store_next(
    tmp_path: Path, by: str
) -> None:
    path = tmp_path / "service.db"
    filled(path)
    assert b"secret" in _bytes(path)
    service = open_store(str(path))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM texts").fetchone() == (3,)
        found = json.loads(forget(path, "--user", "anna", "--json").stdout)
        assert found["erased"] is False
        assert "is reading the store" in " ".join(forget(path, "--who", "Mara").stdout.split())
        assert b"secret" in _bytes(path)
    # The command that deleted has ended.
    if by == "open":
        open_store(str(path)).close()
    else:
        service.expire(1.0)
    assert not service.pending_scrubs()
    assert b"secret 0" not in _bytes(path)
    service.close()


@pytest.mark.parametrize("given", [(), ("--who", "a", "--user", "b")])
def test_one_thing_is_forgotten_at_a_time(tmp_path: Path, given: tuple[str, ...]) -> None:
    filled(tmp_path / "service.db")
    answer = forget(tmp_path / "service.db", *given)
    assert isinstance(answer.exception, RecipeError)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    answer = forget(tmp_path / "none.db", "--who", "a")
    assert isinstance(answer.exception, StoreError)
    assert list(tmp_path.iterdir()) == []
