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
        return factor_words(case, factor) if a.ndim else None      # a scalar is a multiple of any other
    for axis in range(a.ndim):
        if shifted(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), same):
            return "shifted by one position"
    for axis, what in zip(range(a.ndim), ("rows", "columns")):
        if same(ordered(np.moveaxis(a, axis, 0)), ordered(np.moveaxis(b, axis, 0))):
            return f"{what} permuted"
    return None


def shifted(a, b, same):
    """Whether all rows but one have moved by one (and the rows differ, so that one can tell)."""
    if len(a) < 3 or same(a[1:], a[:-1]):
        return False
    return same(a[1:], b[:-1]) or same(a[:-1], b[1:])


def ordered(a):
    """The rows in an order that depends on their contents alone."""
    rows = a.reshape(len(a), -1)
    return a[(rows @ np.sqrt(1 + np.arange(rows.shape[1]))).argsort()]


def factor_words(case, factor):
    """A constant factor in words."""
    if factor == -1 or abs(factor + 1) < 1e-6:
        return "negated"
    meaning = factor_meaning(case, factor)
    return f"constant factor {factor:.6g}" + (f": {meaning}" if meaning else "")


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
