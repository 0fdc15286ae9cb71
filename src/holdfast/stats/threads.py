"""The number of threads for matrix products of NumPy and SciPy (``train.threads`` sets PyTorch's).

If another process uses a core, a product with two threads waits for it: small ones took up to
thirty times as long, and the last second of a run of 160 rows took six.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

# Only products of more numbers gain from more threads.
ONE_THREAD = 1 << 22


def one_thread() -> AbstractContextManager[Any]:
    """Use one thread inside, in the whole process and not only in the calling thread."""
    return threads_for(0)


def threads_for(size: int) -> AbstractContextManager[Any]:
    """Use as many threads inside as pay for products of ``size`` numbers: one, or the number at the
    start of the process."""
    pools, most = _pools()
    limited: AbstractContextManager[Any] = pools.limit(
        limits=most if size > ONE_THREAD else 1, user_api="blas"
    )
    return limited


@functools.cache
def _pools() -> tuple[Any, int]:
    """The libraries behind NumPy's and SciPy's products, and their threads; the search takes
    milliseconds."""
    import scipy.linalg  # noqa: F401 (loads them)
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController().select(user_api="blas")
    return pools, max((one["num_threads"] for one in pools.info()), default=1)
