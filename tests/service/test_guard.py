"""Who is let in: hosts, origins, the token and its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.plugins.service.settings import Serving, serving
from holdfast.plugins.service.web.faults import Fault
from holdfast.plugins.service.web.guard import AccessRules, host_name, is_local, read_token

TOKEN = "0123456789abcdef0123"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_a_local_host_is_one_that_this_machine_alone_reaches(host: str, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a.example:80", "a.example"),
        ("A.Example.", "a.example"),
        ("[::1]:8080", "::1"),
        ("::1", None),
        ("a:b", None),
        ("a:99999", None),
        ("user@a", None),
        ("a/b", None),
        ("a b", None),
        ("127.0.0.1, evil.example", None),
    ],
)
def test_the_name_of_a_host_header(value: str, name: str | None) -> None:
    assert host_name(value) == name


def refused(guard: AccessRules, method: str = "POST", **headers: str) -> int | None:
    given = {k.replace("_", "-").encode(): v.encode("latin-1") for k, v in headers.items()}
    try:
        guard.check_host(given)
        guard.check_origin(method, given)
        guard.check_token(given)
    except Fault as fault:
        return fault.status if TOKEN not in str(fault.parts()) else 0
    return None


def test_a_foreign_name_is_refused_at_a_local_address_only() -> None:
    local, wide = AccessRules.for_server("127.0.0.1", None), AccessRules.for_server("0.0.0.0", None)
    assert refused(local, host="127.0.0.1:8080") is None
    assert refused(local, host="localhost:1") is None
    assert refused(local, host="evil.example:8080") == 403
    assert refused(local, host="127.0.0.1.evil.example") == 403
    assert refused(wide, host="api.example") is None
    named = AccessRules.for_server("0.0.0.0", None, ["api.example"])
    assert refused(named, host="api.example") is None
    assert refused(named, host="other.example") == 403


def test_another_sites_page_may_not_write_and_may_not_even_try() -> None:
    guard, own = AccessRules.for_server("127.0.0.1", None), {"host": "127.0.0.1:8080"}
    assert refused(guard, **own, origin="http://127.0.0.1:8080") is None
    for origin in ("http://evil.example", "null", "http://127.0.0.1:8081", "http://localhost:8080"):
        assert refused(guard, **own, origin=origin) == 403
    assert refused(guard, **own, sec_fetch_site="cross-site") == 403
    assert refused(guard, **own, sec_fetch_site="none") is None
    assert refused(guard, "GET", **own, origin="http://evil.example") is None
    # A proxy that asks by another name than its own pages have.
    behind = AccessRules.for_server("127.0.0.1", None, ["api.example"])
    assert refused(behind, **own, origin="https://api.example") is None
    assert refused(behind, **own, origin="https://api.example.evil.example") == 403
    assert refused(behind, **own, origin="http://localhost:8080") == 403


def test_the_token_is_asked_for_and_nothing_like_it_passes() -> None:
    guard = AccessRules.for_server("0.0.0.0", TOKEN)
    assert refused(guard) == 401
    assert refused(guard, authorization=f"Bearer {TOKEN}") is None
    assert refused(guard, authorization=f"bearer {TOKEN}") is None
    for wrong in (
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        "Bearer é",
    ):
        assert refused(guard, authorization=wrong) == 401
    assert TOKEN.encode() not in repr(guard).encode()


def token_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_token_file_is_one_line_that_others_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert read_token(token_file(path, f"{TOKEN}\r\n".encode())) == TOKEN
    with record_decisions() as said:
        assert read_token(token_file(path, TOKEN.encode(), 0o644)) == TOKEN
    assert [one.chosen for one in said if isinstance(one, Decision)] == ["readable by others"]
    for content in (
        b"",
        b"\n\n",
        b"short",
        b"a b" * 20,
        f"{TOKEN}\n{TOKEN}".encode(),
        b"x" * 2000,
        "é".encode() * 20,
    ):
        with pytest.raises(RecipeError) as caught:
            read_token(token_file(path, content))
        assert "openssl rand" in str(caught.value)
        assert content.decode()[:20] not in str(caught.value) or not content.strip()
    with pytest.raises(RecipeError, match="writable by other users"):
        read_token(token_file(path, TOKEN.encode(), 0o622))
    with pytest.raises(RecipeError, match="does not exist"):
        read_token(tmp_path / "none")
    with pytest.raises(RecipeError, match="folder"):
        read_token(tmp_path)


def test_a_token_may_come_through_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, TOKEN.encode())
    os.close(writing)
    try:
        assert read_token(Path(f"/dev/fd/{reading}")) == TOKEN
    finally:
        os.close(reading)


def test_settings_are_read_within_their_ranges_and_by_their_names() -> None:
    found = serving(["serve.log_texts=true", "serve.max_rows=5", "serve.hosts=[a.example, b]"])
    assert (found.log_texts, found.max_rows, found.hosts) == (True, 5, ("a.example", "b"))
    assert serving() == Serving()
    assert serving(["serve.hosts=a"]).hosts == ("a",)
    with pytest.raises(RecipeError, match=r"serve\.max_rows"):
        serving(["serve.max_row=5"])
    for wrong in (
        "serve.max_rows=0",
        "serve.max_rows=many",
        "serve.timeout_s=.inf",
        "serve.log_texts=1",
        "serve.max_rows",
        "train.epochs=3",
        "serve.max_rows=1.5",
        "serve.read_s={a: b",
    ):
        with pytest.raises(RecipeError):
            serving([wrong])
