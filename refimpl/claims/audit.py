"""The audit: run claims on drawn instances, and their controls, and make failing instances small."""

import math
import time
import zlib
from typing import Any, NamedTuple

import numpy as np

from refimpl import check
from refimpl.claims import (
    associative, convergence, embeddings, finetuning, induction, learning, noise, recall)
from refimpl.claims.claim import SEEDS, Claim, collect, covers, draw
from refimpl.claims.verdict import breaks, evaluate, fails

FULL = 10           # with --full: how many times the instances of a claim that is no limit
CONTROLS = 10       # instances of a control, all of which must fail
SHRINKS = 300       # evaluations spent on making a failing instance smaller
CHUNK = 256         # instances that an executor gets at once, at most
ENCLOSED = ("M3", "I1", "I2", "I3", "I4", "I5", "I8", "I9", "I11", "IG",
            "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R9", "R13", "R19b", "RG")   # balls.py

# of the JSON entry of a claim
KEYS = ("id", "statement", "source", "provenance", "kind", "exact", "instances", "numbers", "worst",
        "tolerance", "margin", "margin_at", "accepted", "control", "controls", "controls_failed",
        "control_failed", "passed", "seconds", "failure", "message", "control_passed", "control_message")


def shrink(claim, instance, text):
    """A failing instance that is as small as simple steps make it: lower ends, halves, one less."""
    budget, before = SHRINKS, None
    while instance != before and budget > 0:
        before = instance
        for name, values in {**claim.space, "seed": SEEDS}.items():
            candidates = [{**instance, name: value} for value in simpler(values, instance[name])]
            for candidate in candidates[:budget]:
                budget -= 1
                if fails(claim, evaluate(claim, candidate, text)):
                    instance = candidate
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
    accepted: list              # of a limit: how far off each single prediction may be, and none rejects it
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
        """Whether all instances agree and the control fails in all of its own, which may be none."""
        return self.failure is None and self.instances > 0 and self.controls_failed == self.controls

    def as_json(self):
        """The documented JSON entry; numbers that are not finite are null."""
        values = {**self.claim._asdict(), **self._asdict(), "exact": self.claim.exact, "passed": self.passed,
                  "control_failed": self.control_failed, "seconds": round(self.seconds, 3)}
        return {key: None if isinstance(values[key], float) and not math.isfinite(values[key])
                else values[key] for key in KEYS}


def audit(claim, text, cases=None, seed=0, instance=None, progress=lambda done, total: None,
          full=False, executor=None):
    """Run a claim on `cases` instances, or on one given instance, and its control on up to ten.

    `full` takes ten times the default number of instances of a claim that is no limit; a limit sees it in
    its Case, measures over its whole range instead, and is not shrunk: that would take hours. The same
    seed draws the same instances. `executor`, any concurrent.futures.Executor, runs them elsewhere, with the
    same result. Returns a Result. Raises ValueError unless cases ≥ 1, 0 ≤ seed < 2^63 and the instance has a
    value in range for each name of the space, and a seed.
    """
    start = time.perf_counter()
    seed = check.integer("seed", seed, 0, 2 ** 63)
    cases = claim.cases * (FULL if full and claim.exact else 1) if cases is None else \
        check.integer("cases", cases, 1)
    if instance is None:
        instances = draw_all(claim.space, claim.id, seed, cases)
        controls = draw_all(claim.control_space, f"{claim.id} control", seed, min(cases, CONTROLS))
    elif covers(claim.space, instance):
        instances, controls = [instance], [instance] if covers(claim.control_space, instance) else []
    else:
        raise ValueError(f"instance: expected a seed, and values in {claim.space}, got {instance}")
    jobs = [(each, False) for each in instances] + [(each, True) for each in controls]
    done: list = []
    for some in spread(claim, jobs, text, full, executor):
        done += some
        progress(len(done), len(jobs))
    outcomes, broken = done[:len(instances)], done[len(instances):]
    failure, message = next(((each, outcome.message) for each, outcome in zip(instances, outcomes)
                             if fails(claim, outcome)), (None, ""))
    if failure is not None and (claim.exact or not full) and instance is None:
        failure = shrink(claim, failure, text)
        message = evaluate(claim, failure, text).message
    control_passed, control_message = next(((each, outcome.message) for each, outcome in zip(controls, broken)
                                            if not breaks(claim, outcome)), (None, ""))
    margins = [(outcome.margin, at) for outcome, at in zip(outcomes, instances) if outcome.margin is not None]
    margin, margin_at = min(margins, key=lambda pair: pair[0], default=(None, None))
    accepted = [(max(low for low, _ in bounds), min(high for _, high in bounds))
                for bounds in zip(*(outcome.accepted for outcome in outcomes))]
    return Result(claim, len(instances), sum(outcome.numbers for outcome in outcomes),
                  max(outcome.error for outcome in outcomes), margin, margin_at, accepted, len(controls),
                  sum(breaks(claim, outcome) for outcome in broken), failure, message, control_passed,
                  control_message, time.perf_counter() - start)


def spread(claim, jobs, text, full, executor):
    """Yield the outcomes of (instance, control) in order, a few at a time."""
    if executor is None:
        yield from (judge(claim, [job], text, full) for job in jobs)
        return
    size = max(1, min(CHUNK, len(jobs) // CHUNK))
    futures = [executor.submit(judge, claim, jobs[i:i + size], text, full) for i in range(0, len(jobs), size)]
    try:
        yield from (future.result() for future in futures)
    finally:
        for future in futures:
            future.cancel()


def judge(claim, jobs, text, full):
    """The outcomes of (instance, control), without what the check returned: that may be large."""
    return [evaluate(claim, instance, text, control, full)._replace(predicted=None, observed=None)
            for instance, control in jobs]


def draw_all(space, key, seed, count):
    """So many instances, which depend on the key and the seed alone."""
    streams = np.random.SeedSequence([seed, zlib.crc32(key.encode())]).spawn(count)
    return [draw(space, np.random.default_rng(stream), i) for i, stream in enumerate(streams)]


def builtin():
    """The project's own claims, in the order of the theory."""
    modules = (associative, induction, embeddings, learning, recall, finetuning, convergence, noise)
    return [claim for module in modules for claim in collect(module)]
