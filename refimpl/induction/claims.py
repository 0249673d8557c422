"""The claims of system I, each as a check of one instance: prediction by theory, observation by model.

Prompts come from trigger-bigram text whose bigram is that of real text or random, and on purpose
from the corners: a trigger in the first place, one token repeated, any tokens at all.
"""

from functools import lru_cache

import numpy as np

from refimpl.claims import claim
from refimpl.gradcheck import complex_step
from refimpl.induction import ledger, tables, theory
from refimpl.induction.memory import construct, orthonormal_frame
from refimpl.induction.model import Params, forward, init, loss, loss_and_grads
from refimpl.induction.task import Bigram, sample

LAWS = ("text", "random")
PROMPTS = ("sampled", "trigger first", "constant", "uniform")
HARD = 60.0     # stands for a strength that tends to infinity: e^−60 is far below rounding


def draw_bigram(case, law, V):
    """The bigram of the text's V most frequent characters (or of all, if fewer), or a random one."""
    if law == "random":
        return Bigram.random(V, case.rng)
    return text_bigram(case.text, V)


@lru_cache(maxsize=None)
def text_bigram(text, V):
    """Laplace's rule leaves no zeros, so that every pair has a logarithm."""
    return Bigram.from_text(text, min(V, len(set(text))), prior=1.0)


def draw_prompt(case, prompt, bigram, T, triggers):
    """T tokens of the kind that `prompt` names."""
    V = len(bigram.pi_u)
    if prompt == "uniform":
        return case.rng.integers(0, V, T)
    z = sample(bigram, 1, T, case.rng, triggers).tokens[0, :T].copy()
    if prompt == "trigger first":
        z[0] = case.rng.choice(triggers)
    if prompt == "constant":
        z[:] = case.rng.choice(triggers)
    return z


def draw_frame(case, V, L, encoding="relative"):
    """The orthonormal frame; for a control, Gaussian embeddings of the same width."""
    frame = orthonormal_frame(V, L, case.rng, encoding)
    return init(V, frame.E.shape[1], L, case.rng) if case.control else frame


@claim("I1", "previous-token head, relative positions, any length", source="BCBJB23, WS24",
       provenance="formalised", derivation=theory.previous_token_attention,
       control="embeddings Gaussian, not orthonormal",
       law=LAWS, prompt=PROMPTS, V=(2, 65), T=(1, 64), b1=(0.0, 20.0))
def previous_token_head(case, law, prompt, V, T, b1):
    """A1 of the constructed model against e^b1/(e^b1 + t) and 1/(e^b1 + t)."""
    bigram = draw_bigram(case, law, V)
    z = draw_prompt(case, prompt, bigram, T, [0])
    params = construct(draw_frame(case, len(bigram.pi_u), T), bigram, [0], b1, 1, 1)
    return theory.previous_token_attention(T, b1), forward(params, z).attention1


@claim("I2", "absolute positions stop at the training length", source="WS24",
       provenance="formalised", derivation=theory.previous_token_attention,
       control="positions relative, not absolute",
       law=LAWS, prompt=PROMPTS, V=(2, 65), train_length=(1, 32), beyond=(0, 32), b1=(0.0, 20.0))
def absolute_positions_stop(case, law, prompt, V, train_length, beyond, b1):
    """A1 of the constructed model: the previous token below L0, uniform from L0 on."""
    T = train_length + beyond
    bigram = draw_bigram(case, law, V)
    z = draw_prompt(case, prompt, bigram, T, [0])
    encoding = "relative" if case.control else "absolute"
    frame = orthonormal_frame(len(bigram.pi_u), T, case.rng, encoding)
    params = construct(frame, bigram, [0], b1, 1, 1, encoding,
                       None if case.control else train_length)
    return (theory.previous_token_attention(T, b1, "absolute", train_length),
            forward(params, z, encoding).attention1)


@claim("I3", "logits in closed form on any prompt", source="WS24", provenance="formalised",
       derivation=theory.logits, control="embeddings Gaussian, not orthonormal",
       law=LAWS, prompt=PROMPTS, encoding=("relative", "absolute"), V=(2, 65), T=(1, 64),
       train_length=(1, 64), K=(1, 5), b1=(0.0, 20.0), b2=(0.0, 100.0), bo=(0.0, 1000.0))
