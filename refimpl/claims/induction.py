"""The claims of system I, each as a check of one instance: prediction by theory, observation by model.

Prompts come from trigger-bigram text whose bigram is that of real text or random, and on purpose
from the corners: a trigger in the first place, one token repeated, any tokens at all.
"""

from functools import lru_cache

import numpy as np

from refimpl.claims.claim import OURS, claim
from refimpl.induction import ledger, nopos, tables, theory
from refimpl.induction.memory import construct, frame_of
from refimpl.induction.model import Params, forward, init, loss, loss_and_grads
from refimpl.induction.task import Bigram, sample

SHARES = 100.0  # bo where shares are read from logits: the rounding of log pi_b is divided by it
WS24: dict = dict(source="WS24", provenance="formalised")
KINDS = dict(prompt=("sampled", "trigger first", "constant", "uniform"))
TEXT = dict(law=("text", "random"), **KINDS)
ENDING: dict = dict(TEXT, V=(2, 65), T=(1, 64))


def draw_bigram(case, law, V):
    """The bigram of the text's V most frequent characters (or of all, if fewer), or a random one; its V."""
    bigram = Bigram.random(V, case.rng) if law == "random" else text_bigram(case.text, V)
    return bigram, len(bigram.pi_u)


@lru_cache(maxsize=None)
def text_bigram(text, V):
    """Laplace's rule leaves no zeros, so that every pair has a logarithm."""
    return Bigram.from_text(text, min(V, len(set(text))), prior=1.0)


def draw_prompt(case, prompt, bigram, T, triggers):
    """T tokens of the kind that `prompt` names."""
    if prompt == "uniform":
        return case.rng.integers(0, len(bigram.pi_u), T)
    z = sample(bigram, 1, T, case.rng, triggers).tokens[0, :T].copy()
    if prompt == "trigger first":       # once or twice
        z[:case.rng.integers(1, 3)] = case.rng.choice(triggers)
    if prompt == "constant":
        z[:] = case.rng.choice(triggers)
    return z


def draw_ending(case, law, prompt, V, T):
    """A bigram, its V, a prompt of T tokens that ends with its trigger q, and q."""
    bigram, V = draw_bigram(case, law, V)
    q = int(case.rng.integers(V))
    z = draw_prompt(case, prompt, bigram, T, [q])
    z[-1] = q
    return show(case, bigram, z), V, z, q


def draw_marked(case, law, prompt, V, T, K):
    """A bigram, K triggers, and a prompt of T tokens: first the marker V − 1, which is nowhere else."""
    bigram, V = draw_bigram(case, law, V)
    triggers = case.rng.permutation(V)[:K]
    z = draw_prompt(case, prompt, bigram, T, triggers) % (V - 1)
    z[0] = V - 1
    return show(case, bigram, z), triggers, z


def show(case, bigram, z):
    """The bigram in the numbers of the case, once the reader of `explain` is told the prompt in letters."""
    case.show("tokens", " ".join({" ": "␣", "\n": "↵"}.get(bigram.chars[v], str(bigram.chars[v])) for v in z))
    return bigram._replace(pi_b=case.number(bigram.pi_b))


def draw_frame(case, V, L, encoding="relative", broken=False):
    """The orthonormal frame, of balls a rational one; broken: Gaussian embeddings of the same width."""
    d = 3 * V + (L if encoding == "relative" else 2 * L)
    if broken:
        return case.number(init(V, d, L, case.rng))
    return frame_of(case.rotation(d), case.rotation(d), V, L, encoding)


def hard(case):
    """A strength that stands for an infinite one: e^−60 is far below rounding, e^−400 below any radius."""
    return case.number(400.0 if case.balls else 60.0)


@claim("I1", "previous-token head, relative positions, any length", source="BCBJB23, WS24",
       provenance="formalised", derivation=theory.previous_token_attention,
       control="embeddings Gaussian, not orthonormal", control_space=dict(T=(3, 64), b1=(1.0, 20.0)),
       b1=(0.0, 20.0), **ENDING)
