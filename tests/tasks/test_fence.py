"""The kernel's fence, instruction by instruction: what the filter says to each call of the system,
by an interpreter of its own, and the numbers of the calls as the system's headers have them."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from holdfast.plugins.sandbox import fence

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
ANSWER = 7


def verdict(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would answer: the four kinds of instruction of classic BPF."""
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *given)
    at, held = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, 8 * at)
        if code == 0x06:
            return int(value)
        if code == 0x20:
            held = struct.unpack_from("<I", data, value)[0]
            at += 1
            continue
        assert code in (0x15, 0x45)
        true = held == value if code == 0x15 else bool(held & value)
        at += 1 + (yes if true else no)


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    program = fence.filter_of(machine, ANSWER)
    own = fence.ARCHITECTURE[machine]
    return verdict(program, number, own if arch is None else arch, arguments)


def test_only_what_is_listed_is_allowed(machine: str) -> None:
    special = {fence.WRITE[machine], *fence.MAPPING[machine]}
    for number in range(700):
        wanted = ALLOWED if number in fence.CALLS[machine].values() else REFUSED
        if number not in special:
            assert ask(machine, number) == wanted, number


def test_it_writes_its_answer_and_nothing_else(machine: str) -> None:
    write = fence.WRITE[machine]
    assert ask(machine, write, ANSWER) == ALLOWED
    # The kernel reads a descriptor's lower half alone, and so does the filter.
    assert ask(machine, write, (1 << 32) | ANSWER) == ALLOWED
    assert {ask(machine, write, one) for one in (0, 1, 2, 3, ANSWER + 1, 1 << 31)} == {REFUSED}


def test_no_page_is_data_and_code(machine: str) -> None:
    for number in fence.MAPPING[machine]:
        assert [ask(machine, number, 0, 4096, rights) for rights in range(8)] == [ALLOWED] * 4 + [
            REFUSED
        ] * 4
        assert ask(machine, number, 0, 4096, 0x01000004) == REFUSED


def test_another_architecture_is_killed(machine: str) -> None:
    for other in (0x40000003, 0x40000028, 0xC000003E, 0xC00000B7):
        if other != fence.ARCHITECTURE[machine]:
            assert ask(machine, fence.CALLS[machine]["getpid"], arch=other) == KILLED
    assert ask("x86_64", 0x40000000 | fence.CALLS["x86_64"]["getpid"]) == KILLED


def test_the_numbers_are_those_of_the_system(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip("no headers of the kernel here")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    names = {**fence.CALLS[machine], "write": fence.WRITE[machine]}
    names |= dict(zip(("mmap", "mprotect"), fence.MAPPING[machine], strict=True))
    assert {name: int(found[name]) for name in names} == names


def test_no_listed_call_opens_or_starts_anything() -> None:
    """What must never be on the list, whoever adds to it."""
    never = re.compile(
        r"open|exec|fork|clone|socket|connect|kill|ptrace|uring|prctl|seccomp|dup|"
        r"fcntl|ioctl|pipe|stat|link|mod|own|mount|process_vm|prlimit|setr|bpf|key|"
        r"shm|msg|sem|splice|send|recv|pidfd|unshare|setns"
    )
    for calls in fence.CALLS.values():
        assert [name for name in calls if never.search(name)] == []


def test_every_right_of_each_version_is_taken() -> None:
    """The rights of ``linux/landlock.h``: three were added since the first thirteen."""
    assert fence.FILE_RIGHTS == {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
    header = Path("/usr/include/linux/landlock.h")
    if not header.exists():
        pytest.skip("no headers of the kernel here")
    found = re.findall(r"LANDLOCK_ACCESS_FS_\w+\s+\(1ULL << (\d+)\)", header.read_text())
    assert max(map(int, found)) + 1 in fence.FILE_RIGHTS.values()


def test_a_part_that_the_kernel_does_not_grant_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def syscall(self, *_: object) -> int:
            return -1

        def prctl(self, *_: object) -> int:
            return -1

        def capset(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(fence, "_library", Refusing)
    for part in (
        fence.landlock,
        lambda: fence.seccomp(3),
        fence.drop_capabilities,
        fence.keep_from_debuggers,
    ):
        with pytest.raises(fence.NotFenced):
            part()


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence.sys, "platform", "darwin")
    with pytest.raises(fence.NotFenced, match="darwin"):
        fence.architecture()


def test_a_fence_that_does_not_hold_is_noticed() -> None:
    """It is tried out: a call that should fail and does not is an error."""
    with pytest.raises(fence.NotFenced, match="does not work"):
        fence._must_fail("it", lambda: None)
