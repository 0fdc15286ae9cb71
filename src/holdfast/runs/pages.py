"""The pages of a run that is scored: its model card and its report, and with them its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import MODEL, REPORT, remove_checkpoints
from holdfast.core.input_errors import survived
from holdfast.core.run_files import CARD, read_result
from holdfast.report.card import write_card
from holdfast.report.page import write_report

PAGES = ((f"{MODEL}/{CARD}", write_card), (REPORT, write_report))


def write_pages(run: Path) -> dict[str, Any]:
    """Write the card and the report, take the checkpoints away, and give the run's result.

    The model and its predictions are whole by now, so a defect in a page is told and costs that
    page alone; ``holdfast report RUN`` makes the report again. Raises ``InputError`` where a page
    cannot be written.
    """
    for name, write in PAGES:
        with survived(name, "the model and its predictions are whole"):
            write(run)
    remove_checkpoints(run)
    return read_result(run)
