"""Thirty short chats for tests of language models."""

from __future__ import annotations

import json
from pathlib import Path


def write_chats(path: Path, start: int = 0) -> Path:
    """Write the chats, numbered from ``start`` on, to ``path``."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {i} and {i % 7}"},
                {"role": "assistant", "content": f"the film was {i}"},
            ]
        }
        for i in range(start, start + 30)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
