"""A path to the curves of the log that lies there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.core.curves import Curves
from holdfast.core.discovery import missing_remedy
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.input_errors import door
from holdfast.core.records import Verdict
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.logs import Log, all_log_readers, not_a_log
from holdfast.plugins.logs.choose import choose
from holdfast.plugins.logs.holdfast_run import own_verdict

REMEDY = "Name a training log; docs/diagnose.md lists the programs whose logs are read."


def read_curves(path: Path, settings: Mapping[str, str] | None = None) -> Curves:
    """The curves of the log at ``path``, a file or a folder, whichever program wrote it.

    ``settings`` may name the columns ``train`` and ``valid``. Raises ``DataError`` where nothing is
    there, where it is no log, or where the log is broken, and says what a log looks like.
    """
    return choose(read_log(path), settings or {}, str(path))


def read_verdict(path: Path, settings: Mapping[str, str] | None = None) -> tuple[Curves, Verdict]:
    """The curves of the log at ``path`` and what they show. Of a run of Holdfast's own it is the
    run's own verdict, unless ``settings`` name series: then these are judged as any log's."""
    curves = read_curves(path, settings)
    of_the_run = own_verdict(path) if curves.source == "holdfast" and not settings else None
    if of_the_run is None:
        return curves, judge_curves(curves)
    return replace(curves, kept=of_the_run.kept), of_the_run.verdict


def read_log(path: Path) -> Log:
    """Everything numeric in the log at ``path``, by the most special reader that knows it."""
    with door(str(path), DataError, "cannot be read as a log", REMEDY):
        there, usable = path.exists(), path.is_file() or path.is_dir()
    if not there:
        raise DataError(str(path), "does not exist", None, missing_remedy(path, folders=True))
    if not usable:
        raise not_a_log(str(path), "is a pipe or a device, not a file")
    if path.is_file() and not path.stat().st_size:
        raise not_a_log(str(path), "is empty")
    with door(str(path), DataError, "cannot be read as a log", REMEDY):
        # The most special first: a general one may have to look through all that is there.
        for reader in sorted(all_log_readers().values(), key=lambda one: -one.priority):
            if reader.accepts(path):
                return reader.read(path)
    raise not_a_log(str(path), "is not a log that Holdfast knows")


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """``["train=loss"]`` as ``{"train": "loss"}``; the column may hold ``=`` itself."""
    found = {}
    for setting in settings:
        key, mark, value = setting.partition("=")
        if not mark or not value:
            raise RecipeError("--set", "needs a series and a column", setting, "Write train=COL.")
        found[key] = value
    return found
