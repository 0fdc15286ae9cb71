"""Do the test rows show what the validation rows showed? The score of the one against that of the
other, by the checkpoint that is kept: ``test_comparison`` of the verdict, whose label is fixed."""

from __future__ import annotations

from typing import Any

from holdfast.analyses.analysis import After, Analysis, Before, NoAnswer
from holdfast.analyses.row_scores import RowScores, compared, comparison_block

SETS = ("valid", "test_rows")


def find(before: Before) -> RowScores | NoAnswer:
    """The validation rows' scores, as they stand before the test rows are opened."""
    found = RowScores.of(before.valid)
    return found if len(found.values) else NoAnswer("there are no validation rows to compare with")


def confirm(found: RowScores, after: After) -> dict[str, Any]:
    """The two-sample test."""
    block = comparison_block(found.metric, compared(found, RowScores.of(after.test)), SETS)
    job = after.fitted.job
    if job.out_of_fold is not None or after.fitted.answered is not None:
        block["out_of_fold"] = True
    return block


QUESTION = Analysis("confirmation", ("verdict", "test_comparison"), find, confirm)
