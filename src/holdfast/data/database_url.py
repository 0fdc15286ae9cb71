"""URLs of databases: choose the driver, and mask the password."""

from __future__ import annotations

import re

# From the beginning of a URL to SQLAlchemy's name for it, with the driver that Holdfast installs.
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
INSTALL = "pip install 'holdfast[postgres]'"
# A password in the query string of a URL.
PASSWORD_QUERY = r"(?i)([?&][^=&]*password[^=&]*)=([^&]*)"


def is_url(name: str) -> bool:
    """Whether a study is stored in a database, not in a file."""
    return "://" in name


def mask_password(where: str) -> str:
    """The URL with its password masked."""
    if not is_url(where):
        return where
    # The query string may hold a password, and an at-sign.
    where = re.sub(PASSWORD_QUERY, r"\1=***", where)
    scheme, _, rest = where.partition("://")
    # A password may hold a slash, or even an at-sign.
    user, at, host = rest.rpartition("@")
    name = user.partition(":")[0]
    user_shown = f"{name}:***" if ":" in user else name
    return f"{scheme}://{user_shown if at else ''}{at}{host}"


def without_password(text: str, url: str) -> str:
    """A library's message without the password of ``url``."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        secret = make_url(url).password
    except (ArgumentError, ValueError):
        secret = None
    secrets = [secret, url.rpartition("@")[0].rpartition(":")[2] if "@" in url else None]
    # With an at-sign in the password, part of it is parsed as the host.
    secrets += [
        part for one in re.findall(PASSWORD_QUERY, url) for part in (one[1], *one[1].split("@"))
    ]
    for one in filter(None, secrets):
        text = text.replace(str(one), "***")
    return " ".join(text.split())
