"""``holdfast.export``: the command as a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.api.trained_run import TrainedRun, run_folder
from holdfast.contract.advice import in_python

if TYPE_CHECKING:
    from holdfast.plugins.export.export import Exported


@in_python()
def export(
    run: str | Path | TrainedRun,
    to: str,
    *,
    int8: bool = False,
    bfloat16: bool = False,
    push: str | None = None,
    space: bool = False,
    out: str | Path | None = None,
    quiet: bool = True,
) -> Exported:
    """Export a finished run's model, as ``holdfast export`` does.

    Returns an object whose ``folder`` is the new folder, and whose ``facts`` are the content of its
    ``export.json``.

    Parameters
    ----------
    run : a finished run, or its folder.
    to : ``onnx`` or ``openvino`` (classifiers and taggers), ``gguf`` or ``merged`` (language
        models).
    quiet : no progress on standard error.

    The others are the options of the command. Raises ``holdfast.InputError`` where the
    command would exit with 2.
    """
    from holdfast.core.decisions import decisions_to
    from holdfast.plugins.export.export import export as write
    from holdfast.terminal.messages import MessagePrinter

    folder = run_folder(run)
    out_folder = None if out is None else Path(out)
    with decisions_to(MessagePrinter(quiet)):
        return write(
            folder, to, int8=int8, bfloat16=bfloat16, push=push, space=space, out=out_folder
        )
