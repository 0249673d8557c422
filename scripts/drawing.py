"""What the figure scripts share: one style, one colour for each thing, seeds in parallel, safe files.

A script fig_<name>.py has `compute(...) -> dict of arrays`, `plot(data) -> Figure`, and ends with
`drawing.main("<name>", compute, plot)`, which writes figures/<name>.npz and figures/<name>.png, and with
--slides the picture as SVG and PDF too. The numbers are computed with one thread of BLAS and Numba per
process, so that the same bits come out on any number of cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt     # noqa: E402

ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
MOVED = 1e-6        # of an array's largest entry: training makes that of rounding on another machine

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent / "figures"
plt.style.use(HERE / "refimpl.mplstyle")

# Okabe and Ito's colours. Theory is a black line, what is measured a coloured marker.
BLACK, BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
COLOURS = {
    "theory": BLACK, "constructed": BLUE, "trained": ORANGE, "pretrained": PURPLE,
    "relative": BLUE, "absolute": RED, "head": ORANGE, "all": GREEN,
    "WK1": BLUE, "WK2": ORANGE, "WO": GREEN, "WF": PURPLE,
    "infer": BLUE, "recall": ORANGE, "query": RED, "square": GREEN, "relu": PURPLE}


def progress(text):
    """Show a line on stderr if that is a terminal, over the one before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def each(function, cases):
    """[function(*case) for case in cases], in order, in as many processes as there are cores.

    `function` stands at the top of a module. Each process has one thread; a single case runs here.
    """
    cases, start, results = list(cases), time.perf_counter(), []
    if len(cases) == 1:
        return [function(*cases[0])]
    with ProcessPoolExecutor(min(len(cases), os.cpu_count() or 1), get_context("spawn")) as pool:
        for result in pool.map(function, *zip(*cases)):
            results.append(result)
            spent = time.perf_counter() - start
            progress(f"{len(results)} of {len(cases)}, "
                     f"{spent * (len(cases) - len(results)) / len(results):.0f} s left")
    progress("")
    return results


def replace(path, write):
    """Let `write` fill a temporary file beside `path`, then put it in its place: old or new, never half."""
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        write(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def changes(before, after):
    """By how much numbers moved, and in which array: a line, and whether it is more than MOVED."""
    if before is None:
        return "numbers new", False
    if before.keys() != after.keys() or any(before[key].shape != after[key].shape for key in after):
        return "arrays of other names or shapes", True
    if all(np.array_equal(before[key], after[key], equal_nan=after[key].dtype.kind == "f") for key in after):
        return "numbers unchanged", False
    moved = {}
    for key, array in after.items():
        if array.dtype.kind not in "biufc":
            moved[key] = 0.0 if np.array_equal(before[key], array) else np.inf
            continue
        with np.errstate(invalid="ignore"):
            gap = np.abs(array + 0.0 - before[key])
        gap[np.isnan(array + 0.0) & np.isnan(before[key] + 0.0)] = 0
        size = np.nanmax(np.abs(before[key] + 0.0), initial=0)
        largest = np.max(np.where(np.isfinite(gap), gap, np.inf), initial=0)
        moved[key] = float(largest / size) if size else float(largest)
    key = max(moved, key=moved.__getitem__)
    return f"numbers moved by {moved[key]:.0e} of the largest, in {key}", moved[key] > MOVED


def read(path):
    """The arrays of an .npz file, or None if there is none."""
    if not path.exists():
        return None
    with np.load(path) as saved:
        return dict(saved)


def main(name, compute, plot):
    """Command line of a figure script: compute, save the numbers, draw, save the picture.

    Exit status 1 if saved numbers moved by more than MOVED; the new ones are there all the same.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=FIGURES, metavar="DIR", help="default: figures/")
    parser.add_argument("--plot", action="store_true", help="draw again from the saved numbers")
    parser.add_argument("--slides", action="store_true", help="write the picture as SVG and PDF too")
    args = parser.parse_args()
    if ONE_THREAD.items() - os.environ.items():     # NumPy and Numba read them when they start
        sys.exit(subprocess.run([sys.executable, *sys.argv], env={**os.environ, **ONE_THREAD}).returncode)
    args.out.mkdir(parents=True, exist_ok=True)
    numbers, start = args.out / f"{name}.npz", time.perf_counter()
    before = read(numbers)
    if not args.plot:
        data = compute()
        replace(numbers, lambda path: np.savez_compressed(path, **data))
    figure = plot(read(numbers))
    for suffix in ("png", "svg", "pdf") if args.slides else ("png",):
        # Neither date nor version in the picture.
        metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[suffix]
        replace(args.out / f"{name}.{suffix}", lambda path: figure.savefig(path, metadata=metadata))
    words, beyond = changes(before, read(numbers))
    print(f"{args.out / name}.png: {time.perf_counter() - start:.1f} s, {words}")
    sys.exit(int(beyond))
