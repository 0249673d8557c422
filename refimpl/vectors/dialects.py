"""The names that other code gives to the same weights: state dicts to and from `induction.Params`.

Three dialects, all with absolute positions. S is the score of query x_t and key x_s, both columns:

    birth       transformer-birth, basic model: S = x_t·wk x_s / √d, W_Q = I; Phi = wo wv of layer 0; WV and
                WO are wv and wo of layer 1; pos is the buffer `pe`; WF is layers.1.ff, where that is linear
    birth-full  its full model: S = (wq x_t)·(wk x_s) / √d, so WK = wqᵀ wk / √d
    lens        TransformerLens: [head, in, out] matrices act on rows; S = (x_t W_Q)·(x_s W_K) / √d_head,
                so WK = W_Q W_Kᵀ / √d_head; Phi = (W_V W_O)ᵀ; U = W_Uᵀ

`write` puts the √d into the keys (wq = I, wk = √d WK; wq = √d I would do as well) and Phi into one factor of
two. TransformerLens has no linear feed-forward layer: WF goes into the unembedding, W_U = (U + U WF)ᵀ. Into
transformer-birth load with strict=False: its buffer `freqs_cis` is for rotary positions alone.

What a state dict does not show is an option, by its name and with its default over there (`UNSEEN`). Some
defaults ours cannot express: say n_heads=1 for the full model, normalization_type=None for TransformerLens.
Whatever ours cannot express is a ValueError. So are pre-norm blocks of the full model with a feed-forward
layer: they compute x + attention(x) + ff(x), so ff reads the block's own input, where WF reads x2.

Flax kernels are [in, out], W = kernel.T; its attention kernels are (d, heads, head), and it divides queries
by √head. factual-recall's one-layer model (NLB24) has WKQ = Q Kᵀ / √d_h, P = 0, values x' = (V O)ᵀ x, and a
residual x' around its memory: of M = (V O)ᵀ, let W1 have the rows W1 M, M, −M, and W2 the columns W2, I, −I.
"""

from collections.abc import Mapping

import numpy as np

from refimpl import check
from refimpl.induction.model import Params, check_params

# option -> its default there, and what this model can express
UNSEEN: dict[str, dict] = {
    "birth": {"no_sqrtd": (False, [True, False]), "use_rope": (False, [False]),
              "tie_output": (False, [False])},         # divide output.weight by √d before
    "birth-full": {"n_heads": (4, [1]), "pre_norm": (True, [True, False])},
    "lens": {"use_attn_scale": (True, [True, False]), "normalization_type": ("LN", [None]),
             "positional_embedding_type": ("standard", ["standard"])}}
BIRTH = ("tok_embeddings.weight", "output.weight", "layers.{}.attention.{}.weight", ("wq", "wk", "wv", "wo"))
LENS = ("embed.W_E", "unembed.W_U", "blocks.{}.attn.{}", ("W_Q", "W_K", "W_V", "W_O"))
POSITIONS = {"birth": "pe", "birth-full": "pos_embeddings.weight", "lens": "pos_embed.W_pos"}
FF, BUFFERS = "layers.1.ff.weight", ("freqs_cis", "mask", "IGNORE")
PRE_NORM = ("pre_norm: expected False where WF is not zero: the feed-forward layer of a pre-norm block reads "
            "the block's own input, where WF reads what attention has been added to")


