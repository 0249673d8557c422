"""State dicts of other code: the same logits, evaluated in that code's own equations, and what is refused."""

import re
import subprocess
import sys

import numpy as np
import pytest

from refimpl import induction, vectors
from refimpl.__main__ import main
from refimpl.vectors import dialects, probe
from refimpl.vectors.dialects import read, write

V, d, L, T = 7, 6, 9, 8
SETTINGS = [("birth", {}), ("birth", dict(no_sqrtd=True)),
            ("birth-full", dict(n_heads=1, pre_norm=False)), ("birth-full", dict(n_heads=1)),
            ("lens", dict(normalization_type=None)),
            ("lens", dict(normalization_type=None, use_attn_scale=False))]


def random_params(rng, **fields):
    params = induction.init(V, d, L, rng)
    return induction.Params(*(w + rng.normal(0, d ** -0.5, w.shape) for w in params))._replace(**fields)


def softmax(scores):
    """Causal, by the definition."""
    weights = np.tril(np.exp(scores - scores.max()))
    return weights / weights.sum(axis=1, keepdims=True)


def birth(state, z, no_sqrtd=False):
    """transformer-birth's basic model, rows of activations through torch's Linear: x @ weight.T."""
    h = state["tok_embeddings.weight"][z] + state["pe"][:len(z)]
    for layer in ("layers.0.", "layers.1."):
        wk, wv, wo = (state[f"{layer}attention.{name}.weight"] for name in ("wk", "wv", "wo"))
        scores = h @ (h @ wk.T).T / (1 if no_sqrtd else np.sqrt(d))
        h = h + softmax(scores) @ (h @ wv.T) @ wo.T
        if layer + "ff.weight" in state:
            h = h + h @ state[layer + "ff.weight"].T
    return h @ state["output.weight"].T


def birth_full(state, z, n_heads=1, pre_norm=True):
    """Its full model without LayerNorm; a pre-norm block's ff reads the block's input."""
    h = state["tok_embeddings.weight"][z] + state.get("pe", state.get("pos_embeddings.weight"))[:len(z)]
    for layer in ("layers.0.", "layers.1."):
        wq, wk, wv, wo = (state.get(f"{layer}attention.{name}.weight", np.eye(d))
                          for name in ("wq", "wk", "wv", "wo"))
        x = h
        h = h + softmax((h @ wq.T) @ (h @ wk.T).T / np.sqrt(d)) @ (h @ wv.T) @ wo.T
        if layer + "ff.weight" in state:
            h = h + (x if pre_norm else h) @ state[layer + "ff.weight"].T
    return h @ state["output.weight"].T


def lens(state, z, normalization_type=None, use_attn_scale=True):
    """TransformerLens, attention only: matrices [heads, in, out] act on rows from the right."""
    x = state["embed.W_E"][z] + state["pos_embed.W_pos"][:len(z)]
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        W_Q, W_K, W_V, W_O = (state[block + name][0] for name in ("W_Q", "W_K", "W_V", "W_O"))
        scale = np.sqrt(W_Q.shape[1]) if use_attn_scale else 1
        x = x + softmax((x @ W_Q) @ (x @ W_K).T / scale) @ (x @ W_V) @ W_O
    return x @ state["unembed.W_U"]


EQUATIONS = {"birth": birth, "birth-full": birth_full, "lens": lens}


def agree(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * abs(b).max())


