"""``holdfast.chat``: the command as a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.api.arguments import check_number
from holdfast.api.trained_run import TrainedRun, run_folder
from holdfast.contract.advice import in_python

if TYPE_CHECKING:
    from holdfast.plugins.chat.talk import Talk


@in_python()
def chat(
    run: str | Path | TrainedRun,
    *,
    start: bool = True,
    max_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    system: str = "",
) -> Talk:
    """Start a conversation with a finished run's model, as ``holdfast chat`` does.
    ``chat(run).ask("…")`` returns ``answer`` and, with ``start``, the base model's answer to the
    same message (``start``). ``reset`` clears the conversation; the ``system`` turn stays.

    Raises ``InputError`` where the command would exit with 2.
    """
    from holdfast.plugins.chat.talk import ChatOptions, Talk

    check_number("max_tokens", max_tokens, whole=True)
    check_number("temperature", temperature)
    return Talk.of(run_folder(run), ChatOptions(max_tokens, temperature, seed, system), start=start)
