"""Rows in a language that the model was not made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SPANISH = "El producto llegó tarde y la caja estaba rota sin más explicación"


def test_a_run_on_rows_in_another_language_says_so(
    holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    other = SPANISH.replace("tarde", "pronto")
    lines = [f"{(SPANISH, other)[at % 2]} {at},{('no', 'si')[at % 2]}" for at in range(60)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,label", *lines]), "utf-8")
    done = holdfast("train", path, "--out", tmp_path / "run", "--dry-run")
    assert done.code == 0, done.err
    assert "its card lists en, but the rows are in es" in " ".join(done.err.split())
