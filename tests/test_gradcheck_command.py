"""`gradcheck FILE.py`: wrong gradients of common layers are named, right ones pass, bad files are a line."""

import subprocess
import sys

import numpy as np
import pytest

from refimpl import gradient_verdict
from refimpl.__main__ import main

LAYERS = """
import numpy as np
rng = np.random.default_rng(1)

def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
"""
SOFTMAX = LAYERS + """
point, g = rng.normal(size=(2, 3, 5))
def f(x): return (g * softmax(x)).sum()
def grad(x):
    p = softmax(x)
    return {}
"""
NORM = LAYERS + """
point, g = rng.normal(size=(2, 3, 6))
def std(x): return np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).mean(1, keepdims=True) + 1e-5)
def f(x): return (g * (x - x.mean(1, keepdims=True)) / std(x)).sum()
def grad(x):
    h = (x - x.mean(1, keepdims=True)) / std(x)
    mean, along = g.mean(1, keepdims=True), h * (g * h).mean(1, keepdims=True)
    return {}
"""
ATTENTION = LAYERS + """
T, d = 6, 5
x, g = rng.normal(size=(2, T, d))
mask = np.tril(np.ones((T, T), bool))
point = dict(WQ=rng.normal(size=(d, d)), WK=rng.normal(size=(d, d)))
def weights(p):
    e = np.exp(x @ p["WQ"].T @ (x @ p["WK"].T).T / np.sqrt(d)) * mask
    return e / e.sum(1, keepdims=True)
def f(p): return (g * (weights(p) @ x)).sum()
def grad(p):
    A, dA = weights(p), g @ x.T
    dS = A * (dA - (A * dA).sum(1, keepdims=True)) / np.sqrt(d)
    q, k = x @ p["WQ"].T, x @ p["WK"].T
    dWQ, dWK = (dS @ k).T @ x, (dS.T @ q).T @ x
    return {}
"""
LOSS = LAYERS + """
T, V = 8, 5
point, z, mask = rng.normal(size=(T, V)), rng.integers(0, V, T), np.array([1, 1, 0, 1, 0, 1, 1, 0], bool)
def f(x): return -np.log(softmax(x)[np.arange(T), z])[mask].mean()
def grad(x):
    p, hot = softmax(x), np.eye(V)[z]
    return {}
"""
EMBEDDING = LAYERS + """
z, g = np.array([2, 0, 2, 3]), rng.normal(size=(4, 5))
point = rng.normal(size=(4, 5))
def f(E): return np.sin(g * E[z]).sum()
def grad(E):
    d, dE = g * np.cos(g * E[z]), np.zeros_like(E)
    {}
    return dE
"""
LINEAR = LAYERS + """
from typing import NamedTuple
class Layer(NamedTuple):
    W: np.ndarray
    b: np.ndarray
x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
point = Layer(rng.normal(size=(3, 4)), rng.normal(size=3))
def f(p): return ((x @ p.W.T + p.b - y) ** 2).sum() + 0.1 * (p.W ** 2).sum()
def grad(p):
    r = 2 * (x @ p.W.T + p.b - y)
    return Layer({})
"""
VECTOR = LAYERS + """
point = np.array({})
def f(x): return {}
def grad(x): return {}
"""
# name -> file, and the verdict on each of its arrays
WRONG = {
    "softmax without its mean": (SOFTMAX.format("p * g"), "lacks in each row a multiple of softmax(x)"),
    "layer norm without its mean": (NORM.format("(g - along) / std(x)"), "lacks in each row a constant"),
    "layer norm without its scale": (NORM.format("(g - mean) / std(x)"), "a constant and a multiple of x"),
    "attention without 1/√d": (
        ATTENTION.format("dict(WQ=dWQ * np.sqrt(d), WK=dWK)"),
        "√(5) times the gradient: is a scale, such as 1/√5, forgotten", "right to 1"),
    "attention transposed": (ATTENTION.format("dict(WQ=dWQ, WK=dWK.T)"), "right to 1", "WRONG: transposed"),
    "queries and keys exchanged": (ATTENTION.format("dict(WQ=dWK, WK=dWQ)"), "like no mistake", "like no"),
    "cross-entropy, all positions": (LOSS.format("(p - hot) * mask[:, None] / T"),
                                     "5/8 times the gradient: a mean over 8 in place of one over 5"),
    "cross-entropy, a sum": (LOSS.format("(p - hot) * mask[:, None]"),
                             "5 times the gradient: a sum over 5 in place of a mean"),
    "cross-entropy, no mask": (LOSS.format("(p - hot) / mask.sum()"),
                               "not 0 in row 2, 4, 7, where f does not move: is a mask left out"),
    "cross-entropy, no target": (LOSS.replace("1, 1, 0, 1, 0, 1, 1, 0", "1, 1, 1, 1, 1, 1, 1, 1")
                                 .format("p / T"), "wrong in one entry of each row: is the target's term"),
    "embedding overwritten": (EMBEDDING.format("dE[z] = d"), "wrong in row 2 alone: "),
    "embedding, first token": (EMBEDDING.format("np.add.at(dE, z[1:], d[1:])"), "wrong in row 2 alone"),
    "embedding, one token": (EMBEDDING.format("np.add.at(dE, z[[0, 1, 2]], d[[0, 1, 2]])"),
                             "0 in row 3: left out?"),
    "linear, half, no penalty": (LINEAR.format("r.T @ x, r.sum(0) / 2"),
                                 "lacks the term c x, as of a penalty c/2 |x|², c = 0.2",
                                 "1/2 times the gradient: a mean over 2 in place of a sum, or the 2"),
    "linear, a mean, no batch": (LINEAR.format("-(r.T @ x + 0.2 * p.W), r"), "WRONG: negated",
                                 "not summed over its first axis, shape (7, 3), expected (3,)"),
    "linear, zero and nan": (LINEAR.format("0 * p.W, p.b * np.nan"), "all zero", "not finite in 3 of 3"),
    "maximum counts ties twice": (VECTOR.format("[1.0, 2.0, 2.0, 0.5]", "x.max()", "(x == x.max()) * 1.0"),
                                  "WRONG only at kinks or ties, as at [1]"),
    "relu at 0": (VECTOR.format("[0.0, 1.0, -1.0]", "(np.array([3, 1, 2]) * np.maximum(x, 0)).sum()",
                                "np.array([3, 1, 2]) * np.where(x == 0, 2, x > 0)"), "WRONG only at kinks"),
    "rounded": (VECTOR.format("[0.2, 1.7]", "np.round(x).sum()", "np.ones(2)"), "f does not move with it"),
    "a jump": (VECTOR.format("[0.0, 1.0]", "(x > 0).sum() + x.sum()", "np.ones(2)"),
               "not differentiable at [0]"),
    "a root": (VECTOR.format("[0.0, 1.0]", "np.sqrt(np.maximum(x, 0)).sum()", "np.array([0.0, 0.5])"),
               "not differentiable at [0]"),
    "an eps left out": (NORM.format("(g - mean - along) / np.sqrt(std(x) ** 2 - 1e-5)"),
                        "in each row another factor, 1.0000"),
    "an odd factor": (VECTOR.format("[0.2, 1.7, 0.3]", "np.exp(x).sum()", "1.2345678 * np.exp(x)"),
                      "1.23457 times the gradient"),
    "negated and doubled": (VECTOR.format("[0.2, 1.7, 0.3]", "np.exp(x).sum()", "-2 * np.exp(x)"),
                            "negated, and 2 times the gradient: a sum over 2 in place of a mean, or")}
