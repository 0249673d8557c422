import numpy as np
import pytest

from refimpl import gradcheck
from refimpl.induction import Params, forward, init, ledger


@pytest.fixture
def prompt(rng):
    """params, tokens (9,)."""
    params = Params(*(a + rng.normal(0, 0.7, a.shape) for a in init(5, 6, 12, rng)))
    return params, rng.integers(0, 5, 9)


def test_ledger_parts_add_up_and_each_is_its_memory(prompt):
    params, z = prompt
    trace, parts = forward(params, z), ledger.logits(params, z)
    assert gradcheck.relative_error(sum(parts.values()), trace.logits) <= 1e-12
    assert len(parts) == 8 and set(ledger.COMPOSITE) < set(parts)
    # A memory that is emptied takes its own parts with it and no other.
    without = ledger.logits(params._replace(WF=0 * params.WF), z)
    for name, part in without.items():
        if "WF" in name:
            assert (part == 0).all()
        else:
            np.testing.assert_array_equal(part, parts[name])


def test_score_ledger_adds_up_and_each_block_is_its_memory(prompt):
    params, z = prompt
    blocks = ledger.scores(params, z)
    assert gradcheck.relative_error(sum(blocks.values()), forward(params, z).scores2) <= 1e-12
    bare = ledger.scores(params._replace(Phi=0 * params.Phi), z)
    assert all((bare[name] == 0).all() for name in ("EP", "PE", "PP"))
    np.testing.assert_array_equal(bare["EE"], blocks["EE"])
