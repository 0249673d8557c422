"""Claims to attack the audit with."""

import numpy as np

from refimpl.claims import claim

TEXT = "a text"


def example(**changes):
    """A claim on sums of squares, true as it stands; the control has one term less."""
    arguments = {**dict(source="school", provenance="derived", control="one term less", n=(1, 50)),
                 **changes}

    @claim("X1", "squares add up", **arguments)
    def squares(case, n):
        """Σ_{i≤n} i² = n (n+1) (2n+1) / 6, by induction."""
        numbers = np.arange(1, n + (0 if case.control else 1))
        return n * (n + 1) * (2 * n + 1) / 6, float(np.sum(numbers ** 2))
    return squares


def wrong(check, **changes):
    """The same claim with another check."""
    return example(**changes)._replace(check=check)


MINE = '''
from refimpl.claims import claim

def square(x):
    return x * x

@claim("X1", "squares of sums", source="school", provenance="derived", control="no cross term",
       x=(0.5, 9.0), y=(0.5, 9.0))
def binomial(case, x, y):
    return square(x) + (0 if case.control else 2 * x * y) + square(y), square(x + y)

@claim("X2", "squares of sums, subtly wrong", source="school", provenance="derived",
       control="no cross term", n=(1, 40))
def wrong(case, n):
    return (0 if case.control else n * n + 2 * n) + 1, (n + 1) ** 2 + (n > 11)
'''