def logits_in_closed_form(case, law, prompt, encoding, V, T, train_length, K, b1, b2, bo):
    """Both attention maps and all logits; absolute positions below and beyond the training length."""
    bigram = draw_bigram(case, law, V)
    V = len(bigram.pi_u)
    triggers = case.rng.permutation(V)[:K]
    z = draw_prompt(case, prompt, bigram, T, triggers)
    L0 = min(train_length, T) if encoding == "absolute" else None
    params = construct(draw_frame(case, V, T, encoding), bigram, triggers, b1, b2, bo, encoding, L0)
    trace = forward(params, z, encoding)
    attention2, _ = theory.in_context_mass(z, triggers, b1, b2, encoding, L0)
    return ((attention2, theory.logits(z, np.log(bigram.pi_b), triggers, b1, b2, bo, encoding, L0)),
            (trace.attention2, trace.logits))


@claim("I4", "hard previous-token limit, first position included", source="WS24",
       provenance="formalised", derivation=theory.hard_mass, control="b1 = 1, far from the limit",
       law=LAWS, prompt=PROMPTS, limit=("b1", "b1 and b2"), V=(2, 65), T=(1, 64),
       b2=(0.0, 20.0), bo=(0.1, 100.0))
def hard_limit(case, law, prompt, limit, V, T, b2, bo):
    """Logits after a trigger, from counts alone."""
    bigram = draw_bigram(case, law, V)
    V = len(bigram.pi_u)
    q = int(case.rng.integers(V))
    z = draw_prompt(case, prompt, bigram, T, [q])
    z[-1] = q
    params = construct(orthonormal_frame(V, T, case.rng), bigram, [q], 1.0 if case.control else HARD,
                       b2 if limit == "b1" else HARD, bo)
    mass = theory.hard_mass(z, V, b2 if limit == "b1" else np.inf)
    return np.log(bigram.pi_b[q]) + bo * mass, forward(params, z).logits[-1]


@claim("I5", "knowledge hijack: who wins, in length and in repetitions", source="WS24",
       provenance="formalised", derivation=theory.hijack, tolerance=0.0,
       reason="verdicts: −1, 0 (a tie, within 1e-9 of bo) or 1 must be equal",
       control="b1 = 1, far from the limit", cases=50,
       law=LAWS, where=("anywhere", "at the tie", "gap = bo"), V=(4, 65), k=(1, 12), fillers=(1, 40),
       b2=(0.0, 8.0), ratio=(0.05, 1.5))
def hijack_boundary(case, law, where, V, k, fillers, b2, ratio):
    """k copies of q→u among fillers, then q: the sign of logit[u] − logit[w] against T* and k*."""
    bigram = draw_bigram(case, law, V)
    V = len(bigram.pi_u)
    q = int(case.rng.integers(V))
    w, u = favourite_and_rival(case, bigram, q)
    gap = np.log(bigram.pi_b[q, w] / bigram.pi_b[q, u])
    T = 2 * k + fillers + 1
    if where == "at the tie":
        ratio = 1 / (1 + (T / k - 1) * np.exp(-b2))
    bo = gap if where == "gap = bo" else gap / ratio
    others = [v for v in range(V) if v not in (q, u, w)]
    blocks = [[q, u]] * k + [[v] for v in case.rng.choice(others, fillers - 1)]
    z = [case.rng.choice(others)] + sum((blocks[i] for i in case.rng.permutation(len(blocks))), []) + [q]
    params = construct(orthonormal_frame(V, T, case.rng), bigram, [q], 1.0 if case.control else HARD,
                       b2, bo)
    logits = forward(params, z).logits[-1]
    predicted = theory.hijack(k, T, gap, b2, bo)
    observed = sign(logits[u] - logits[w], bo)
    return ((sign(predicted.critical_length - T, T), sign(k - predicted.critical_repetitions, k)),
            (observed, observed))


