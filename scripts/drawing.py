"""What the figure scripts share: one style, one colour for each thing, seeds in parallel, safe files.

A script fig_<name>.py has `compute(...) -> dict of arrays`, `plot(data) -> Figure`, and ends with
`drawing.main("<name>", compute, plot)`, which writes figures/<name>.npz and figures/<name>.png. The
numbers are computed with one thread of BLAS and Numba per process, so that the same bits come out on
any number of cores.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# Inherited by the processes that `each` starts. Too late, and not for us to change, where NumPy and
# Numba are running already: in a test, or a notebook.
if "numpy" not in sys.modules:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"

import matplotlib   # noqa: E402
import numpy as np  # noqa: E402

matplotlib.use("agg")
import matplotlib.pyplot as plt     # noqa: E402

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


def main(name, compute, plot):
    """Command line of a figure script: compute, save the numbers, draw, save the picture."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=FIGURES, metavar="DIR", help="default: figures/")
    parser.add_argument("--plot", action="store_true", help="draw again from the saved numbers")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    numbers, picture = (args.out / (name + suffix) for suffix in (".npz", ".png"))
    before, start = numbers.read_bytes() if numbers.exists() else None, time.perf_counter()
    if not args.plot:
        data = compute()
        replace(numbers, lambda path: np.savez_compressed(path, **data))
    with np.load(numbers) as saved:
        figure = plot(dict(saved))
    # Neither date nor version in the picture.
    replace(picture, lambda path: figure.savefig(path, metadata={"Software": None}))
    change = "unchanged" if numbers.read_bytes() == before else "changed" if before else "new"
    print(f"{picture}: {time.perf_counter() - start:.1f} s, numbers {change}")
