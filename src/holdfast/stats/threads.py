"""How many threads NumPy and SciPy multiply with. PyTorch's are another matter (``train.threads``).

Where another process has a core, a product of two threads waits for it: small ones took up to
thirty times as long, and the last second of a run of 160 rows took six.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

# Products of more numbers gain by more threads.
ONE_THREAD = 1 << 22


def one_thread() -> AbstractContextManager[Any]:
    """Inside, one thread; this process as a whole, not only the thread that asks."""
    return threads_for(0)


def threads_for(size: int) -> AbstractContextManager[Any]:
    """Inside, as many threads as pay for products of ``size`` numbers: one, or as many as the
    process began with."""
    pools, most = _pools()
    limited: AbstractContextManager[Any] = pools.limit(
        limits=most if size > ONE_THREAD else 1, user_api="blas"
    )
    return limited


@functools.cache
def _pools() -> tuple[Any, int]:
    """NumPy's and SciPy's own products, and their threads; looking for them takes milliseconds."""
    import scipy.linalg  # noqa: F401 (loads them)
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController().select(user_api="blas")
    return pools, max((one["num_threads"] for one in pools.info()), default=1)
