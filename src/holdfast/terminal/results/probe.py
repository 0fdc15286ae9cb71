"""The text of ``holdfast probe``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.terminal.document import document_lines


def probe_text(document: Mapping[str, Any], columns: int) -> str:
    """Memorization, then forgetting, as the report says them."""
    from holdfast.analyses.forgetting.section import forgetting
    from holdfast.analyses.memory.section import memory
    from holdfast.report.run_files import RunFiles

    run = RunFiles({"probes": document})
    views = [view for view in (memory(run), forgetting(run)) if view is not None]
    return "\n\n".join("\n".join(document_lines(view, columns)) for view in views)
