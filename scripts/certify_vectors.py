"""Write the test vectors of tests/, correctly rounded, and print how many digits the reference has.

    PYTHONPATH=. python scripts/certify_vectors.py [DIR]

The true values come from balls (tests/oracle.py), so python-flint is needed. Each number stored is the double
next to the true one. Digits are −log10 of the error as `vectors check` counts it, the worst array of each
group: of the reference, and of the reference run in float32; 16 stand for an error of at most 1e-16. Takes
two minutes.
"""

import sys

from refimpl import vectors
from tests import oracle

GROUPS = ("trace", "loss", "grad", "sgd1", "sgd3")


def main(folder="tests/vectors"):
    """Write them, and print the digits of every case and the least of all."""
    vectors.write(folder, oracle=oracle.rounded)
    print(f"{'digits, float64 / float32':38}" + "".join(f"{name:>13}" for name in GROUPS))
    found = {vector.name: [vector.manifest["digits"][who] for who in ("reference", "float32")]
             for vector in vectors.read(folder)}
    found["least"] = [{g: min(each[k][g] for each in found.values()) for g in GROUPS} for k in (0, 1)]
    for name, (reference, single) in found.items():
        print(f"{name:38}" + "".join(f"{reference[g]:6} /{single[g]:5}" for g in GROUPS))


if __name__ == "__main__":
    main(*sys.argv[1:])
