"""Who may come in, and what a page that came in may do."""

from __future__ import annotations

import pytest

from holdfast.plugins.dashboard.access import Access


def cookie(header: str) -> str:
    return header.partition(";")[0]


def test_a_token_opens_once_and_another_is_offered() -> None:
    offered: list[str] = []
    access = Access(8081, offered.append)
    query = access.url.partition("?")[2]
    given = access.redeem_token(query)
    assert given is not None
    assert {"HttpOnly", "SameSite=Strict", f"Path={access.base}/"} <= {
        x.strip() for x in given.split(";")
    }
    assert query.partition("=")[2] not in given
    assert access.redeem_token(query) is None
    assert offered == [access.url]
    second = access.redeem_token(access.url.partition("?")[2])
    assert second is not None
    assert access.has_session(cookie(given))
    assert access.has_session(f"a=b; {cookie(second)}")
    # As another server of this machine may set one, for every path.
    assert access.has_session(f"{cookie(second)}; holdfast-8081=x")


@pytest.mark.parametrize(
    "header", [None, "", "holdfast-8081=", "holdfast-8081=x", "=;=;", "holdfast-8082={}", "\xff=1"]
)
def test_no_other_cookie_is_known(header: str | None) -> None:
    access = Access(8081)
    given = access.redeem_token(access.url.partition("?")[2])
    assert given is not None
    value = cookie(given).partition("=")[2]
    assert not access.has_session(header.format(value) if header else header)


@pytest.mark.parametrize("query", ["", "token=", "token=x", "tokens=1", "token=%ff", "token=é"])
def test_no_other_token_opens(query: str) -> None:
    assert Access(8081).redeem_token(query) is None


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8081", True),
        ("localhost:8081", True),
        ("[::1]:8081", True),
        ("127.0.0.1", False),
        ("127.0.0.1:8082", False),
        ("evil.example:8081", False),
        ("127.0.0.1:8081.evil.example", False),
        ("localhost:8081 ", False),
        ("", False),
        (None, False),
    ],
)
def test_a_name_that_is_not_this_machine_s_is_another_s(host: str | None, own: bool) -> None:
    assert Access(8081).is_host(host) is own


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:8081", "http://localhost:8081"],
)
def test_a_change_comes_from_a_page_of_the_very_same_name(origin: str | None) -> None:
    assert not Access(8081).is_same_origin("127.0.0.1:8081", origin)
    assert Access(8081).is_same_origin("127.0.0.1:8081", "http://127.0.0.1:8081")