RIGHT = {
    "softmax": SOFTMAX.format("p * (g - (p * g).sum(-1, keepdims=True))"),
    "layer norm": NORM.format("(g - mean - along) / std(x)"),
    "attention": ATTENTION.format("dict(WK=dWK, WQ=dWQ)"),
    "cross-entropy": LOSS.format("(p - hot) * mask[:, None] / mask.sum()"),
    "embedding": EMBEDDING.format("np.add.at(dE, z, d)"),
    "linear": LINEAR.format("r.T @ x + 0.2 * p.W, r.sum(0)"),
    "relu at 0, any choice": VECTOR.format(
        "[0.0, 1.0, -1.0, 0.0]", "(np.array([3, 1, 2, -1]) * np.maximum(x, 0)).sum()",
        "np.array([3, 1, 2, -1]) * (x > 0)"),
    "a tie split": VECTOR.format("[1.0, 2.0, 2.0]", "x.max()", "np.array([0, 0.5, 0.5])"),
    "real numbers only": VECTOR.format("[0.3, 2.0]", "float((x.real ** 2).sum())", "2 * x"),
    "conjugates, silently": VECTOR.format("[0.3, 2.0]", "np.vdot(x, x)", "2 * x"),
    "a constant": VECTOR.format("[0.3, 2.0]", "3.0", "0 * x"),
    "integers": VECTOR.format("[1, 2]", "(x ** 2).sum()", "2 * x"),
    "a number": VECTOR.format("0.5", "np.sin(x)", "np.cos(x)"),
    "small and large": VECTOR.format("[1e-9, 3e-9]", "np.sin(1e9 * abs(x)).sum()", "1e9 * np.cos(1e9 * x)")}


