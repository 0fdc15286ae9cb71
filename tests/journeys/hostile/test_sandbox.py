"""Code that wants out of the process that runs it: by the language it may use, and, with every
check inside Python off, by whatever the system offers. Nothing outside may change or be told."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.plugins.sandbox import child, runner
from holdfast.plugins.sandbox.fence import NEEDED
from holdfast.plugins.sandbox.runner import ProgramOutcome, missing_fence_parts, run_programs

pytest.importorskip("pandas")
HERE = Path(__file__).parent
# Without the virtual environment: the standard library is enough.
PYTHON = str(Path(sys.executable).resolve())
SECRET = "the-key-of-the-house"
ROWS = [
    {"player": "ann", "points": 3, "day": "2020-01-02"},
    {"player": "bob", "points": 5, "day": "2020-03-04"},
    {"player": "cid", "points": 3, "day": "2021-01-02"},
]
TABLE = json.dumps(ROWS)
fenced = pytest.mark.skipif(
    any(missing_fence_parts().values()),
    reason=f"the kernel has no such fence here: {missing_fence_parts()}",
)


@dataclass(frozen=True)
class Outside:
    """What a program would want: a key, a file to delete, a folder to write in, two doors."""

    folder: Path
    key: Path
    victim: Path
    port: int
    unix: Path
    doors: tuple[socket.socket, socket.socket]

    def check(self) -> None:
        """Nothing has happened to it, and nobody knocked."""
        assert sorted(self.folder.iterdir()) == sorted([self.key, self.victim, self.unix])
        assert self.key.read_text() == SECRET
        assert self.victim.read_text() == "precious"
        assert self.victim.stat().st_mode & 0o777 == 0o640
        assert self.victim.stat().st_mtime == 1_000_000
        for door in self.doors:
            with pytest.raises(BlockingIOError):
                door.accept()


@pytest.fixture
def outside() -> Iterator[Outside]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield from _furnished(folder)


def _furnished(folder: Path) -> Iterator[Outside]:
    key, victim, unix = (folder / name for name in ("id_ed25519", "victim", "door"))
    key.write_text(SECRET)
    key.chmod(0o600)
    victim.write_text("precious")
    victim.chmod(0o640)
    os.utime(victim, (1_000_000, 1_000_000))
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as local:
        tcp.bind(("127.0.0.1", 0))
        local.bind(str(unix))
        for door in (tcp, local):
            door.listen()
            door.setblocking(False)
        yield Outside(folder, key, victim, tcp.getsockname()[1], unix, (tcp, local))


# --- by the language ------------------------------------------------------------------------------

# Each reaches for the key (KEY), the file to delete (VICTIM), a new file (OUT) or evaluates.
ESCAPES = {
    # A name that is trusted, with another meaning.
    "max is eval": "max = 'eval'\ndf.agg(max, expr=\"@inspect.builtins.eval('1+1')\")",
    "max is a method": "max = 'to_csv'\ndf.agg(max, 0, 'OUT')",
    "a lambda's argument": "(lambda max: df.agg(max, expr='@inspect.builtins.open(0)'))('eval')",
    "a lambda's default": "(lambda max='eval': df.agg(max, expr='1+1'))()",
    "any lambda's argument": "(lambda how: df.agg(how, 0, '1+1'))('eval')",
    "a comprehension": "[df.agg(max, expr=\"@inspect.builtins.open('KEY')\") for max in ['eval']]",
    "a comprehension's fresh name": "[df.agg(how, 0, '1+1') for how in ['eval']]",
    "a comprehension of pairs": "[df.agg(b, 0, 'OUT') for a, (b, c) in [(1, ('to_csv', 2))]]",
    "a generator": "list(df.agg(str, 0, 'OUT') for str in ['to_csv'])",
    "a table that is a name": "df = {'f': 'eval'}\ndf['x'] = 1\nt.agg(df['f'], 0)",
    "a table that is a list": "df = ['to_csv']\nt.agg(df[0], 0, 'OUT')",
    "a column that is a name": "df.agg(df.player[0], 0, 'OUT')",
    "the name made of parts": "df.agg('to_' + 'csv', 0, 'OUT')",
    "the name from a format": "how = f\"to_{'csv'}\"\ndf.agg(how, 0, 'OUT')",
    "the name by upper": "df.agg('TO_CSV'.lower(), 0, 'OUT')",
    "the name by replace": "df.agg('to_xsv'.replace('x', 'c'), 0, 'OUT')",
    "the name in a list": "df.agg(['to_csv'], 0, 'OUT')",
    "the name in a list of lists": "df.agg([[['to_csv']]], 0, 'OUT')",
    "the name in a dict": "df.agg({'points': 'to_csv'})",
    "the name in a named outcome": "df.groupby('player').agg(x=('points', 'to_csv'))",
    "the name in a series": "df.agg(pd.Series(['to_csv']), 0, 'OUT')",
    "the name as func": "df.apply(func='to_csv')",
    "the name in apply": "df.apply('to_csv', 0)",
    "the name in transform": "df.transform('to_pickle', 0, 'OUT')",
    "the name in a group": "df.groupby('player').apply('to_csv')",
    "the name in rolling": "df.points.rolling(2).agg('pipe')",
    "the name in a pivot": "df.pivot_table('points', 'player', None, 'to_csv')",
    "the name in pandas' pivot": "pd.pivot_table(df, 'points', 'player', None, 'to_csv')",
    "the name in a crosstab": "pd.crosstab(df.player, df.day, df.points, None, None, 'to_csv')",
    "the name as aggfunc": "df.pivot_table(values='points', index='player', aggfunc='to_csv')",
    "a pivot by apply": "df.apply(pd.pivot_table, args=('points', 'player', None, 'to_csv'))",
    "a crosstab by agg": "f = pd.crosstab\ndf.agg(f, 0, 'player')",
    "a private method": "df.agg('_constructor_from_mgr')",
    "pipe by name": "df.agg('pipe', str)",
    "eval by name": "df.agg('eval', expr='1+1')",
    "query by name": "df.agg('query', expr='@x')",
    "apply by name": "df.agg('apply', 0, 'to_csv')",
    "agg by name": "df.apply('agg', func='eval')",
    "a method as a value": "f = df.agg\nf('to_csv', 0, 'OUT')",
    "a method through max": "max([df.agg], key=lambda f: f('to_csv', 0, 'OUT'))",
    "a class's method": "pd.DataFrame.agg(df, 'to_csv', 0, 'OUT')",
    "another class's method": "pd.DataFrame.to_csv(df, 'OUT')",
    # Evaluation and what compiles.
    "evaluates": "eval('1')",
    "evaluates in pandas": "pd.eval('1')",
    "evaluates a frame": "df.eval('points')",
    "a query that calls": "df.query('@pd.read_csv(0)')",
    "a query's method": "df.query('player.str.len() > 1')",
    "a query's attribute": "df.query('points.values > 1')",
    "a query's hidden name": "df.query('__builtins__ == 1')",
    "a query's keyword": "df.query('points > 1', engine='python')",
    "a query's expr": "df.query(expr='@inspect.builtins.eval(1)')",
    "a query in backticks": "df.query('`points` > @pd.eval(1)')",
    "a query hidden by backticks in texts": (
        """df.query('player == "`" or """ + """points == @self.space or player == "`"')"""
    ),
    "a method hidden so": """df.query('player == "`" or player.str.len() or player == "`"')""",
    "a file hidden so": """df.query('player == "`" or points.to_csv("OUT") or player == "`"')""",
    "hidden in single quotes": """df.query("player == '`' or points == @self or player == '`'")""",
    "hidden in three quotes": "df.query(\"'''a'b` ''' == @self or `c` == 1\")",
    "hidden in a comment": "df.query('points > 1 # ` \\n and @self # `')",
    "hidden by a backslash": r"""df.query('player == "\\" ` " or @self or ` "')""",
    "a query that is no text": "df.query(['points'])",
    "a compiler": "df.groupby('player').agg('sum', engine='numba')",
    # Attributes that lead away.
    "climbs the classes": "().__class__.__base__.__subclasses__()",
    "a format that climbs": "'{0.__class__.__mro__}'.format(df)",
    "a map that formats": "'{x.__class__}'.format_map({'x': df})",
    "str.format": "str.format('{0.__class__}', df)",
    "an f-string that climbs": "f'{df.__class__!r:>{df.__len__()}}'",
    "a column's __class__": "df.player.__class__",
    "a frame's manager": "df._mgr",
    "NumPy's buffer": "df.points.values.data",
    "NumPy's file": "df.values.tofile('OUT')",
    "NumPy's dump": "df.values.dump('OUT')",
    "another dtype": "df.values.view('V8')",
    "a ufunc's attribute": "np.maximum.at.__self__",
    "a ufunc's protocol": "df.__array_ufunc__",
    "a type": "str.__subclasses__()",
    "a type of a type": "pd.Series.mro()",
    "a lambda's globals": "(lambda: 0).__globals__",
    "a lambda's code": "(lambda x: x).code",
    "a generator's frame": "(x for x in [1]).gi_frame",
    "a frame's style": "df.style",
    "a frame's plot": "df.plot()",
    "an outcome called axis": "df.groupby('day').points.agg(axis='to_csv')",
    "pipes": "df.pipe(str)",
    "an index's method": "df.index.to_frame().to_csv('OUT')",
    "a table's name": "_table",
    "the check": "_call(str)",
    "the builtins": "__builtins__['open']",
    "sets an attribute": "df.columns = 'a'",
    "sets an attribute in a loop": "[0 for df.columns in ['a']]",
    "sets an item in a loop": "[0 for df['x'] in [1]]",
    "an instance": "int.real",
    # Reading, writing, loading.
    "reads": "pd.read_csv('KEY')",
    "reads by open": "open('KEY').read()",
    "a path in a path": "pd.read_csv('PACKAGES/../../../../..KEY')",
    "reads a table": "pd.read_table('KEY')",
    "reads a pickle": "pd.read_pickle('KEY')",
    "NumPy reads": "np.fromfile('KEY')",
    "NumPy loads": "np.load('KEY', allow_pickle=True)",
    "writes": "df.to_csv('OUT')",
    "writes a pickle": "df.to_pickle('OUT')",
    "a new import": "import os\nos.system('touch OUT')",
    "from": "from os import system",
    "imports as": "import os as pd",
    "imports two": "import pandas as pd, os",
    "imports by name": "__import__('os').system('touch OUT')",
    "a dtype that imports": "df.points.astype('category').astype('string[os]')",
    "a window that imports": "df.points.rolling(2, win_type='os').mean()",
    # Statements.
    "defines": "def f():\n    return f()\nf()",
    "a class": "class X: pass\nX()",
    "walrus": "(max := 'eval')",
    "annotated": "max: str = 'eval'",
    "augmented": "max += 'eval'",
    "starred": "df.agg(*['to_csv'])",
    "double starred": "df.agg(**{'func': 'to_csv'})",
    "unpacks": "max, min = 'eval', 'eval'",
    "a loop": "for max in ['eval']:\n    df.agg(max)",
    "with": "with open('KEY') as f:\n    f.read()",
    "deletes": "del df",
    "global": "global max",
    "tries": "try:\n    1\nexcept Exception:\n    2",
    "leaves": "raise SystemExit",
    "awaits": "await x",
    "pd is another": "pd = 'x'",
    "a lambda called pd": "(lambda pd: pd)(1)",
    # Too much.
    "a list without end": "[x for x in range(10**15)]",
    "a text of 100 GB": "'a' * 10**11",
    "a wide format": "f'{1:100000000000}'",
    "a large power": "9 ** 9 ** 9 ** 9",
    "a huge number": "10 ** 400",
    "a number of 5,000 digits": "10 ** 5000",
    "a text of 50 MB": "'a' * 50_000_000",
    "deep brackets": "(" * 900 + "1" + ")" * 900,
    "a regular expression without end": "pd.Series(['a' * 40 + 'b']).str.match('(a+)+$').tolist()",
    "a list in itself": "x = [0]\nx[0] = x\nx",
    "a list 400 deep": "[" * 90 + "1" + "]" * 90,
    "nothing": "",
    "a zero byte": "df\0",
    "lone surrogates": "'\ud800'",
}
# These end otherwise than by a list: Python knows no such name, pandas no such thing, or it is too
# much. All others are refused for what they ask.
OTHERWISE = {
    "evaluates",
    "a dtype that imports",
    "a window that imports",
    "a large power",
    "a huge number",
    "a number of 5,000 digits",
    "a text of 50 MB",
    "a list in itself",
    "a list 400 deep",
    "a zero byte",
}
REFUSALS = ("Refused", "MemoryError", "TimeoutError")
# These may give a value, since it is harmless.
HARMLESS = {"deep brackets", "a regular expression without end", "lone surrogates"}


@pytest.mark.slow
def test_no_program_breaks_out_by_its_language(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks of the language hold alone, with the kernel's fence taken off."""
    monkeypatch.setattr(runner, "missing_fence_parts", lambda: dict.fromkeys(NEEDED, "taken off"))
    found = run_escapes(list(ESCAPES), outside)
    went = {name: one.result for name, one in found.items() if not one.error}
    assert set(went) <= HARMLESS, went
    by_chance = {
        name: one.error
        for name, one in found.items()
        if one.error and not one.error.startswith(REFUSALS)
    }
    assert set(by_chance) <= OTHERWISE | HARMLESS, by_chance
    outside.check()


