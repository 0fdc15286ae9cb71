"""Errors of many libraries that mean one thing."""

from __future__ import annotations

import errno

import pytest

from holdfast.core.input_errors import resource_error

MEMORY = [
    MemoryError(),
    MemoryError("std::bad_alloc"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ImportError("libc10.so: cannot allocate memory in static TLS block"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ValueError("Unable to allocate 1.2 GiB for an array"),
]
THREADS = [
    RuntimeError("can't start new thread"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    RuntimeError("libgomp: Thread creation failed: Resource temporarily unavailable"),
]


@pytest.mark.parametrize("error", [*MEMORY, *THREADS], ids=repr)
def test_a_lack_is_known_and_the_message_is_the_users(error: Exception) -> None:
    found = resource_error(error)
    assert found is not None
    assert found.exit_code == 2
    assert ("thread" in found.rule) == (error in THREADS)


def test_it_is_known_below_what_it_was_turned_into() -> None:
    outer = ImportError("numpy could not be imported")
    outer.__context__ = MemoryError()
    assert resource_error(outer) is not None
    outer.__context__.__context__ = outer
    assert resource_error(outer) is not None
    outer.__suppress_context__ = True
    assert resource_error(outer) is None
    outer.__cause__ = MemoryError()
    assert resource_error(outer) is not None


@pytest.mark.parametrize(
    "error",
    [
        KeyError("memory"),
        RuntimeError("unsupported memory format option"),
        OSError(errno.EIO, "x"),
        ImportError("No module named 'torch'"),
        BlockingIOError(errno.EAGAIN, "write could not complete without blocking"),
        ValueError("thread"),
        RecursionError(),
    ],
)
def test_anything_else_stays_a_defect(error: Exception) -> None:
    assert resource_error(error) is None
