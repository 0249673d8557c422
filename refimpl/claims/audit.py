"""The audit: run claims on drawn instances, and their controls, and make failing instances small."""

import importlib.util
import math
import time
import zlib
from typing import Any, NamedTuple

import numpy as np

from refimpl.claims import associative, finetuning, induction, recall
from refimpl.claims.claim import Case, Claim, draw
from refimpl.gradcheck import relative_error

FULL = 10           # with --full: how many times the instances of an exact claim
CONTROLS = 10       # instances of a control: one that fails is enough, their share is shown
SHRINKS = 300       # evaluations spent on making a failing instance smaller

class Outcome(NamedTuple):
    """What became of one instance."""

    error: float            # inf if the check raised, or shapes differ, or numbers are not finite
    message: str            # why, if it raised
    predicted: Any
    observed: Any


def evaluate(claim, instance, text, control=False, full=False):
    """Check one instance, a dict that holds a value for each name of the space, and a seed."""
    values = {name: value for name, value in instance.items() if name != "seed"}
    try:
        result = claim.check(Case(np.random.default_rng(instance["seed"]), control, text, full), **values)
        if not isinstance(result, tuple) or len(result) != (2 if claim.exact else 3):
            raise TypeError(f"the claim returned {type(result).__name__}, not (predicted, observed"
                            + (")" if claim.exact else ", allowed)"))
        return Outcome(distance(*result), "", result[0], result[1])
    except Exception as error:      # a claim that raises has failed; the others still run
        return Outcome(math.inf, f"{type(error).__name__}: {error}".partition("\n")[0], None, None)


def distance(predicted, observed, allowed=None):
    """Largest error over the parts, relative to the largest entry of each part, or to `allowed`.

    A NamedTuple is one part: the gradients of one model.
    """
    if isinstance(predicted, (tuple, list)) and not hasattr(predicted, "_fields"):
        if not isinstance(observed, (tuple, list)) or len(observed) != len(predicted):
            return math.inf
        limits = [allowed] * len(predicted) if not isinstance(allowed, (tuple, list)) else allowed
        return max((distance(*parts) for parts in zip(predicted, observed, limits)), default=math.inf)
    if allowed is None:
        return relative_error(predicted, observed)
    gap = np.max(np.abs(np.asarray(predicted) - observed) / allowed)
    return float(gap) if np.isfinite(gap) else math.inf


def fails(claim, outcome):
    """Whether an outcome contradicts the claim."""
    return not outcome.error <= claim.tolerance


def shrink(claim, instance, text):
    """A failing instance that is as small as simple steps make it: lower ends, halves, one less."""
    budget, smaller = SHRINKS, True
    while smaller and budget > 0:
        smaller = False
        for name in [*claim.space, "seed"]:
            for value in simpler(claim.space.get(name, (0, 2 ** 31)), instance[name]):
                budget -= 1
                candidate = {**instance, name: value}
                if fails(claim, evaluate(claim, candidate, text)):
                    instance, smaller = candidate, True
                    break
                if budget <= 0:
                    break
    return instance


def simpler(values, value):
    """Simpler values than this one within its range, the simplest first."""
    if isinstance(value, str):
        return values[:values.index(value)]
    low = values[0]
    if isinstance(value, int):
        return [v for v in dict.fromkeys([low, (low + value) // 2, value - 1]) if low <= v < value]
    steps = [low, (low + value) / 2, math.floor(value), value - 1, round(value - 0.1, 1)]
    return [float(v) for v in dict.fromkeys(steps) if low <= v < value]


class Result(NamedTuple):
    """The verdict on one claim."""

    claim: Claim
    instances: int
    worst: float                # largest error
    controls: int               # instances of the control
    controls_failed: int
    failure: Any                # None, or the smallest failing instance that was found
    message: str                # what a failing instance, or an instance of the control, raised
    seconds: float

    @property
    def control_failed(self):
        return self.controls_failed > 0

    @property
    def passed(self):
        return self.failure is None and self.control_failed

    def as_json(self):
        """The documented JSON entry; `worst` is null where it is not finite."""
        c = self.claim
        return {"id": c.id, "statement": c.statement, "source": c.source,
                "provenance": c.provenance, "exact": c.exact, "instances": self.instances,
                "worst": self.worst if math.isfinite(self.worst) else None,
                "tolerance": c.tolerance, "control": c.control,
                "control_failed": self.control_failed, "passed": self.passed,
                "seconds": round(self.seconds, 3), "failure": self.failure,
                "message": self.message}


def audit(claim, text, cases=None, seed=0, instance=None, progress=lambda done, total: None,
          full=False):
    """Run a claim on `cases` instances, or on one given instance, and its control on up to ten.

    `full` takes ten times the default number of instances of an exact claim; one that is not exact
    sees it in its Case, measures over its whole range instead, and is not shrunk: that would take
    hours. The same seed draws the same instances, whatever other claims run. Returns a Result.
    """
    start = time.perf_counter()
    cases = claim.cases * (FULL if full and claim.exact else 1) if cases is None else cases
    if instance is not None:
        instances = [instance]
    else:
        streams = np.random.SeedSequence([seed, zlib.crc32(claim.id.encode())]).spawn(cases)
        instances = [draw(claim.space, np.random.default_rng(s), i) for i, s in enumerate(streams)]
    # The middle of the list is neither all lows nor all highs, where there may be nothing to break.
    controls = (instances[2:] + instances[:2])[:CONTROLS]
    worst, failure, message = 0.0, None, ""
    for done, each in enumerate(instances):
        outcome = evaluate(claim, each, text, full=full)
        worst = max(worst, outcome.error)
        if failure is None and fails(claim, outcome):
            failure = each if full and not claim.exact else shrink(claim, each, text)
            message = evaluate(claim, failure, text, full=full).message
        progress(done + 1, len(instances) + len(controls))
    controls_failed = 0
    for done, each in enumerate(controls):
        outcome = evaluate(claim, each, text, True, full)
        # A control that raises has shown nothing: it is broken, not the assumption.
        controls_failed += fails(claim, outcome) and not outcome.message
        message = message or (outcome.message and f"control: {outcome.message}")
        progress(len(instances) + done + 1, len(instances) + len(controls))
    return Result(claim, len(instances), worst, len(controls), controls_failed, failure, message,
                  time.perf_counter() - start)


def builtin():
    """The project's own claims, in the order of the theory."""
    return [claim for module in (associative, induction, recall, finetuning) for claim in collect(module)]


def collect(module):
    """The claims of a module, in the order in which they were written."""
    return [value for value in vars(module).values() if isinstance(value, Claim)]


def load(path):
    """The claims of a Python file. Raises ValueError if it does not run, or holds none, or an id twice."""
    spec = importlib.util.spec_from_file_location("claims_of_user", path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}".partition("\n")[0]) from error
    claims = collect(module)
    ids = [c.id for c in claims]
    if not claims:
        raise ValueError(f"{path}: expected claims (functions under @claim), got none")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: expected distinct ids, got {', '.join(ids)}")
    return claims
