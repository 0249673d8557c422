"""What the tours share: small tables, bars and maps as text and as pictures, and the debugger's dialogue.

Pictures appear in a notebook or in an editor's cells. A plain run prints the text beside them.
"""

import os
import subprocess
import sys

import matplotlib
import numba

if "IPython" not in sys.modules:
    matplotlib.use("agg")
import matplotlib.pyplot as plt     # noqa: E402

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
COMPILED = not numba.config.DISABLE_JIT     # plain Python is a hundred times slower: train less
plt.rcParams.update({"font.size": 12, "figure.constrained_layout.use": True, "axes.spines.top": False,
                     "axes.spines.right": False, "figure.dpi": 70})


def show(figure):
    """Show a figure where there is a notebook, and close it."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display
        display(figure)
    plt.close(figure)


def table(title, matrix, rows, columns):
    """Print a small matrix with names; exact zeros as dots."""
    print(f"{title}\n      " + "".join(f"{name:>6}" for name in columns))
    for name, row in zip(rows, matrix):
        print(f"{name:>5} " + "".join("     ." if x == 0 else f"{x:6.2f}" for x in row))


def bars(weights, names):
    """Print weights between 0 and 1 as bars, one line each."""
    for name, weight in zip(names, weights):
        print(f"    {name:<15} {weight:5.3f}  {'#' * round(40 * weight)}".rstrip())


def maps(matrices, rows, columns, **bounds):
    """Show matrices with their titles side by side: {title: matrix}; names of rows and columns for all."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(5.2 * len(matrices), 4.8), squeeze=False)
    for axis, (title, matrix) in zip(axes[0], matrices.items()):
        image = axis.imshow(matrix, **bounds)
        axis.set(title=title)
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(rows)), rows)
    figure.colorbar(image, ax=axes, shrink=0.7)
    show(figure)


def lines(series, xlabel, ylabel, title="", **settings):
    """Show curves: {name: (x, y, style)}; theory is black."""
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for name, (x, y, style) in series.items():
        axis.plot(x, y, style, label=name, linewidth=2, markersize=8)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, **settings)
    axis.legend(frameon=False)
    show(figure)


def debug(call, keys):
    """Print what Python's debugger answers to these keys while it steps through a call of `ops`."""
    dialogue = subprocess.run(
        [sys.executable, "-c", "import pdb, numpy as np; from refimpl import ops; "
         f"pdb.run({call!r}, globals())"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, input="\n".join(keys), text=True,
        capture_output=True, check=True)
    from refimpl import ops
    for key, answer in zip(keys, dialogue.stdout.split("(Pdb) ")[1:]):
        print(f"(Pdb) {key}")
        print(answer.replace(os.path.dirname(ops.__file__), "refimpl").rstrip("\n"))
