"""Read, and divide, a file of millions of rows: time and peak memory.

    python benchmarks/big_file.py --rows 2000000          # short texts, about 150 MB
    python benchmarks/big_file.py --megabytes 100         # one file of a given size, longer texts
    python benchmarks/big_file.py --rows 2000000 --format jsonl --no-divide

The file is made in a temporary folder. Each stage is timed; the peak is of the whole process, in
a process of its own, so that making the file does not count.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CLASSES = ("negative", "neutral", "positive")


def main() -> None:
    arguments = _arguments()
    if arguments.load:
        print(json.dumps(measure(Path(arguments.load), divide=not arguments.no_divide)))
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        path = Path(folder) / f"big.{arguments.format}"
        words = 12 if arguments.megabytes is None else 150
        make_file(path, arguments.rows, arguments.megabytes, words)
        command = [sys.executable, __file__, "--load", str(path)]
        command += ["--no-divide"] if arguments.no_divide else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        size = path.stat().st_size / 1e6
        print(json.dumps({"file_mb": round(size, 1), **json.loads(done.stdout)}))


def measure(path: Path, *, divide: bool) -> dict[str, float | str | None]:
    """Seconds and peak memory of each stage, in this process."""
    from holdfast.data.load import load_table

    start = time.perf_counter()
    table = load_table(path)
    read_s = time.perf_counter() - start
    result: dict[str, float | str | None] = {
        "rows": len(table),
        "read_s": round(read_s, 1),
        "read_peak_mb": _peak_mb(),
        "divide_s": None,
        "peak_mb": _peak_mb(),
    }
    if divide:
        try:
            from holdfast.split.split_table import split_table as divide_rows
        except ImportError:
            return {**result, "note": "not divided: split.divide is not there"}
        start = time.perf_counter()
        divide_rows(table, seed=0)
        result |= {"divide_s": round(time.perf_counter() - start, 1), "peak_mb": _peak_mb()}
    return result


def make_file(path: Path, rows: int, megabytes: float | None, words: int) -> None:
    """Texts of random words (Zipf over 50,000), of ``words`` words on average, in three classes."""
    with path.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        if path.suffix == ".csv":
            writer.writerow(["text", "label"])
        for number, (text, label) in enumerate(_rows(words)):
            if number >= rows or (megabytes is not None and target.tell() > megabytes * 1e6):
                return
            if path.suffix == ".csv":
                writer.writerow([text, label])
            else:
                target.write(json.dumps({"text": text, "label": label}) + "\n")


def _rows(words: int) -> Iterator[tuple[str, str]]:
    generator = np.random.default_rng(0)
    vocabulary = [_word(n) for n in range(50_000)]
    while True:
        lengths = generator.integers(words // 2, words * 3 // 2 + 1, size=10_000)
        picks = (generator.pareto(0.7, size=int(lengths.sum())) * 5).astype(np.int64) % 50_000
        labels = generator.integers(0, 3, size=10_000)
        for part, label in zip(np.split(picks, np.cumsum(lengths)[:-1]), labels, strict=True):
            yield " ".join(vocabulary[pick] for pick in part), CLASSES[label]


def _word(number: int) -> str:
    syllables = ("ka", "lo", "mi", "ter", "sun", "ver", "ad", "ri", "pen", "os")
    return "".join(syllables[int(digit)] for digit in str(number))


def _peak_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / (1024 * 1024 if sys.platform == "darwin" else 1024), 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--megabytes", type=float, default=None)
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv")
    parser.add_argument("--no-divide", action="store_true")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
