"""The model against the data: how much learns for each row, and what follows from it."""

from __future__ import annotations

from typing import Any

from holdfast.core.records import Decision, Finding
from holdfast.models.base import Network
from holdfast.models.layers import count_parameters

CHECK = "model_size"
# Fine-tuned whole, BERT-large (335 million) ends badly by chance on the sets of GLUE below some
# 2,500 rows, and steadily only with many passes and small rates (2006.04884, 2006.05987): that is
# where this line lies for it. A small model has no such trouble whatever its rows (MiniLM, 10.8
# million learning: benchmarks/small_data.py at 100 rows), so it is never called oversized.
MOST_A_ROW = 150_000
SMALL = 40_000_000


def model_size(network: Network, examples: Any) -> tuple[Decision, tuple[Finding, ...]]:
    """Learning parameters for each training row, and a warning where that is far too many.

    More than 150,000 a row in a model of which more than 40 million learn is oversized: an adapter,
    freezing or a smaller model is the remedy. No row gives no ratio and no warning.
    """
    rows = len(examples)
    _, learns = count_parameters(network)
    tokens = int(examples.lengths.sum())
    a_row = learns / rows if rows else 0.0
    size = (
        f"{learns:,} parameters learn from {rows:,} rows: {a_row:,.0f} a row, "
        f"{learns / max(1, tokens):,.0f} a token of them"
    )
    oversized = learns > SMALL and a_row > MOST_A_ROW
    why = _why(network, learns, oversized)
    decision = Decision(CHECK, "oversized" if oversized else "fits", f"{size}; {why}")
    return decision, (_finding(size, a_row, rows, learns),) if oversized else ()


def _why(network: Network, learns: int, oversized: bool) -> str:
    if oversized:
        return f"above {MOST_A_ROW:,} a row, some runs fail by chance"
    if network.adapter is not None:
        return "the adapter keeps the trainable parameters few"
    if learns <= SMALL:
        return f"up to {SMALL // 10**6} million, no benchmark had too few rows"
    return f"up to {MOST_A_ROW:,} a row, full fine-tuning was stable in benchmarks"


def _finding(size: str, a_row: float, rows: int, learns: int) -> Finding:
    fits = max(SMALL, MOST_A_ROW * rows)
    return Finding(
        CHECK,
        "warn",
        min(1.0, a_row / MOST_A_ROW / 10),
        rows,
        (),
        f"{size}; above {MOST_A_ROW:,} a row a run of so large a model may end badly by chance",
        "Use --set model.adapter.kind=lora (under 1 % learns), freeze the first layers "
        f"(--set model.freeze=0.75), or take a model of at most {fits / 1e6:,.0f} million "
        "parameters.",
    )
