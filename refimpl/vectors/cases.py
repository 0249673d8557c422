"""The cases of the test vectors: what each is there for, its inputs, and the arrays it holds.

A case names the mistake that it is meant to catch (`refimpl.vectors.mistakes.MISTAKES`); writing the vectors
plants that mistake and asserts that the arrays of the case change. Everything is float64 and small.
"""

from typing import Any, Callable, NamedTuple
from zlib import crc32

import numpy as np

from refimpl import check, induction, recall, sgd

SYSTEMS = {"induction": induction, "recall": recall}
LABELS = {"induction": "mask", "recall": "targets"}


class Case(NamedTuple):
    """One case: inputs, settings, and the reason why it is there."""

    model: str          # "induction" or "recall"
    name: str
    why: str
    flags: tuple        # of strings: the bugs that it catches
    catches: str        # the mistake that is planted when it is written
    seed: int
    setting: dict       # encoding, or activation and slot
    sgd: dict           # lr, momentum, weight_decay, trained
    params: Any         # induction.Params or recall.Params
    tokens: np.ndarray  # (B, T+1), or (B, T) for recall
    labels: np.ndarray  # mask (B, T) bool, or targets (B,)


def arrays(case, last=None):
    """The named arrays of a case in the order of comparison, up to the one named `last`."""
    system, params, buffers = SYSTEMS[case.model], case.params, None
    setting = {key: value for key, value in case.setting.items() if key != "slot"}      # of the loss alone
    trace = system.forward(params, first_sequence(case), **setting)
    loss, grads = system.loss_and_grads(params, case.tokens, case.labels, **case.setting)
    values = [case.tokens, case.labels, *params, *trace, loss, *reversed(grads)]
    for step in (1, 2, 3):
        params, buffers = sgd.step(params, grads, buffers, **case.sgd)
        values += [*params, *buffers] * (step != 2)
        grads = grads if step == 3 else system.loss_and_grads(
            params, case.tokens, case.labels, **case.setting)[1]
    order = names(case.model)
    return {name: np.array(value, order="C")
            for name, value in zip(order[:order.index(last) + 1 if last else None], values)}


def names(model):
    """The names of the arrays of a model, in the order of comparison."""
    params, trace = SYSTEMS[model].Params._fields, SYSTEMS[model].Trace._fields
    steps = [f"{step}.{kind}.{field}" for step in ("sgd1", "sgd3") for kind in ("param", "momentum")
             for field in params]
    return ["input.tokens", f"input.{LABELS[model]}", *(f"param.{field}" for field in params),
            *(f"trace.{field}" for field in trace), "loss",
            *(f"grad.{field}" for field in reversed(params)), *steps]


def first_sequence(case):
    """The tokens that the first trace is of: those that predict, or the whole prompt."""
    return case.tokens[0, :-1] if case.model == "induction" else case.tokens[0]


# Sizes are mostly distinct and d is no square, so that a factor 1/√d, 1/T or 1/B is told from the others.

def induction_inputs(rng, encoding="relative", V=5, d=7, T=6, L=9, B=3, constructed=False, trigger=None,
                     scored=(), scale_U=1.0, train_length=None, late=1.0):
    """Params, tokens (B, T+1), mask (B, T) and setting; token 0 is the trigger where there is one."""
    if constructed:
        frame, bigram = induction.orthonormal_frame(V, L, rng, encoding), induction.Bigram.random(V, rng)
        params = induction.construct(frame, bigram, [0], 4, 5, 3, encoding, train_length)
    else:
        params = induction.init(V, d, L, rng)
        params = induction.Params(*(w + rng.normal(0, d ** -0.5, w.shape) for w in params))
    for rows in (slice(2), slice(128, None)):       # the last keys of a long sequence, by offset and by place
        params.pos[rows] *= late
    tokens = rng.integers(0, V, (B, T + 1))
    if constructed:
        tokens[:, [1, T - 1]] = 0       # a trigger early on, and again where its output is asked for
    if trigger is not None:
        tokens[:, trigger] = 0
    mask = np.full((B, T), not scored)
    for positions in scored:
        mask[positions] = True
    return params._replace(U=params.U * scale_U), tokens, mask, {"encoding": encoding}