@pytest.mark.slow
@fenced
def test_nor_behind_both_fences(outside: Outside) -> None:
    """The first dozens again, and what the kernel itself must stop."""
    found = run_escapes([*list(ESCAPES)[:24], *list(ESCAPES)[-20:]], outside)
    went = {name: one.result for name, one in found.items() if not one.error}
    assert set(went) <= HARMLESS, went
    outside.check()


def run_escapes(names: Sequence[str], outside: Outside) -> dict[str, ProgramOutcome]:
    """What each gives, one process for all; a program after them finds its table as it was."""
    words = {
        "KEY": outside.key,
        "OUT": outside.folder / "out",
        "VICTIM": outside.victim,
        "PACKAGES": next(p for p in sys.path if p.endswith("-packages")),
    }
    programs = [with_words(ESCAPES[name], words) for name in names]
    tables = json.dumps({"tables": {"t": ROWS}})
    *found, after = run_programs(
        [(one, tables) for one in [*programs, "len(df)"]],
        "pandas",
        seconds=0.6,
        memory_mb=256,
        unsafe=True,
    )
    assert SECRET not in json.dumps([[one.result, one.error] for one in found])
    assert after.result == 3
    return dict(zip(names, found, strict=True))


# Cells of the column of tables: a stranger's too. None is a table.
CELLS = [
    "",
    "null",
    "3",
    '"x"',
    "[1, 2]",
    '{"a": 1}',
    '{"tables": {}}',
    "[" * 100_000,
    "[" * 50_000 + "]" * 50_000,
    '{"tables": ' * 5_000,
    '{"a": [1, 2], "b": [1]}',
    "\x00",
    "nul",
    '{"columns": ["a"], "rows": [[1, 2]]}',
    '{"columns": [["a"]], "rows": [["b", "c"]]}',
    '[{"a": ' + "9" * 5_000 + "}]",
    '{"tables": {"t": 3}}',
]
# Names that stand for something else where the program runs.
NAMES = (
    "__builtins__",
    "_method",
    "_call",
    "_table",
    "_attribute",
    "pd",
    "np",
    "len",
    "max",
    "result",
    "df",
    "",
    " ",
    "a b",
    "\ud800",
    "__class__",
    "None",
)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["sql", "pandas"])
def test_no_table_is_more_than_rows(language: str) -> None:
    count = "SELECT COUNT(*) FROM t" if language == "sql" else "len(t)"
    named = [json.dumps({"tables": {"t": ROWS, name: ROWS}}) for name in NAMES]
    columns = [json.dumps({"tables": {"t": [{name: 1} | row for row in ROWS]}}) for name in NAMES]
    *found, after = run_programs(
        [(count, cell) for cell in [*CELLS, *named, *columns, json.dumps({"tables": {"t": ROWS}})]],
        language,
        seconds=1,
        memory_mb=256,
        unsafe=True,
    )
    assert all(one.error for one in found[: len(CELLS)])
    results = [one.result for one in found[len(CELLS) :] if not one.error]
    assert all(result in (3, [[3]]) for result in results)
    assert len(results) >= 2 * len(NAMES) - 8
    assert after.result in (3, [[3]])


