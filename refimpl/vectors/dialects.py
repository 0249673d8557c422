"""The names that other code gives to the same weights: state dicts to and from `induction.Params`.

Three dialects, all with absolute positions. S is the score of query x_t and key x_s, both columns:

    birth       transformer-birth, basic model: S = x_t·wk x_s / √d, W_Q = I; Phi = wo wv of layer 0; WV and
                WO are wv and wo of layer 1; pos is the buffer `pe`; WF is layers.1.ff, where that is linear
    birth-full  its full model: S = (wq x_t)·(wk x_s) / √d, so WK = wqᵀ wk / √d; one head, no LayerNorm
    lens        TransformerLens: [heads, in, out] matrices act on rows; S = (x_t W_Q)·(x_s W_K) / √d_head,
                so WK = W_Q W_Kᵀ / √d_head; Phi = (W_V W_O)ᵀ; U = W_Uᵀ

`write` cancels the 1/√d by W_Q = √d I (birth: by wk = √d WK) and writes Phi as Phi · I. TransformerLens has
no linear feed-forward layer, so WF goes into the unembedding: W_U = (U + U WF)ᵀ gives the same logits. A
model of transformer-birth also wants the buffer `freqs_cis`, used for rotary positions: strict=False.

A state dict does not show every option. Those that it does not show are arguments, by their names and with
their defaults over there (`UNSEEN`). Some defaults are models that ours cannot express: say n_heads=1 for the
full model, normalization_type=None for TransformerLens. What ours cannot express is a ValueError: LayerNorm,
ReLU layers, biases, rotary positions, more heads or layers, and pre-norm blocks of the full model with a
feed-forward layer. Such a block computes x + attention(x) + ff(x): ff reads the block's own input, where WF
reads what attention has been added to.

Two more conventions, without functions. Flax kernels are [in, out]: W = kernel.T; its attention has kernels
(d, heads, head) and divides queries by √head. factual-recall's one-layer model (NLB24) has the score
(x_s K)·(x_T Q) / √d_h, so WKQ = Q Kᵀ / √d_h, and no positions: P = 0. It mixes values, x' = (V O)ᵀ x, and
keeps a residual around its memory: logits = U (W2 relu(W1 x' + b1) + x'). Ours has neither, but x' =
relu(x') − relu(−x'): with M = (V O)ᵀ, the rows W1 M, M and −M and the columns W2, I and −I are that model.
"""

import re
from collections.abc import Mapping

import numpy as np

from refimpl import check
from refimpl.induction.model import Params, check_params

UNSEEN: dict[str, dict] = {
    "birth": {"no_sqrtd": False, "tie_output": False, "use_rope": False},
    "birth-full": {"n_heads": 4, "pre_norm": True},
    "lens": {"use_attn_scale": True, "normalization_type": "LN", "positional_embedding_type": "standard"}}
NEEDED = {"use_rope": False, "n_heads": 1, "normalization_type": None,
          "positional_embedding_type": "standard"}
REASONS = {r".*(norm|\bln)": "LayerNorm, and this model has none",
           r"(layers|blocks)\.([2-9]|\d\d)": "more than two layers",
           r".*(ff\.w\d|mlp)": "a feed-forward layer that is not linear",
           r"layers\.0\.ff": "a feed-forward layer after the first attention",
           r".*\bb_": "a bias, and this model has none"}
PRE_NORM = ("pre_norm: expected False where WF is not zero: the feed-forward layer of a pre-norm block reads "
            "the block's own input, where WF reads what attention has been added to")


