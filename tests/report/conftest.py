"""Synthetic run folders as a fixture, loaded by path because tests are no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """The module ``make_run``."""
    path = Path(__file__).with_name("make_run.py")
    spec = importlib.util.spec_from_file_location("holdfast_tests_make_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
