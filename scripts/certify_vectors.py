"""How many digits the reference has: the arrays of the test vectors against the correctly rounded ones.

    PYTHONPATH=. python scripts/certify_vectors.py [V]

Digits are −log10 of the error as `vectors check` counts it, the worst array of each group: of what is stored,
and of the reference run in float32. The true values come from balls (tests/oracle.py), so python-flint is
needed. Takes half a minute; 16 digits stand for an error of at most 1e-16.
"""

import sys

import numpy as np

from refimpl import vectors
from refimpl.vectors import cases
from refimpl.vectors.compare import floors_of, gap, group
from tests import oracle

GROUPS = ("trace", "loss", "grad", "sgd1", "sgd3")


def digits(true, found):
    """{group: digits} of the worst array of each group."""
    floors, worst = floors_of({**found, **true}), dict.fromkeys(GROUPS, 1e-16)
    for name, array in true.items():
        worst[group(name)] = max(worst[group(name)], gap(array, found[name], floors[name])[0])
    return {name: round(float(-np.log10(error)), 1) for name, error in worst.items()}


def certify(vector):
    """Digits of the stored arrays and of a float32 run, by group."""
    case, true = vector.case, oracle.rounded(vector.case)
    single = case._replace(params=case.params._make(w.astype(np.float32) for w in case.params))
    return digits(true, vector.arrays), digits(true, cases.arrays(single))


def main(folder="tests/vectors"):
    """Print both for every case, and the least of all."""
    results = []
    print(f"{'digits, float64 / float32':38}" + "".join(f"{name:>13}" for name in GROUPS))
    for vector in vectors.read(folder):
        results.append(certify(vector))
        print(f"{vector.name:38}" + "".join(f"{results[-1][0][g]:6} /{results[-1][1][g]:5}" for g in GROUPS),
              flush=True)
    least = [{g: min(each[k][g] for each in results) for g in GROUPS} for k in (0, 1)]
    print(f"{'least':38}" + "".join(f"{least[0][g]:6} /{least[1][g]:5}" for g in GROUPS))


if __name__ == "__main__":
    main(*sys.argv[1:])
