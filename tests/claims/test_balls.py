"""`audit --digits`: exact claims enclosed on balls, and errors below rounding that this finds."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("flint", reason="needs python-flint: pip install 'refimpl[digits]'")

SUM = """
import numpy as np
from refimpl.claims.claim import claim


@claim("X1", "a softmax sums to one", source="textbook", provenance="derived", control="not normalised",
       n=(2, 9))
def softmax_sums_to_one(case, n):
    weights = np.exp(case.number(case.rng.normal(0, 1, n)))
    shares = weights if case.control else weights / weights.sum()
    return case.number(1.0) + case.number({error}), shares.sum()
"""


def audit(*words):
    """Exit status and rows of the audit, in a process of its own, whose kernels are plain Python."""
    ran = subprocess.run([sys.executable, "-m", "refimpl", "audit", *words], capture_output=True, text=True,
                         env=os.environ | {"PYTHONPATH": os.getcwd()})
    return ran.returncode, [line for line in ran.stdout.splitlines() if line[:1] in tuple("IMRX")], ran.stderr


def test_every_exact_claim_of_the_list_is_enclosed():
    status, rows, error = audit("--digits", "40", "--cases", "1")
    assert status == 0 and len(rows) >= 16 and all(row.endswith(" enclosed") for row in rows), (rows, error)


@pytest.mark.parametrize("error, status", [("0.0", 0), ("1e-16", 1)])
def test_an_error_below_rounding_is_found_on_balls_alone(error, status, tmp_path):
    path = tmp_path / "claims.py"
    path.write_text(SUM.format(error=error))
    assert audit("--from", str(path))[0] == 0
    assert audit("--from", str(path), "--digits", "40")[0] == status


def test_floats_rounded_before_are_no_balls(tmp_path):
    path = tmp_path / "claims.py"
    path.write_text(SUM[:SUM.index("    weights")] + "    return np.log(3) + case.control, np.log(3)\n")
    assert audit("--from", str(path))[0] == 0
    status, rows, error = audit("--from", str(path), "--digits", "40")
    assert status != 0 and "rounded before" in " ".join(rows) + error, (status, rows, error)
