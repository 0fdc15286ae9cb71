"""Public names of models and data, and removal of local paths from what is published."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from holdfast.core.packaged_models import PACKAGED_MODELS
from holdfast.core.run_files import MODEL_FOLDER, RESULT_FILE
from holdfast.report.contents import report_sections
from holdfast.report.run_files import RunFiles

PATH_SEPARATORS = frozenset("/\\")
POSIX = re.compile(r"(?<![\w/.~])(?:file://)?~?(?:/[\w.@+=&%~-]+)+/([\w.@+=&%~-]+)/?")
WINDOWS = re.compile(r"(?<!\w)[A-Za-z]:\\(?:[^\\\s]+\\)*([^\\\s]+)")


def is_local(name: str) -> bool:
    """Whether ``name`` is a path on this machine and not a name on the hub (``owner/name``)."""
    windows = bool(re.match(r"[A-Za-z]:[\\/]|\\\\", name))
    return windows or name.startswith(("/", ".", "~")) or name.count("/") > 1


def base_name(path: str) -> str:
    """The name of a file or folder, from a POSIX or Windows path."""
    path_type = PureWindowsPath if "\\" in path else PurePosixPath
    return path_type(path).name or path


def public_name(model: str) -> str:
    """The hub name of a packaged model; a hub name; the name of a folder, or of the run whose model
    it is."""
    if model in PACKAGED_MODELS:
        return PACKAGED_MODELS[model].hub
    if not is_local(model):
        return model
    folder = Path(model)
    # Of a run's model only: another folder's parent may be somebody's home.
    is_of_run = folder.name == MODEL_FOLDER and (folder.parent / RESULT_FILE).is_file()
    return base_name(str(folder.parent) if is_of_run else model)


def hub_name(model: str) -> str | None:
    """``owner/name`` where the model is on the hub."""
    name = public_name(model)
    return name if name.count("/") == 1 and not is_local(model) else None


def strip_paths(run: RunFiles) -> RunFiles:
    """``run`` with every local path cut to its last part, except in the user's own texts.

    Paths in the settings are known exactly (they may contain spaces). Otherwise an absolute path of
    two parts or more in a sentence counts as one.
    """
    own_text_keys = {key for section in report_sections() for key in section.own_texts}
    settings = (run.result.get("settings"), run.recipe, run.result.get("model"))
    # The data files as they were named, including relative paths and links.
    files = run.part("data").texts("files")
    paths = {*_paths(settings), *(path for path in files if base_name(path) != path)}
    # The longest first: a path may be the beginning of another.
    replacements = [(path, _last_part(path)) for path in sorted(paths, key=len, reverse=True)]

    def clean(value: object) -> Any:
        if isinstance(value, str):
            for path, last in replacements:
                value = value.replace(path, last)
            # Most texts hold no path, and a long run has tens of thousands of texts.
            return (
                WINDOWS.sub(r"\1", POSIX.sub(r"\1", value))
                if PATH_SEPARATORS & set(value)
                else value
            )
        if isinstance(value, Mapping):
            return {
                key: item if key in own_text_keys else clean(item) for key, item in value.items()
            }
        return [clean(item) for item in value] if isinstance(value, (list, tuple)) else value

    def clean_all(lines: tuple[Mapping[str, object], ...]) -> tuple[Mapping[str, Any], ...]:
        return tuple(map(clean, lines))

    return dataclasses.replace(
        run,
        result=clean(run.result),
        recipe=clean(run.recipe),
        actions=clean_all(run.actions),
        notes=clean_all(run.notes),
        timeline=clean_all(run.timeline),
        noted=tuple(dataclasses.replace(one, note=clean(one.note)) for one in run.noted),
    )


def _last_part(path: str) -> str:
    """The name of a file or folder; of a run's model that of the run."""
    name = base_name(path)
    return public_name(path) if name == MODEL_FOLDER and is_local(path) else name


def _paths(value: object) -> Iterator[str]:
    if isinstance(value, str) and is_local(value) and base_name(value) != value:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
