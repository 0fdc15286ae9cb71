"""The body of a request is read as JSON says, and not a bit further."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.plugins.service.web.endpoint import (
    FREE_BYTES,
    BodyBudget,
    ClientGone,
    check_headers,
    read_body,
    read_json,
)
from holdfast.plugins.service.web.faults import Fault

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=5), st.booleans())
@settings(max_examples=150)
def test_whatever_json_can_say_is_read_as_python_wrote_it(value: object, ascii_: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_).encode()) == value


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes_are_an_object_or_a_fault_of_the_caller(body: bytes) -> None:
    found = reading(body)
    assert isinstance(found, dict) or (found.status, bool(found.rule)) == (400, True)


def reading(body: bytes) -> Any:
    try:
        return read_json(body)
    except Fault as fault:
        json.dumps(fault.parts()).encode()
        return fault


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "not a number"),
        (b'{"a": 1e999}', "range of a float"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b'{"b": [{"a": 1, "x": 2, "a": 2}]}', "occurs twice"),
        (b'{"text": "a\\u0000b"}', "NUL"),
        (b'{"a\\u0000b": 1}', "NUL"),
        (b'{"text": "a\x00b"}', "not JSON"),
        (b'{"text": "\\ud800"}', "half of a character"),
        (b'{"text": "\\udc00\\ud800"}', "half of a character"),
        (b'["a"]', "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b'{"a": ' + b"[" * 61 + b"]" * 61 + b"}", "nested"),
        (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not accepted"),
        (b'{"texts": ["a",]}', "not JSON"),
        (b"{'texts': 1}", "not JSON"),
    ],
)
def test_what_is_no_clean_json_is_refused_with_its_rule(body: bytes, rule: str) -> None:
    with pytest.raises(Fault) as caught:
        read_json(body)
    assert caught.value.status == 400
    assert rule in caught.value.rule


def test_escapes_that_make_whole_characters_stay() -> None:
    assert read_json(b'{"a": "\\ud83d\\ude00 \\\\u0000 \\\\ud800"}') == {"a": "😀 \\u0000 \\ud800"}


def receiving(*parts: bytes, gone: bool = False):  # type: ignore[no-untyped-def]
    messages = [{"type": "http.request", "body": one, "more_body": True} for one in parts]
    messages[-1]["more_body"] = gone
    messages.append({"type": "http.disconnect"})
    asked = []

    async def receive():  # type: ignore[no-untyped-def]
        asked.append(1)
        return messages.pop(0)

    return receive, asked


def test_a_body_is_joined_and_one_too_long_is_refused_before_it_is_read() -> None:
    receive, _ = receiving(b"ab", b"cd", b"e")
    assert asyncio.run(read_body(receive, 5, BodyBudget(0))) == b"abcde"
    receive, asked = receiving(*[b"x" * 10] * 100)
    with pytest.raises(Fault) as caught:
        asyncio.run(read_body(receive, 35, BodyBudget(0)))
    assert caught.value.status == 413
    assert len(asked) == 4
    receive, _ = receiving(b"x" * 6)
    with pytest.raises(Fault):
        asyncio.run(read_body(receive, 5, BodyBudget(0)))
    receive, _ = receiving(b"x", gone=True)
    with pytest.raises(ClientGone):
        asyncio.run(read_body(receive, 5, BodyBudget(0)))


def test_all_bodies_that_arrive_are_bounded_together_and_short_ones_are_always_taken() -> None:
    arriving, most = BodyBudget(100_000), 10**9
    piece = b"x" * 40_000

    async def half(pieces: int) -> asyncio.Task[bytes]:
        """A body of which so many pieces are there, and no end."""
        never = asyncio.Event()
        parts = [{"type": "http.request", "body": piece, "more_body": True}] * pieces

        async def receive():  # type: ignore[no-untyped-def]
            if not parts:
                await never.wait()
            return parts.pop()

        task = asyncio.ensure_future(read_body(receive, most, arriving))
        for _ in range(2 * pieces + 2):
            await asyncio.sleep(0)
        return task

    async def attempt() -> None:
        first = await half(4)
        assert arriving.held_bytes == 160_000 - FREE_BYTES
        second = await half(3)
        assert second.done()
        refused = second.exception()
        assert isinstance(refused, Fault)
        assert (refused.status, refused.closing) == (503, True)
        assert "serve.max_bodies_mb" in refused.remedy
        short, _ = receiving(b"x" * 30_000, b"x" * 30_000)
        assert len(await read_body(short, most, arriving)) == 60_000
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert arriving.held_bytes == 0
        long, _ = receiving(*[piece] * 4)
        assert len(await read_body(long, most, arriving)) == 160_000
        assert arriving.held_bytes == 0

    asyncio.run(attempt())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({b"content-type": b"application/json; charset=utf-8"}, None),
        ({b"content-type": b"Application/Problem+JSON"}, None),
        ({b"content-type": b"application/x-www-form-urlencoded"}, None),
        ({b"content-type": b"text/plain"}, 415),
        ({b"content-type": b"multipart/form-data; boundary=x"}, 415),
        ({b"content-encoding": b"gzip"}, 415),
        ({b"content-encoding": b"identity"}, None),
        ({b"content-length": b"101"}, 413),
        ({b"content-length": b"100"}, None),
        ({b"content-length": b"9" * 4000}, 413),
    ],
)
def test_a_head_says_what_is_not_read(headers: dict[bytes, bytes], status: int | None) -> None:
    if status is None:
        check_headers(headers, 100)
        return
    with pytest.raises(Fault) as caught:
        check_headers(headers, 100)
    assert caught.value.status == status
