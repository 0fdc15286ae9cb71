"""How many threads NumPy and SciPy multiply with, as threadpoolctl sees them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASKS = """
import scipy.linalg
from threadpoolctl import threadpool_info
from holdfast.stats.threads import ONE_THREAD, one_thread, threads_for

def threads():
    return sorted({one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"})

print(threads())
with one_thread():
    print(threads())
    with threads_for(ONE_THREAD + 1):
        print(threads())
    with threads_for(ONE_THREAD):
        print(threads())
    print(threads())
print(threads())
"""


@pytest.mark.parametrize("asked", [1, 2])
def test_one_thread_but_for_large_products_and_no_more_than_the_process_began_with(
    asked: int,
) -> None:
    # OpenBLAS itself begins with no more than there are cores.
    begun = str(min(asked, len(os.sched_getaffinity(0))))
    done = subprocess.run(
        [sys.executable, "-c", ASKS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": str(asked)},
    )
    expected = [begun, "1", begun, "1", "1", begun]
    assert done.stdout.split() == [f"[{threads}]" for threads in expected]
