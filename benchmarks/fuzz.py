"""Malformed inputs (fuzzing): what every entry point does with them.

    python benchmarks/fuzz.py --seconds 170        # continues where it stopped
    python benchmarks/fuzz.py --replay rows:0:137  # one input again

Small real files (tables, logs of every reader, recipes, images, models, a finished run) are changed
in their parts (types swapped, depth, sizes, names, encodings) and in their bytes, and read as the
command reads them, in a process of its own that is watched from outside. An input fails if the
command ends with anything but exit 0 or 2, prints a traceback, a warning or an escape sequence,
refuses without a message, takes more than 10 seconds of processor time (30 by the clock) or 1 GB
more than before, or leaves a file outside its folder (where nothing is to be written: a new one
inside it). Failures are kept in ``benchmarks/results/fuzz/`` with their input and the command that
repeats them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cells import RESULTS, append, key, stored
from claims import Claim, Lines, described, largest, share, table, text
from fuzzing import cases, doors, seeds

TOTALS = "fuzz_totals"

COUNTS = {
    "recipes": 3000,
    "logs": 3500,
    "rows": 3000,
    "reports": 500,
    "models": 700,
    "pictures": 400,
    "arguments": 400,
    "evaluate": 350,
    "predict": 350,
}
MOST_S, MOST_MB = 10.0, 1000.0
A_WORKER = 400  # cases; then a new process
PAUSE_S = 0.1
PATIENCE = 3  # seconds by the clock for one of the processor: others may be at work beside
HERE = Path(__file__).parent
KEPT = HERE / "results" / "fuzz"


@dataclass(frozen=True)
class Outcome:
    """What came of a case; ``fault`` says in a few words why it failed, or is empty."""

    code: int
    seconds: float
    mb: float
    fault: str
    said: str


class Worker:
    """A process that does cases, watched from outside."""

    def __init__(self, place: Path) -> None:
        self.place = place
        asked, self._ask = os.pipe()
        self._told, told = os.pipe()
        env = os.environ | {
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(place / "home" / "hf"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "80",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(asked), str(told)],
            pass_fds=(asked, told),
            env=env,
            stdin=subprocess.DEVNULL,
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(asked)
        os.close(told)
        self._buffer = b""
        self.done = 0
        if self._line(120.0) is None:
            raise RuntimeError("a worker did not begin")

    def do(self, case: cases.Case, folder: Path, said: Path) -> dict[str, Any]:
        """The worker's answer; an answer of our own where it had to be ended."""
        line = {
            "way": case.way,
            "arguments": case.arguments,
            "folder": str(folder),
            "said": str(said),
        }
        os.write(self._ask, (json.dumps(line) + "\n").encode())
        self.done += 1
        before, began = self._rss(), time.monotonic()
        while (answer := self._line(PAUSE_S)) is None:
            took, more = time.monotonic() - began, self._rss() - before
            ended = self.process.poll() is not None
            if ended or took > PATIENCE * MOST_S or more > 1.3 * MOST_MB:
                self.end()
                large = more > 1.3 * MOST_MB
                why = "killed itself" if ended else "takes memory" if large else "hangs"
                return {"code": -9, "seconds": took, "mb": more, "broke": why}
        found: dict[str, Any] = json.loads(answer)
        return found

    def end(self) -> None:
        """End it at once."""
        self.process.kill()
        self._leave()

    def finish(self) -> None:
        """Let it come to its own end, at which it must clear away what it had in TMPDIR."""
        os.close(self._ask)
        self._ask = -1
        try:
            self.process.wait(MOST_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._leave()

    def _leave(self) -> None:
        self.process.wait()
        for number in (self._ask, self._told):
            if number >= 0:
                os.close(number)

    def _rss(self) -> float:
        try:
            text = Path(f"/proc/{self.process.pid}/statm").read_text()
        except OSError:
            return 0.0
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _line(self, seconds: float) -> bytes | None:
        ends = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._told], [], [], max(0.0, ends - time.monotonic()))
            more = os.read(self._told, 65_536) if ready else b""
            if not more:
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Fuzzer:
    """Cases one after the other; ``place`` holds the seeds, the case in hand and the canary."""

    def __init__(self, place: Path, seed: int = 0, kept: Path | None = None) -> None:
        self.place, self.seed, self.kept = place, seed, kept
        for name in ("home", "tmp", "canary"):
            (place / name).mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", "b.csv"):
            (place / "canary" / name).write_text("untouched\n")
        made = hashlib.sha256(Path(seeds.__file__).read_bytes()).hexdigest()
        mark = place / "seeds" / "made"
        if not mark.is_file() or mark.read_text() != made:
            shutil.rmtree(place / "seeds", ignore_errors=True)
            seeds.make_seeds(place / "seeds")
            mark.write_text(made)
        self._worker: Worker | None = None
        self.left: list[str] = []  # in TMPDIR after a worker's own end

    def close(self) -> None:
        if self._worker is not None:
            self._worker.finish()
            self._worker = None
            self.left += [str(path) for path in seeds.files_in(self.place / "tmp")]
        _remove(self.place / "tmp")
        (self.place / "tmp").mkdir()

    def one(self, door: str, number: int) -> Outcome:
        """Do one case and judge it."""
        folder, said = self.place / "case", self.place / "said.txt"
        _remove(folder)
        case = cases.make_case(door, self.seed, number, self.place / "seeds", folder)
        if self._worker is None or self._worker.done >= A_WORKER:
            self.close()
            self._worker = Worker(self.place)
        before, inside = self._outside(), _names(folder)
        answer = self._worker.do(case, folder, said)
        if answer["code"] == -9:
            self._worker = None
            self.close()
        text = said.read_bytes().decode("utf-8", errors="replace") if said.exists() else ""
        fault = _fault(answer, text)
        if self._outside() != before:
            fault = fault or "writes outside"
        new = [name for name in _names(folder) - inside if Path(name).name not in case.writes]
        if new and case.way != "command":
            fault = fault or f"writes {new[0]}"
        outcome = Outcome(answer["code"], answer["seconds"], answer["mb"], fault, text)
        if fault and self.kept:
            self._keep(outcome, answer, door, number)
        return outcome

    def _keep(self, outcome: Outcome, answer: Mapping[str, Any], door: str, number: int) -> None:
        """The input of a failure, made once more, with what came of it and how to run it again."""
        assert self.kept is not None
        name = f"{door}-{self.seed}-{number}"
        _remove(self.kept / name)
        case = cases.make_case(door, self.seed, number, self.place / "seeds", self.kept / name)
        told = {
            "replay": f"python benchmarks/fuzz.py --replay {door}:{self.seed}:{number}",
            "fault": outcome.fault,
            "case": [case.way, *case.arguments],
            **answer,
        }
        (self.kept / f"{name}.json").write_text(json.dumps(told, indent=2))
        (self.kept / f"{name}.txt").write_text(outcome.said[-20_000:])

    def _outside(self) -> tuple[str, ...]:
        """What lies beside the case: names, sizes and times."""
        found = []
        for name in ("home", "canary"):
            for path in seeds.files_in(self.place / name):
                told = path.lstat()
                found.append(f"{path} {told.st_size} {told.st_mtime_ns if name == 'canary' else 0}")
        found += sorted(p.name for p in self.place.iterdir() if p.name not in ("case", "said.txt"))
        return tuple(found)


