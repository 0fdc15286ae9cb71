"""Settings of a method or an augmentation: which value is refused, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from holdfast.core.errors import RecipeError
from holdfast.core.settings import checked_settings, setting


@dataclass(frozen=True)
class Given:
    function: str = setting()
    rows: int = setting(8, least=4, whole=True)
    mode: str = setting("near", choices=("near",), or_number=True, most=1)


def refusal(given: dict[str, object], computed: dict[str, object] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        checked_settings("augment.own", Given, given, computed or {})
    return str(caught.value)


def test_the_remedy_fits_who_gave_the_value() -> None:
    assert "Remove it to use the default" in refusal({"function": "f", "rows": 2})
    # A default that the data makes too small, and a text without a default, cannot be removed.
    assert "Set augment.own.rows." in refusal({"function": "f"}, {"rows": 3})
    assert "Set augment.own.function." in refusal({"function": ""})
    assert "needs function" in refusal({})


def test_a_single_choice_is_no_list_of_choices() -> None:
    assert "must be near, or a number at least 0 and at most 1" in refusal(
        {"function": "f", "mode": "far"}
    )
    known = checked_settings("augment.own", Given, {"function": "f", "mode": 0.5}, {})
    assert known == {"function": "f", "rows": 8, "mode": 0.5}
