"""Same seed, same bits: from run to run, and with any number of threads of Numba and OpenBLAS."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib
import numpy as np
from refimpl import induction, recall, sgd

rng = np.random.default_rng(4)
bigram = induction.Bigram.random(12, rng)

def batches():
    while True:
        batch = induction.sample(bigram, 3, 10, rng, triggers=2)
        mask = batch.occurrence >= 0
        yield batch.tokens, mask

params = induction.init(12, 24, 10, rng)
for step in sgd.train(params, batches(), induction.loss_and_grads, lr=0.5, momentum=0.9):
    if step.step == 5:
        break
facts = recall.Facts.latin(9, 3, rng)
prompts = recall.sample(facts, 2, 4, rng)
loss, grads = recall.loss_and_grads(recall.construct(facts, 2, 5.0), *prompts.infer())
# Products that OpenBLAS would share out among its threads, at sizes where that changes their last bits.
wide, tokens = induction.init(65, 257, 90, rng), rng.integers(0, 65, (9, 91))
wide = wide._replace(WK1=wide.WV.copy(), WK2=wide.Phi.copy(), WO=wide.WV.T.copy(), WF=wide.Phi.T.copy())
tables = induction.tables.loss_and_grads(wide, tokens, rng.random((9, 90)) < 0.6)
digest = hashlib.sha256()
for array in (*step.params, np.array([step.loss, step.gradient_norm, loss, tables[0]]), *grads, *tables[1]):
    digest.update(np.ascontiguousarray(array).tobytes())
print(digest.hexdigest())
"""


def digest_with(threads):
    """What the program prints with this many Numba threads, and as many of OpenBLAS."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
                          env={**os.environ, "NUMBA_NUM_THREADS": str(threads),
                               "OPENBLAS_NUM_THREADS": str(threads)})
    return done.stdout


@pytest.mark.jit
def test_training_has_the_same_bits_with_one_thread_and_with_many():
    first = digest_with(1)
    assert len(first) == 65 and digest_with(1) == first and digest_with(2) == first
