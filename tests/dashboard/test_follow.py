"""Lines of a file that is being written: all of them once, whatever befalls it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from holdfast.plugins.dashboard.files import START_POSITION, read_new_lines


def line(step: int, **more: object) -> bytes:
    return json.dumps({"event": "snapshot", "step": step, **more}).encode() + b"\n"


def steps(found: object) -> list[int]:
    return [event["step"] for _, event in found.lines]  # type: ignore[attr-defined]


def test_whatever_pieces_it_is_written_in_every_line_is_read_once(tmp_path: Path) -> None:
    path, rng = tmp_path / "events.jsonl", random.Random(0)
    whole = b"".join(line(i, text="é" * rng.randrange(40)) for i in range(200))
    got: list[int] = []
    place, at = START_POSITION, 0
    path.touch()
    while at < len(whole) or not got or got[-1] != 199:
        step = rng.randrange(1, 400)
        with path.open("ab") as file:
            file.write(whole[at : at + step])
        at += step
        found = read_new_lines(path, place, max_bytes=300)
        assert not found.restarted
        got += steps(found)
        place = found.position
    assert got == list(range(200))


def test_a_half_written_line_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(0) + line(1)[:10])
    found = read_new_lines(path)
    assert steps(found) == [0]
    path.write_bytes(line(0) + line(1))
    assert steps(read_new_lines(path, found.position)) == [1]


def test_the_place_after_any_line_goes_on_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(map(line, range(9))))
    for i, (place, _) in enumerate(read_new_lines(path).lines):
        assert steps(read_new_lines(path, place)) == list(range(i + 1, 9))


def test_a_file_that_was_cut_back_and_written_on_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(map(line, range(6))))
    place = read_new_lines(path).position
    # A resumed run: the same length, other lines behind the checkpoint.
    path.write_bytes(b"".join(map(line, (0, 1, 2, 7, 8, 9))))
    found = read_new_lines(path, place)
    assert found.restarted
    assert steps(found) == [0, 1, 2, 7, 8, 9]
    path.write_bytes(line(0))
    found = read_new_lines(path, found.position)
    assert found.restarted
    assert steps(found) == [0]


@pytest.mark.parametrize("place", ["", "x", "-1-0", "5", "7-12345", "9" * 40 + "-1", "٣-0"])
def test_a_place_that_somebody_made_up_is_the_start(tmp_path: Path, place: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(map(line, range(3))))
    assert steps(read_new_lines(path, place)) == [0, 1, 2]


def test_rubbish_between_lines_is_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(0) + b"\x00\xff\xfe\n\n[1]\n" + b"[" * 5_000 + b"\n" + line(1))
    found = read_new_lines(path)
    assert steps(found) == [0, 1]
    assert found.skipped == 3


def test_a_line_without_an_end_does_not_hold_up_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 5_000 + b"\n" + line(1))
    place, got = START_POSITION, []
    for _ in range(12):
        found = read_new_lines(path, place, max_bytes=1_000)
        got += steps(found)
        place = found.position
        if not found.more:
            break
    assert got == [1]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(line(1))
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"[Ss]ymbolic"):
        read_new_lines(tmp_path / "events.jsonl")