@pytest.mark.parametrize("dialect, options", SETTINGS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_is_the_model_in_that_dialects_equations(dialect, options, seed):
    rng = np.random.default_rng(seed)
    params = random_params(rng, **({"WF": np.zeros((d, d))} if options == dict(n_heads=1) else {}))
    z = rng.integers(0, V, T)
    logits = induction.forward(params, z, "absolute").logits
    state = write(params, dialect, **options)
    agree(EQUATIONS[dialect](state, z, **options), logits)
    agree(induction.forward(read(state, dialect, **options), z, "absolute").logits, logits)


@pytest.mark.parametrize("dialect, options", SETTINGS)
def test_a_state_dict_of_random_numbers_is_read_as_its_own_equations_say(dialect, options, rng):
    """Every array that the dialect has is random: W_Q, and both factors of each product."""
    state = {name: rng.normal(0, 0.5, w.shape)
             for name, w in write(random_params(rng, WF=np.zeros((d, d))), dialect, **options).items()}
    if options == dict(n_heads=1):
        del state["layers.1.ff.weight"]
    z = rng.integers(0, V, T)
    expected = EQUATIONS[dialect](state, z, **options)
    agree(induction.forward(read(state, dialect, **options), z, "absolute").logits, expected)
    for name in state:                      # control: no array may be without effect
        changed = {**state, name: state[name] + rng.normal(0, 0.5, state[name].shape)}
        assert abs(induction.forward(read(changed, dialect, **options), z, "absolute").logits
                   - expected).max() > 1e-3, name


@pytest.mark.parametrize("width", [2, 5, 11])
def test_a_head_of_any_width_is_read(rng, width):
    state = write(random_params(rng), "lens", normalization_type=None)
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        for name in ("W_Q", "W_K", "W_V"):
            state[block + name] = rng.normal(0, 0.5, (1, d, width))
        state[block + "W_O"] = rng.normal(0, 0.5, (1, width, d))
    z = rng.integers(0, V, T)
    params = read(state, "lens", normalization_type=None)
    agree(induction.forward(params, z, "absolute").logits, lens(state, z))


def test_the_full_model_may_leave_values_out_and_use_sines(rng):
    state = write(random_params(rng), "birth-full", n_heads=1, pre_norm=False)
    for layer in (0, 1):
        del state[f"layers.{layer}.attention.wv.weight"], state[f"layers.{layer}.attention.wo.weight"]
    state["pe"] = rng.normal(0, 1, (L, d))
    z = rng.integers(0, V, T)
    params = read(state, "birth-full", n_heads=1, pre_norm=False)
    agree(induction.forward(params, z, "absolute").logits, birth_full(state, z, pre_norm=False))


@pytest.mark.parametrize("dialect, options, message", [
    ("birth-full", {}, "n_heads: expected 1, .* got 4 .*default: 4"),
    ("birth-full", dict(n_heads=True), "n_heads: expected 1"),
    ("birth-full", dict(n_heads=1), "pre_norm: .* block's own input"),
    ("birth", dict(use_rope=True), "use_rope: expected False"),
    ("birth", dict(no_sqrtd=1), "no_sqrtd: expected True or False, .* got 1"),
    ("birth", dict(n_heads=1), "options: expected one of no_sqrtd, use_rope, tie_output, got 'n_heads'"),
    ("lens", {}, "normalization_type: expected None, .* got 'LN'"),
    ("gpt", {}, "dialect: expected one of birth, birth-full, lens, got 'gpt'")])
def test_options_that_cannot_be_expressed_are_refused(rng, dialect, options, message):
    state = write(random_params(rng), "birth-full", n_heads=1, pre_norm=False)
    with pytest.raises(ValueError, match=message):
        read(state, dialect, **options)
    with pytest.raises(ValueError, match=message):
        write(random_params(rng), dialect, **options)


@pytest.mark.parametrize("dialect, extra, message", [
    ("birth", {"layers.0.attention_norm.weight": np.ones(d)}, "attention_norm.weight: .*LayerNorm"),
    ("birth", {"layers.0.ff.weight": np.ones((d, d))}, "layers.0.ff.weight: cannot be expressed"),
    ("birth", {"layers.1.ff.w1.weight": np.ones((4 * d, d))}, "layers.1.ff.w1.weight: cannot be .* linear"),
    ("birth", {"layers.2.attention.wk.weight": np.ones((d, d))}, "layers.2.*cannot be .* two layers"),
    ("birth", {"pos_embeddings.weight": np.ones((L, d))}, "pos_embeddings.weight: cannot be"),
    ("birth", {"pe": np.ones((L, d + 1))}, r"pe: expected shape \(any, 6\), got \(9, 7\)"),
    ("birth", {"output.weight": np.full((V, d), np.nan)}, "output.weight: expected finite"),
    ("lens", {"blocks.0.attn.b_Q": np.ones((1, d))}, "blocks.0.attn.b_Q: cannot be .* no bias"),
    ("lens", {"blocks.1.mlp.W_in": np.ones((d, d))}, "blocks.1.mlp.W_in: cannot be .* linear"),
    ("lens", {"blocks.0.attn.W_Q": np.ones((2, d, 3))}, r"W_Q: expected shape \(1, any, any\), got \(2, "),
    ("lens", {"blocks.1.attn.W_Q": np.ones((1, d, 3))}, r"blocks.1.attn.W_Q: .* fit together, got \(3, 6\)"),
    ("lens", {"ln_final.w": np.ones(d)}, "ln_final.w: .*LayerNorm")])
def test_arrays_that_cannot_be_expressed_are_refused(rng, dialect, extra, message):
    options = dict(SETTINGS)[dialect] | ({} if dialect == "birth" else dict(normalization_type=None))
    with pytest.raises(ValueError, match=message):
        read({**write(random_params(rng), dialect, **options), **extra}, dialect, **options)


def test_what_has_no_effect_is_passed_over(rng):
    params = random_params(rng)
    state = write(params, "lens", normalization_type=None)
    idle = {"blocks.0.attn.mask": np.tri(L), "blocks.0.attn.b_Q": np.zeros((1, d)),
            "unembed.b_U": np.zeros(V)}
    for a, b in zip(read({**state, **idle}, "lens", normalization_type=None),
                    read(state, "lens", normalization_type=None)):
        np.testing.assert_array_equal(a, b)
    state = {**write(params, "birth"), "freqs_cis": np.ones((L, d // 2), complex)}
    agree(read(state, "birth").WK1, params.WK1)


def test_a_missing_array_is_named(rng):
    state = write(random_params(rng), "birth")
    del state["layers.0.attention.wv.weight"]
    with pytest.raises(ValueError, match="^layers.0.attention.wv.weight: expected this array in dialect"):
        read(state, "birth")
    with pytest.raises(ValueError, match="^state: expected a dict of arrays"):
        read([1], "birth")


class Tensor:
    """Like PyTorch's tensor, no array until it is detached, on the CPU, and of a dtype that NumPy has."""

    def __init__(self, array, state=("detached", "cpu", "float")):
        self.array, self.state = array, set(state)

    def __array__(self, *args, **kwargs):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    def detach(self):
        return Tensor(self.array, self.state | {"detached"})

    def cpu(self):
        return Tensor(self.array, self.state | {"cpu"})

    def float(self):
        return Tensor(self.array.astype(np.float32), self.state | {"float"})

    def numpy(self):
        if self.state != {"detached", "cpu", "float"}:
            raise TypeError(f"can't convert: only {self.state}")
        return self.array


def test_tensors_are_taken_as_they_are(rng):
    array = rng.normal(0, 1, (2, 3)).astype(np.float32)
    for state in (set(), {"float"}, {"detached", "float"}):
        np.testing.assert_array_equal(dialects.as_array(Tensor(array, state)), array)
    assert dialects.as_array(Tensor(array.astype(float), {"float"})).dtype == np.float64
    assert dialects.as_array([1, 2]).dtype.kind == "i" and dialects.as_array(2.5).shape == ()
    params = random_params(rng)
    state = {name: Tensor(w, {"float"}) for name, w in write(params, "birth").items()}
    agree(read(state, "birth").WK1, params.WK1)


def test_bfloat16_of_jax_becomes_float32():
    class Array:
        dtype = "bfloat16"

        def astype(self, dtype):
            return np.array([1.5, -2.0], dtype)
    assert dialects.as_array(Array()).dtype == np.float32


def test_compare_takes_tensors(rng):
    vector = next(iter(vectors.read("tests/vectors")))
    tensors = {name: Tensor(array, {"float"}) for name, array in vector.arrays.items()}
    assert vectors.compare(vector, tensors).passed
    tensors["loss"] = Tensor(vector.arrays["loss"] + 1, {"float"})
    with pytest.raises(AssertionError, match="first departs: loss"):
        vectors.compare(vector, tensors)


# The command

def checkpoint(tmp_path, dialect="birth", pi_b=False, options={}, **fields):
    """A constructed model with b1 = 8, b2 = 6, bo = 9 and all eight tokens as triggers, as a file."""
    rng = np.random.default_rng(0)
    bigram = induction.Bigram.random(8, rng)
    frame = induction.orthonormal_frame(8, 32, rng, "absolute")
    params = induction.construct(frame, bigram, 8, 8.0, 6.0, 9.0, "absolute")._replace(**fields)
    path = tmp_path / "checkpoint.npz"
    np.savez(path, **write(params, dialect, **options), **({"pi_b": bigram.pi_b} if pi_b else {}))
    return path


def run(capsys, *argv):
    try:
        status = main(["probe", *map(str, argv)])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("dialect, options", [("birth", ()), ("birth-full", ("n_heads=1", "pre_norm=False"))])
def test_probe_finds_what_was_constructed(capsys, tmp_path, dialect, options):
    path = checkpoint(tmp_path, dialect, True, dict(n_heads=1, pre_norm=False) if options else {})
    argv = [path, "--dialect", dialect, *(word for option in options for word in ("--option", option))]
    status, out, err = run(capsys, *argv)
    assert status == 0 and err == ""
    for line in ("WK1 1.000 8 8", "WK2 1.000 6 6", "WO 1.000 9 9"):
        assert line in re.sub(" +", " ", out)
    assert "WF         1.000" in out and "I3 has the model's first token at 1.000 of all" in out
    rows = {row[:18].strip(): float(row[18:].split()[0]) for row in out.splitlines() if row[:18].strip() in
            ("WF on E", "WO on E", "direct on E", "direct on P")}
    assert rows["WF on E"] + rows["WO on E"] == pytest.approx(1, abs=2e-3) and abs(rows["direct on E"]) < 2e-3
    k_star = float(re.search(r"nats, if k > ([\d.]+)", out)[1])
    won = [int(k) for k in re.search("at k = ([0-9, ]+)", out)[1].split(",") if k.strip()]
    assert won[0] == int(k_star) + 1 and won == list(range(won[0], won[0] + len(won)))
    assert run(capsys, *argv) == (status, out, err)
    assert run(capsys, *argv, "--seed", "1")[1] != out
    # Control: with the wrong triggers I3 is another formula.
    few = run(capsys, *argv, "--triggers", "6,7")[1]
    assert "first token at 1.000" not in few


def test_probe_says_what_holds_nothing(capsys, tmp_path):
    path = checkpoint(tmp_path, WF=np.zeros((88, 88)), WO=np.zeros((88, 88)))
    status, out, _ = run(capsys, path, "--dialect", "birth", "--prompt", "1,2,1")
    assert status == 0 and "WO: expected a trained or constructed memory, got zeros only" in out
    assert "prompt 1 2 1\n" in out and "needs bo > 0" in out


@pytest.mark.parametrize("argv, message", [
    (["--dialect", "birth-full"], "n_heads: expected 1"), (["--dialect", "gpt"], "invalid choice"),
    (["--dialect", "birth", "--prompt", "1,9"], "tokens: expected values in 0..7"),
    (["--dialect", "birth", "--prompt", "1,a"], "invalid token_ids value"),
    (["--dialect", "birth", "--triggers", "8"], "triggers: expected values in 0..7"),
    (["--dialect", "birth", "--train-length", "1"], "--train-length: expected an integer in 2..32"),
    (["--dialect", "birth", "--seed", "-1"], "--seed: expected an integer at least 0"),
    (["--dialect", "birth", "--option", "use_rope=True"], "use_rope: expected False"),
    (["--dialect", "lens", "--option", "normalization_type=None"], "embed.W_E: expected this array")])
def test_probe_refuses_bad_usage_in_one_line(capsys, tmp_path, argv, message):
    status, _, err = run(capsys, checkpoint(tmp_path), *argv)
    assert status == 2 and message in err and "Traceback" not in err


def test_probe_refuses_a_file_that_is_none(capsys, tmp_path):
    path = tmp_path / "checkpoint.npz"
    for content in (None, b"", b"PK"):
        if content is not None:
            path.write_bytes(content)
        status, _, err = run(capsys, path, "--dialect", "birth")
        assert status == 2 and len(err.splitlines()) == 1


@pytest.mark.parametrize("T", [1, 5, 9])
def test_parts_of_the_logits_add_up_with_absolute_positions(rng, T):
    params, z = random_params(rng), rng.integers(0, V, T)
    found = probe.parts(params, z)
    logits = induction.forward(params, z, "absolute").logits[-1]
    agree(sum(found.values()), logits)
    assert sum(probe.share(logits, part) for part in found.values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_probes_part_from_the_authors_as_their_docstrings_say(seed):
    """Their argmax of wk0 sees later keys, and that of wk1 with fixed triggers no other tokens."""
    rng = np.random.default_rng(seed)
    frame = induction.init(12, 24, 16, rng)
    params = induction.construct(frame, induction.Bigram.random(12, rng), 4, 1.0, 1.0, 1.0, "absolute")
    pos, keys = params.pos, params.E @ params.Phi.T
    theirs1 = ((pos[1:] @ params.WK1 @ pos[:-1].T).argmax(axis=1) == np.arange(15)).mean()
    theirs2 = ((params.E[:4] @ params.WK2 @ keys[:4].T).argmax(axis=1) == np.arange(4)).mean()
    every = ((params.E @ params.WK2 @ keys.T).argmax(axis=1) == np.arange(12)).mean()
    assert theirs1 <= induction.probes.WK1(params, "absolute").argmax + 1 / 15  # the last key is not there
    assert theirs2 >= induction.probes.WK2(params, 4).argmax
    assert every == induction.probes.WK2(params, 12).argmax


# The fixture

PORT = """
from refimpl import vectors

def test_a_port_that_is_right(refimpl_case):
    vectors.compare(refimpl_case, dict(refimpl_case.arrays))
    assert refimpl_case.case.tokens.ndim == 2

def test_a_port_that_is_not(refimpl_case):
    vectors.compare(refimpl_case, {"loss": 0 * refimpl_case.arrays["loss"]})
"""


@pytest.mark.parametrize("options", [(), ("--refimpl-vectors", "tests/vectors")])
def test_the_fixture_runs_a_ports_test_for_each_case(tmp_path, options):
    path = tmp_path / "test_port.py"
    path.write_text(PORT)
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "refimpl.pytest_plugin", "-c", "/dev/null",
                           "-p", "no:cacheprovider", *options, "-k", "one", "-rA", str(path)], text=True,
                          stdout=subprocess.PIPE)
    names = {case.name for case in vectors.cases.all_cases() if "one" in case.name}
    passed, failed = (set(re.findall(rf"{outcome}\[(?:induction|recall)/([\w-]*)\]", done.stdout))
                      for outcome in ("PASSED .*is_right", "FAILED .*is_not"))
    assert passed == failed == names and len(names) > 2, done.stdout
