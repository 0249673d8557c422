"""Threads of the fast path: ours run in parallel, and OpenBLAS is held to one of its own."""

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numba
import numpy as np

LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):     # in a child nobody would open a lock that another thread held
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


@cache
def openblas():
    """(get, set) of the number of threads, for each OpenBLAS: NumPy calls one copy, Numba SciPy's."""
    # Here, since it takes 0.1 s, which whoever only imports this module should not wait for.
    from scipy.linalg import cython_blas
    libraries = [ctypes.CDLL(module.__file__) for module in (np.linalg._umath_linalg, cython_blas)]
    names = [prefix + "openblas_{}_num_threads" + suffix
             for prefix in ("scipy_", "") for suffix in ("", "64_")]
    return [(getattr(library, name.format("get")), getattr(library, name.format("set")))
            for library in libraries for name in names if hasattr(library, name.format("set"))]


def spread(job, *data):
    """list(map(job, *data)) on `numba.get_num_threads()` threads, this one among them.

    A thread that is done with a call takes the next, so that each is woken once. All use the caller's
    np.errstate. An error of a call is raised when no other call is running any more.
    """
    calls, threads = list(zip(*data)), numba.get_num_threads()
    results, queue, settings = [None] * len(calls), iter(range(len(calls))), np.geterr()

    def work():
        with np.errstate(**settings):
            for i in queue:
                results[i] = job(*calls[i])

    with ThreadPoolExecutor(threads) as pool:       # leaving it waits for all
        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
    for other in others:
        other.result()
    return results


@contextmanager
def one_blas_thread():
    """Hold OpenBLAS to one thread: its number changes the last bits, and ours run in parallel.

    Under another BLAS it does nothing.
    """
    with LOCK:
        numbers = [(set_number, get()) for get, set_number in openblas()]
        try:
            for set_number, _ in numbers:
                set_number(1)
            yield
        finally:
            for set_number, before in numbers:
                set_number(before)
