"""The verdict on one instance: what a check returned, compared part by part."""

import errno
import math
from typing import Any, NamedTuple, Optional

import numpy as np

from refimpl.claims.claim import Case
from refimpl.gradcheck import relative_error
from refimpl.terminal import first_line

# Not the claim's fault: the machine cannot write or is out of space, for compiled code for example.
MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
EXACT = 2 ** 53     # larger integers lose digits as floats


class Outcome(NamedTuple):
    """What became of one instance."""

    error: float                        # in units that `tolerance` counts; inf if nothing was compared
    message: str = ""                   # why nothing was compared: what was raised, or returned
    predicted: Any = None               # as the check returned them
    observed: Any = None
    numbers: int = 0                    # how many were compared
    margin: Optional[float] = None      # of an inequality: the smallest, relative
    accepted: tuple = ()                # of a limit: how far off each single prediction may be, and pass


def evaluate(claim, instance, text, control=False, full=False, **more):
    """Check one instance, a dict that holds a value for each name of the space, and a seed.

    A check that raises has failed, whatever it raises; only an interrupt, and a machine that cannot write,
    end the audit. `more` are fields of its Case.
    """
    predicted = observed = None
    try:
        values = dict(instance)
        case = Case(np.random.default_rng(values.pop("seed")), control, text, full, **more)
        predicted, observed, third = unpack(claim.kind, claim.check(case, **values))
        outcome = compare(claim.kind, predicted, observed, third)
        return outcome._replace(predicted=predicted, observed=observed)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in MACHINE:
            raise OSError(error.errno, f"{error.strerror}, while {claim.id} ran; "
                                       "Numba writes compiled code to NUMBA_CACHE_DIR") from error
        return Outcome(math.inf, first_line(error), predicted, observed)


def fails(claim, outcome):
    """Whether an outcome contradicts the claim."""
    return not outcome.error <= claim.tolerance


def breaks(claim, outcome):
    """Whether an outcome of the control shows what it must: finite numbers beyond the tolerance."""
    return not outcome.message and math.isfinite(outcome.error) and fails(claim, outcome)


def unpack(kind, result):
    """What a check returned as (predicted, observed, third item or None)."""
    wanted = {"exact": "(predicted, observed[, scale])", "inequality": "(smaller, larger[, scale])",
              "limit": "(predicted, observed, allowed)"}[kind]
    if not isinstance(result, tuple) or hasattr(result, "_fields") or not (
            len(result) == 3 or len(result) == 2 and kind != "limit"):
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        raise TypeError(f"the check returned {found}, not {wanted}")
    return result if len(result) == 3 else (*result, None)


def compare(kind, predicted, observed, third=None):
    """The Outcome of two values, part by part. Raises ValueError or TypeError where they do not compare.

    Parts must be as many, of equal shapes, not empty, and finite. A NamedTuple is one part of an exact
    claim: the gradients of one model, whose fields have one size together.
    """
    left, right = parts(predicted), parts(observed)
    if len(left) != len(right) or not left:
        raise ValueError("expected as many parts observed as predicted, at least one, got "
                         f"{len(right)} and {len(left)}")
    thirds = [None] if third is None else parts(third)
    thirds = thirds * len(left) if len(thirds) == 1 else thirds
    if len(thirds) != len(left):
        raise ValueError(f"expected one scale or allowed difference, or one for each part, got {len(thirds)}")
    with np.errstate(over="ignore"):        # a gap that overflows is infinite, and fails
        outcomes = [compare_part(kind, *each) for each in zip(left, right, thirds)]
    return Outcome(max(o.error for o in outcomes), numbers=sum(o.numbers for o in outcomes),
                   margin=min((o.margin for o in outcomes if o.margin is not None), default=None),
                   accepted=sum((o.accepted for o in outcomes), ()))


def parts(value):
    """The parts of a value: a tuple or list, however nested, has those of its items."""
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return [part for item in value for part in parts(item)]
    return [value]


def compare_part(kind, predicted, observed, third):
    """The Outcome of one part."""
    if hasattr(predicted, "_fields") or hasattr(observed, "_fields"):
        if type(predicted) is not type(observed):
            raise ValueError(f"expected equal types, got {type(predicted).__name__} predicted and "
                             f"{type(observed).__name__} observed")
        outcome = compare(kind, tuple(predicted), tuple(observed), third)
        if kind != "exact" or third is not None:
            return outcome
        return outcome._replace(error=relative_error(predicted, observed))
    a, b = numbers(predicted, observed)
    kinds = a.dtype.kind + b.dtype.kind
    if third is not None:
        third, _ = numbers(third, third)
        if third.shape not in ((), a.shape) or third.dtype.kind == "c" or third.min() < 0:
            raise ValueError("expected scales or allowed differences that are finite, >= 0 and one or of "
                             f"shape {a.shape}, got {third}")
    largest = max(np.abs(a).max(), np.abs(b).max())
    if kind == "limit":
        accepted = ((float(b - third - a), float(b + third - a)),) if a.ndim == 0 and "c" not in kinds else ()
        return Outcome(largest_ratio(np.abs(a - b), third), numbers=a.size, accepted=accepted)
    if kind == "inequality":
        if "c" in kinds:
            raise ValueError("expected real numbers on both sides of an inequality, got complex ones")
        if third is not None and third.min() <= 0:
            raise ValueError(f"expected the size of an inequality to be > 0, got {third}")
        margin = float(((b - a) / (third if third is not None else largest or 1.0)).min())
        return Outcome(max(0.0, -margin), numbers=a.size, margin=margin)
    size = largest if third is None else np.maximum(largest, third)
    return Outcome(largest_ratio(np.abs(a - b), size), numbers=a.size)


def numbers(predicted, observed):
    """Two arrays of one shape, not empty, of finite numbers; booleans count 0 and 1."""
    a, b = np.asarray(predicted), np.asarray(observed)
    for array in (a, b):
        if array.dtype.kind not in "biufc":
            raise TypeError(f"expected numbers, got dtype {array.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"expected equal shapes, got {a.shape} predicted and {b.shape} observed")
    if a.size == 0:
        raise ValueError(f"expected at least one number, got shape {a.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("expected finite numbers, got others")
    for array in (a, b):
        if array.dtype.kind in "iu" and (array.min() < -EXACT or array.max() > EXACT):
            raise ValueError(f"expected integers of at most 2^53, got {array.min()}..{array.max()}")
    return a + 0.0, b + 0.0


def largest_ratio(gap, size):
    """The largest gap in units of its size; a gap of 0 is 0 in every unit."""
    unit = np.where(gap > 0, np.inf, 0.0)
    return float(np.divide(gap, size, out=unit, where=np.broadcast_to(size, gap.shape) > 0).max())
