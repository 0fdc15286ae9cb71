"""The path that a source names, where it can be one at all."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.errors import DataError
from holdfast.core.input_errors import reason


def source_path(source: str | Path) -> Path:
    """The path, with ``~`` resolved. Whether something lies there can be asked of it: its
    ``exists``, ``is_file`` and ``is_dir`` raise nothing.

    Raises ``DataError`` for what no system takes as a path (a NUL, too many characters, half of a
    surrogate pair), and for a place that may not be looked at.
    """
    name = str(source)
    if not name.strip():
        raise DataError("the source", "has an empty name", name, "Name a file or a folder.")
    try:
        path = Path(source).expanduser()
        path.stat()
    except FileNotFoundError:
        return path
    except RuntimeError:
        raise _refused(name, "begins with the home of a user who is not known", name) from None
    except NotADirectoryError:
        return path
    except OSError as error:
        raise _refused(name, f"cannot be looked at: {reason(error)}", None) from error
    except ValueError as error:
        raise _refused(name, "is no path: it holds what no path can", name) from error
    return path


def _refused(source: str, rule: str, value: object) -> DataError:
    return DataError(source, rule, value, "Check the name, and who may read it.")
