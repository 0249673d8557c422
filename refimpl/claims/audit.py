"""The audit: run claims on drawn instances, and their controls, and make failing instances small."""

import importlib.util
import math
import time
import zlib
from typing import Any, NamedTuple

import numpy as np

from refimpl import check
from refimpl.claims import associative, convergence, finetuning, induction, noise, recall, samples
from refimpl.claims.claim import Claim, draw
from refimpl.claims.verdict import breaks, evaluate, fails

FULL = 10           # with --full: how many times the instances of a claim that is no limit
CONTROLS = 10       # instances of a control, all of which must fail
SHRINKS = 300       # evaluations spent on making a failing instance smaller

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
    numbers: int                # compared in all
    worst: float                # largest error
    margin: Any                 # of an inequality: the smallest, relative; else None
    margin_at: Any              # the instance that has it
    accepted: list              # of a limit: (low, high) for each single number, what no instance rejects
    controls: int               # instances of the control
    controls_failed: int        # as they must: with finite numbers beyond the tolerance
    failure: Any                # None, or the smallest failing instance that was found
    message: str                # what a failing instance raised or returned
    control_passed: Any         # None, or the first instance at which the control did not fail as it must
    control_message: str        # what it raised or returned there
    seconds: float

    @property
    def control_failed(self):
        """Whether the control failed in every instance."""
        return self.controls_failed == self.controls > 0

    @property
    def passed(self):
        """Whether all instances agree and the control fails in all of its own."""
        return self.failure is None and self.instances > 0 and self.control_failed

    def as_json(self):
        """The documented JSON entry; numbers that are not finite are null."""
        c = self.claim
        entry = {"id": c.id, "statement": c.statement, "source": c.source, "provenance": c.provenance,
                 "kind": c.kind, "exact": c.exact, "instances": self.instances, "numbers": self.numbers,
                 "worst": self.worst, "tolerance": c.tolerance, "margin": self.margin,
                 "margin_at": self.margin_at, "accepted": self.accepted, "control": c.control,
                 "controls": self.controls, "controls_failed": self.controls_failed,
                 "control_failed": self.control_failed, "passed": self.passed,
                 "seconds": round(self.seconds, 3), "failure": self.failure, "message": self.message,
                 "control_passed": self.control_passed, "control_message": self.control_message}
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in entry.items()}


def audit(claim, text, cases=None, seed=0, instance=None, progress=lambda done, total: None,
          full=False):
    """Run a claim on `cases` instances, or on one given instance, and its control on up to ten.

    `full` takes ten times the default number of instances of a claim that is no limit; a limit sees it in
    its Case, measures over its whole range instead, and is not shrunk: that would take hours. The same
    seed draws the same instances, whatever other claims run. Returns a Result. Raises ValueError unless
    cases ≥ 1 and seed ≥ 0.
    """
    start = time.perf_counter()
    seed = check.integer("seed", seed, 0, 2 ** 63)
    cases = claim.cases * (FULL if full and claim.exact else 1) if cases is None else \
        check.integer("cases", cases, 1)
    if instance is not None:
        instances, controls = [instance], [instance]
    else:
        instances = draw_all(claim.space, claim.id, seed, cases)
        controls = draw_all(claim.control_space, f"{claim.id} control", seed, min(cases, CONTROLS))
    total, outcomes = len(instances) + len(controls), []
    for each in instances:
        outcomes.append(evaluate(claim, each, text, full=full))
        progress(len(outcomes), total)
    broken = []
    for each in controls:
        broken.append(evaluate(claim, each, text, True, full))
        progress(len(outcomes) + len(broken), total)
    failure, message = next(((each, outcome.message) for each, outcome in zip(instances, outcomes)
                             if fails(claim, outcome)), (None, ""))
    if failure is not None and not (full and not claim.exact) and instance is None:
        failure = shrink(claim, failure, text)
        message = evaluate(claim, failure, text).message
    control_passed, control_message = next(
        ((each, outcome.message) for each, outcome in zip(controls, broken) if not breaks(claim, outcome)),
        (None, ""))
    margins = [(outcome.margin, at) for outcome, at in zip(outcomes, instances) if outcome.margin is not None]
    margin, margin_at = min(margins, key=lambda pair: pair[0], default=(None, None))
    accepted = [(max(low for low, _ in bounds), min(high for _, high in bounds))
                for bounds in zip(*(outcome.accepted for outcome in outcomes))]
    return Result(claim, len(instances), sum(outcome.numbers for outcome in outcomes),
                  max(outcome.error for outcome in outcomes), margin, margin_at, accepted, len(controls),
                  sum(breaks(claim, outcome) for outcome in broken), failure, message, control_passed,
                  control_message, time.perf_counter() - start)


def draw_all(space, key, seed, count):
    """So many instances, which depend on the key and the seed alone."""
    streams = np.random.SeedSequence([seed, zlib.crc32(key.encode())]).spawn(count)
    return [draw(space, np.random.default_rng(stream), i) for i, stream in enumerate(streams)]


def builtin():
    """The project's own claims, in the order of the theory."""
    modules = associative, induction, recall, finetuning, samples, convergence, noise
    return [claim for module in modules for claim in collect(module)]


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