def recall_inputs(rng, step="infer", slot=True, activation="square", N=4, R=3, n=2, B=3, d=5, dp=3, m=11,
                  constructed=False, lam=4.0, attention="random", length=None, constant=False, zeros=0,
                  apart=False, late=1.0):
    """Params, tokens (B, T), targets (B,) and setting."""
    facts = recall.Facts.latin(N, R, rng)
    prompts = recall.sample(facts, n, B, rng, collision_free=apart)
    tokens, targets, (start, stop) = getattr(prompts, step)()
    V, L = 2 * N + R, 2 * n + 2
    if constructed:
        params = recall.construct(facts, n, lam, activation)
    else:
        shapes = ((V, d), (V, d), (L, dp), (d + dp, d + dp), (m, d), (m,), (d, m))
        params = recall.Params(*(rng.normal(0, 0.7, shape) for shape in shapes))
    width = len(params.WKQ)
    if attention == "random":
        params = params._replace(WKQ=rng.normal(0, width ** -0.5, (width, width)))
    elif attention == "positions":
        params.WKQ[-L:, -L:] = rng.normal(0, 1, (L, L))
    params.W1[:zeros], params.b1[:zeros] = 0, 0
    params.P[128:] *= late
    if constant:
        tokens[:] = tokens[:, :1]
    slot = (start, stop) if slot else None
    return params, tokens[:, :length], targets, {"activation": activation, "slot": slot}


DRAW: dict[str, Callable] = {"induction": induction_inputs, "recall": recall_inputs}
# lr is not 1 − momentum: a factor of either is then told from the other.
MOVING = {"lr": 0.07, "momentum": 0.9, "weight_decay": 0.01}


def build(model, name, flags, catches, why, inputs, seed=None, **moving):
    """Draw one case, with a generator seeded by its name: cases do not depend on each other."""
    seed = crc32(f"{model}/{name}".encode()) if seed is None else check.integer("seed", seed, 0)
    params, tokens, labels, setting = DRAW[model](np.random.default_rng(seed), **inputs)
    settings = {**MOVING, "trained": params._fields, **moving}
    return Case(model, name, why, tuple(flags.split(", ")), catches, seed, setting, settings, params, tokens,
                labels)


LAST = np.s_[:, -1]
BUILT = {"constructed": True, "n": 1, "N": 3, "R": 2}       # of recall
UNSCALED = "blocks of 64 keys that do not rescale their sums"