def as_array(value):
    """NumPy's array of what np.asarray takes, or of a tensor of PyTorch or JAX; neither is imported.

    A tensor may require gradients or lie on a device. bfloat16, which NumPy lacks, becomes float32.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        try:
            value = value.numpy()
        except TypeError:           # bfloat16
            value = value.float().numpy()
    if str(getattr(value, "dtype", "")) == "bfloat16":      # JAX's
        value = value.astype(np.float32)
    return np.asarray(value)


def read(state, dialect, **options):
    """The Params (float64) of a state dict, name -> array or tensor, in a dialect.

    Raises ValueError on names or shapes that do not fit, and on what this model cannot express.
    """
    options = accept(dialect, options)
    left = dict(check.instance("state", state, Mapping, "a dict of arrays"))

    def take(name, *shape, default=None):
        if name not in left and default is None:
            raise ValueError(f"{name}: expected this array in dialect {dialect}, got {', '.join(left)}")
        return check.reals(name, as_array(left.pop(name, default)), shape)

    params = (read_lens if dialect == "lens" else read_birth)(take, left, options)
    for name, value in left.items():
        reason = next((words for key, words in REASONS.items() if re.match(key, name)), "no such array")
        is_buffer = re.fullmatch(r"freqs_cis|.*attn\.(mask|IGNORE)", name)
        if not is_buffer and ("LayerNorm" in reason or np.any(as_array(value))):
            raise ValueError(f"{name}: cannot be expressed: {reason}")
    if options.get("pre_norm") and params.WF.any():
        raise ValueError(PRE_NORM)
    return check_params(params)


def accept(dialect, options):
    """All options of a dialect, checked."""
    known = UNSEEN[check.choice("dialect", dialect, tuple(UNSEEN))]
    for name in options:
        check.choice("options", name, tuple(known))
    options = {**known, **options}
    for name, value in options.items():
        if name not in NEEDED:
            check.instance(name, value, bool, "True or False")
        elif value != NEEDED[name] or type(value) is not type(NEEDED[name]):
            raise ValueError(f"{name}: expected {NEEDED[name]!r}, all that this model can express, "
                             f"got {value!r} (a state dict does not show it; default: {known[name]!r})")
    return options


def read_birth(take, left, options):
    E = take("tok_embeddings.weight", None, None)
    (V, d), full, one = E.shape, "n_heads" in options, np.eye(E.shape[1])
    if full and "pe" in left:                   # sines and cosines; the learned positions are not used
        left.pop("pos_embeddings.weight", None)
    pos = take("pos_embeddings.weight" if full and "pe" not in left else "pe", None, d)
    scale = 1 if options.get("no_sqrtd") else np.sqrt(d)

    def attention(layer):
        # The full model may leave out wv and wo, and the basic one has no wq.
        defaults = dict(wq=one, wk=None, wv=one if full else None, wo=one if full else None)
        wq, wk, wv, wo = (take(f"layers.{layer}.attention.{name}.weight", d, d, default=default)
                          for name, default in defaults.items())
        return wq.T @ wk / scale, wv, wo
    (WK1, wv, wo), (WK2, WV, WO) = attention(0), attention(1)
    WF = take("layers.1.ff.weight", d, d, default=np.zeros((d, d)))
    U = take("output.weight", V, d) / (np.sqrt(d) if options.get("tie_output") else 1)
    return Params(E, U, pos, wo @ wv, WV, WK1, WK2, WO, WF)


def read_lens(take, left, options):
    E = take("embed.W_E", None, None)
    V, d = E.shape

    def attention(block):
        W_Q = take(f"blocks.{block}.attn.W_Q", None, d, None)
        heads, _, width = W_Q.shape
        if heads != 1:
            raise ValueError(f"blocks.{block}.attn.W_Q: expected one head, as this model has, got {heads}")
        W_K, W_V = (take(f"blocks.{block}.attn.{name}", 1, d, width)[0] for name in ("W_K", "W_V"))
        W_O = take(f"blocks.{block}.attn.W_O", 1, width, d)[0]
        WK = W_Q[0] @ W_K.T / (np.sqrt(width) if options["use_attn_scale"] else 1)
        return (WK, W_V.T, W_O.T) if width == d else (WK, np.eye(d), (W_V @ W_O).T)
    (WK1, wv, wo), (WK2, WV, WO) = attention(0), attention(1)
    return Params(E, take("unembed.W_U", d, V).T, take("pos_embed.W_pos", None, d), wo @ wv, WV, WK1, WK2, WO,
                  np.zeros((d, d)))


def write(params, dialect, **options):
    """The state dict, name -> float64 array, of Params that use absolute positions, in a dialect.

    Raises ValueError as `read` does, which then gives back the same model, if not the same factors.
    """
    options = accept(dialect, options)
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = check_params(params)
    if options.get("pre_norm") and WF.any():
        raise ValueError(PRE_NORM)
    state: dict[str, np.ndarray] = {}
    one, root = np.eye(E.shape[1]), np.sqrt(E.shape[1])
    for layer, (WK, wv, wo) in enumerate(((WK1, one, Phi), (WK2, WV, WO))):
        if dialect == "lens":
            W_Q = root * one if options["use_attn_scale"] else one
            state |= {f"blocks.{layer}.attn.{name}": W[None] for name, W in
                      (("W_Q", W_Q), ("W_K", WK.T), ("W_V", wv.T), ("W_O", wo.T))}
        else:
            weights = dict(wk=WK if options.get("no_sqrtd") else root * WK, wv=wv, wo=wo)
            if dialect == "birth-full":
                weights |= dict(wq=root * one, wk=WK)
            state |= {f"layers.{layer}.attention.{name}.weight": W for name, W in weights.items()}
    if dialect == "lens":
        return {"embed.W_E": E, "pos_embed.W_pos": pos, **state, "unembed.W_U": (U + U @ WF).T}
    return {"tok_embeddings.weight": E, "pe" if dialect == "birth" else "pos_embeddings.weight": pos, **state,
            "layers.1.ff.weight": WF, "output.weight": U * (root if options.get("tie_output") else 1)}
