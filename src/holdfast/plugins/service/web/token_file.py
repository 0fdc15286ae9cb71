"""The token of a service that others can reach: one line of a file, never an argument.

What stands in a command line or a variable is read by anybody who may list processes.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from holdfast.core.discovery import lies_there, missing_remedy
from holdfast.core.errors import RecipeError
from holdfast.core.input_errors import door
from holdfast.core.records import Decision

# 128 bits in hexadecimal digits take twice as many.
SHORTEST, LONGEST = 16, 1024
# RFC 6750: what may stand behind ``Bearer``.
_FORM = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
MAKE = "(umask 077; openssl rand -hex 32 > {})"


def read_token(path: Path) -> tuple[str, tuple[Decision, ...]]:
    """The token, and what must be said of its file. Raises ``RecipeError`` for a file that is
    missing, holds no token, one of fewer than 16 characters, or may be written by others."""
    what = f"--token-file {path}"
    make = f"Make one: {MAKE.format(path)}"
    if not lies_there(path):
        raise RecipeError(what, "does not exist", None, f"{missing_remedy(path)} {make}")
    if path.is_dir():
        raise RecipeError(what, "is a folder", None, make)
    with door(what, RecipeError, "cannot be read", "Check its permissions."), path.open("rb") as it:
        mode = os.fstat(it.fileno()).st_mode
        raw = it.read(LONGEST + 3)
    said = _checked_mode(what, path, mode)
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if len(lines) > 2 or any(line.strip() for line in lines[1:]):
        raise RecipeError(what, "holds more than one line", None, make)
    # What it holds is shown to nobody, not even where it is wrong.
    token = lines[0].strip().decode("latin-1")
    if not token:
        raise RecipeError(what, "is empty", None, make)
    if len(token) > LONGEST:
        raise RecipeError(what, f"holds more than {LONGEST:,} characters", None, make)
    if not _FORM.fullmatch(token):
        rule = "holds a character that no token has: letters, digits and -._~+/ are some"
        raise RecipeError(what, rule, None, make)
    if len(token) < SHORTEST:
        rule = f"holds a token of fewer than {SHORTEST} characters, which can be guessed"
        raise RecipeError(what, rule, len(token), make)
    return token, said


def _checked_mode(what: str, path: Path, mode: int) -> tuple[Decision, ...]:
    if not stat.S_ISREG(mode):
        return ()
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RecipeError(
            what,
            "may be written by others, who could set the token",
            oct(mode & 0o777),
            f"chmod 600 {path}",
        )
    if mode & stat.S_IROTH:
        because = (
            f"its mode is {oct(mode & 0o777)}, so that every user of this machine knows the "
            f"token; chmod 600 {path}"
        )
        return (Decision("token file", "readable by others", because, prominent=True),)
    return ()
