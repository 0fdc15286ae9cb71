"""The page of checks is what the registry says, and every check says what it does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.quality.checks import all_checks


@pytest.fixture(scope="module")
def maker(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "checks", root / "scripts" / "make_checks_page.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(maker: ModuleType) -> None:
    assert maker.PAGE.read_text("utf-8") == maker.page(), "run python scripts/make_checks_page.py"


def test_every_check_is_on_it_with_a_sentence(maker: ModuleType) -> None:
    page = maker.page()
    for name, check in all_checks().items():
        assert f"### `{name}`" in page
        assert maker.told(check), f"{name} needs a docstring"
