"""``holdfast.chat``: the command as a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.contract.advice import in_python

if TYPE_CHECKING:
    from holdfast.plugins.chat.talk import Talk


@in_python()
def chat(
    run: str | Path,
    *,
    start: bool = True,
    tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Talk:
    """A conversation with a finished run's model, as ``holdfast chat`` has it:
    ``chat(run).ask("…")`` gives ``answer`` and, with ``start``, what the model that it began from
    says to the same (``start``). ``reset`` forgets what was said.

    Raises ``InputError`` where the command would exit with 2."""
    from holdfast.plugins.chat.talk import GenerationOptions, Talk

    return Talk.of(Path(run), GenerationOptions(tokens, temperature, seed), start=start)
