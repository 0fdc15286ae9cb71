"""The store under what befalls a disk and a database: full, locked, gone, replaced, foreign."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import DataError, StoreError, StoreGone
from holdfast.plugins.store import connection
from holdfast.plugins.store import writer as writer_module
from holdfast.plugins.store.records import (
    Claim,
    Event,
    Feedback,
    StoredPrediction,
    StoredRequest,
    StoredText,
    new_id,
)
from holdfast.plugins.store.store import Store, open_store
from holdfast.plugins.store.writer import MAX_BYTES, StoreWriter

MODEL = "reviews-1@0123456789ab"
SECRET = "the quick brown fox jumped over 4711 lazy dogs"


def call(text: str = "fine", user: str | None = None, at: float | None = None) -> StoredRequest:
    at = time.time() if at is None else at
    said = StoredPrediction(0, MODEL, "good", 0.9, {"good": 0.9, "bad": 0.1})
    kept = StoredText(0, {"text": text}, b"\0\x3c" * 8, at + 60)
    return StoredRequest(new_id(at), at, MODEL, 1, 0.01, user, (said,), (kept,))


@pytest.fixture(params=["file", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "store.db")
    return str(request.getfixturevalue("cluster").fresh("hardened"))


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    made = open_store(where)
    yield made
    made.close()


@pytest.fixture
def writer() -> Iterator[Callable[..., StoreWriter]]:
    made: list[StoreWriter] = []

    def make(*args: Any, **more: Any) -> StoreWriter:
        made.append(StoreWriter(*args, **more))
        return made[-1]

    yield make
    for one in made:
        one.close(0.2)


def until(true: Callable[[], bool], patience: float = 100.0) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.02)


def full(store: Store, pages: int | None) -> None:
    """As a disk that takes no more: SQLite itself says so beyond so many pages."""

    def limit(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages or 1 << 30}")

    sqlalchemy.event.listen(store._engine, "connect", limit)
    store._engine.dispose()


def test_both_databases_keep_the_same(store: Store) -> None:
    calls = [call(f"text {k}: é \U0001f600", at=1e9 + k) for k in range(3)]
    store.add_requests(calls)
    store.add_predictions(
        calls[0].id, [StoredPrediction(0, "other@1", None, because="below 0.7", shown=False)]
    )
    found = store.requests()
    assert [one.id for one in found] == [one.id for one in calls]
    assert found[0].texts == calls[0].texts
    assert found[0].predictions[1].prediction is None
    assert [one.at for one in found] == [one.at for one in calls]
    store.save_state("a", {"n": 1}, 1.0)
    store.save_state("a", {"n": 2}, 2.0)
    assert store.state("a") == {"n": 2}
    label = store.add_feedback(Feedback(calls[0].id, 0, ["x"], "ann", 3.0, row={"text": "t"}))
    assert store.feedback() == [label]
    assert store.events() == []


def test_the_number_of_a_deleted_label_is_never_given_out_again(store: Store) -> None:
    first = store.add_feedback(Feedback("r", 0, "a", "ann", 1.0))
    store.delete(2.0, by="label", value=str(first.id))
    second = store.add_feedback(Feedback("r", 0, "a", "bob", 3.0))
    assert (second.id or 0) > (first.id or 0)


def test_a_deleted_request_does_not_come_back_by_any_way(store: Store) -> None:
    mine, other = call(SECRET, "u1"), call("other", "u2")
    store.add_requests([mine, other])
    store.add_feedback(Feedback(mine.id, 0, "bad", "ann", 3.0, row={"text": SECRET}))
    store.delete(time.time(), by="request", value=mine.id)
    store.add_requests([mine])
    store.add_predictions(mine.id, (StoredPrediction(0, "b", "x"),))
    with pytest.raises(DataError, match="was deleted"):
        store.add_feedback(Feedback(mine.id, 0, "bad", "ann", 4.0))
    assert [one.id for one in store.requests()] == [other.id]
    assert store.feedback() == []


def test_a_text_that_an_event_shows_goes_with_the_text_itself(store: Store) -> None:
    now = time.time()
    first, second = call(SECRET, at=now - 100), call("another text", at=now)
    store.add_requests([first, second])
    shown = [{"row": f"{one.id}/0", "text": one.texts[0].row["text"]} for one in (first, second)]
    store.append(Event("regime", now, {"terms": ["text"], "inner": {"examples": shown}}))
    untouched = store.append(Event("drift", now, {"text": "rows are unlike", "rows": 3}))
    assert store.expire(now - 30) == 1
    told = store.events("regime")[0].body["inner"]["examples"]
    assert told == [{"row": f"{first.id}/0"}, shown[1]]
    store.delete(now, by="request", value=second.id)
    told = store.events("regime")[0].body["inner"]["examples"]
    assert told == [{"row": f"{first.id}/0"}, {"row": f"{second.id}/0"}]
    assert store.events("drift") == [untouched]


def test_what_another_process_writes_late_of_a_deleted_user_is_not_kept(store: Store) -> None:
    now = time.time()
    early, late = call("a", "u1", now - 5), call("b", "u1", now + 5)
    store.delete(now, by="user", value="u1")
    store.add_requests([early, late])
    assert [one.id for one in store.requests()] == [late.id]
    store.expire(now + 4000)
    store.add_requests([early])
    assert len(store.requests()) == 2


def test_deleted_texts_leave_no_byte_in_any_file(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    store = open_store(str(folder / "store.db"))
    calls = [call(f"{SECRET} {k}", "the-user-hash") for k in range(300)]
    store.add_requests(calls)
    store.add_feedback(Feedback(calls[0].id, 0, "bad", "Ann Other", 3.0, row={"text": SECRET}))
    store.claim(calls[0].id, 0, "Ann Other", 0.0, 1.0)

    def there(word: str) -> bool:
        return any(word.encode() in file.read_bytes() for file in folder.iterdir())

    assert there("4711 lazy")
    assert there("Ann Other")
    store.delete(4.0, by="who", value="Ann Other")
    assert not there("Ann Other")
    store.expire(time.time() + 100)
    assert not there("4711 lazy")
    assert there(calls[5].id)
    store.delete(5.0, by="request", value=calls[5].id)
    (event,) = store.events("deletion")[1:]
    assert calls[5].id not in str(event.body)
    store.close()


def test_bytes_that_a_reader_keeps_are_gone_with_the_next_expiry(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path))
    store.add_requests([call(SECRET)])
    store._engine.dispose()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM texts").fetchone()
    sqlalchemy.event.listen(
        store._engine, "connect", lambda one, _: one.execute("PRAGMA busy_timeout=50")
    )
    assert store.expire(time.time() + 100) == 1
    reader.close()
    store.expire(time.time() + 100)
    files = [path, path.with_name("store.db-wal")]
    assert not any(b"4711" in one.read_bytes() for one in files if one.exists())
    store.close()


def test_texts_of_labels_expire_and_the_labels_stay(store: Store) -> None:
    store.add_feedback(Feedback("r", 0, "a", "ann", 1.0, row={"text": "t"}, expires_at=50.0))
    assert store.expire(49.0) == 0
    assert store.expire(50.0) == 1
    (label,) = store.feedback()
    assert (label.row, label.label, label.expires_at) == (None, "a", None)


def test_a_row_is_claimed_by_one_alone(where: str, store: Store) -> None:
    other = open_store(where)
    won: list[str] = []

    def take(of: Store, who: str) -> None:
        if of.claim("r", 0, who, 10.0, 20.0):
            won.append(who)

    threads = [
        threading.Thread(target=take, args=((store, other)[k % 2], f"p{k}")) for k in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(won) == 1
    assert store.claims(15.0) == [Claim("r", 0, won[0], 20.0)]
    assert not store.claim("r", 0, "late", 19.0, 30.0)
    assert store.claim("r", 0, won[0], 19.0, 30.0)
    assert store.claim("r", 0, "late", 30.0, 40.0)
    store.release("r", 0, "late")
    assert store.claims(31.0) == []
    other.close()


WRITER = """
import runpy, sys, time
from holdfast.plugins.store.store import open_store
call = runpy.run_path(sys.argv[1])["call"]
store = open_store(sys.argv[2])
print("open", flush=True)
sys.stdin.readline()
for _ in range(25):
    store.add_requests([call()])
    store.save_state("shared", {"at": time.time()}, time.time())
