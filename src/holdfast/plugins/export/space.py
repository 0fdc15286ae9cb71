"""The files of a Space: a small page that asks the exported model. It needs what ``predict.py``
needs and the standard library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from holdfast.core.files import write_text
from holdfast.plugins.export.folder import CARD, FACTS, beside

APP = "app.py"
PORT = 7860
DOCKER = f"""FROM python:3.12-slim
RUN useradd -m -u 1000 user
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=user . .
USER user
EXPOSE {PORT}
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "{PORT}"]
"""


def write_space(export: Path, folder: Path, title: str, pictures: bool) -> None:
    """Write a whole Space into ``folder``: the export's files, the page and its Dockerfile."""
    shutil.copytree(export, folder, ignore=shutil.ignore_patterns("space", CARD, FACTS))
    app = beside("app.py").replace("PICTURES = False", f"PICTURES = {pictures}")
    write_text(folder / APP, app.replace('TITLE = ""', f"TITLE = {json.dumps(title)}"))
    write_text(folder / "Dockerfile", DOCKER)
    front = [
        "---",
        f"title: {json.dumps(title)}",
        "sdk: docker",
        f"app_port: {PORT}",
        "pinned: false",
        "---",
        "",
        f"A page that asks the model {title}. On your own machine: `python app.py`.",
        "",
    ]
    write_text(folder / CARD, "\n".join(front))
