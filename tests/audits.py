"""Claims under hypothesis, and mutants of the theory that a claim's own check must catch."""

import types
from importlib import import_module
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from refimpl import claims

TEXT = "the cat sat on the mat; a fat rat ran at that hat, and then the cat and the rat sat there. " * 20


@st.composite
def instances(draw, claim):
    """An instance of a claim's space, which hypothesis can shrink."""
    kinds = {int: st.integers, float: st.floats}
    instance = {name: draw(st.sampled_from(values) if isinstance(values[0], str)
                           else kinds[type(values[0])](*values)) for name, values in claim.space.items()}
    return {**instance, "seed": draw(st.integers(0, 2 ** 31 - 1))}


def holds(claim, instance, **kwargs):
    """Whether the claim holds on this instance, and did not raise."""
    outcome = claims.evaluate(claim, instance, TEXT, **kwargs)
    assert not outcome.message, outcome.message
    return not claims.fails(claim, outcome)


def mutated(module, old, new):
    """A copy of a module whose source has `new` in place of `old`, which must occur exactly once."""
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    assert source.count(old) == 1, f"{source.count(old)} times: {old}"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), vars(copy))
    return copy


def caught(module, old, new, chosen, cases=12):
    """Whether one of the claims fails, on some of its drawn instances, when `module` is mutated."""
    name = module.__name__.rsplit(".", 1)[-1]
    with mock.patch.object(import_module("refimpl.induction.claims"), name, mutated(module, old, new)):
        for claim in chosen:
            for index in range(cases):
                instance = claims.draw(claim.space, np.random.default_rng(index), index)
                outcome = claims.evaluate(claim, instance, TEXT)
                # A mutant that raises shows nothing of the check.
                if claims.fails(claim, outcome) and not outcome.message:
                    return True
    return False