store.close()
"""


@pytest.mark.slow
def test_several_processes_open_and_write_one_store_at_once(where: str) -> None:
    command = [sys.executable, "-c", WRITER, __file__, where]
    pipe = subprocess.PIPE
    jobs = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)
    ]
    # All have opened it before the first one writes.
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "open\n"
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, said
    store = open_store(where)
    assert len(store.requests()) == 100
    store.close()


def test_a_newer_store_is_refused_and_left_as_it_is(where: str) -> None:
    store = open_store(where)
    with store._writing() as connection:
        connection.execute(sqlalchemy.text("UPDATE facts SET value='99' WHERE name='schema'"))
    store.close()
    with pytest.raises(StoreError, match="newer version of Holdfast") as refused:
        open_store(where)
    assert "s3cret" not in str(refused.value)


def test_tables_of_something_else_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as own:
        own.execute("CREATE TABLE photos (name TEXT)")
    with pytest.raises(StoreError, match="another program"):
        open_store(str(path))
    with closing(sqlite3.connect(path)) as own:
        assert [row[0] for row in own.execute("SELECT name FROM sqlite_master")] == ["photos"]


def test_a_damaged_file_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(StoreError, match=r"bad\.db"):
        open_store(str(tmp_path / "bad.db"))
    with pytest.raises(StoreError, match="is a folder"):
        open_store(str(tmp_path))
    with pytest.raises(StoreGone, match="folder does not exist"):
        open_store(str(tmp_path / "none" / "store.db"))
    with pytest.raises(StoreError, match="names no file"):
        open_store("sqlite://")


def test_nobody_else_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path))
    store.add_requests([call()])
    modes = {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert modes == {0o600}
    store.close()
    said: list[Any] = []
    with decisions_to(said.append):
        open_store(str(path)).close()
    assert said == []
    path.chmod(0o644)
    with decisions_to(said.append):
        open_store(str(path)).close()
    assert [(one.what, one.prominent) for one in said] == [("store", True)]
    assert said[0].because.endswith(f"run chmod 600 {path}")


def test_a_password_stands_in_no_message(cluster: Any) -> None:
    nowhere = "postgresql://ann:s3cr/et@/nowhere?host=/no/such/folder"
    for url in (nowhere, "postgresql://ann:s3cret@host:port/db", cluster.url("absent")):
        with pytest.raises(StoreError) as refused:
            open_store(url)
        assert "s3cr" not in str(refused.value)
        assert refused.value.__cause__ is None
        assert "***" in str(refused.value)


def test_a_full_disk_loses_nothing_that_fits_and_comes_back(
    tmp_path: Path, writer: Callable[..., StoreWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_REQUESTS", 50)
    store = open_store(str(tmp_path / "store.db"))
    full(store, 60)
    heard: list[str] = []
    write = writer(store, heard.append)
    calls = [call("x" * 9000) for _ in range(40)]
    assert all(write.add(one) for one in calls)
    until(lambda: write.counts().away)
    while write.add(call()):
        pass
    assert write.counts().lost == 1
    with pytest.raises(StoreGone, match="full"):
        store.add_requests([call("x" * 300_000)])
    assert store.feedback() == []
    full(store, None)
    assert write.flush(20)
    kept = {one.id for one in store.requests()}
    assert {one.id for one in calls} <= kept
    assert len(kept) == write.counts().written == 50
    (event,) = store.events("store")
    assert event.body["lost"] == 1
    assert "cannot be reached" in heard[0]
    assert "reached again; requests that were not stored: 1" in heard[1]
    assert not any("\n" in line for line in heard)


def test_what_is_lost_in_a_burst_is_told_though_the_store_was_there(
    tmp_path: Path, writer: Callable[..., StoreWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_REQUESTS", 5)
    store = open_store(str(tmp_path / "store.db"))
    write = writer(store)
    taken = sum(write.add(call()) for _ in range(50))
    assert write.flush(20)
    until(lambda: bool(store.events("store")))
    lost = sum(one.body["lost"] for one in store.events("store"))
    assert (lost, write.counts().written) == (50 - taken, taken)
    assert lost > 0


def test_a_file_deleted_or_replaced_under_it_is_made_anew(
    tmp_path: Path, writer: Callable[..., StoreWriter]
) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path))
    heard: list[str] = []
    write = writer(store, heard.append)
    write.add(call())
    assert write.flush(20)
    for one in tmp_path.glob("store.db*"):
        one.unlink()
    after = call("after")
    write.add(after)
    assert write.flush(20)
    with closing(sqlite3.connect(path)) as seen:
        assert seen.execute("SELECT id FROM requests").fetchall() == [(after.id,)]
    assert store.remade == 1
    until(lambda: any("deleted or replaced" in one for one in heard))
    # Its folder too, and back.
    (tmp_path / "aside").mkdir()
    for one in tmp_path.glob("store.db*"):
        one.rename(tmp_path / "aside" / one.name)
    assert store.add_feedback(Feedback("r", 0, "a", "ann", 1.0)).id == 1


def test_a_locked_database_is_waited_for_and_no_put_blocks(
    tmp_path: Path, writer: Callable[..., StoreWriter]
) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path))
    sqlalchemy.event.listen(
        store._engine, "connect", lambda one, _: one.execute("PRAGMA busy_timeout=50")
    )
    store._engine.dispose()
    write = writer(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    asking: list[int] = []
    sqlalchemy.event.listen(
        store._engine, "before_cursor_execute", lambda *_: asking.append(threading.get_ident())
    )
    for _ in range(200):
        write.add(call())
    until(lambda: write.counts().failures > 1)
    # Whoever puts never comes to the database, so nothing there can make him wait.
    assert asking
    assert threading.get_ident() not in asking
    other.execute("ROLLBACK")
    other.close()
    assert write.flush(20)
    assert write.counts().written == 200


def test_postgres_stopped_and_started_loses_nothing(
    cluster: Any, writer: Callable[..., StoreWriter]
) -> None:
    store = open_store(cluster.fresh("restarted"))
    heard: list[str] = []
    write = writer(store, heard.append)
    write.add(call())
    assert write.flush(20)
    cluster.stop()
    try:
        for _ in range(20):
            assert write.add(call())
        until(lambda: any("cannot be reached" in line for line in heard))
        assert "s3cret" not in str(heard)
        with pytest.raises(StoreGone) as refused:
            store.add_feedback(Feedback("r", 0, "a", "ann", 1.0))
        assert "s3cret" not in str(refused.value)
    finally:
        cluster.start()
    assert write.flush(30)
    assert len(store.requests()) == 21
    store.close()


def test_a_table_that_somebody_locks_holds_no_label_for_ever(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VACUUM FULL, a dump or a session that somebody left open."""
    import psycopg

    url = cluster.fresh("locked")
    store = open_store(url)
    one = call()
    store.add_requests([one])
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE feedback IN ACCESS EXCLUSIVE MODE")
        other.execute("SET idle_in_transaction_session_timeout = 20000")
        before = time.monotonic()
        with pytest.raises(StoreGone, match="lock timeout"):
            store.add_feedback(Feedback(one.id, 0, "a", "ann", 1.0))
        assert time.monotonic() - before < 15
        other.rollback()
    assert store.add_feedback(Feedback(one.id, 0, "a", "ann", 1.0)).id
    # Whoever is given the connection next by a pooler keeps its own.
    raw = store._engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("SHOW lock_timeout")
    assert cursor.fetchone() == ("0",)
    raw.close()
    store.close()


