"""Load: `holdfast serve` in float32 and with `--precision auto`, beside the server that people
write (FastAPI, a model that is called in `async def`) and LitServe with its batching.

    python benchmarks/serving.py [--run RUN] [--seconds 8]      the table, resumable
    python benchmarks/serving.py --soak SECONDS --rate R         one long run at a rate of its own

A server has one core for itself and the generator another (`taskset`). The generator is an open
loop: requests are sent at the times of a Poisson process, whether or not earlier ones are answered,
each on a connection that is free, and latency counts from the time at which a request was *meant*
to be sent. A closed loop, which waits for an answer before it asks again, sees no queue and reports
none.

`capacity` is what a closed loop of 64 clients gets answered a second. `rate at 100 ms` is the
highest rate, in steps of 5 % of it, at which 99 of 100 answers come within 100 ms; the columns at
80 % are the open loop at that share of the capacity, and `batch` the mean time that the model took
for a turn meanwhile, `turn` that of the largest allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cells import Result, run_cells

HERE = Path(__file__).resolve()
OURS = ("holdfast float32", "holdfast auto")
BESIDE = {"naive": "naive.py", "litserve": "lit.py"}
SYSTEMS = (*BESIDE, *OURS)
LIMITS_MS = (100.0, 50.0)
SHARES = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
CLIENTS = 64
MOST_CONNECTIONS = 1_000
SERVER_CORE, CLIENT_CORE = 0, 1
START_S = 120.0
# How long a turn of the engine may take: a full batch.
TURN_MS = 50.0


# ---- the generator ----------------------------------------------------------------------------


@dataclass
class Seen:
    """Answers by their status, latencies [s] of each in the order in which they came."""

    latencies: dict[int, list[float]] = field(default_factory=dict)
    broken: int = 0
    sent: int = 0

    def add(self, status: int, latency: float) -> None:
        self.latencies.setdefault(status, []).append(latency)

    def count(self, status: int) -> int:
        return len(self.latencies.get(status, ()))

    def ms(self, share: float, status: int = 200) -> float:
        found = self.latencies.get(status)
        return 1000 * float(np.quantile(found, share)) if found else float("nan")


class Connection(asyncio.Protocol):
    """One client's connection: a request at a time."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""
        self.meant: float | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, body: bytes, meant: float) -> None:
        self.meant = meant
        self.transport.write(body)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        found = re.search(rb"content-length: *(\d+)", self.buffer[:head], re.IGNORECASE)
        if found is None or len(self.buffer) < head + 4 + int(found[1]):
            return
        status = int(self.buffer[9:12])
        ends = re.search(rb"connection: *close", self.buffer[:head], re.IGNORECASE)
        self.buffer = b""
        if self.meant is not None:
            self.load.seen.add(status, time.perf_counter() - self.meant)
            self.meant = None
        if ends:
            self.transport.close()
        else:
            self.load.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.meant is not None:
            self.load.seen.broken += 1
        self.load.lost(self)


