"""The net round the reading of a stranger's bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.core.errors import DataError, Defect, Interrupted, MachineError, RecipeError
from holdfast.core.input_errors import reading_errors


def refused(raised: BaseException) -> DataError:
    with (
        pytest.raises(DataError) as caught,
        reading_errors("a.json", DataError, "is no log", "Mend it."),
    ):
        raise raised
    assert caught.value.__cause__ is raised
    assert caught.value.exit_code == 2
    return caught.value


def test_a_fault_of_the_input_names_the_thing_the_reason_and_the_remedy() -> None:
    error = refused(ValueError("first line\nsecond line"))
    assert str(error) == "a.json: is no log: ValueError: first line\n  Mend it."


def test_deep_nesting_is_told_in_words() -> None:
    with (
        pytest.raises(DataError, match="it is nested too deeply"),
        reading_errors("a.json", DataError),
    ):
        json.loads("[" * 200_000)


def test_what_the_system_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a directory"), reading_errors(str(tmp_path), DataError):
        tmp_path.open()


def test_a_reason_is_one_short_printable_line() -> None:
    error = refused(ValueError("\x1b[2Jred\x00" + "x" * 5000))
    assert "\x1b" not in str(error)
    assert len(error.rule) < 250


def test_memory_is_the_machine_s() -> None:
    with pytest.raises(MachineError, match="more memory"), reading_errors("a.csv", DataError):
        raise MemoryError


def test_a_library_s_panic_is_caught() -> None:
    panic = type("PanicException", (BaseException,), {})
    assert "PanicException: broke" in refused(panic("broke")).rule


@pytest.mark.parametrize(
    "passing",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        Interrupted("a", "b"),
        Defect("a", "b"),
        RecipeError("a", "b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_fault_of_reading_passes(passing: BaseException) -> None:
    with pytest.raises(type(passing)) as caught, reading_errors("a.json", DataError):
        raise passing
    assert caught.value is passing
