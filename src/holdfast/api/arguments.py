"""Arguments of the Python API, converted to what the commands take: requests, files, options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.contract.inference import InferenceOptions
    from holdfast.contract.request import TrainingRequest


Settings = Mapping[str, Any] | Sequence[str]


@dataclass(frozen=True, slots=True)
class RowArguments:
    """Rows in memory or by the name of their file, and the names of their columns."""

    source: Any
    labels: Any
    groups: Any
    test: Any
    text: str | Sequence[str] | None
    label: str | None
    group: str | None

    def request(
        self,
        model: str | Path | None,
        task: str | None,
        seed: int | None,
        settings: Settings,
        out: str | Path | None = None,
        resume: bool = False,
    ) -> TrainingRequest:
        """The training request."""
        from holdfast.contract.request import TrainingRequest
        from holdfast.data.memory.texts import rows_in_memory, run_name
        from holdfast.recipe import as_settings

        # The columns of a frame may have numbers as names.
        given = self.text if isinstance(self.text, (list, tuple)) else [self.text]
        columns = [str(name) for name in given if name is not None]
        label, group = name_or_none(self.label), name_or_none(self.group)
        in_memory: dict[str, pa.Table] = {}
        rows = rows_in_memory(self.source, self.labels, self.groups)
        if rows is not None:
            in_memory["data"] = rows
            if self.labels is not None:
                columns = columns or [n for n in ("text", "text_pair") if n in rows.column_names]
                label = label or "label"
                group = group or ("group" if self.groups is not None else None)
        tested = rows_in_memory(self.test, None, None) if self.test is not None else None
        if tested is not None:
            in_memory["test"] = tested
        return TrainingRequest(
            run_name(self.source, self.labels) if rows is not None else str(self.source),
            model=name_or_none(model),
            task=task,
            text=columns or None,
            label=label,
            group=group,
            test=None if tested is not None else name_or_none(self.test),
            seed=seed,
            settings=as_settings(settings),
            out=Path(out) if out else None,
            resume=resume,
            in_memory=in_memory,
        )


def name_or_none(given: Any) -> str | None:
    """The name of a file or folder; ``None`` if none is given."""
    return None if given is None else str(given)


@contextlib.contextmanager
def file_of(rows: Any) -> Iterator[str]:
    """The name of a file with these rows. An error about rows in memory names the rows, not the
    temporary file."""
    names: dict[str, str] = {}
    source = as_file(rows, None, None, rows_name(rows), names)
    try:
        with naming_rows(names):
            yield source
    finally:
        for path in names:
            Path(path).unlink(missing_ok=True)


def rows_name(rows: Any) -> str:
    """The name of these rows in results and errors: that of their file, if they are in one."""
    from holdfast.data.memory.frames import is_frame
    from holdfast.data.memory.texts import FRAME

    if isinstance(rows, (str, Path)):
        return str(rows)
    return FRAME if is_frame(rows) else "the list"


@contextlib.contextmanager
def naming_rows(names: Mapping[str, str]) -> Iterator[None]:
    """Give the rows in these files their ``names`` in errors."""
    from holdfast.data.memory.texts import naming_data_frame

    with contextlib.ExitStack() as naming:
        for path, name in names.items():
            naming.enter_context(naming_data_frame(Path(path), name))
        yield


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """Refuse a ``value`` that is no number; ``None`` stands for the default."""
    from numbers import Integral, Real

    from holdfast.core.errors import RecipeError

    kind = Integral if whole else Real
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        rule = f"must be a {'whole ' if whole else ''}number"
        raise RecipeError(name, rule, value, "Give it as a number, not as a text.")


def as_file(rows: Any, labels: Any, groups: Any, name: str, names: dict[str, str]) -> str:
    """The name of a file with these rows. Rows in memory are written to a temporary file, which is
    added to ``names``."""
    from holdfast.data.memory.frames import frame_file, is_frame
    from holdfast.data.memory.texts import rows_in_memory, unlabelled_rows

    if isinstance(rows, (str, Path)):
        rows_in_memory(rows, labels, groups)
        return str(rows)
    if labels is None and not is_frame(rows) and not isinstance(rows, Mapping):
        table = unlabelled_rows(rows, groups)
    else:
        table = rows_in_memory(rows, labels, groups)
    path = frame_file(table)
    names[str(path)] = name
    return str(path)


def options_of(
    text: str | Sequence[str] | None, label: str | None, encoding: str | None, settings: Settings
) -> InferenceOptions:
    from holdfast.contract.inference import InferenceOptions, check_limits
    from holdfast.recipe import as_settings

    names = (text,) if isinstance(text, str) else tuple(text or ()) or None
    return InferenceOptions(names, label, encoding, check_limits(as_settings(settings)))
