"""What was done to one array as a whole, in words: transposed, negated, a factor, shifted, permuted."""

import numpy as np

from refimpl.gradcheck import relative_error
from refimpl.vectors import cases


def summary(names):
    """Array names, a whole group by its prefix."""
    groups = dict.fromkeys(name.rpartition(".")[0] + ".*" if "." in name else name for name in names)
    return ", ".join(names if len(names) <= 3 else groups)


def changed(case, name, a, b, close):
    """The change that makes b, theirs, of the array a; None if none known does."""
    if a.shape == b.shape:
        close = min(close, 0.1 * relative_error(a, b))      # it must explain most of what departs

    def same(x, y):
        return x.size > 0 and relative_error(x, y) <= close

    if a.ndim == 2 and a.shape != (1, 1) and same(a.T, b):
        return "transposed"
    if a.shape != b.shape:
        return None
    factor = (a * b).sum() / (a * a).sum() if a.any() else 0.0
    if factor and same(factor * a, b):
        if a.ndim == 0:         # a scalar is a multiple of any other
            return None
        meaning = factor_meaning(case, factor)
        words = f"constant factor {factor:.6g}" + (f": {meaning}" if meaning else "")
        return "negated" if abs(factor + 1) < 1e-6 else words
    axes = [(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)) for axis in range(a.ndim)]
    if any(len(x) > 2 and not same(x[1:], x[:-1]) and (same(x[1:], y[:-1]) or same(x[:-1], y[1:]))
           for x, y in axes):           # rows differ, so that one can tell
        return "shifted by one position"
    for (x, y), what in zip(axes, ("rows", "columns")):
        if same(ordered(x), ordered(y)):
            return f"{what} permuted"
    return None


def ordered(a):
    """The rows in an order that depends on their contents alone."""
    rows = a.reshape(len(a), -1)
    return a[(rows @ np.sqrt(1 + np.arange(rows.shape[1]))).argsort()]


def factor_meaning(case, factor):
    """What a factor may stand for in this case; several where its sizes coincide."""
    B, T, d = len(case.tokens), len(cases.first_sequence(case)), case.params.E.shape[1]
    count = int(case.labels.sum()) if case.model == "induction" else B
    known = {"a sum in place of the mean": count, "the mean taken twice": 1 / count,
             "a 2 missing": 0.5, "a 2 too many": 2.0, "1/√d": d ** -0.5, "√d": d ** 0.5,
             "1/T": 1 / T, "T": T, "1/B": 1 / B, "B": B, "the learning rate": case.sgd["lr"]}
    if case.model == "induction":
        known["mean over all positions, not the mask"] = count / (B * T)
    else:
        width = len(case.params.WKQ)
        known.update({"1/√(d+dp)": width ** -0.5, "√(d+dp)": width ** 0.5})
    return " or ".join(words for words, value in known.items()
                       if value != 1 and abs(factor - value) <= 1e-5 * value)
