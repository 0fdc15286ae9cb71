"""Do the test rows show what the validation rows showed? The score of the one against that of the
other, by the checkpoint that is kept: ``test_comparison`` of the verdict, whose label is fixed."""

from __future__ import annotations

from typing import Any

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.row_scores import RowScores, compared, comparison_block
from holdfast.contract.predictions import Predictions

SETS = ("valid", "test_rows")


def find(session: Session) -> RowScores | NoAnswer:
    """The validation rows' scores, as they stand before the test rows are opened."""
    found = RowScores.of(session.valid)
    return found if len(found.values) else NoAnswer("there are no validation rows to compare with")


def confirm(found: RowScores, session: Session, test: Predictions) -> dict[str, Any]:
    """The two-sample test."""
    block = comparison_block(found.metric, compared(found, RowScores.of(test)), SETS)
    if session.out_of_fold:
        block["out_of_fold"] = True
    return block


ANALYSIS = Analysis("confirmation", ("verdict", "test_comparison"), find, confirm)
