"""Advice in the words of the door that it is given at: an option of ``train`` may be called
otherwise where a finished run is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.core.errors import InputError


@contextlib.contextmanager
def advising() -> Iterator[None]:
    """An error that advises ``--set data.encoding=`` says ``--encoding`` here, where that is the
    option."""
    try:
        yield
    except InputError as error:
        remedy = error.remedy.replace("--set data.encoding=", "--encoding ")
        what = "--encoding" if error.what == "data.encoding" else error.what
        remedy = remedy.replace("Leave data.encoding out", "Leave --encoding out")
        if (what, remedy) == (error.what, error.remedy):
            raise
        raise type(error)(what, error.rule, error.value, remedy) from error