def favourite_and_rival(case, bigram, q):
    """The most probable successor w of q other than q, and any less probable u other than q."""
    order = [v for v in np.argsort(-bigram.pi_b[q], kind="stable") if v != q]
    rivals = [v for v in order if bigram.pi_b[q, v] < bigram.pi_b[q, order[0]]]
    return order[0], case.rng.choice(rivals)


def sign(difference, scale):
    """−1, 0 or 1; differences below 1e-9 of the scale are ties."""
    return 0 if abs(difference) <= 1e-9 * scale else int(np.sign(difference))


@claim("IG", "all nine gradients against the complex step", source="this project",
       provenance="derived", derivation=loss_and_grads, cases=10,
       reason="rounding; relative to the largest entry of each gradient",
       control="dWK1 and dWK2 transposed", encoding=("relative", "absolute"),
       V=(3, 5), d=(2, 5), B=(1, 2), T=(1, 6), spare=(0, 2), scale=(0.3, 1.0))
def gradients(case, encoding, V, d, B, T, spare, scale):
    """Random weights, random tokens, a random mask: every coordinate of every field."""
    rng = case.rng
    # Scores of order 1: where attention saturates, its gradient cancels and has fewer digits.
    params = Params(*(a + rng.normal(0, scale * d ** -0.5, a.shape)
                      for a in init(V, d, T + spare, rng)))
    tokens = rng.integers(0, V, (B, T + 1))
    mask = rng.random((B, T)) < 0.6
    mask.flat[rng.integers(mask.size)] = True
    grads = loss_and_grads(params, tokens, mask, encoding)[1]
    if case.control:
        grads = grads._replace(WK1=grads.WK1.T, WK2=grads.WK2.T)
    return complex_step(lambda p: loss(p, tokens, mask, encoding), params), grads


def draw_params(case, V, d, L, scale):
    """Any weights: Gaussian embeddings, and every field moved."""
    return Params(*(a + case.rng.normal(0, scale * d ** -0.5, a.shape) for a in init(V, d, L, case.rng)))


@claim("I8", "the model lives in V×V tables: logits, loss and gradients", source="this project",
       provenance="derived", derivation=tables.logits, tolerance=1e-11,
       reason="rounding; two different orders of addition, up to softmaxes of large scores",
       control="tables without the histories (Phi = 0)", cases=15,
       prompt=PROMPTS, V=(2, 20), d=(2, 40), T=(1, 40), B=(1, 3), spare=(0, 2), scale=(0.1, 1.5))
def model_lives_in_tables(case, prompt, V, d, T, B, spare, scale):
    """Random weights and masks; everything from the plain model against everything from the tables."""
    params = draw_params(case, V, d, T + spare, scale)
    bigram = Bigram.random(V, case.rng)
    tokens = np.array([draw_prompt(case, prompt, bigram, T + 1, [0]) for _ in range(B)])
    mask = case.rng.random((B, T)) < case.rng.random()
    mask.flat[case.rng.integers(mask.size)] = True
    broken = params._replace(Phi=0 * params.Phi) if case.control else params
    return ((forward(params, tokens[0, :-1]).logits, *loss_and_grads(params, tokens, mask)),
            (tables.logits(broken, tokens[0, :-1]), *tables.loss_and_grads(broken, tokens, mask)))


@claim("I9", "ledger: eight memories add up to the logits, four blocks to the scores",
       source="this project", provenance="derived", derivation=ledger.logits,
       control="the composite memories WF∘WO left out",
       prompt=PROMPTS, V=(2, 30), d=(2, 40), T=(1, 40), scale=(0.1, 1.5))
def ledger_adds_up(case, prompt, V, d, T, scale):
    """Random weights: the logits and the scores of layer 2 against the sums of their parts."""
    params = draw_params(case, V, d, T, scale)
    z = draw_prompt(case, prompt, Bigram.random(V, case.rng), T, [0])
    trace, parts = forward(params, z), ledger.logits(params, z)
    if case.control:
        parts = {name: part for name, part in parts.items() if name not in ledger.COMPOSITE}
    return ((trace.logits, trace.scores2),
            (sum(parts.values()), sum(ledger.scores(params, z).values())))
