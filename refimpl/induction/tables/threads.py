"""Threads of the fast path: ours run in parallel, and OpenBLAS is held to one of its own."""

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

import numba
import numpy as np

LOCK = threading.Lock()


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


@cache
def workers(threads, process):
    """So many threads, made once a process: a fork has none of its parent's."""
    return ThreadPoolExecutor(threads)


def spread(job, *data):
    """list(map(job, *data)) on `numba.get_num_threads()` threads, this one among them.

    A thread that is done with a call takes the next, so that each is woken once: that alone is a tenth of
    a step at T = 64. np.errstate, of which new threads know nothing, is ours in all. An error of a call is
    raised when none is running any more.
    """
    calls, threads = list(zip(*data)), numba.get_num_threads()
    results, queue = [None] * len(calls), iter(range(len(calls)))
    settings = np.geterr()

    def work():
        with np.errstate(**settings):
            for i in queue:
                results[i] = job(*calls[i])

    others = [workers(threads - 1, os.getpid()).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        wait(others)
    for other in others:
        other.result()
    return results


@contextmanager
def one_blas_thread():
    """Hold OpenBLAS to one thread: ours run in parallel, and its number changes the last bits.

    Two of our threads gain nothing while OpenBLAS has two of its own (0.75 to 1.0 times as fast as one,
    against 1.5 to 1.7 times with one). Under another BLAS it does nothing.
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