def previous_token_head(case, law, prompt, V, T, b1):
    """A1 of the constructed model against e^b1/(e^b1 + t) and 1/(e^b1 + t)."""
    bigram, V, z, q = draw_ending(case, law, prompt, V, T)
    params = construct(draw_frame(case, V, T, broken=case.control), bigram, [q], b1, 1, 1)
    return theory.previous_token_attention(T, b1), forward(params, z).attention1


@claim("I2", "absolute positions stop at the training length", derivation=theory.previous_token_attention,
       control="positions relative, not absolute", control_space=dict(beyond=(1, 32), b1=(1.0, 20.0)),
       V=(2, 65), train_length=(1, 32), beyond=(0, 32), b1=(0.0, 20.0), **TEXT, **WS24)
def absolute_positions_stop(case, law, prompt, V, train_length, beyond, b1):
    """A1 of the constructed model: the previous token below L0, uniform from L0 on."""
    T = train_length + beyond
    bigram, V, z, q = draw_ending(case, law, prompt, V, T)
    encoding, L0 = ("relative", None) if case.control else ("absolute", train_length)
    params = construct(draw_frame(case, V, T, encoding), bigram, [q], b1, 1, 1, encoding, L0)
    return (theory.previous_token_attention(T, b1, "absolute", train_length),
            forward(params, z, encoding).attention1)


@claim("I3", "logits in closed form on any prompt", derivation=theory.logits,
       control="embeddings Gaussian, not orthonormal",
       parts=("attention of layer 2", "its weight on each token", "logits"),
       encoding=("relative", "absolute"), train_length=(1, 64), K=(1, 5), b1=(0.0, 20.0), b2=(0.0, 100.0),
       bo=(0.0, 1000.0), **ENDING, **WS24)
def logits_in_closed_form(case, law, prompt, encoding, V, T, train_length, K, b1, b2, bo):
    """Both attention maps and all logits; absolute positions below and beyond the training length."""
    bigram, V = draw_bigram(case, law, V)
    triggers = case.rng.permutation(V)[:K]
    z = draw_prompt(case, prompt, bigram, T, triggers)
    bigram, L0 = show(case, bigram, z), min(train_length, T) if encoding == "absolute" else None
    frame = draw_frame(case, V, T, encoding, case.control)
    params = construct(frame, bigram, triggers, b1, b2, bo, encoding, L0)
    trace = forward(params, z, encoding)
    predicted = theory.logits(z, np.log(bigram.pi_b), triggers, b1, b2, bo, encoding, L0)
    return ((*theory.in_context_mass(z, triggers, b1, b2, encoding, L0), predicted),
            (trace.attention2, trace.attention2 @ np.eye(z.max() + 1)[z], trace.logits))


@claim("I4", "hard previous-token limit, first position included", derivation=theory.hard_mass,
       control="b1 = 1, far from the limit",
       control_space=dict(prompt=("uniform",), V=(3, 6), T=(32, 64), b2=(3.0, 20.0)),
       limit=("b1", "b1 and b2"), b2=(0.0, 20.0), bo=(0.1, 100.0), **ENDING, **WS24)
def hard_limit(case, law, prompt, limit, V, T, b2, bo):
    """Logits after a trigger, from counts alone."""
    bigram, V, z, q = draw_ending(case, law, prompt, V, T)
    params = construct(draw_frame(case, V, T), bigram, [q], 1.0 if case.control else hard(case),
                       b2 if limit == "b1" else hard(case), bo)
    mass = theory.hard_mass(z, V, b2 if limit == "b1" else hard(case) if case.balls else np.inf)
    return np.log(bigram.pi_b[q]) + bo * mass, forward(params, z).logits[-1]


@claim("I4b", "how far a finite b1 is from the hard limit", kind="inequality",
       derivation=theory.hard_remainder, reason="rounding of shares", control="η = 0: b2 → ∞ before b1",
       control_space=dict(prompt=("uniform",), V=(3, 4), T=(32, 64), b1=(0.0, 2.0), b2=(10.0, 20.0)),
       cases=50, b1=(0.0, 12.0), b2=(0.0, 20.0), **ENDING, **OURS)
