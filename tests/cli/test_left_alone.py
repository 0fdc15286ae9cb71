"""The console script ends with its own exit code, also where a thread is left alone at work."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In place of the commands: a thread in PyTorch's code, as of a server that loads another model.
PROGRAM = """
import atexit, sys, threading
import torch
from holdfast.cli import main

def command():
    ready = threading.Event()
    def work():
        torch.set_num_threads(1)
        layer = torch.nn.Linear(64, 64)
        while True:
            layer(torch.randn(8, 64)).sum().backward()
            ready.set()
    threading.Thread(target=work, daemon=True).start()
    assert ready.wait(60)
    atexit.register(print, "what libraries do at the end")
    print("said before")
    {ends}

main._command = lambda: command
sys.argv = ["holdfast"]
main.main()
"""


@pytest.mark.parametrize(
    ("ends", "code"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("raise KeyboardInterrupt", 130), ("1 / 0", 1)],
)
def test_a_thread_in_native_code_does_not_abort_the_end(ends: str, code: int) -> None:
    program = PROGRAM.replace("{ends}", ends)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert "terminate called" not in ended.stderr
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.splitlines() == ["said before", "what libraries do at the end"]