class Load:
    """Requests to one server: an open loop at a rate, or a closed one of so many clients."""

    def __init__(self, port: int, bodies: Sequence[bytes]) -> None:
        self.port, self.bodies = port, bodies
        self.seen = Seen()
        self._idle: list[Connection] = []
        self._open = 0
        self._next: Any = None
        self._queue: list[tuple[bytes, float]] = []
        self._making: set[asyncio.Task[None]] = set()

    async def closed(self, clients: int, seconds: float) -> Seen:
        end = time.perf_counter() + seconds
        number = iter(range(10**9))

        def go(connection: Connection) -> None:
            if time.perf_counter() < end:
                self.seen.sent += 1
                body = self.bodies[next(number) % len(self.bodies)]
                connection.send(body, time.perf_counter())

        self._next = go
        for _ in range(clients):
            await self._connect()
        for connection in self._take_idle():
            go(connection)
        await asyncio.sleep(seconds)
        await self._end(clients)
        return self.seen

    async def open(self, rate: float, seconds: float, seed: int) -> Seen:
        rng = np.random.default_rng(seed)
        times = np.cumsum(rng.exponential(1 / rate, int(1.5 * rate * seconds) + 50))
        times = times[times < seconds]
        chosen = rng.integers(0, len(self.bodies), len(times))
        await asyncio.gather(*(self._connect() for _ in range(8)))
        start = time.perf_counter() + 0.05
        for at, place in zip(times.tolist(), chosen.tolist(), strict=True):
            wait = start + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._send(self.bodies[place], start + at)
        await self._end(0)
        return self.seen

    def _send(self, body: bytes, meant: float) -> None:
        self.seen.sent += 1
        if self._idle:
            self._idle.pop().send(body, meant)
            return
        self._queue.append((body, meant))
        if self._open + len(self._making) < MOST_CONNECTIONS:
            task = asyncio.ensure_future(self._connect())
            self._making.add(task)
            task.add_done_callback(self._making.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self.port
            )
        except OSError:
            return
        self._open += 1
        self._give(connection)

    def free(self, connection: Connection) -> None:
        if self._next is not None:
            self._idle.append(connection)
            for one in self._take_idle():
                self._next(one)
            return
        self._give(connection)

    def _give(self, connection: Connection) -> None:
        if self._queue:
            connection.send(*self._queue.pop(0))
        else:
            self._idle.append(connection)

    def _take_idle(self) -> list[Connection]:
        idle, self._idle = self._idle, []
        return idle

    def lost(self, connection: Connection) -> None:
        self._open -= 1
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    async def _end(self, _: int) -> None:
        """Wait for what was sent, for as long as a request may take."""
        end = time.perf_counter() + 15
        while time.perf_counter() < end:
            answered = sum(map(len, self.seen.latencies.values())) + self.seen.broken
            if answered >= self.seen.sent:
                break
            await asyncio.sleep(0.05)
        for connection in self._take_idle():
            connection.transport.close()


def request(body: Any) -> bytes:
    text = json.dumps(body).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(text) + text


def generate(arguments: argparse.Namespace) -> None:
    """One measurement, in this process alone; its result as JSON on standard output."""
    import uvloop

    os.sched_setaffinity(0, {CLIENT_CORE})
    texts = json.loads(Path(arguments.texts).read_text("utf-8"))
    ours = arguments.system in OURS
    bodies = [request({"texts": [text]} if ours else {"text": text}) for text in texts]
    load = Load(arguments.port, bodies)
    if arguments.rate:
        seen = uvloop.run(load.open(arguments.rate, arguments.seconds, arguments.seed))
    else:
        seen = uvloop.run(load.closed(CLIENTS, arguments.seconds))
    found = {
        "sent": seen.sent,
        "answered": seen.count(200),
        "refused": seen.count(503),
        "other": {str(k): len(v) for k, v in seen.latencies.items() if k not in (200, 503)},
        "broken": seen.broken,
        "a_second": seen.count(200) / arguments.seconds,
        "p50_ms": seen.ms(0.5),
        "p99_ms": seen.ms(0.99),
        "refused_p99_ms": seen.ms(0.99, 503),
    }
    print(json.dumps(found))