def remainder_of_the_hard_limit(case, law, prompt, V, T, b1, b2):
    """Total variation between the model's in-context masses and both limits of I4, in b1 and in b1 and b2."""
    bigram, V, z, q = draw_ending(case, law, prompt, V, T)
    params = construct(draw_frame(case, V, T), bigram, [q], b1, b2, SHARES)
    mass = (forward(params, z).logits[-1] - np.log(bigram.pi_b[q])) / SHARES
    distance = [np.abs(theory.hard_mass(z, V, limit) - mass).sum() / 2 for limit in (b2, np.inf)]
    bound = 0.0 if case.control else theory.hard_remainder(T, b1, b2)
    C = continuations(z, q)[0]
    rest = (T - C) / (np.exp(b2) * C + T - C) if C else 1.0
    return tuple(distance), (bound, bound + rest), 1.0


def continuations(z, q, *tokens):
    """How many positions follow a q, a q in the first place included; how many of them hold each token."""
    after = [int(u) for u, before in zip(z, [z[0], *z[:-1]]) if before == q]
    return (len(after), *(after.count(u) for u in tokens))


def draw_duel(case, law, prompt, where, V, k, others, fillers, b2, ratio, b1=None):
    """Prompt, Δ, bo, logits after its last q: of the model, of I4; their differences of u and w, by I5.

    Of the prompt q → u k times, q → others. "u alone": u stands after q alone and w nowhere, as
    `theory.hijack` has it. "any": all tokens anywhere. The control takes C_u, the copies of q → u, for C.
    """
    bigram, V = draw_bigram(case, law, V)
    others_of = np.where(np.eye(V), -1, bigram.pi_b)
    likely = others_of.max(axis=1, keepdims=True)
    # After q, w is the most probable other token; u is a less probable one.
    rivals = np.argwhere((0 <= others_of) & (others_of < likely))
    if not len(rivals):
        raise ValueError("text: expected a character whose successors differ in frequency, got none")
    q, u = case.rng.choice(rivals)
    w = others_of[q].argmax()
    rest = [v for v in range(V) if v not in (q, u, w)]
    if prompt == "any":
        z = case.rng.choice([q, q, u, w, rest[0]], 2 * (k + others) + fillers + 1)
        z[-1] = q
    else:
        blocks = [[q, u]] * k + [[q, v] for v in case.rng.choice(rest, others)] + \
            [[v] for v in case.rng.choice(rest, fillers - 1)]
        order = case.rng.permutation(len(blocks))
        z = np.array([case.rng.choice(rest), *(v for i in order for v in blocks[i]), q])
    bigram = show(case, bigram, z)
    case.show("q, u, w", ", ".join(str(bigram.chars[v]) for v in (q, u, w)))
    gap = np.log(bigram.pi_b[q, w] / bigram.pi_b[q, u])
    p = theory.hard_mass(z, V, b2)
    if where == "at the tie" and p[u] > p[w]:
        ratio = p[u] - p[w]
    bo = gap if where == "gap = bo" else gap / ratio
    params = construct(draw_frame(case, V, len(z)), bigram, [q], hard(case) if b1 is None else b1, b2, bo)
    logits, expected = forward(params, z).logits[-1], np.log(bigram.pi_b[q]) + bo * p
    C, C_u, C_w = continuations(z, q, u, w)
    margin = theory.hijack_margin(C_u if case.control else C, C_u, C_w, (z == u).sum(), (z == w).sum(),
                                  len(z), gap, b2, bo)
    return (len(z), gap, bo, (expected[u], expected[w], margin),
            (logits[u], logits[w], logits[u] - logits[w]), np.abs(logits).max())


DUEL: dict = dict(law=TEXT["law"], where=("anywhere", "at the tie", "gap = bo"), V=(4, 65), k=(1, 12),
                  others=(0, 12), fillers=(1, 40), b2=(0.0, 8.0), ratio=(0.05, 1.5), cases=50,
                  reason="rounding, relative to the larger logit",
                  control="k, the copies of q → u, in place of C")
OTHERS = dict(prompt=("u alone",), others=(1, 12), b2=(1.0, 8.0))     # C > k, and it matters


