"""URLs of databases: which driver reads one, and how it is shown without its password."""

from __future__ import annotations

import re

# By the beginning of a URL: what SQLAlchemy calls it with the driver that Holdfast brings.
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
INSTALL = "pip install 'holdfast[postgres]'"
# A password behind the question mark of a URL.
PASSWORD_QUERY = r"(?i)([?&][^=&]*password[^=&]*)=([^&]*)"


def is_url(name: str) -> bool:
    """Whether a study is named by a URL, not by a file."""
    return "://" in name


def mask_password(where: str) -> str:
    """The same without a password."""
    if not is_url(where):
        return where
    # A password may stand behind the question mark, and hold an at-sign there too.
    where = re.sub(PASSWORD_QUERY, r"\1=***", where)
    scheme, _, rest = where.partition("://")
    # A password may hold a slash, an at-sign at the worst.
    user, at, host = rest.rpartition("@")
    name = user.partition(":")[0]
    user_shown = f"{name}:***" if ":" in user else name
    return f"{scheme}://{user_shown if at else ''}{at}{host}"


def without_password(text: str, url: str) -> str:
    """What a library says, without the password of the URL that it was given."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        secret = make_url(url).password
    except (ArgumentError, ValueError):
        secret = None
    secrets = [secret, url.rpartition("@")[0].rpartition(":")[2] if "@" in url else None]
    # An at-sign in it makes the rest of it the host.
    secrets += [
        part for one in re.findall(PASSWORD_QUERY, url) for part in (one[1], *one[1].split("@"))
    ]
    for one in filter(None, secrets):
        text = text.replace(str(one), "***")
    return " ".join(text.split())
