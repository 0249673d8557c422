"""State dicts of other code: the same logits, evaluated in that code's own equations, and what is refused."""

import numpy as np
import pytest

from refimpl import induction
from refimpl.vectors import dialects
from refimpl.vectors.dialects import read, write

V, d, L, T = 7, 6, 9, 8
SETTINGS = [("birth", {}), ("birth", dict(no_sqrtd=True)), ("birth", dict(tie_output=True)),
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


def birth(state, z, no_sqrtd=False, tie_output=False):
    """transformer-birth's basic model, rows of activations through torch's Linear: x @ weight.T."""
    h = state["tok_embeddings.weight"][z] + state["pe"][:len(z)]
    for layer in ("layers.0.", "layers.1."):
        wk, wv, wo = (state[f"{layer}attention.{name}.weight"] for name in ("wk", "wv", "wo"))
        scores = h @ (h @ wk.T).T / (1 if no_sqrtd else np.sqrt(d))
        h = h + softmax(scores) @ (h @ wv.T) @ wo.T
        if layer + "ff.weight" in state:
            h = h + h @ state[layer + "ff.weight"].T
    return h @ state["output.weight"].T / (np.sqrt(d) if tie_output else 1)


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
    ("birth", dict(no_sqrtd=1), "no_sqrtd: expected True or False"),
    ("birth", dict(n_heads=1), "options: expected one of no_sqrtd, tie_output, use_rope, got 'n_heads'"),
    ("lens", {}, "normalization_type: expected None, .* got 'LN'"),
    ("gpt", {}, "dialect: expected one of birth, birth-full, lens, got 'gpt'")])
def test_options_that_cannot_be_expressed_are_refused(rng, dialect, options, message):
    state = write(random_params(rng), "birth-full", n_heads=1, pre_norm=False)
    with pytest.raises(ValueError, match=message):
        read(state, dialect, **options)
    with pytest.raises(ValueError, match=message):
        write(random_params(rng), dialect, **options)


@pytest.mark.parametrize("dialect, extra, message", [
    ("birth", {"layers.0.attention_norm.weight": np.zeros(d)}, "attention_norm.weight: .*LayerNorm"),
    ("birth", {"layers.0.ff.weight": np.ones((d, d))}, "layers.0.ff.weight: .*after the first attention"),
    ("birth", {"layers.1.ff.w1.weight": np.ones((4 * d, d))}, "layers.1.ff.w1.weight: .*not linear"),
    ("birth", {"layers.2.attention.wk.weight": np.ones((d, d))}, "layers.2.*more than two layers"),
    ("birth", {"pos_embeddings.weight": np.ones((L, d))}, "pos_embeddings.weight: .*no such array"),
    ("birth", {"pe": np.ones((L, d + 1))}, r"pe: expected shape \(any, 6\), got \(9, 7\)"),
    ("birth", {"output.weight": np.full((V, d), np.nan)}, "output.weight: expected finite"),
    ("lens", {"blocks.0.attn.b_Q": np.ones((1, d))}, "blocks.0.attn.b_Q: .*a bias"),
    ("lens", {"blocks.1.mlp.W_in": np.ones((d, d))}, "blocks.1.mlp.W_in: .*not linear"),
    ("lens", {"blocks.0.attn.W_Q": np.ones((2, d, 3))}, "W_Q: expected one head, .*, got 2"),
    ("lens", {"ln_final.w": np.ones(d)}, "ln_final.w: .*LayerNorm"),
    ("lens", {"blocks.0.ln1.b": np.zeros(d)}, "ln1.b: .*LayerNorm")])
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