@claim("I5", "knowledge hijack: the margin of context over bigram", derivation=theory.hijack_margin,
       control_space=OTHERS, prompt=("u alone", "any"), **DUEL, **WS24,
       parts=("logit of u", "logit of w", "margin", "critical length", "1/critical repetitions"))
def hijack_margin(case, k, others, b2, **drawn):
    """Both logits after the last q, and their difference, from counts; where it vanishes, in T and k."""
    T, gap, bo, predicted, observed, size = draw_duel(case, k=k, others=others, b2=b2, **drawn)
    margin = observed[-1]
    if drawn["prompt"] == "any":
        return predicted, observed, size
    # The margin falls as 1 / (e^b2 C + T − C) with T, and is linear in k if C stays.
    C = k + others
    weight = np.exp(b2) * C + T - C
    _, T_star, k_star = theory.hijack(k, T, gap, b2, bo, C if others else None)
    length, least = T + margin * weight / gap, k - margin * weight / (np.exp(b2) * bo)
    # If C is k, T / k* tokens a repetition are T* / k: they may be too few, and k* infinite.
    inverse = 1 / least if others else max(length, 0.0) / (k * T)
    return ((*predicted, T_star, 1 / k_star), (*observed, length, inverse),
            (*[size] * 3, *[size * weight / gap] * 2))


@claim("I5b", "at finite b1, who wins is certain outside a band", source="WS24", provenance="derived",
       kind="inequality", derivation=theory.hijack, control_space={**OTHERS, "b1": (15.0, 20.0)},
       b1=(0.0, 20.0), prompt=("u alone",), **DUEL)
def winner_outside_the_band(case, b1, k, others, b2, **drawn):
    """The observed margin against that of b1 = ∞; its sign against T* and against k*."""
    T, gap, bo, predicted, observed, size = draw_duel(case, k=k, others=others, b2=b2, b1=b1, **drawn)
    margin, C = observed[-1], k if case.control else k + others
    band = 2 * bo * theory.hard_remainder(T, b1, b2)
    # C = None says that q is always followed by u.
    _, T_star, k_star = theory.hijack(k, T, gap, b2, bo, None if C == k else C)
    return ((abs(margin - predicted[-1]), -band, -band),
            (band, margin * np.sign(T_star - T), margin * np.sign(k - k_star)), size)


def draw_params(case, V, d, L, scale):
    """Any weights: Gaussian embeddings, and every field moved."""
    return Params(*(a + case.rng.normal(0, float(scale) * d ** -0.5, a.shape)
                    for a in init(V, d, L, case.rng)))


@claim("I8", "the model lives in V×V tables: logits, loss and gradients", derivation=tables.logits,
       tolerance=1e-11, control="tables without the histories (Phi = 0)", cases=15,
       reason="rounding; two different orders of addition, up to softmaxes of large scores",
       V=(2, 20), d=(2, 40), T=(1, 40), B=(1, 3), spare=(0, 2), scale=(0.1, 1.5), **KINDS, **OURS)
def model_lives_in_tables(case, prompt, V, d, T, B, spare, scale):
    """Random weights and masks; everything from the plain model against everything from the tables."""
    params = case.number(draw_params(case, V, d, T + spare, scale))
    bigram = Bigram.random(V, case.rng)
    tokens = np.array([draw_prompt(case, prompt, bigram, T + 1, [0]) for _ in range(B)])
    mask = case.rng.random((B, T)) < case.rng.random()
    mask.flat[case.rng.integers(mask.size)] = True
    broken = params._replace(Phi=0 * params.Phi) if case.control else params
    if case.balls:      # the fast path's kernels are for floats
        return forward(params, tokens[0, :-1]).logits, tables.logits(broken, tokens[0, :-1])
    return ((forward(params, tokens[0, :-1]).logits, *loss_and_grads(params, tokens, mask)),
            (tables.logits(broken, tokens[0, :-1]), *tables.loss_and_grads(broken, tokens, mask)))


@claim("I9", "ledger: memories add up to the logits, blocks to the scores", derivation=ledger.logits,
       control="the composite memories WF∘WO left out",
       V=(2, 30), d=(2, 40), T=(1, 40), scale=(0.1, 1.5), **KINDS, **OURS)
