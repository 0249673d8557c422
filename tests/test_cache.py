"""Whoever edits a kernel to see what happens gets no stale answer from Numba's disk cache."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import refimpl

PROGRAM = """
import numpy as np
from refimpl import ops
print(ops.square_forward(np.array([2.0]))[0], ops.causal_softmax_forward(np.zeros((2, 2)))[1, 0])
"""


def run(folder):
    """Results of the copy in `folder`, from a new process whose cache lies there too."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder)}
    process = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, env=environment,
                             capture_output=True, text=True, check=True)
    return [float(word) for word in process.stdout.split()]


def edit(path, old, new):
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1
    path.write_text(source.replace(old, new), encoding="utf-8")


@pytest.mark.jit
def test_edited_kernels_are_seen_under_a_warm_cache(tmp_path):
    shutil.copytree(pathlib.Path(refimpl.__file__).parent, tmp_path / "refimpl",
                    ignore=shutil.ignore_patterns("__pycache__"))
    kernels = tmp_path / "refimpl" / "ops.py"
    assert run(tmp_path) == [4, 0.5]
    warm = sorted((tmp_path / "cache").rglob("*.nbc"))
    assert warm                             # control: there is a cache that could have been stale
    edit(kernels, "h[i] = x[i] * x[i]", "h[i] = 3 * x[i] * x[i]")
    # A helper of causal_softmax_forward, whose own text stays the same.
    edit(kernels, "        p[i] /= total\n", "        p[i] /= 2 * total\n")
    assert run(tmp_path) == [12, 0.25]