# model, name, flags, the mistake that is planted, why, inputs, and what is not usual in SGD
CASES: tuple[tuple, ...] = (
    ("induction", "random-relative", "relative, causal", "relative offset reversed",
     "pos[t - s], not pos[s - t]: a negative index is silently taken from the end.", {}),
    ("induction", "random-absolute", "absolute, causal", "masked scores count as 0",
     "Keys after the query are excluded; a score of 0 is not no weight.", {"encoding": "absolute"}),
    ("induction", "causal", "causal, relative", "mask includes the future",
     "No position may see a later one.", {"T": 8, "B": 3}),
    ("induction", "one-position", "T = 1, first token", "query excluded from its keys",
     "With T = 1 the only key is the query itself; s < t leaves nothing.", {"T": 1, "B": 3}),
    ("induction", "two-tokens", "V = 2", "sigmoid in place of softmax",
     "A vocabulary of two is still a softmax over two logits.", {"V": 2}),
    ("induction", "one-sequence", "one sequence, softmax axis", "softmax over the wrong axis",
     "Without a batch axis, axes are counted otherwise; attention sums to 1 over keys s.", {"B": 1}),
    ("induction", "several-sequences", "several sequences, targets", "targets shifted by one position",
     "Position t predicts token t + 1, in each of several sequences.", {"B": 4}),
    ("induction", "trigger-first", "first token, constructed", "missing first token",
     "The first token is a trigger whose only key is itself: an artefact that must be kept.",
     {"constructed": True, "trigger": 0, "V": 3, "L": 6}),
    ("induction", "repeated-tokens", "repeated tokens", "repeated tokens overwrite the gradient",
     "One token throughout: the gradient of its embedding is a sum over positions.", {"trigger": np.s_[:]}),
    ("induction", "tied-logits", "tied logits", "ties left out of the sum",
     "U = 0 makes all logits equal: loss log V, and at first only U has a gradient.", {"scale_U": 0.0}),
    ("induction", "large-logits", "large logits", "softmax overflows",
     "Logits near 1e3: exp overflows unless the largest is subtracted first.", {"scale_U": 300.0},
     {"lr": 1e-6}),
    ("induction", "masked-positions", "masked positions", "mask of the loss ignored",
     "Only some positions are in the loss.", {"scored": (LAST, np.s_[:, ::2])}),
    ("induction", "one-masked-position", "masked positions", "mean over all positions, not the mask",
     "One position in the loss: the mean divides by 1, not by B T.", {"scored": (np.s_[0, -1],)}),
    ("induction", "uneven-masks", "masked positions, several sequences", "mean of the sequences' means",
     "Masks of different sizes: one mean over all of the mask, not a mean of means.",
     {"scored": (LAST, 0), "B": 3}),
    ("induction", "constructed-relative", "constructed, relative", "scores scaled by 1/√d",
     "Weights written by hand, with strong scores; there is no 1/√d.", {"constructed": True, "V": 3, "L": 8}),
    ("induction", "constructed-absolute", "constructed, absolute", "encodings swapped",
     "Absolute positions are added to the embeddings, not to the keys only.",
     {"constructed": True, "encoding": "absolute", "V": 3, "L": 6}),
    ("induction", "beyond-training-absolute", "beyond training length, absolute",
     "x0 = E[z] + pos[t mod T/2], not E[z] + pos[t]",
     "Positions from the training length 3 on have no memory, and do not start again at 0.",
     {"constructed": True, "encoding": "absolute", "V": 3, "L": 6, "train_length": 3}),
    ("induction", "beyond-training-relative", "beyond training length, relative", "offsets clipped",
     "Offsets beyond those seen in training have a vector of their own.", {"T": 9}),
    ("induction", "plain-sgd", "no momentum, no weight decay", "momentum always on",
     "Momentum 0 and weight decay 0: the plain step.", {}, {"momentum": 0.0, "weight_decay": 0.0}),
    ("induction", "decay-only", "no momentum, weight decay", "weight decay ignored",
     "Weight decay without momentum.", {}, {"momentum": 0.0, "weight_decay": 0.1}),
    ("induction", "momentum-only", "momentum", "momentum with dampening",
     "Momentum without weight decay: the buffer adds up whole gradients.", {}, {"weight_decay": 0.0}),
    ("induction", "momentum-and-decay", "momentum, weight decay", "weight decay decoupled",
     "Weight decay is added to the gradient, and so goes through the buffer.", {}, {"weight_decay": 0.1}),
    ("induction", "trained-fields", "trained fields", "all fields move",
     "Only the four memories move; there are gradients of all nine.", {},
     {"trained": ("WK1", "WK2", "WO", "WF")}),
    ("recall", "infer-slot", "slot, square", "slot ignored",
     "The step that infers the relation: only relations compete.", {}),
    ("recall", "infer-vocabulary", "whole vocabulary, square", "slot always on",
     "The same step, all tokens competing.", {"slot": False}),
    ("recall", "recall-slot", "slot, square", "slot one too long",
     "The step that recalls the answer: the slot ends before its stop.", {"step": "recall"}),
    ("recall", "recall-vocabulary", "whole vocabulary, one sequence", "logits = E y, not U y",
     "The answers among all tokens, one prompt; U is not E.", {"step": "recall", "slot": False, "B": 1}),
    ("recall", "relu", "ReLU, momentum", "momentum with Nesterov",
     "Random weights and ReLU; momentum as it is, without looking ahead.", {"activation": "relu"}),
    ("recall", "relu-at-zero", "ReLU at 0", "derivative of ReLU at 0 is not 0",
     "Units exactly at 0, where the derivative is taken as 0; a maximum may split it in halves.",
     {"activation": "relu", "zeros": 4}),
    ("recall", "relu-constructed", "ReLU, constructed", "preactivation = W1 x, not W1 x + b1",
     "The hand-written ReLU memory, whose bias silences half-matched keys.",
     {**BUILT, "activation": "relu"}),
    ("recall", "square-constructed", "square, constructed", "derivative of the square lacks its 2",
     "The hand-written quadratic memory; d(x²) = 2x dx.", BUILT),
    ("recall", "tied-logits", "tied logits, constructed", "ties left out of the sum",
     "Uniform attention: the recall step ties between the answers of the prompt.",
     {**BUILT, "step": "recall", "attention": "uniform", "N": 4, "apart": True}),
    ("recall", "large-logits", "large logits, constructed", "softmax overflows",
     "Logits near 1e3: exp overflows unless the largest is subtracted first.",
     {**BUILT, "lam": 3e3, "attention": "uniform"}, {"lr": 1e-7, "trained": ("WKQ",)}),
    ("recall", "positions-only", "position-only attention", "WKQ used transposed",
     "Queries index the rows of WKQ, keys its columns.",
     {"constructed": True, "attention": "positions", "n": 2, "N": 3, "R": 2}),
    ("recall", "one-token", "T = 1, first token", "query excluded from its keys",
     "A prompt of one token: the query is its own and only key.", {"length": 1}),
    ("recall", "repeated-tokens", "repeated tokens", "repeated tokens overwrite the gradient",
     "One token throughout: content is the same everywhere, positions are not.", {"constant": True}),
    ("recall", "first-token", "first token", "missing first token",
     "The first subject counts like every other.", {"B": 3}),
    ("recall", "several-prompts", "several sequences, learning rate", "learning rate applied twice",
     "Five prompts, and attention alone is trained, as in fine-tuning.",
     {"B": 5}, {"trained": ("WKQ",), "lr": 0.3}),
    *(("induction", f"long-{encoding}", f"long, {encoding}", UNSCALED,
       "Longer than a block of keys: what was summed up is rescaled when a later block has a larger score.",
       {"encoding": encoding, "V": 65, "d": 10, "T": 130, "L": 130, "B": 2, "late": 3.0}, {})
      for encoding in ("relative", "absolute")),
    ("recall", "long-prompts", "long", UNSCALED,
     "The same, in a prompt of 64 pairs.",
     {"step": "recall", "N": 66, "R": 2, "n": 64, "B": 4, "d": 10, "dp": 7, "late": 2.0}),
)
FROZEN = ("U", "Phi", "WV", "WK1", "WK2", "WO", "WF")       # what moves where embeddings and positions do not