def ledger_adds_up(case, prompt, V, d, T, scale):
    """Random weights: the logits and the scores of layer 2 against the sums of their parts."""
    params = case.number(draw_params(case, V, d, T, scale))
    z = draw_prompt(case, prompt, Bigram.random(V, case.rng), T, [0])
    trace, parts = forward(params, z), ledger.logits(params, z)
    if case.control:
        parts = {name: part for name, part in parts.items() if name not in ledger.COMPOSITE}
    return ((trace.logits, trace.scores2),
            (sum(parts.values()), sum(ledger.scores(params, z).values())))


@claim("I11", "three layers without positions: attention and logits", derivation=theory.without_positions,
       reason="rounding of scores up to 100, seen through two more softmaxes",
       control="layer 1 looks for another token than the first",
       control_space=dict(prompt=("sampled", "trigger first"), V=(4, 40), T=(4, 64), b1=(1.0, 10.0),
                          beta=(1.0, 100.0)),
       V=(2, 40), T=(1, 64), K=(1, 5), b1=(0.0, 10.0), beta=(0.0, 100.0), gamma=(0.0, 100.0),
       b3=(0.0, 20.0), bo=(0.0, 100.0), **TEXT, **OURS)
def previous_token_without_positions(case, law, prompt, V, T, K, **strengths):
    """All three attention maps and all logits; constant prompts are the blind spot, repetitions."""
    bigram, triggers, z = draw_marked(case, law, prompt, V, T, K)
    width = 5 * len(bigram.pi_u)
    params = nopos.construct(nopos.frame_of(case.rotation(width), case.rotation(width)), bigram, triggers,
                             0 if case.control else z[0], **strengths)
    predicted = theory.without_positions(z, np.log(bigram.pi_b), triggers, **strengths)
    return tuple(predicted), tuple(nopos.forward(params, z))


@claim("I11b", "sharp without positions, and blind to repetitions", kind="inequality",
       derivation=theory.sharp_bounds, reason="rounding of weights", control="a quarter of β and γ",
       control_space=dict(prompt=("uniform",), V=(5, 20), T=(24, 64)), V=(3, 20), T=(2, 64), **TEXT, **OURS)
def sharp_without_positions(case, law, prompt, V, T):
    """A2[t, t−1] of the constructed model, below where the token changed, above where it is repeated."""
    bigram, triggers, z = draw_marked(case, law, prompt, V, T, 1)
    b1, beta, gamma = theory.sharp_strengths(T)
    weaker = 4 if case.control else 1
    params = nopos.construct(nopos.orthonormal_frame(len(bigram.pi_u), case.rng), bigram, triggers, z[0], b1,
                             beta / weaker, gamma / weaker, 1.0, 1.0)
    weight = np.diag(nopos.forward(params, z).attention2, -1)
    lower, upper = theory.sharp_bounds(T)
    changed = z[1:] != z[:-1]
    return np.where(changed, lower, weight), np.where(changed, weight, upper), 1.0


@claim("IG", "all nine gradients against the complex step", derivation=loss_and_grads, cases=10,
       reason="rounding; relative to the largest entry of each gradient",
       control="dWK1, dWK2 and dWF transposed", encoding=("relative", "absolute"), V=(3, 5), d=(2, 5),
       B=(1, 2), T=(1, 6), spare=(0, 2), scale=(0.3, 1.0), **OURS)
def gradients(case, encoding, V, d, B, T, spare, scale):
    """Random weights, random tokens, a random mask: every coordinate of every field."""
    # Scores of order 1: where attention saturates, its gradient cancels and has fewer digits.
    params = draw_params(case, V, d, T + spare, scale)
    tokens, mask = case.rng.integers(0, V, (B, T + 1)), case.rng.random((B, T)) < 0.6
    mask.flat[case.rng.integers(mask.size)] = True
    grads = loss_and_grads(case.around(params), tokens, mask, encoding)[1]
    if case.control:
        grads = grads._replace(WK1=grads.WK1.T, WK2=grads.WK2.T, WF=grads.WF.T)
    return case.derivative(lambda p: loss(p, tokens, mask, encoding), params), grads
