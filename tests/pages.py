"""The snippets of README.md and docs/, read and run: loaded by path, because tests are no package.

A snippet is a fence with a language. ``shell`` and ``python`` are run in the page's order, in one
folder; ``yaml`` is read as a recipe; ``text`` is output, a drawing or a synopsis. One that cannot
run says why in a comment on the line above, in one of the forms of ``REASONS``:

    <!-- not run: needs the network, to fetch a model -->

A ``text`` snippet below ``<!-- output of the code above -->`` is compared with what that code
prints; ``…`` on a line by itself stands for lines left out.

A page may prepare names for its snippets out of sight: ``<!-- setup``, Python, ``-->``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The site's references are generated, and the sentences of `plain_words` are quoted.
WRITTEN = ("*.md", "how-to/*.md", "concepts/*.md")
PAGES = (
    ROOT / "README.md",
    *sorted(page for pattern in WRITTEN for page in (ROOT / "docs").glob(pattern)),
)
KINDS = ("shell", "python", "yaml", "text")
PART = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = "not run: "
ELSEWHERE = "run by "
OUTPUT = "output of the code above"
TIME = re.compile(r"(?:\d+ min )?\d+ s\b")
NUMBER = re.compile(r"[−+-]?\d[\d,.]*")
# What the reason begins with, and what the snippet must then hold.
REASONS: dict[str, re.Pattern[str]] = {
    "needs the network": re.compile(r"\b[\w.-]+/[\w.-]+\b|\bpip\b|https?://"),
    "needs a GPU": re.compile(r"4bit|8bit|cuda|quantize|bfloat16"),
    "builds the environment": re.compile(r"\bmake\b|\bpip\b|\bPATH\b"),
}
SHELL_SIGNS = re.compile(r"[|<>;&$`*]")


@dataclass(frozen=True)
class Snippet:
    """One fence, or a hidden preparation (``kind`` is ``setup``)."""

    page: Path
    line: int
    kind: str
    code: str
    mark: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"

    @property
    def elsewhere(self) -> str:
        """The test that runs it instead of the page's own run; empty where none does."""
        return self.mark.removeprefix(ELSEWHERE) if self.mark.startswith(ELSEWHERE) else ""

    @property
    def reason(self) -> str:
        """Why it is not run; empty where it is."""
        return self.mark.removeprefix(NOT_RUN) if self.mark.startswith(NOT_RUN) else ""


def snippets(page: Path) -> list[Snippet]:
    """Every fence and preparation of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for part in PART.finditer(text):
        start = part.start("setup") if part["setup"] is not None else part.start("code")
        line = text.count("\n", 0, start)
        kind = "setup" if part["setup"] is not None else part["kind"]
        code = part["setup"] if part["setup"] is not None else part["code"]
        found.append(Snippet(page, line, kind, code, part["mark"] or ""))
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each command of a shell snippet, comments left out, long lines joined."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def comparable(text: str, exact: bool) -> str:
    """Without line breaks, and without figures where they are not compared."""
    if not exact:
        text = NUMBER.sub("#", TIME.sub("# s", text))
    return " ".join(text.split())


def check_output(shown: str, printed: str, exact: bool = False) -> None:
    """Fails unless ``printed`` has every part of ``shown`` that stands between lines of ``…``."""
    for part in re.split(r"^…$", shown, flags=re.MULTILINE):
        assert comparable(part, exact) in comparable(printed, exact), printed


def run_page(page: Path, folder: Path, monkeypatch: Any) -> Iterator[Snippet]:
    """Run what runs of ``page`` in ``folder``, one snippet after the other; yields each when it is
    done. Commands of Holdfast alone run in this process, which saves its start."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for snippet in snippets(page):
        if snippet.mark == OUTPUT:
            check_output(snippet.code, printed)
        if snippet.reason or snippet.elsewhere or snippet.kind == "text":
            continue
        printed = RUNNERS[snippet.kind](snippet, folder, names, monkeypatch) or ""
        yield snippet


def _python(snippet: Snippet, folder: Path, names: dict[str, Any], monkeypatch: Any) -> str:
    # The line numbers of an error are those of the page.
    code = "\n" * snippet.line + snippet.code
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, str(snippet.page), "exec"), names)
    return out.getvalue()


def _shell(snippet: Snippet, folder: Path, names: dict[str, Any], monkeypatch: Any) -> None:
    found = commands(snippet.code)
    if all(words[0] == "holdfast" for words in found) and not SHELL_SIGNS.search(
        re.sub(r"(?m)\s#.*$", "", snippet.code)
    ):
        for words in found:
            _holdfast(words, snippet, monkeypatch)
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", snippet.code],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{snippet.name}\n{snippet.code}\n{done.stdout}\n{done.stderr}"


def _holdfast(words: list[str], snippet: Snippet, monkeypatch: Any) -> None:
    from holdfast.cli.main import run

    monkeypatch.setattr(sys, "argv", words)
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as leaving:
            code = leaving.code or 0
    assert code == 0, f"{snippet.name}\n{shlex.join(words)}\n{out.getvalue()}\n{err.getvalue()}"


def _yaml(snippet: Snippet, folder: Path, names: dict[str, Any], monkeypatch: Any) -> None:
    from holdfast.recipe import read_recipe

    path = folder / f"snippet-{snippet.line}.yaml"
    path.write_text(snippet.code, "utf-8")
    read_recipe(path)


RUNNERS: dict[str, Callable[[Snippet, Path, dict[str, Any], Any], str | None]] = {
    "python": _python,
    "setup": _python,
    "shell": _shell,
    "yaml": _yaml,
}
