"""The tolerances of the test vectors: honest rounding stays within them, and small mistakes do not."""

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from refimpl import ops, vectors
from refimpl.vectors import cases, files
from refimpl.vectors.compare import TOLERANCES, compare_arrays, digits_of, group

pytestmark = pytest.mark.jit       # hundreds of runs of every case
STORED = list(vectors.read(Path(__file__).parent / "vectors"))
# Logits near 1e3 are 0.5 and 4 apart in 16 bits; in the others three steps multiply rounding by 300 to 3000.
BEYOND_16_BITS = ("induction/large-logits", "recall/large-logits", "recall/long-prompts",
                  "induction/plain-sgd-absolute")
UNITS = {"float64": 2.0 ** -53, "float32": 2.0 ** -24, "float16": 2.0 ** -11, "bfloat16": 2.0 ** -8}


def rounded(case, unit, rng):
    """The case in float32, its weights rounded at random to one of the two nearest numbers of a format."""
    def each(w):
        mantissa, exponent = np.frexp(w)        # ½ ≤ |mantissa| < 1, where neighbours are `unit` apart
        return np.ldexp(np.floor(mantissa / unit + rng.random(w.shape)) * unit, exponent)
    return case._replace(params=case.params._make(each(w).astype(np.float32) for w in case.params))


def answers(case):
    """What a port writes: all that it was not given."""
    return {name: a for name, a in cases.arrays(case).items() if group(name) not in ("input", "param")}


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_honest_rounding_passes(precision, rng):
    """In 16 bits only the weights are rounded here, and what is known to be beyond them is left out."""
    for vector in STORED:
        for _ in range(3):
            report = compare_arrays(vector, answers(rounded(vector.case, UNITS[precision], rng)), precision)
            assert report.passed or "16" in precision and report.name in BEYOND_16_BITS, str(report)


def test_tolerances_are_a_few_roundings(rng):
    """No group allows more than 1e4 units; float32 does not pass as float64, nor float16 as float32."""
    for precision, unit in UNITS.items():
        assert all(0 <= allowed <= 1.1e4 * unit for allowed in TOLERANCES[precision].values())
    for precision, coarser in ("float64", "float32"), ("float32", "float16"):
        for vector in STORED:
            case = rounded(vector.case, UNITS[coarser], rng)
            if any((a != b).any() for a, b in zip(case.params, vector.case.params)):    # not 0 and 1 alone
                assert not compare_arrays(vector, answers(case), precision).passed, (vector.name, coarser)


# Masks of −10 in place of exclusion

def causal(S):
    """Keys after the query get the score −10."""
    weights = np.exp(np.where(np.tri(len(S), dtype=bool), S, S.dtype.type(-10)))
    return weights / weights.sum(axis=1, keepdims=True)


def slot(right):
    """Tokens outside the slot get −10 on their logit."""
    def wrong(logits, target, start, stop, *rest):
        outside = np.full(logits.shape[1], -10, logits.dtype)
        outside[start:stop] = 0
        return right(logits + outside, target, 0, logits.shape[1], *rest)
    return wrong


def backward(A, dA):
    return np.tril(A * (dA - (A * dA).sum(axis=1, keepdims=True)))


MASKS = {"induction": {"causal_softmax_forward": causal, "causal_softmax_backward": backward},
         "recall": {name: slot(getattr(ops, name))
                    for name in ("cross_entropy_forward", "cross_entropy_backward")}}
# Here all that is masked is by itself e^−10 of the rest, or less.
UNSEEN = {"recall/large-logits", "recall/one-token"}


@pytest.mark.parametrize("vector", [
    v for v in STORED if v.name not in UNSEEN and v.manifest["setting"].get("slot", True)
    and cases.first_sequence(v.case).size > 1], ids=lambda v: v.name)
def test_a_mask_of_minus_ten_is_no_float32_precision(vector):
    """In float32 and in float64: e^−10 is 5e-5, eight hundred roundings of float32."""
    for case in (vector.case, rounded(vector.case, UNITS["float32"], np.random.default_rng(0))):
        with patch.multiple(ops, **MASKS[case.model]):
            wrong = answers(case)
        for precision in ("float64", "float32"):
            report = compare_arrays(vector, wrong, precision)
            assert not report.passed and "precision only" not in str(report), str(report)


@pytest.mark.parametrize("vector", [v for v in STORED if v.manifest["sgd"]["weight_decay"]
                                    and v.name != "recall/large-logits"], ids=lambda v: v.name)
def test_a_forgotten_weight_decay_is_no_float32_precision(vector):
    """The smallest term of all equations here: lr · decay is 7e-4 of a weight.

    In the case left out the only field that moves starts at 0.
    """
    case = rounded(vector.case, UNITS["float32"], np.random.default_rng(0))
    wrong = answers(case._replace(sgd={**case.sgd, "weight_decay": 0.0}))
    for precision in ("float64", "float32"):
        report = compare_arrays(vector, wrong, precision)
        assert not report.passed and "precision only" not in str(report), str(report)


def test_digits_are_those_of_the_worst_output():
    """A float32 answer has the digits that the manifest gives float32, and rounded outputs have seven."""
    assert [digits_of(error) for error in (0.0, 1e-13, 0.5, np.inf)] == [16.0, 13.0, 0.3, 0.0]
    for vector in STORED[::6]:
        single = vector.case._replace(params=vector.case.params._make(
            w.astype(np.float32) for w in vector.case.params))
        digits = compare_arrays(vector, answers(single), "float32").digits
        assert digits["yours"] == pytest.approx(digits["float32"], abs=0.6) and digits["reference"] > 12
        near = {name: a.astype(np.float32) for name, a in vector.arrays.items() if a.dtype.kind == "f"}
        assert 7.2 <= compare_arrays(vector, near, "float32").digits["yours"] < 9
        assert compare_arrays(vector._replace(manifest={**vector.manifest, "digits": {}}),
                              near, "float32").digits.keys() == {"array", "yours"}


def test_a_set_without_digits_is_read():
    """Sets that were written before manifests had digits have none."""
    vector = STORED[0]
    manifest = {key: value for key, value in vector.manifest.items() if key != "digits"}
    content = json.dumps(manifest).encode()
    assert files.read_manifest(content, vector.name)["digits"] == {}
    for wrong in ([], {"reference": {"grad": "14"}}, {"reference": [14]}, {"reference": {"grad": -1}}):
        with pytest.raises(ValueError, match="digits|items|values"):
            files.read_manifest(json.dumps({**manifest, "digits": wrong}).encode(), vector.name)