# --- by whatever the system offers ----------------------------------------------------------------

# Raw Python (``raw_worker.py``). It gets away where ``result`` is "reached".
FILES = {
    "reads the key": "result = open('KEY').read()",
    "reads the key by a descriptor": "result = os.read(os.open('KEY', os.O_RDONLY), 99).decode()",
    "opens a path alone": "os.open('KEY', os.O_PATH)",
    "lists": "os.listdir('FOLDER')",
    "asks for its size": "os.stat('KEY')",
    "asks for access": "assert os.access('KEY', os.F_OK)",
    "asks by statx": "result = reach(call(332, -100, b'KEY', 0, 4095, bytes(256)))",
    "deletes": "os.remove('VICTIM')",
    "writes": "open('OUT', 'w').write('x')",
    "appends": "open('VICTIM', 'a').write('x')",
    "renames": "os.rename('VICTIM', 'OUT')",
    "links": "os.link('KEY', 'OUT')",
    "links by name": "os.symlink('KEY', 'OUT')",
    "truncates": "os.truncate('VICTIM', 0)",
    "opens up": "os.chmod('VICTIM', 0o777)",
    "gives away": "os.chown('VICTIM', 1, 1)",
    "changes the time": "os.utime('VICTIM', (1, 1))",
    "makes a folder": "os.mkdir('OUT')",
    "makes a pipe": "os.mkfifo('OUT')",
    "sets an attribute": "os.setxattr('VICTIM', 'user.a', b'x')",
    "removes a folder": "os.rmdir('FOLDER')",
    "changes the folder": "os.chdir('FOLDER')",
    "changes the root": "os.chroot('FOLDER')",
    "asks where it is": "os.getcwd()",
    "reads the environment of the parent": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "writes the parent's memory": "open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "reads its own memory": "open('/proc/self/mem', 'rb')",
    "a device": "open('/dev/zero', 'rb')",
    "the terminal": "open('/dev/tty')",
    "links out of /proc": "os.readlink('/proc/self/exe')",
    "SQLite opens": "sqlite3.connect('OUT').execute('CREATE TABLE a (b)')",
    "SQLite attaches": "sqlite3.connect(':memory:').execute(\"ATTACH 'OUT' AS a\")."
    "execute('CREATE TABLE a.b (c)')",
    "SQLite writes itself": "sqlite3.connect(':memory:').execute(\"VACUUM INTO 'OUT'\")",
    "SQLite loads": "c = sqlite3.connect(':memory:')\nc.enable_load_extension(True)\n"
    "c.load_extension('libm.so.6')",
    "loads a library": "ctypes.CDLL('libresolv.so.2')",
    "imports": "import wave",
    "mounts": "result = reach(library.mount(b'none', b'FOLDER', b'tmpfs', 0, None))",
    "watches": "result = reach(library.inotify_init())",
}
PROCESSES = {
    "forks": "os.fork() or os._exit(0)",
    "forks in C": "result = reach(library.fork())",
    "clones": "result = reach(call(56, 17, 0, 0, 0, 0))",
    "clones anew": "result = reach(call(435, bytes([0] * 64), 64))",
    "vforks": "result = reach(call(58))",
    "starts": "subprocess.run(['touch', 'OUT'])",
    "runs a shell": "result = 'refused' if os.system('touch OUT') else 'reached'",
    "becomes another": "os.execv('/bin/touch', ['touch', 'OUT'])",
    "spawns": "os.posix_spawn('/bin/touch', ['touch', 'OUT'], {})",
    "a thread": "threading.Thread(target=print).start()",
    "a program in memory": "os.execv(os.memfd_create('a'), ['a'])",
    "a program by its descriptor": "result = reach(call(322, 1, b'', 0, 0, 4096))",
    "kills the parent": "os.kill(os.getppid(), 9)",
    "kills the first": "os.kill(1, 9)",
    "kills its group": "os.killpg(0, 9)",
    "kills a thread": "result = reach(call(234, os.getppid(), os.getppid(), 9))",
    "queues a signal": "result = reach(call(129, os.getppid(), 9, bytes(128)))",
    "asks for a signal": "signal = reach(library.fcntl(3, 8, os.getppid()))\nresult = signal",
    "traces the parent": "result = reach(library.ptrace(16, os.getppid(), 0, 0))",
    "is traced": "result = reach(library.ptrace(0, 0, 0, 0))",
    "reads the parent": "result = reach(call(310, os.getppid(), bytes(16), 1, bytes(16), 1, 0))",
    "writes the parent": "result = reach(call(311, os.getppid(), bytes(16), 1, bytes(16), 1, 0))",
    "a handle of the parent": "result = reach(call(434, os.getppid(), 0))",
    "the parent's descriptor": "result = reach(call(438, 3, 0, 0))",
    "the parent's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "its own limits": "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "its group": "os.setpgid(0, os.getppid())",
    "its session": "os.setsid()",
    "the superuser": "os.setresuid(0, 0, 0)",
    "rights": "result = reach(library.capset(bytes([32, "
    "5, 8, 32, 0, 0, 0, 0]), bytes([255] * 24)))",
}
NETWORK = {
    "connects": "socket.create_connection(('127.0.0.1', PORT), 1)",
    "connects to a socket's file": "socket.socket(socket.AF_UNIX).connect('UNIX')",
    "connects to a name": "socket.socket(socket.AF_UNIX).connect(chr(0) + 'bus')",
    "sends": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "listens": "socket.create_server(('127.0.0.1', 0))",
    "asks for a name": "socket.getaddrinfo('localhost', 1)",
    "a pair": "socket.socketpair()",
    "the kernel's": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "raw": "socket.socket(type=socket.SOCK_RAW)",
    "vsock": "socket.socket(40)",
}
KERNEL = {
    "io_uring": "result = reach(call(425, 8, bytes(120)))",
    "bpf": "result = reach(call(321, 0, bytes(128), 128))",
    "keys": "result = reach(call(250, 0, -3, 1))",
    "a key": "result = reach(call(248, b'user', b'a', b'b', 1, -3))",
    "faults": "result = reach(call(323, 1))",
    "events": "result = reach(call(298, bytes(128), 0, -1, -1, 0))",
    "a namespace": "result = reach(library.unshare(0x10000000))",
    "another's namespace": "result = reach(library.setns(0, 0))",
    "a filter of its own": "result = reach(library.prctl(22, 2, bytes(16)))",
    "strict": "result = reach(call(317, 0, 0, 0))",
    "dumpable": "result = reach(library.prctl(4, 1, 0, 0, 0))",
    "personality": "result = reach(library.personality(0x0400000))",
    "code in memory": "mmap.mmap(-1, 4096, prot=7)",
    "memory made code": "library.mmap.restype = ctypes.c_void_p\n"
    "at = library.mmap(None, ctypes.c_size_t(4096), 3, 34, -1, 0)\nassert at != 2 ** 64 - 1\n"
    "result = reach(library.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(4096), 5))",
    "a callback": "ctypes.CFUNCTYPE(None)(lambda: None)()",
    "modules": "result = reach(call(175, bytes(8), 8, b''))",
    "swaps": "result = reach(library.swapoff(b'KEY'))",
    "shared memory": "result = reach(library.shmget(7, 4096, 0o1600))",
    "messages": "result = reach(library.msgget(7, 0o1600))",
    "semaphores": "result = reach(library.semget(7, 1, 0o1600))",
    "the clock": "time.clock_settime(0, 1)",
    "the name": "socket.sethostname('a')",
    "a timer": "result = reach(library.timerfd_create(0, 0))",
    "an event": "os.eventfd(1)",
    "a memory file": "os.memfd_create('a')",
    "other numbers": "result = reach(call(0x40000000 | 39))",
}
DESCRIPTORS = {
    "writes to others": "result = 'refused'\nfor one in range(3, 256):\n    try:\n"
    "        if one != ANSWER and os.write(one, b'[]'):\n            result = 'reached'\n"
    "    except OSError:\n        pass",
    "reads others": "result = 'refused'\nfor one in range(3, 256):\n    try:\n"
    "        if os.read(one, 9):\n            result = 'reached'\n    except OSError:\n"
    "        pass",
    "reads what the worker had open": "assert os.read(50, 9)",
    "doubles": "os.dup(3)",
    "a pipe": "os.pipe()",
    "controls": "result = reach(library.ioctl(0, 0x5412, b'x'))",
    "waits": "assert select.select([0], [], [], 0)",
    "garbage": "os.write(ANSWER, b'garbage')\nos._exit(0)",
    "no UTF-8": "os.write(ANSWER, bytes([255, 254]))\nos._exit(0)",
    "deep": "os.write(ANSWER, b'{\"result\": ' + b'[' * 60_000 + b']' * 60_000 + b'}')\n"
    "os._exit(0)",
    "another shape": "os.write(ANSWER, b'[1]')\nos._exit(0)",
    "a number": "os.write(ANSWER, b'{\"number\": 0}')\nos._exit(0)",
    "both": 'os.write(ANSWER, b\'{"result": 1, "error": 2}\')\nos._exit(0)',
    "two answers": 'os.write(ANSWER, b\'{"result": 1}\\n{"result": 2}\\n\')\nos._exit(0)',
    "no answer": "os._exit(0)",
    "a huge number": "os.write(ANSWER, b'{\"result\": 1' + b'0' * 400 + b'}')\nos._exit(0)",
    "an infinite number of digits": "os.write(ANSWER, b'{\"result\": 1' "
    "+ b'0' * 9000 + b'}')\nos._exit(0)",
}
COSTS = {
    "a fork bomb": "for _ in range(99):\n    os.fork()",
    "memory": "bytearray(10 ** 10)",
    "memory in small": "held = []\nwhile True:\n    held.append(bytes(10 ** 6))",
    "memory by the system": "mmap.mmap(-1, 10 ** 11)",
    "time": "while True:\n    pass",
    "sleep": "time.sleep(60)",
    "a huge answer": "result = 'a' * 10 ** 8",
    "a deep answer": "result = [1]\nfor _ in range(400):\n    result = [result]",
    "descriptors": "[os.open('/dev/null', 0) for _ in range(9)]",
    "recursion": "def f():\n    return f()\nf()",
    "a crash": "ctypes.string_at(0)",
    "an abort": "library.abort()",
    "the limits of the worker": "frame = sys._getframe()\nwhile frame:\n"
    "    held = frame.f_locals.get('self')\n    if hasattr(held, 'fence'):\n"
    "        held.fence.refuse = print\n        held.parts.clear()\n    frame = frame.f_back\n"
    "os.remove('VICTIM')",
}
X86_ALONE = ("call(",)
NOBODY = 65534


