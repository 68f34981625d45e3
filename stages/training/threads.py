"""The number of threads, on which sums of floats depend, and so the bytes of the outputs."""

import importlib
from contextlib import suppress

from threadpoolctl import threadpool_limits


def fix_threads(count: int) -> None:
    """Have BLAS, OpenMP and oneDAL use so many threads, on fewer cores too.

    For the libraries that are loaded. XGBoost has a parameter for that.
    """
    threadpool_limits(count)
    with suppress(ImportError):  # which is there on x86-64 with Linux only
        importlib.import_module("daal4py").daalinit(count)
