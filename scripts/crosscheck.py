"""What both crosschecks do around their port: answer the vectors, have them checked, train side by side."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from refimpl import __main__, induction, recall, sgd, vectors

STEPS = 200
AGREE = 1e-11       # relative gap of the losses: rounding, which training may amplify; measured 2e-14


def main(answer, train, usage):
    """Check a port on the command line's folders; exit with 0 if all agrees, 1 if not, 2 if misused.

    answer : manifest, arrays -> dict of arrays, for one case
    train : model, start, setting, batches, SGD settings -> list of losses
    """
    if len(sys.argv) not in (2, 3):
        sys.exit(usage)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(sys.argv[2] if len(sys.argv) == 3 else temporary)
        for vector in vectors.read(sys.argv[1]):
            place = out / "v1" / vector.name
            place.mkdir(parents=True, exist_ok=True)
            np.savez(place / "arrays.npz", **answer(vector.manifest, vector.arrays))
        status = __main__.main(["vectors", "check", sys.argv[1], str(out)])
    agree = [side_by_side(train, *experiment) for experiment in experiments()]
    sys.exit(status or int(not all(agree)))


def experiments():
    """Yield model, start, setting, batches and SGD settings: fine-tuning of the trained matrices."""
    rng = np.random.default_rng(0)
    bigram = induction.Bigram.random(12, rng)
    start = induction.init(12, 48, 24, rng)
    drawn = [induction.sample(bigram, 8, 24, rng, triggers=2) for _ in range(STEPS)]
    yield ("induction", start, {"encoding": "relative"},
           [(batch.tokens, batch.occurrence >= 0) for batch in drawn],
           {"lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4, "trained": ("WK1", "WK2", "WO", "WF")})
    facts = recall.Facts.latin(12, 3, rng)
    start = recall.construct(facts, 2, lam=8)
    drawn = [recall.sample(facts, 2, 8, rng).recall() for _ in range(STEPS)]
    yield ("recall", start, {"activation": "square", "slot": drawn[0][2]},
           [(tokens, targets) for tokens, targets, _ in drawn],
           {"lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4, "trained": ("WKQ",)})


def side_by_side(train, model, start, setting, batches, settings):
    """Train the reference and the port on the same batches; print both losses. True if they agree."""
    def loss_and_grads(params, *batch):
        return {"induction": induction, "recall": recall}[model].loss_and_grads(params, *batch, **setting)

    reference = np.array([step.loss for step in sgd.train(start, batches, loss_and_grads, **settings)])
    port = np.array(train(model, start._asdict(), setting, batches, settings))
    gaps = np.abs(port / reference - 1)
    print(f"\n{model}: {len(batches)} steps side by side, losses in nats")
    print("step  reference          this port          relative gap")
    for step in (0, 1, 9, 49, 99, len(batches) - 1):
        print(f"{step:4}  {reference[step]:.15f}  {port[step]:.15f}  {gaps[step]:.1e}")
    print(f"largest gap {gaps.max():.1e} at step {gaps.argmax()}, allowed {AGREE:.0e}")
    return bool(gaps.max() <= AGREE)
