"""Limits as the kernel writes them: the files of real machines, and this one's own."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.errors import MachineError
from holdfast.core.machine import (
    MB,
    check_thread_variables,
    max_threads,
    memory_limits,
    refuse_low_memory,
    refuse_too_many_threads,
    usable_cores,
)

V2 = "27 21 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw\n"
V1 = (
    "31 25 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
    "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
    "38 25 0:34 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)
STAT = (
    "anon 41943040\nfile 209715200\nshmem 10485760\ninactive_file 104857600\nactive_file 52428800\n"
)
SUMS = (
    "inactive_file 1\nactive_file 1\ntotal_inactive_file 200000000\ntotal_active_file 100000000\n"
)
SLICE = "sys/fs/cgroup/user.slice/user-1000.slice"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[object]:
    def build(cgroup: str, mounts: str, files: dict[str, str]) -> Path:
        files = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts, **files}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


def left(root: Path) -> list[float]:
    return [limit.left_mb for limit in memory_limits(root)]


def test_version_2_counts_what_can_be_given_back_as_free(machine) -> None:
    root = machine(
        "0::/user.slice/user-1000.slice\n",
        V2,
        {
            f"{SLICE}/memory.max": "524288000\n",
            f"{SLICE}/memory.high": "max\n",
            f"{SLICE}/memory.current": "300000000\n",
            f"{SLICE}/memory.stat": STAT,
        },
    )
    assert left(root) == [pytest.approx((524288000 - 300000000 + 104857600 + 52428800) / MB)]
    told = memory_limits(root)[0].description
    assert told == "memory.max of 524 MB of the control group /user.slice/user-1000.slice"


def test_every_group_above_counts_and_so_does_high(machine) -> None:
    root = machine(
        "0::/user.slice/user-1000.slice\n",
        V2,
        {
            f"{SLICE}/memory.max": "max\n",
            f"{SLICE}/memory.high": "400000000\n",
            f"{SLICE}/memory.current": "100000000\n",
            "sys/fs/cgroup/user.slice/memory.max": "900000000\n",
            "sys/fs/cgroup/user.slice/memory.current": "800000000\n",
        },
    )
    assert left(root) == [pytest.approx(300), pytest.approx(100)]


def test_a_group_that_is_full_leaves_nothing_and_not_less(machine) -> None:
    root = machine(
        "0::/\n", V2, {"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "200\n"}
    )
    assert left(root) == [0.0]


def test_version_1_with_its_sums_and_its_way_to_say_unlimited(machine) -> None:
    group = "sys/fs/cgroup/memory/slurm/uid_1000/job_7"
    root = machine(
        "9:memory:/slurm/uid_1000/job_7\n4:cpu,cpuacct:/slurm\n0::/\n",
        V1,
        {
            f"{group}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{group}/memory.usage_in_bytes": "50\n",
            "sys/fs/cgroup/memory/slurm/uid_1000/memory.limit_in_bytes": "2000000000\n",
            "sys/fs/cgroup/memory/slurm/uid_1000/memory.usage_in_bytes": "1500000000\n",
            "sys/fs/cgroup/memory/slurm/uid_1000/memory.stat": SUMS,
        },
    )
    assert left(root) == [pytest.approx(800)]
    assert "memory.limit_in_bytes of 2,000 MB" in memory_limits(root)[0].description


@pytest.mark.parametrize(
    ("cgroup", "mounted"),
    [
        # In a container without a namespace of its own: the path is the host's, the mount its part.
        ("0::/docker/0123abcd\n", "/docker/0123abcd"),
        ("0::/docker/0123abcd/\n", "/docker/0123abcd"),
        # With one, and from outside of it.
        ("0::/\n", "/"),
        ("0::/../../other\n", "/"),
        ("0::/elsewhere\n", "/docker/0123abcd"),
        # A name that only begins alike.
        ("0::/docker/0123abcde\n", "/docker/0123abcd"),
    ],
)
def test_in_a_container_the_mount_itself_is_the_group(machine, cgroup: str, mounted: str) -> None:
    mounts = f"1 0 0:24 {mounted} /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    root = machine(
        cgroup,
        mounts,
        {"sys/fs/cgroup/memory.max": "500000000\n", "sys/fs/cgroup/memory.current": "100000000\n"},
    )
    assert left(root) == [pytest.approx(400)]


@pytest.mark.parametrize(
    "cgroup", ["", "0::\n", "nonsense\n", "1:memory\n", "::::\n", "0::/a\0b\n"]
)
@pytest.mark.parametrize("mounts", ["", "-\n", " - cgroup2\n", "1 2 3 - cgroup2 x rw\n", V2, V1])
def test_files_that_nobody_understands_limit_nothing(machine, cgroup: str, mounts: str) -> None:
    root = machine(cgroup, mounts, {"sys/fs/cgroup/memory.max": "many\n"})
    assert left(root) == []
    assert usable_cores(root) >= 1


def test_a_mount_with_a_blank_in_its_name(machine) -> None:
    mounts = "1 0 0:24 / /sys/control\\040groups rw - cgroup2 cgroup rw\n"
    root = machine(
        "0::/\n",
        mounts,
        {"sys/control groups/memory.max": "10000000\n", "sys/control groups/memory.current": "0\n"},
    )
    assert left(root) == [pytest.approx(10)]


def affinity(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ("max 100000\n", 8),
        ("150000 100000\n", 2),
        ("100000 100000\n", 1),
        ("1000 100000\n", 1),
        ("3200000 100000\n", 8),
        ("", 8),
        ("x y\n", 8),
        ("100000 0\n", 8),
    ],
)
def test_a_quota_of_time_is_fewer_processors(
    machine, monkeypatch: pytest.MonkeyPatch, told: str, cores: int
) -> None:
    affinity(monkeypatch, 8)
    assert usable_cores(machine("0::/\n", V2, {"sys/fs/cgroup/cpu.max": told})) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 3), ("50000", 1)])
def test_a_quota_in_version_1(
    machine, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    affinity(monkeypatch, 8)
    group = "sys/fs/cgroup/cpu,cpuacct/job"
    root = machine(
        "4:cpu,cpuacct:/job\n",
        V1,
        {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"},
    )
    assert usable_cores(root) == cores


@pytest.mark.parametrize(
    ("limit", "option"), [(resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")]
)
def test_a_limit_of_the_process_leaves_what_is_not_held_yet(limit: int, option: str) -> None:
    before = resource.getrlimit(limit)
    high = 1 << 36
    resource.setrlimit(limit, (high, before[1]))
    try:
        found = next(one for one in memory_limits() if option in one.description)
    finally:
        resource.setrlimit(limit, before)
    field = "VmSize" if limit == resource.RLIMIT_AS else "VmData"
    status = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))
    assert found.left_mb == pytest.approx((high - held) / MB, rel=1e-3)


def test_more_threads_than_can_work_are_refused_with_the_usable_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affinity(monkeypatch, 2)
    most = max_threads()
    refuse_too_many_threads("train.threads", most)
    with pytest.raises(MachineError, match=rf"2 cores are usable[\s\S]*{most}") as caught:
        refuse_too_many_threads("train.threads", most + 1)
    assert "Set it to 2" in caught.value.remedy
    affinity(monkeypatch, 512)
    assert max_threads() > 512
    for value in ("", "x", "4", "4,2", "-1"):
        check_thread_variables({"OMP_NUM_THREADS": value})
    with pytest.raises(MachineError, match="OMP_NUM_THREADS"):
        check_thread_variables({"OMP_NUM_THREADS": " 100000 "})


def test_a_library_that_cannot_be_loaded_is_not_tried(
    machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(
        "0::/\n",
        V2,
        {"sys/fs/cgroup/memory.max": "90000000\n", "sys/fs/cgroup/memory.current": "1000000\n"},
    )
    refuse_low_memory("numpy", root)
    monkeypatch.setitem(sys.modules, "torch", None)
    refuse_low_memory("torch", root)
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(MachineError, match=r"89 MB more \(memory.max of 90 MB[^)]*\)") as caught:
        refuse_low_memory("torch", root)
    assert caught.value.exit_code == 2