def test_a_machine_that_is_gone_is_waited_for_as_long_as_is_said() -> None:
    told = connection._timeouts(None)
    assert told["connect_timeout"] * 1000 <= told["tcp_user_timeout"] <= 60_000


def test_a_record_that_the_database_does_not_take_costs_none_but_itself(
    store: Store, writer: Callable[..., StoreWriter]
) -> None:
    write = writer(store)
    calls = [call() for _ in range(9)]
    broken = replace(calls[4], at=1.0)
    for one in (*calls[:6], broken, *calls[6:]):
        write.add(one)
    assert write.flush(20)
    assert {one.id for one in store.requests()} == {one.id for one in calls}
    counts = write.counts()
    assert (counts.written, counts.refused, counts.lost, counts.away) == (9, 1, 0, False)


def test_what_waits_is_bounded_by_bytes_too(
    tmp_path: Path, writer: Callable[..., StoreWriter]
) -> None:
    store = open_store(str(tmp_path / "store.db"))
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    write = writer(store)
    long = "x" * (MAX_BYTES // 40)
    taken = sum(write.add(call(long)) for _ in range(20))
    assert taken == 9
    assert write.counts().lost == 11
    other.close()


def test_closing_writes_what_waits_and_says_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path))
    write = StoreWriter(store)
    for _ in range(50):
        write.add(call())
    assert write.close() == 0
    assert len(store.requests()) == 50
    assert not write.add(call())
    store.append(Event("end", 1.0))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    stuck = StoreWriter(store)
    for _ in range(7):
        stuck.add(call())
    assert stuck.close(0.3) == 7
    assert stuck.counts().lost == 7
    other.close()


def test_texts_expire_by_the_writer(tmp_path: Path, writer: Callable[..., StoreWriter]) -> None:
    store = open_store(str(tmp_path / "store.db"))
    store.add_requests([call(SECRET, at=time.time() - 100)])
    assert SECRET in str(store.requests())
    writer(store).add(call())
    until(lambda: SECRET not in str(store.requests()))