# ---- the measurement --------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A server that is up. ``pid`` is the leader of its processes."""

    system: str
    port: int
    pid: int

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        total = 0.0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):
                fields = status.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid:
                    total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return total

    def figures(self) -> dict[str, float]:
        """The engine's own numbers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.findall(r"^holdfast_engine_(\w+) ([-+.\de]+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}


@contextlib.contextmanager
def served(system: str, run: Path, extra: str | None) -> Iterator[Server]:
    """Start a server on its core, wait until it answers, end it."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if system in OURS:
        exe = shutil.which("holdfast") or str(Path(sys.executable).with_name("holdfast"))
        command = [exe, "serve", str(run), "--port", str(port), "--store", "none", "--quiet"]
        command += ["--precision", system.rpartition(" ")[2]]
    else:
        if system == "litserve" and extra:
            environment["PYTHONPATH"] = f"{extra}:{environment.get('PYTHONPATH', '')}"
        server = HERE.parent / "servers" / BESIDE[system]
        command = [sys.executable, str(server), str(run / "model"), str(port)]
    pinned = ["taskset", "-c", str(SERVER_CORE), *command]
    process = subprocess.Popen(
        pinned, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait(system, port, process)
        yield Server(system, port, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(system: str, port: int, process: subprocess.Popen[bytes]) -> None:
    body = {"texts": ["good"]} if system in OURS else {"text": "good"}
    end = time.monotonic() + START_S
    while True:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{system} did not start") from None
            time.sleep(0.2)


def measure(
    server: Server, texts: Path, seconds: float, rate: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """One load, by a process of its own."""
    given = {"port": server.port, "seconds": seconds, "rate": rate, "seed": seed}
    command = [sys.executable, str(HERE), "--load", server.system, "--texts", str(texts)]
    command += [part for name, value in given.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cell(system: str, run: Path, seconds: float, texts: Path, extra: str | None) -> Result:
    """Capacity, the rates at the limits, and what is seen at 80 %."""
    with served(system, run, extra) as server:
        measure(server, texts, 2.0)
        capacity = measure(server, texts, min(5.0, seconds))["a_second"]
        found: Result = {"capacity": capacity}
        rates = dict.fromkeys(LIMITS_MS, 0.0)
        for seed, share in enumerate(SHARES):
            before = server.figures() if system in OURS and share == 0.8 else None
            one = measure(server, texts, seconds, share * capacity, seed)
            fine = one["answered"] == one["sent"]
            for limit in LIMITS_MS:
                if fine and one["p99_ms"] <= limit and not rates[limit]:
                    rates[limit] = share * capacity
            print(f"  {system} {share:.0%}: {one}", flush=True)
            if share == 0.8:
                found |= {"p50 at 80 %": one["p50_ms"], "p99 at 80 %": one["p99_ms"]}
                if before is not None:
                    found |= _turns(before, server.figures())
            if share <= 0.8 and all(rates.values()):
                break
        found |= {f"rate at {limit:g} ms": rate for limit, rate in rates.items()}
        found["memory MB"] = server.memory_mb()
        if system in OURS:
            found["turn ms"] = TURN_MS
    return found


def _turns(before: dict[str, float], after: dict[str, float]) -> Result:
    """The mean turn between two looks, in the tokens, rows and milliseconds that it had."""
    apart = {name: after[name] - before.get(name, 0.0) for name in after}
    turns = max(1.0, apart["turns_total"])
    return {
        "batch ms": 1000 * apart["model_seconds_total"] / turns,
        "batch rows": apart["rows_total"] / turns,
        "padding %": 100 * (apart["padded_tokens_total"] / apart["tokens_total"] - 1),
    }


def soak(system: str, run: Path, rate: float, seconds: float, texts: Path) -> None:
    """A long load at a rate that is too high, in pieces of ten seconds, with the memory after
    each."""
    with served(system, run, None) as server:
        measure(server, texts, 2.0)
        done = 0.0
        while done < seconds:
            one = measure(server, texts, 10.0, rate, int(done))
            done += 10
            print(f"{done:.0f} s, {server.memory_mb():.0f} MB: {json.dumps(one)}", flush=True)


def texts_of(run: Path, into: Path) -> Path:
    """The texts of the run's source, as a list."""
    from holdfast.data.source import read_source
    from holdfast.recipe import read_recipe

    part = read_recipe(run / "recipe.yaml").data
    raw = read_source(str(part.path), part.encoding, part.config)
    column = (part.text or ("text",))[0]
    texts = [text for text in raw.table[column].to_pylist() if text and text.strip()]
    into.write_text(json.dumps(texts), "utf-8")
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--systems", nargs="*", default=SYSTEMS)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--litserve", help="the folder in which it is installed")
    parser.add_argument("--soak", type=float)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--load")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=Path)
    arguments = parser.parse_args()
    if arguments.load:
        arguments.system = arguments.load
        generate(arguments)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        texts = texts_of(arguments.run, Path(place) / "texts.json")
        if arguments.soak:
            system = arguments.systems[-1]
            soak(system, arguments.run, arguments.rate, arguments.soak, texts)
            return
        cells = [{"system": system} for system in arguments.systems]
        run_cells(
            "serving",
            cells,
            lambda one: cell(
                one["system"], arguments.run, arguments.seconds, texts, arguments.litserve
            ),
            arguments.out,
        )


if __name__ == "__main__":
    main()
