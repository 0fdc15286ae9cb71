"""The files to start the service elsewhere name options, paths and times that are there."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.plugins.service.on_ray import ARGUMENTS
from holdfast.plugins.service.routes import ENDPOINTS
from holdfast.plugins.service.settings import Serving

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
LONGEST = max(Serving().timeout_s, Serving().chat_timeout_s) + Serving().drain_s


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


class Unit(configparser.ConfigParser):
    """A unit of systemd, whose names are case-sensitive and may stand twice."""

    def __init__(self) -> None:
        super().__init__(strict=False, interpolation=None, delimiters=("=",), comment_prefixes="#")
        self.read(DEPLOY / "holdfast.service", encoding="utf-8")

    def optionxform(self, name: str) -> str:
        return name


def served(line: str) -> list[str]:
    """The arguments of ``holdfast serve`` in a command line."""
    words = shlex.split(line)
    return words[words.index("serve") + 1 :]


def known_options() -> set[str]:
    serve = pytest.importorskip("holdfast.plugins.service.serve")
    import typer

    from holdfast.cli.options import flatten_options

    app = typer.Typer()
    app.command()(flatten_options(serve.command, None))
    return {name for one in typer.main.get_command(app).params for name in one.opts}


def test_every_option_is_one_of_serve(compose: dict[str, Any]) -> None:
    known = known_options()
    lines = [
        " ".join(compose["services"]["holdfast"]["command"]).replace("$$", "$"),
        Unit()["Service"]["ExecStart"],
    ]
    for line in lines:
        assert {word for word in served(line) if word.startswith("--")} <= known, line


def test_a_container_is_asked_whether_it_is_ready_where_the_service_says_so(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    asked = " ".join(services["holdfast"]["healthcheck"]["test"])
    (path,) = re.findall(r"127\.0\.0\.1:8080(/[\w/]+)", asked)
    (endpoint,) = [one for one in ENDPOINTS if one.path == path]
    assert endpoint.without_token
    line = " ".join(services["holdfast"]["command"])
    assert "--port 8080" in line
    # A host that others reach needs its token, and each named secret is there.
    assert "--host 0.0.0.0" in line
    for name in re.findall(r"/run/secrets/(\w+)", line):
        assert name in services["holdfast"]["secrets"]
        assert name in compose["secrets"]
    assert services["holdfast"]["depends_on"]["store"]["condition"] == "service_healthy"
    assert "healthcheck" in services["store"]


def test_nothing_is_killed_before_its_longest_answer_is_out(compose: dict[str, Any]) -> None:
    grace = compose["services"]["holdfast"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= LONGEST + 10
    assert int(Unit()["Service"]["TimeoutStopSec"]) >= LONGEST + 10


def test_no_secret_stands_in_a_file_that_is_kept(compose: dict[str, Any]) -> None:
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "secrets/" in (ROOT / ".gitignore").read_text("utf-8")
    assert "PASSWORD:" not in (DEPLOY / "compose.yaml").read_text("utf-8")
    assert (
        not (DEPLOY / "secrets").exists()
        or not subprocess.run(
            ["git", "ls-files", "deploy/secrets"], cwd=ROOT, capture_output=True, check=False
        ).stdout
    )


def test_the_image_is_made_of_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    (copied, *_) = re.findall(r"COPY ((?:\S+ )+)\./\n", text)
    for name in copied.split():
        assert (ROOT / name).exists(), name
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    assert "USER 10001" in text


def test_the_unit_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = (DEPLOY / "holdfast.service").read_text("utf-8")
    # It looks whether the program is there.
    place = Unit()["Service"]["ExecStart"].partition(" ")[0]
    unit = tmp_path / "holdfast.service"
    unit.write_text(text.replace(place, shutil.which("true") or "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_names_what_ray_may_be_told() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    (line,) = re.findall(r"serve run holdfast\.plugins\.service\.on_ray:app (.+)", page)
    assert {word.partition("=")[0] for word in line.split()} <= set(ARGUMENTS)
    for name in ARGUMENTS:
        assert f"`{name}`" in page
    for setting in re.findall(
        r"serve\.(\w+)",
        page.replace("holdfast.plugins.service", "").replace("holdfast.service", ""),
    ):
        assert setting in Serving.model_fields