def run(capsys, tmp_path, content, *options):
    path = tmp_path / "mine.py"
    path.write_text(content, encoding="utf-8")
    status = main(["gradcheck", str(path), *options])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_named(capsys, tmp_path, name):
    content, *expected = WRONG[name]
    status, out, err = run(capsys, tmp_path, content)
    assert status == 1 and err == ""
    for line, words in zip(out.splitlines(), expected, strict=False):
        assert words in line, out
        assert words.startswith("right") or "WRONG" in line


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass_with_many_digits(capsys, tmp_path, name):
    status, out, err = run(capsys, tmp_path, RIGHT[name])
    assert status == 0 and err == "" and "WRONG" not in out, out
    digits = [int(line.split("right to ")[1].split()[0]) for line in out.splitlines() if "right to" in line]
    assert min(digits) >= 9


NETWORK = LAYERS + """
x, y = rng.normal(size=(9, 4)), rng.normal(size=9)
point = dict(W=rng.normal(size=(6, 4)), none=np.zeros((0, 3)), u=rng.normal(size=6))
def f(p):
    W, u = (p[name].astype(np.float32) for name in "Wu")
    return ((np.tanh(x.astype(np.float32) @ W.T) @ u - y.astype(np.float32)) ** 2).mean(dtype=np.float32)
def grad(p):
    h = np.tanh(x @ p["W"].T)
    r = 2 * (h @ p["u"] - y) / len(y)
    return dict(W=(np.outer(r, p["u"]) * (1 - h ** 2)).T @ x, none=p["none"], u=h.T @ r)
"""


@pytest.mark.parametrize("seed", range(5))
def test_float32_gives_no_false_alarm_and_hides_no_mistake(capsys, tmp_path, seed):
    content = NETWORK.replace("default_rng(1)", f"default_rng({seed})")
    status, out, _ = run(capsys, tmp_path, content)
    assert status == 0 and "as in float32" in out, out
    wrong = content.replace("(1 - h ** 2)", "(1 - h)")
    status, out, _ = run(capsys, tmp_path, wrong)
    assert status == 1 and "W     (6, 4)   WRONG" in out and "u     (6,)     right" in out


@pytest.mark.parametrize("seed", range(5))
def test_large_arrays_of_small_and_large_numbers_are_right(capsys, tmp_path, seed):
    content = LAYERS.replace("default_rng(1)", f"default_rng({seed})") + """
point = dict(W=rng.normal(size=(20, 30)) * 1e-3, b=1e4 * rng.normal(size=20))
x = rng.normal(size=30)
def f(p): return float(np.abs(np.sin(p["W"] @ x + p["b"])).sum())
def grad(p):
    v = p["W"] @ x + p["b"]
    d = np.cos(v) * np.sign(np.sin(v))
    return dict(W=np.outer(d, x), b=d)
"""
    assert run(capsys, tmp_path, content)[0] == 0


SINGLE = VECTOR.format("[0.5, 1.5, -0.7]", "np.exp(np.float32(x)).sum(dtype=np.float32)", "{}")


def test_float32_is_said_and_shown_by_the_curve_over_the_step(capsys, tmp_path):
    status, out, _ = run(capsys, tmp_path, SINGLE.format("np.exp(x)"))
    assert status == 0 and "as in float32" in out
    errors = [float(line.split("error ")[1].split()[0]) for line in out.splitlines() if "  step" in line]
    best = int(np.argmin(errors))
    assert 0 < best < len(errors) - 1                       # a V: it falls with the step, then rises
    assert errors[0] > 3 * errors[best] and errors[-1] > 100 * errors[best]
    status, out, _ = run(capsys, tmp_path, SINGLE.format("np.exp(x) / 2"))
    assert status == 1 and "1/2 times the gradient" in out     # control: coarse numbers hide no such mistake


