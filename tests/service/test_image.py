"""What `deploy/Dockerfile` and `deploy/compose.yaml` say is done, step by step, without a container
engine: a folder stands for the root of the image."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOKEN = "only-of-this-test"


class Image:
    """A folder that the instructions of a Dockerfile fill, and the environment that they set.

    A later stage begins with the folder of the one before, so its `COPY --from` has nothing to do.
    `USER` and `useradd` need an account that the machine may not have, and are left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workdir = folder
        self.variables = {"HOME": str(folder)}
        self.program: list[str] = []
        self.default: list[str] = []

    def inside(self, text: str) -> str:
        """``text`` with the image's absolute paths as paths in the folder."""
        return re.sub(r"(?<![\w.])/(?=(?:opt|made|run|runs)\b)", f"{self.folder}/", text)

    def environment(self) -> dict[str, str]:
        # The package index of this machine is set here, or in pip's own files.
        outer = {name: os.environ[name] for name in os.environ if name.startswith("PIP_")}
        path = f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
        return {"PATH": path, **outer, **self.variables}

    def run(self, command: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self.inside(command)],
            cwd=self.workdir,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def build(self, dockerfile: str) -> None:
        for line in re.sub(r"\\\n", "", re.sub(r"(?m)^#.*\n", "", dockerfile)).splitlines():
            word, _, rest = line.partition(" ")
            if word == "WORKDIR":
                self.workdir = Path(self.inside(rest))
                self.workdir.mkdir(parents=True)
            elif word == "COPY" and not rest.startswith("--from"):
                *sources, target = rest.split()
                for source in sources:
                    place = self.workdir / target / ("" if target != "./" else source)
                    copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                    copy(ROOT / source, place)
            elif word == "ARG":
                name, _, value = rest.partition("=")
                self.variables[name] = value.strip('"')
            elif word == "ENV":
                outer = f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
                for setting in shlex.split(rest):
                    name, _, value = setting.partition("=")
                    self.variables[name] = self.inside(value).replace("$PATH", outer)
            elif word == "RUN" and "useradd" not in rest:
                self.run(rest)
            elif word == "ENTRYPOINT":
                self.program = json.loads(rest)
            elif word == "CMD":
                self.default = json.loads(rest)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_is_built_and_serves_as_compose_starts_it(
    finished_run: Path, tmp_path: Path
) -> None:
    image = Image(tmp_path / "image")
    image.folder.mkdir()
    image.build((DEPLOY / "Dockerfile").read_text("utf-8"))

    shown = subprocess.run(
        [*image.program, *image.default], env=image.environment(), capture_output=True, text=True
    )
    assert shown.returncode == 0
    assert "serve" in shown.stdout
    # What runs is what was installed there, not what the tests run in.
    assert shutil.which("holdfast", path=image.environment()["PATH"]) == str(
        image.folder / "opt/holdfast/bin/holdfast"
    )

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (image.folder / "runs").mkdir()
    shutil.copytree(finished_run, image.folder / "runs/served")
    secrets = image.folder / "run/secrets"
    secrets.mkdir(parents=True)
    for name in ("token", "store_password"):
        (secrets / name).write_text(TOKEN)
        (secrets / name).chmod(0o600)
    service: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    service = service["services"]["holdfast"]

    def here(line: str) -> str:
        line = line.replace("$$", "$").replace("8080", str(port)).replace("0.0.0.0", "127.0.0.1")
        store = f"sqlite:///{image.folder}/store.db"
        return image.inside(line.replace("postgresql://holdfast@store/holdfast", store))

    process = subprocess.Popen(
        [*service["entrypoint"], here(" ".join(service["command"]))], env=image.environment()
    )
    try:
        check = [here(word) for word in service["healthcheck"]["test"][1:]]
        deadline = time.monotonic() + 120
        while subprocess.run(check, env=image.environment(), stderr=subprocess.DEVNULL).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            json.dumps({"text": "w1 good w2"}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["predictions"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait(100)
