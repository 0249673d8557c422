"""Sizes that do not fit into memory are refused with the estimate, before anything is allocated."""

import numpy as np
import pytest

from refimpl import associative, check, induction, recall
from refimpl.induction import nopos, probes
from refimpl.recall import batched


def rng():
    return np.random.default_rng(0)


NARROW = induction.init(3, 1, 400, rng())
BIGRAM = induction.Bigram.random(3, rng())
WIDE = recall.init(3, 2, 200, 140, 2, 3, rng())     # up to 402 tokens of width 142
ALONE = nopos.Params(*np.ones((2, 3, 1)), *np.ones((8, 1, 1)))
PAIRS = np.ones((1, 400))

CALLS = {
    "init": ("V, d, L", lambda: induction.init(2 ** 20, 2 ** 20, 2 ** 20, rng())),
    "orthonormal_frame": ("V, L", lambda: induction.orthonormal_frame(2 ** 20, 5, rng())),
    "forward": ("tokens", lambda: induction.forward(NARROW, np.zeros(400, int))),
    "loss": ("tokens", lambda: induction.loss(NARROW, np.zeros((1, 401), int), np.ones((1, 400), bool))),
    "loss_and_grads": ("tokens", lambda: induction.loss_and_grads(
        NARROW, np.zeros((1, 401), int), np.ones((1, 400), bool))),
    "Bigram.random": ("V", lambda: induction.Bigram.random(2 ** 30, rng())),
    "Bigram.from_text": ("text", lambda: induction.Bigram.from_text("".join(map(chr, range(400))))),
    "sample n": ("n, length", lambda: induction.sample(BIGRAM, 2 ** 30, 5, rng())),
    "sample length": ("n, length", lambda: induction.sample(BIGRAM, 5, 2 ** 30, rng())),
    "nopos frame": ("V", lambda: nopos.orthonormal_frame(2 ** 30, rng())),
    "nopos.forward": ("tokens", lambda: nopos.forward(ALONE, np.zeros(400, int))),
    "probes.WK1": ("params", lambda: probes.WK1(NARROW._replace(WK1=np.ones((1, 1))))),
    "write": ("u, v", lambda: associative.write(PAIRS, PAIRS)),
    "read": ("u, v", lambda: associative.read(np.ones((1, 1)), PAIRS.T, PAIRS.T)),
    "Facts.latin": ("N", lambda: recall.Facts.latin(2 ** 31 - 1, 2 ** 30, rng())),
    "recall.sample": ("n, count", lambda: recall.sample(recall.Facts.months(), 2, 2 ** 30, rng())),
    "recall.init": ("N, R, n, d, dp, m", lambda: recall.init(3, 2, 1, 2 ** 30, 1, 1, rng())),
    "recall.construct": ("facts", lambda: recall.construct(recall.Facts.latin(50, 9, rng()), 2, 1.0)),
    "recall.forward": ("tokens", lambda: recall.forward(WIDE, np.zeros(402, int))),
    "recall.loss": ("tokens", lambda: recall.loss(WIDE, np.zeros((1, 402), int), [0])),
    "recall.loss_and_grads": ("tokens", lambda: recall.loss_and_grads(WIDE, np.zeros((1, 402), int), [0])),
    "batched": ("tokens", lambda: batched.loss_and_grads(WIDE, np.zeros((50, 20), int), np.zeros(50, int))),
    "facts_as_prompts": ("facts", lambda: batched.facts_as_prompts(recall.Facts.latin(200, 100, rng()))),
}


@pytest.mark.parametrize("name", CALLS)
def test_sizes_beyond_memory_are_refused_with_the_estimate(name, monkeypatch):
    argument, call = CALLS[name]
    monkeypatch.setattr(check.os, "sysconf", lambda name: 1000)         # a machine of one megabyte
    with pytest.raises(ValueError, match=f"^{argument}: expected .* memory, .* GiB, got .* about .* GiB"):
        call()


def test_sizes_that_fit_are_not_refused(monkeypatch):
    """Control: a machine of 10 MB runs the calls above whose arguments are small."""
    monkeypatch.setattr(check.os, "sysconf", lambda name: 10_000_000 ** 0.5)
    for name in ("forward", "loss_and_grads", "Bigram.from_text", "nopos.forward", "probes.WK1", "write",
                 "read", "recall.forward", "recall.loss_and_grads", "batched", "facts_as_prompts"):
        CALLS[name][1]()