def test_points_are_drawn_and_the_worst_is_told(capsys, tmp_path):
    content = VECTOR.replace("point = np.array({})", "def draw(rng): return rng.normal(size=4)").format(
        "(x ** 3).sum()", "3 * x ** 2 * np.where(x < -1, -1, 1)")
    found = {run(capsys, tmp_path, content, "--seed", str(seed))[0] for seed in range(12)}
    assert found == {0, 1}                                  # a draw may miss it: the seed is an argument
    assert run(capsys, tmp_path, content, "--seed", "3") == run(capsys, tmp_path, content, "--seed", "3")


@pytest.mark.parametrize("content, message", [
    ("def (", "SyntaxError"), ("x = 1", "no f"),
    ("def f(x): return 1.0", "no grad"),
    ("def f(x): return 1.0\ndef grad(x): return x", "no draw"),
    ("raise SystemExit(0)", "SystemExit"), ("import sys\nsys.exit('bye\\nbye')", "SystemExit: bye"),
    (VECTOR.format("[1.0]", "1 / 0", "x"), "ZeroDivisionError"),
    (VECTOR.format("[1.0]", "exit(0)", "x"), "SystemExit"),
    (VECTOR.format("[1.0]", "x.sum()", "x.nothing"), "AttributeError"),
    (VECTOR.format("[1.0]", "x", "x"), "f: expected shape"),
    (VECTOR.format("[1.0]", "np.log(-x).sum()", "x"), "f: expected finite numbers"),
    (VECTOR.format("[1.0]", "'one'", "x"), "f: expected real numbers"),
    (VECTOR.format("[1.0]", "rng.normal()", "x"), "f: expected the same number at the same point"),
    (VECTOR.format("[1.0]", "x.sum()", "['a']"), "grad: x: expected real numbers"),
    (VECTOR.format("[1.0]", "x.sum()", "None"), "grad: x: expected real numbers"),
    (VECTOR.format("[np.nan]", "x.sum()", "x"), "x: expected finite numbers"),
    (VECTOR.format("['a']", "x.sum()", "x"), "x: expected real numbers"),
    (VECTOR.format("[]", "x.sum()", "x"), "point: expected numbers, got none"),
    (LINEAR.format("p.W, p.b").replace("return Layer(p.W, p.b)", "return p.W, p.b"), "grad: W: expected"),
    ("point = {}\ndef f(x): return 1.0\ndef grad(x): return x", "point: ")])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_bad_file_is_one_line_and_status_2(capsys, tmp_path, content, message):
    status, out, err = run(capsys, tmp_path, content)
    assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1, err


def test_a_missing_file_and_a_bad_seed_are_refused(capsys, tmp_path):
    assert main(["gradcheck", str(tmp_path / "none.py")]) == 2
    assert "none.py" in capsys.readouterr().err
    assert run(capsys, tmp_path, RIGHT["softmax"], "--seed", "-1")[0] == 2


def test_it_runs_as_a_program(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(RIGHT["linear"], encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "refimpl", "gradcheck", str(path)], capture_output=True,
                          text=True)
    assert done.returncode == 0 and "2 of 2 arrays right" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("shape", [(2,), (3,), (5,), (1, 4), (4, 1), (2, 2), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("precision", [1e-9, 1e-4])
def test_what_is_wrong_at_random_gets_no_name(rng, shape, precision):
    for _ in range(100):
        a, b, x = rng.normal(size=(3, *shape))
        assert "like no mistake" in gradient_verdict.mistake(a, b, x, precision * abs(a).max())


def test_a_single_number_has_a_factor_and_no_story(rng):
    for _ in range(100):
        a, b, x = rng.uniform(0.3, 3, (3, 1))
        assert gradient_verdict.mistake(a, b, x, 1e-9 * a.max()).endswith("times the gradient")


@pytest.mark.parametrize("f, expected", [(np.exp, 1), (lambda h: np.sin(3 * h) / 3, 1), (lambda h: h ** 3, 0),
                                         (lambda h: 1e6 + h, 1)])
def test_extrapolated_differences_know_their_error(f, expected):
    value, bound = gradient_verdict.richardson(f, 1e-16)
    assert abs(value - expected) <= 10 * bound + 1e-13 and bound < 1e-8


def test_extrapolated_differences_of_a_jump_know_that_they_are_nothing():
    assert not gradient_verdict.richardson(lambda h: float(h > 0), 1e-16)[1] < 0.1