def as_array(value):
    """NumPy's array of what np.asarray takes, or of a tensor of PyTorch or JAX; neither is imported.

    A tensor may require gradients or lie on a device. bfloat16, which NumPy lacks, becomes float32.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        try:
            return value.numpy()
        except TypeError:           # bfloat16
            return value.float().numpy()
    return np.asarray(value.astype(np.float32) if str(getattr(value, "dtype", "")) == "bfloat16" else value)


def read(state, dialect, **options):
    """The Params (float64) of a state dict, name -> array or tensor; ValueError on what cannot be one."""
    scaled, lens = accept(dialect, options), dialect == "lens"
    left = dict(check.instance("state", state, Mapping, "a dict of arrays"))

    def take(name, *shape, default=None):
        if name not in left and default is None:
            raise ValueError(f"{name}: expected this array in dialect {dialect}, got {', '.join(left)}")
        return check.reals(name, as_array(left.pop(name, default)), shape)

    E_name, U_name, pattern, names = LENS if lens else BIRTH
    E = take(E_name, None, None)
    (V, d), layers, one = E.shape, [], np.eye(E.shape[1])
    for layer in (0, 1):
        # The basic model has no wq, and the full one may leave wv and wo out.
        optional = {"birth": ("wq",), "birth-full": ("wq", "wv", "wo"), "lens": ()}[dialect]
        wq, wk, wv, wo = (take(pattern.format(layer, name), *((1, None, None) if lens else (d, d)),
                               default=one if name in optional else None) for name in names)
        if lens:
            wq, wk, wv, wo = (W[0].T for W in (wq, wk, wv, wo))
        if not wq.shape == wk.shape == wv.shape == wo.T.shape == (len(wq), d):
            raise ValueError(f"{pattern.format(layer, names[0])}: expected shapes that fit together, got "
                             f"{', '.join(str(W.shape) for W in (wq, wk, wv, wo))} (out, in)")
        WK = wq.T @ wk / (np.sqrt(len(wk)) if scaled else 1)
        layers += [(WK, wv, wo) if len(wv) == d else (WK, one, wo @ wv)]
    (WK1, wv, wo), (WK2, WV, WO) = layers
    if dialect == "birth-full" and "pe" in left:        # sines and cosines; learned positions are not used
        left["pos_embeddings.weight"] = left.pop("pe")
    pos = take(POSITIONS[dialect], None, d)
    WF = np.zeros((d, d)) if lens else take(FF, d, d, default=np.zeros((d, d)))
    U = take(U_name, d, V).T if lens else take(U_name, V, d)
    for name, value in left.items():
        if name.rpartition(".")[2] not in BUFFERS and np.any(as_array(value)):
            raise ValueError(f"{name}: cannot be expressed: this model has two layers of one head, no bias, "
                             "no LayerNorm, and one feed-forward layer, linear, in the second")
    if options.get("pre_norm", dialect == "birth-full") and WF.any():
        raise ValueError(PRE_NORM)
    return check_params(Params(E, U, pos, wo @ wv, WV, WK1, WK2, WO, WF))


def accept(dialect, options):
    """Whether scores are divided by a root. Raises ValueError on options that are unknown or out of reach."""
    known = UNSEEN[check.choice("dialect", dialect, tuple(UNSEEN))]
    for name in options:
        check.choice("options", name, tuple(known))
    for name, (default, allowed) in known.items():
        value = options.get(name, default)
        if repr(value) not in map(repr, allowed):
            raise ValueError(f"{name}: expected {' or '.join(map(repr, allowed))}, all that this model can "
                             f"express, got {value!r} (a state dict does not show it; default: {default!r})")
    return options.get("use_attn_scale", not options.get("no_sqrtd", False))


def write(params, dialect, **options):
    """The state dict, name -> float64 array, of Params that use absolute positions; raises as `read`.

    `read` gives back the same model, if not the same factors.
    """
    scaled, lens = accept(dialect, options), dialect == "lens"
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = check_params(params)
    if options.get("pre_norm", dialect == "birth-full") and WF.any():
        raise ValueError(PRE_NORM)
    E_name, U_name, pattern, names = LENS if lens else BIRTH
    one, root = np.eye(E.shape[1]), np.sqrt(E.shape[1]) if scaled else 1
    state = {E_name: E, POSITIONS[dialect]: pos, U_name: (U + U @ WF).T} if lens else \
        {E_name: E, POSITIONS[dialect]: pos, U_name: U, FF: WF}
    for layer, weights in enumerate(((one, root * WK1, one, Phi), (one, root * WK2, WV, WO))):
        state |= {pattern.format(layer, name): W.T[None] if lens else W for name, W in zip(names, weights)}
    return {name: w for name, w in state.items() if dialect != "birth" or ".wq." not in name}
