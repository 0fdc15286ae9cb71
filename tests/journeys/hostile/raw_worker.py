"""Python of any kind in the fork that runs written code, with every check inside Python taken off:
what is left is the kernel's fence.

``python -I raw_worker.py CHILD PARTS SECONDS MEMORY_MB [USER]`` reads one program a line as JSON
and answers as ``child.py`` does. The rights of its user are kept, so that no file's mode helps.
"""

import ctypes
import importlib.util
import json
import mmap
import os
import resource
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time

LIBRARY = ctypes.CDLL(None, use_errno=True)
MODULES = (ctypes, mmap, os, resource, select, socket, sqlite3, subprocess, sys, threading, time)


def reach(value):
    """``reached`` where a call of the system did not fail."""
    return "reached" if value >= 0 else "refused"


class Raw:
    """In the place of ``run_pandas`` and ``run_sql``."""

    def prepare(self, beside):
        """Nothing to load."""

    def load_for(self, code):
        """Nothing to load."""

    def run(self, code, tables, seconds):
        space = {module.__name__: module for module in MODULES}
        space |= {"reach": reach, "call": LIBRARY.syscall, "library": LIBRARY, "ANSWER": ANSWER[0]}
        exec(code, space)
        return space.get("result", "reached")


ANSWER = [0]
LEFT_ALONE = (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE)


def opened(child):
    """``child`` with the checks inside Python, and all but the kernel's fence, taken off."""
    load_sibling = child.load_sibling

    def without_checks(name):
        module = load_sibling(name)
        if name == "fence" and "broken" in sys.argv[2]:
            # What prctl is asked for is refused, as a kernel's policy may.
            module.SECCOMP = -1
        if name == "fence":
            module.refuse = lambda event, arguments: None
            module.leave_network = lambda: False
            module._leave_superuser = lambda: None
        return module

    set_limit, outcome = resource.setrlimit, child.Worker._outcome

    def without_limits(which, values):
        if which not in LEFT_ALONE:
            set_limit(which, values)

    def known(self, job, writing):
        ANSWER[0] = writing
        return outcome(self, job, writing)

    child.load_sibling, resource.setrlimit, child.Worker._outcome = (
        without_checks,
        without_limits,
        known,
    )


def main():
    path, parts, seconds, memory_mb, *user = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("child", path)
    child = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(child)
    opened(child)
    worker = child.Worker("sql", float(seconds), int(memory_mb), parts.split(",") if parts else [])
    worker.runner = Raw()
    # What a worker may have open beside its pipes.
    os.dup2(os.open(__file__, os.O_RDONLY), 50)
    if user:
        # Python's own files may be closed to that user: all is loaded by now.
        os.setgroups([])
        os.setresgid(*[int(user[0])] * 3)
        os.setresuid(*[int(user[0])] * 3)
    for line in sys.stdin:
        answer = worker.answer({"code": json.loads(line), "tables": "[]"})
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