def with_words(program: str, words: dict[str, Any]) -> str:
    for word, value in words.items():
        program = program.replace(word, str(value))
    return program


def raw(
    programs: Sequence[str], parts: str, user: int | None = None, seconds: float = 0.6
) -> list[dict[str, Any]]:
    """What ``raw_worker.py`` answers, behind the ``parts`` alone, for each program."""
    with tempfile.TemporaryDirectory() as made:
        # Where another user can read it.
        Path(made).chmod(0o755)
        for file in (HERE / "raw_worker.py", *Path(child.__file__).parent.glob("*.py")):
            shutil.copy(file, made)
        done = subprocess.run(
            [
                PYTHON,
                "-I",
                "-B",
                f"{made}/raw_worker.py",
                f"{made}/child.py",
                parts,
                str(seconds),
                "200",
                *([] if user is None else [str(user)]),
            ],
            input="".join(json.dumps(one) + "\n" for one in programs),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={"LANG": "C.UTF-8"},
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def reached(
    attempts: dict[str, str], outside: Outside, parts: str, user: int | None = None
) -> dict[str, Any]:
    """The attempts that got away, and what they gave."""
    words = {
        "KEY": outside.key,
        "OUT": outside.folder / "out",
        "VICTIM": outside.victim,
        "FOLDER": outside.folder,
        "PORT": outside.port,
        "UNIX": outside.unix,
    }
    here = platform.machine() == "x86_64"
    chosen = {
        name: with_words(text, words)
        for name, text in attempts.items()
        if here or not any(mark in text for mark in X86_ALONE)
    }
    *found, after = raw([*chosen.values(), "result = 'the next one runs'"], parts, user)
    assert after["result"] == "the next one runs"
    return {
        name: told["result"]
        for name, told in zip(chosen, found, strict=True)
        if "error" not in told and told["result"] != "refused"
    }


@pytest.fixture(params=["this user", "nobody"])
def user(request: pytest.FixtureRequest, outside: Outside) -> int | None:
    """Who runs it: whoever runs the tests, and a user without rights, who owns the files too."""
    if request.param == "this user":
        return None
    if os.geteuid() != 0:
        pytest.skip("only the superuser may be another")
    for path in (outside.folder, outside.key, outside.victim, outside.unix):
        os.chown(path, NOBODY, NOBODY)
    return NOBODY


@pytest.mark.slow
@fenced
@pytest.mark.parametrize("parts", ["landlock,seccomp", "seccomp"])
def test_the_kernel_alone_lets_nothing_through(
    outside: Outside, user: int | None, parts: str
) -> None:
    """Every check inside Python is off, and the program has its user's rights."""
    attempts = {**FILES, **PROCESSES, **NETWORK, **KERNEL, **DESCRIPTORS}
    if parts == "landlock,seccomp" and user is None:
        attempts |= COSTS
    assert reached(attempts, outside, parts, user) == {}
    outside.check()


NO_RIGHTS_OF_LANDLOCK = {
    "opens a path alone",
    "asks for its size",
    "asks for access",
    "asks by statx",
    "opens up",
    "gives away",
    "changes the time",
    "sets an attribute",
    "changes the folder",
    "asks where it is",
    "links out of /proc",
    "changes the root",
    "watches",
    "mounts",
}


@fenced
def test_landlock_alone_keeps_every_file(outside: Outside) -> None:
    """The second fence behind the first: what it does not know is left to seccomp."""
    attempts = {name: text for name, text in FILES.items() if name not in NO_RIGHTS_OF_LANDLOCK}
    assert reached(attempts, outside, "landlock") == {}
    outside.check()


@fenced
def test_without_the_fence_they_get_away(outside: Outside) -> None:
    """The attempts are real: they reach what they want where nothing keeps them."""
    names = ("reads the key", "lists", "deletes", "writes", "makes a folder")
    attempts = {name: FILES[name].replace("mkdir('OUT", "mkdir('OUT2") for name in names}
    attempts |= {
        "forks": PROCESSES["forks"],
        "connects": NETWORK["connects"],
        "code in memory": KERNEL["code in memory"],
    }
    got = reached(attempts, outside, "")
    assert got["reads the key"] == SECRET
    assert {"lists", "deletes", "code in memory"} <= set(got)
    assert not outside.victim.exists()


# --- as a user meets it ---------------------------------------------------------------------------

# Reference code of a file that a stranger gave: it is run too. SQL, whose process starts sooner.
REFERENCES = (
    "ATTACH 'OUT' AS x",
    "SELECT 9e999, -9e999",
    "SELECT load_extension('OUT')",
    "SELECT max(points) FROM t",
    "VACUUM INTO 'OUT'",
    "SELECT x'ff', char(0), 1e308 * 10",
)


@pytest.fixture
def asked(tmp_path: Path, tiny_llama: Path, outside: Outside) -> list[Any]:
    """``train`` on a file whose answers are such code."""
    rows = [
        {
            "question": f"which is number {i} of {i * 7 % 40} ?",
            "table": ROWS,
            "code": with_words(REFERENCES[i % len(REFERENCES)], {"OUT": outside.folder / "out"}),
        }
        for i in range(48)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = (
        "train.max_steps=2",
        "train.threads=1",
        "train.precision=float32",
        "train.batch_size=4",
        "generate.rows=8",
        "generate.max_new_tokens=4",
        "generate.execute=sql",
        "generate.table=table",
        "train.evaluations=1",
        "generate.code_memory_mb=256",
        "generate.code_seconds=1",
        "train.metric=execution_accuracy",
    )
    return [
        "train",
        path,
        "--model",
        tiny_llama,
        "--text",
        "question",
        "--label",
        "code",
        "--task",
        "causal-lm",
        *(p for one in settings for p in ("--set", one)),
    ]


def without(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    told = {part: "the kernel is too old" if part in parts else None for part in NEEDED}
    monkeypatch.setattr(runner, "missing_fence_parts", lambda: told)


@pytest.mark.parametrize("missing", NEEDED)
@pytest.mark.parametrize("dry", [True, False])
def test_where_the_kernel_keeps_nothing_in_nothing_is_run(
    asked: list[Any],
    holdfast: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    missing: str,
    dry: bool,
) -> None:
    """Said before a row is read, with what is missing and what can be done."""
    without(monkeypatch, missing)
    asked[1] = asked[1].rename(tmp_path / "aside.jsonl")
    asked[1].write_text("no rows\n")
    done = holdfast(*asked, "--out", "run", *(["--dry-run"] if dry else []))
    assert done.code == 2
    assert f"it needs {missing} (found: '{missing}: the kernel is too old')" in done.err
    assert "generate.execute_unsafe=true" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_is_said_where_only_python_keeps_code_in_and_the_training_ends_well(
    asked: list[Any],
    holdfast: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    outside: Outside,
) -> None:
    without(monkeypatch, *NEEDED)
    done = holdfast(*asked, "--out", "run", "--set", "generate.execute_unsafe=true")
    assert done.code == 0, done.err
    outside.check()
    assert "the references of the rows are run as code too" in " ".join(done.err.split())
    events = (tmp_path / "run" / "events.jsonl").read_text()
    for text in (events, (tmp_path / "run" / "report.html").read_text()):
        assert "the kernel does not isolate it" in text
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    found = result["generations"]["scores"]["test"]["execution_accuracy"]
    assert found["value"] == 0


@fenced
def test_what_keeps_it_in_is_said_before_anything_is_trained(
    asked: list[Any], holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    done = holdfast(*asked, "--out", "run", "--dry-run")
    assert done.code == 0, done.err
    said = " ".join(f"{done.out} {done.err}".split())
    assert "the references of the rows are run as code too: the kernel gives it no file" in said
    assert not (tmp_path / "run").exists()


@fenced
def test_a_program_ends_with_the_process_that_waits_for_it() -> None:
    """A worker that is killed leaves no program asleep behind it."""
    worker = subprocess.Popen(
        [PYTHON, "-I", "-B", str(HERE / "raw_worker.py"), child.__file__, "seccomp", "60", "200"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert worker.stdin is not None
    worker.stdin.write(json.dumps("time.sleep(60)").encode() + b"\n")
    worker.stdin.flush()
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    if not children.exists():
        pytest.skip("this kernel does not tell a process's children")
    forked = wait_for(lambda: children.read_text().split())
    status = Path(f"/proc/{forked[0]}/status")
    wait_for(lambda: "Seccomp:\t2" in status.read_text())
    worker.kill()
    worker.communicate()
    wait_for(lambda: not status.exists() or "zombie" in status.read_text())


def wait_for(what: Callable[[], Any]) -> Any:
    for _ in range(500):
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_fence_that_fails_in_the_fork_runs_nothing(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promised at the start, refused by the kernel later: no program runs without it."""
    told = raw(["open('VICTIM', 'w')", "result = 1"], "landlock,seccomp,broken")
    assert all("the fence does not work" in one["error"] for one in told)
    outside.check()