def _fault(answer: Mapping[str, Any], said: str) -> str:
    if answer["broke"]:
        return str(answer["broke"]).strip().splitlines()[-1][:120]
    if answer["code"] not in (0, 2):
        return f"exit {answer['code']}"
    if "Traceback (most" in said or "panicked at" in said:
        return "a traceback"
    if "Warning: " in said:
        return "a library's warning"
    if "\x1b" in said:
        return "an escape sequence"
    if answer["code"] == 2 and not said.strip():
        return "refuses without a word"
    if answer["seconds"] > MOST_S:
        return f"takes {answer['seconds']:.0f} s"
    return f"takes {answer['mb']:.0f} MB" if answer["mb"] > MOST_MB else ""


def _names(folder: Path) -> set[str]:
    return {str(path) for path in seeds.files_in(folder)}


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def all_cases(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Doors in turn, so that a run that is ended early has seen all of them in proportion."""
    order = [
        ((number + 0.5) / count, door, number)
        for door, count in counts.items()
        for number in range(count)
    ]
    return iter((door, number) for _, door, number in sorted(order))


def fuzz(place: Path, book: Path, seed: int, seconds: float, counts: Mapping[str, int]) -> None:
    """Do the cases that have no outcome in ``book`` yet, for so many seconds."""
    done = _stored(book)
    fuzzer, ends = Fuzzer(place, seed, KEPT), time.monotonic() + seconds
    KEPT.mkdir(parents=True, exist_ok=True)
    try:
        with book.open("a") as lines:
            for door, number in all_cases(counts):
                if (door, seed, number) in done:
                    continue
                if time.monotonic() > ends:
                    break
                found = fuzzer.one(door, number)
                line = {
                    "door": door,
                    "seed": seed,
                    "number": number,
                    "code": found.code,
                    "seconds": round(found.seconds, 3),
                    "mb": round(found.mb, 1),
                    "fault": found.fault,
                }
                lines.write(json.dumps(line) + "\n")
                lines.flush()
                if found.fault:
                    print(f"{door}:{seed}:{number}  {found.fault}", flush=True)
    finally:
        fuzzer.close()
        if fuzzer.left:
            print(f"left in TMPDIR: {fuzzer.left[:5]}")


def _stored(book: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    if not book.exists():
        return {}
    told = [json.loads(line) for line in book.read_text().splitlines() if line.endswith("}")]
    return {(one["door"], one["seed"], one["number"]): one for one in told}


def store_totals(book: Path) -> None:
    """Append a line for each entry point whose totals have changed."""
    path, rows = RESULTS / f"{TOTALS}.jsonl", list(_stored(book).values())
    before = stored(path)
    for cell in cells():
        mine = [row for row in rows if row["door"] == cell["door"]]
        if not mine:
            continue
        codes = Counter(row["code"] for row in mine)
        result = {
            "inputs": len(mine),
            "accepted": codes[0],
            "refused": codes[2],
            "failed": sum(bool(row["fault"]) for row in mine),
            "seconds": max(row["seconds"] for row in mine),
            "mb": max(row["mb"] for row in mine),
        }
        if before.get(key(cell)) != result:
            append(path, cell, result)
        print(f"{cell['door']}: {result}")


def cells() -> list[dict[str, Any]]:
    return [{"door": door} for door in COUNTS]


def finding(lines: Lines) -> str:
    failed, inputs = (sum(line[name] for line in lines) for name in ("failed", "inputs"))
    if not inputs:
        return ""
    return (
        f"Of malformed inputs to {len(lines)} entry points, {share(failed, inputs, long=True)} end "
        "with a defect; all others are read, or refused with a message and exit code 2."
    )


CLAIM = Claim(
    "fuzz",
    "Other",
    "Malformed inputs (fuzzing)",
    described(__doc__),
    cells,
    finding,
    [
        table(
            {"door": "Entry point"},
            {
                "Inputs": text("inputs"),
                "Read": text("accepted"),
                "Refused": text("refused"),
                "Failed": text("failed"),
                "Slowest, s": largest("seconds"),
                "Most memory, MB": largest("mb", digits=0),
            },
        )
    ],
    "The inputs are mutations of small valid files with one seed; other malformed inputs may fail.",
    (TOTALS,),
    command="python benchmarks/fuzz.py --seconds 170",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=None, help="where the seeds and cases lie")
    parser.add_argument("--replay", metavar="DOOR:SEED:NUMBER")
    parser.add_argument("--again", action="store_true", help="do the failed ones once more")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        doors.work(*given.worker)
        return 0
    place = given.place or Path(tempfile.gettempdir()) / "holdfast-fuzz"
    book = KEPT.parent / "fuzz.jsonl"
    if given.replay:
        return _replay(place, given.replay)
    if given.again:
        _forget_failures(book)
    fuzz(place, book, given.seed, given.seconds, COUNTS)
    store_totals(book)
    return 0


def _replay(place: Path, name: str) -> int:
    door, seed, number = name.split(":")
    fuzzer = Fuzzer(place, int(seed))
    try:
        found = fuzzer.one(door, int(number))
    finally:
        fuzzer.close()
    print(
        f"{found.said}\n== exit {found.code}, {found.seconds:.2f} s, {found.mb:.0f} MB more; "
        f"{found.fault or 'as promised'}\n   its input: {place / 'case'}"
    )
    return int(bool(found.fault))


def _forget_failures(book: Path) -> None:
    rows = [row for row in _stored(book).values() if not row["fault"]]
    book.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