def all_cases():
    """Yield every case, drawn; the relative ones again with absolute positions, E and pos frozen."""
    for model, name, flags, catches, why, inputs, *moving in CASES:
        settings = moving[0] if moving else {}
        yield build(model, name, flags, catches, why, inputs, **settings)
        if model == "induction" and "encoding" not in inputs and not name.endswith("-relative"):
            flags = flags.replace("relative", "absolute") + ", frozen embeddings"
            yield build(model, f"{name}-absolute", flags, catches, why, {**inputs, "encoding": "absolute"},
                        **{"trained": FROZEN, **settings})


def yours(model, seed, trained=None, **inputs):
    """A case of any size: `trained` as "WK1,WO", inputs as `induction_inputs` or `recall_inputs` have them.

    Raises ValueError on sizes that make no case, or whose arrays do not fit into memory.
    """
    for name, size in inputs.items():
        if name not in ("encoding", "step", "slot", "activation"):
            check.integer(name, size, 2 if name in ("V", "N") else 1)
    if model == "induction":
        inputs = {"V": 5, "d": 7, "T": 6, "B": 3, "encoding": "relative", **inputs}
        inputs.setdefault("L", inputs["T"])
        V, d, T, L = (inputs[key] for key in ("V", "d", "T", "L"))
        if L < T:
            raise ValueError(f"L: expected at least T = {T} position vectors, got {L}")
        check.memory("sizes", 8 * (12 * (2 * V * d + L * d + 6 * d * d) + 8 * T * (T + d + V)))
    else:
        inputs = {"N": 4, "R": 3, "n": 2, "d": 5, "dp": 3, "m": 11, "B": 3, **inputs}
        width, V = inputs["d"] + inputs["dp"], 2 * inputs["N"] + inputs["R"]
        check.memory("sizes", 8 * 12 * (2 * V * inputs["d"] + width ** 2 + 2 * inputs["m"] * inputs["d"]))
    name = "-".join(f"{key}{value}" if not isinstance(value, str) else value for key, value in inputs.items())
    fields = SYSTEMS[model].Params._fields
    moving = [check.choice("trained", name, fields) for name in trained.split(",")] if trained else fields
    return build(model, name, "yours", "", "Sizes of your own.", inputs, seed=seed, trained=moving)
