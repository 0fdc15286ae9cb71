"""Make the pictures of the docs: the end of a run in a terminal, and the top of its report.

    python scripts/make_pictures.py            # trains the demo first
    python scripts/make_pictures.py RUN LOG "holdfast train reviews.csv"

The second form takes a finished run, what its command printed, and the command. ``terminal.svg`` is
what the command printed, word for word; of a long output the middle is
left out, and that is said. ``report.png`` is ``report.html`` in Chromium, which must be installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
COLUMNS, MOST_LINES, KEPT_AT_THE_START = 80, 53, 36
# Of a monospace font at 14 pixels: the width of a character, and from one line to the next.
LETTER, LINE, EDGE, BAR = 8.43, 20, 18, 34
COLOURS = 48
SIZE = (1280, 1000)
DEMO = "holdfast demo"


def main(arguments: list[str]) -> int:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if arguments:
            run, log, command = Path(arguments[0]), Path(arguments[1]), arguments[2]
            said = log.read_text("utf-8")
        else:
            run, command = Path(folder) / "demo", DEMO
            said = train(run)
        (IMAGES / "terminal.svg").write_text(terminal(said, command), "utf-8")
        photograph(run / "report.html", IMAGES / "report.png")
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")
    return 0


def train(run: Path) -> str:
    """Run the demo into ``run`` and return both of its streams in the order written."""
    command = [str(Path(sys.executable).parent / "holdfast"), "demo", "--out", str(run)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout.replace(str(run), "runs/demo-1")


def terminal(said: str, command: str = DEMO) -> str:
    """The text as an SVG of a terminal, the command above it."""
    lines = shortened([line.rstrip() for line in said.strip("\n").splitlines()])
    lines = [f"$ {command}", *lines]
    width = round(2 * EDGE + LETTER * max(COLUMNS, *map(len, lines)))
    height = BAR + EDGE + LINE * len(lines)
    texts = "".join(
        f'<text x="{EDGE}" y="{BAR + LINE * number + 14}"{style(line)}>{spaced(line)}</text>\n'
        for number, line in enumerate(lines)
        if line
    )
    buttons = "".join(
        f'<circle cx="{EDGE + 20 * i}" cy="17" r="6" fill="{colour}"/>'
        for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="What {escape(command)} prints">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#14181b"/>\n{buttons}\n'
        '<g fill="#d7dcde" font-size="14" font-family="ui-monospace, SF Mono, '
        f'Menlo, Consolas, DejaVu Sans Mono, monospace">\n{texts}</g>\n</svg>\n'
    )


def shortened(lines: list[str]) -> list[str]:
    """The first and the last lines of a long output, and between them how many are left out."""
    if len(lines) <= MOST_LINES:
        return lines
    end = MOST_LINES - KEPT_AT_THE_START - 1
    left = len(lines) - KEPT_AT_THE_START - end
    return [*lines[:KEPT_AT_THE_START], f"  … {left} more lines …", *lines[-end:]]


def spaced(line: str) -> str:
    """Escaped, its spaces kept."""
    return escape(line).replace(" ", "\u00a0")


def style(line: str) -> str:
    """The command and what a person must see are set off."""
    if line.startswith("$ "):
        return ' fill="#7fd39a" font-weight="bold"'
    if line.lstrip().startswith("!"):
        return ' fill="#f0bd6a"'
    return ' fill="#8b959b"' if line.lstrip().startswith("…") else ""


def photograph(page: Path, picture: Path) -> None:
    """The top of a page, in few colours."""
    from PIL import Image

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise SystemExit("Chromium is not on the path.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                found,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-background-networking",
                f"--user-data-dir={profile}",
                f"--window-size={SIZE[0]},{SIZE[1]}",
                f"--screenshot={picture}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(COLOURS)
    few.save(picture, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
