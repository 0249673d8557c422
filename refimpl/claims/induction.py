"""The claims of system I, each as a check of one instance: prediction by theory, observation by model.

Prompts come from trigger-bigram text whose bigram is that of real text or random, and on purpose
from the corners: a trigger in the first place, one token repeated, any tokens at all.
"""

from functools import lru_cache
from itertools import product

import numpy as np
from scipy.stats import linregress, t as student

from refimpl.claims.claim import claim
from refimpl.gradcheck import complex_step
from refimpl.induction import ledger, moments, nopos, tables, theory
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
    if prompt == "trigger first":       # once or twice
        z[:case.rng.integers(1, 3)] = case.rng.choice(triggers)
    if prompt == "constant":
        z[:] = case.rng.choice(triggers)
    return z


def show(case, bigram, z):
    """Tell the reader of `explain` the prompt, in letters; a random bigram has numbers for letters."""
    case.show("tokens", " ".join({" ": "␣", "\n": "↵"}.get(bigram.chars[v], str(bigram.chars[v])) for v in z))


def draw_frame(case, V, L, encoding="relative"):
    """The orthonormal frame; for a control, Gaussian embeddings of the same width."""
    frame = orthonormal_frame(V, L, case.rng, encoding)
    return init(V, frame.E.shape[1], L, case.rng) if case.control else frame


@claim("I1", "previous-token head, relative positions, any length", source="BCBJB23, WS24",
       provenance="formalised", derivation=theory.previous_token_attention,
       control="embeddings Gaussian, not orthonormal", control_space=dict(T=(3, 64), b1=(1.0, 20.0)),
       law=LAWS, prompt=PROMPTS, V=(2, 65), T=(1, 64), b1=(0.0, 20.0))
def previous_token_head(case, law, prompt, V, T, b1):
    """A1 of the constructed model against e^b1/(e^b1 + t) and 1/(e^b1 + t)."""
    bigram = draw_bigram(case, law, V)
    z = draw_prompt(case, prompt, bigram, T, [0])
    params = construct(draw_frame(case, len(bigram.pi_u), T), bigram, [0], b1, 1, 1)
    return theory.previous_token_attention(T, b1), forward(params, z).attention1


@claim("I2", "absolute positions stop at the training length", source="WS24",
       provenance="formalised", derivation=theory.previous_token_attention,
       control="positions relative, not absolute", control_space=dict(beyond=(1, 32), b1=(1.0, 20.0)),
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
       parts=("attention of layer 2", "logits"),
       law=LAWS, prompt=PROMPTS, encoding=("relative", "absolute"), V=(2, 65), T=(1, 64),
       train_length=(1, 64), K=(1, 5), b1=(0.0, 20.0), b2=(0.0, 100.0), bo=(0.0, 1000.0))
def logits_in_closed_form(case, law, prompt, encoding, V, T, train_length, K, b1, b2, bo):
    """Both attention maps and all logits; absolute positions below and beyond the training length."""
    bigram = draw_bigram(case, law, V)
    V = len(bigram.pi_u)
    triggers = case.rng.permutation(V)[:K]
    z = draw_prompt(case, prompt, bigram, T, triggers)
    show(case, bigram, z)
    L0 = min(train_length, T) if encoding == "absolute" else None
    params = construct(draw_frame(case, V, T, encoding), bigram, triggers, b1, b2, bo, encoding, L0)
    trace = forward(params, z, encoding)
    attention2, _ = theory.in_context_mass(z, triggers, b1, b2, encoding, L0)
    return ((attention2, theory.logits(z, np.log(bigram.pi_b), triggers, b1, b2, bo, encoding, L0)),
            (trace.attention2, trace.logits))


@claim("I4", "hard previous-token limit, first position included", source="WS24",
       provenance="formalised", derivation=theory.hard_mass, control="b1 = 1, far from the limit",
       control_space=dict(prompt=("trigger first",), V=(8, 65), T=(16, 64), b2=(3.0, 20.0)),
       law=LAWS, prompt=PROMPTS, limit=("b1", "b1 and b2"), V=(2, 65), T=(1, 64),
       b2=(0.0, 20.0), bo=(0.1, 100.0))
def hard_limit(case, law, prompt, limit, V, T, b2, bo):
    """Logits after a trigger, from counts alone."""
    bigram = draw_bigram(case, law, V)
    V = len(bigram.pi_u)
    q = int(case.rng.integers(V))
    z = draw_prompt(case, prompt, bigram, T, [q])
    z[-1] = q
    show(case, bigram, z)
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
    q, w, u = draw_rivals(case, bigram)
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
    observed = sign(logits[u] - logits[w], bo)
    wins, T_star, k_star = theory.hijack(k, T, gap, b2, bo)
    predicted = sign(T_star - T, T), sign(k - k_star, k)
    return (*predicted, wins and observed != 0), (observed, observed, observed > 0)


def draw_rivals(case, bigram):
    """A token q, its most probable successor w and any less probable one u, all different."""
    for q in case.rng.permutation(len(bigram.pi_u)):
        order = [v for v in np.argsort(-bigram.pi_b[q], kind="stable") if v != q]
        rivals = [v for v in order if bigram.pi_b[q, v] < bigram.pi_b[q, order[0]]]
        if rivals:
            return q, order[0], case.rng.choice(rivals)
    raise ValueError("text: expected a character whose successors differ in frequency, got none")


def sign(difference, scale):
    """−1, 0 or 1; differences below 1e-9 of the scale are ties."""
    return 0 if abs(difference) <= 1e-9 * scale else int(np.sign(difference))


WIDTHS = (128, 181, 256, 362, 512)                  # half octaves: a second
ALL_WIDTHS = (128, 256, 512, 1024, 2048, 4096)      # minutes, and 3 GB of memory
DRAWS = 16          # of embeddings and prompt, at each width
CONFIDENCE = 0.99
SCATTER = 0.2       # 1 − r² allowed: a scatter of 14 % about a line that falls by a factor of 2


@claim("I6", "random embeddings: the gap to I3 falls as d^(-1/2)", source="BCBJB23, NLB24",
       provenance="derived", derivation=theory.embedding_slope, kind="limit", cases=1,
       reason="the slope's 99 % interval holds −1/2 (one true line in 100 fails that) and r² ≥ 0.8",
       control="entries of E with variance 1/128 at every width", V=(8, 12), T=(8, 16),
       strength=(0.5, 1.0))
def gap_of_random_embeddings(case, V, T, strength):
    """A line through log rms gap against log d; moderate strengths, which keep it straight from 128."""
    bigram = Bigram.from_counts(case.rng.integers(1, 5, (V, V)))    # no rare pair that rules the gap
    strengths = (strength, strength, 1.0)
    prompts = sample(bigram, DRAWS, T, case.rng, [0]).tokens[:, :T]     # the same at every width
    expected = [theory.logits(z, np.log(bigram.pi_b), [0], *strengths) for z in prompts]
    widths, gaps = ALL_WIDTHS if case.full else WIDTHS, []
    for d in widths:
        squares = []
        for z, logits in zip(prompts, expected):
            frame = init(V, d, T, case.rng)
            if case.control:
                frame = frame._replace(E=frame.E * (d / WIDTHS[0]) ** 0.5)
            params = construct(frame, bigram, [0], *strengths)
            squares.append(np.mean((forward(params, z).logits - logits) ** 2))
        gaps.append(np.sqrt(np.mean(squares)))
    line = linregress(np.log(widths), np.log(gaps))
    half_width = line.stderr * student.ppf((1 + CONFIDENCE) / 2, len(widths) - 2)
    return (theory.embedding_slope(), 1.0), (line.slope, line.rvalue ** 2), (half_width, SCATTER)


class TriggerChain:
    """A chain with one trigger, in the orthonormal frame, and every sequence that ends with it."""

    def __init__(self, case, outputs, V, T):
        self.q, self.T = int(case.rng.integers(V)), T
        bigram = Bigram.random(V, case.rng)
        # With T = 1 there is no context: what is learned is by how much the output is not uniform.
        pi_o = np.full(V, 1 / V) if outputs == "uniform" and T > 1 else \
            case.rng.dirichlet(np.full(V, 1.0 if T > 1 else 0.1))
        self.laws = (bigram.pi_u, bigram.pi_b, pi_o, self.q, T)
        self.sequences, self.probabilities = sequence_distribution(*self.laws, redrawn=case.control)
        self.frame = orthonormal_frame(V, T, case.rng)

    def descent(self, params):
        """Minus the gradient of the expected loss at the last position: all sequences, one by one."""
        last = np.arange(self.T)[None] == self.T - 1
        total = Params(*(np.zeros_like(field) for field in params))
        for z, probability in zip(self.sequences, self.probabilities):
            for sum_z, grad in zip(total, loss_and_grads(params, z[None], last)[1]):
                sum_z -= probability * grad
        return total

    def descent_of_WK2(self, params):
        """⟨E[q], −∂L/∂WK2 ·⟩ on E and on Phi E."""
        row = self.frame.E[self.q] @ self.descent(params).WK2
        return moments.SecondGradient(self.frame.E @ row, self.frame.E @ self.frame.Phi.T @ row)

    def descent_of_WK1(self, params):
        """⟨Σ_v E[v], −∂L/∂WK1 pos[δ]⟩ for every δ."""
        return self.frame.pos @ (self.frame.E.sum(axis=0) @ self.descent(params).WK1)


def sequence_distribution(pi_u, pi_b, pi_o, q, T, redrawn=False):
    """All sequences z_0 … z_{T−1} = q with their label o as token T, and their probabilities.

    `redrawn` draws the output anew at every visit of q: each is then as likely as the label.
    """
    V = len(pi_u)
    sequences = np.array([[*z, q, o] for z in product(range(V), repeat=T - 1) for o in range(V)])
    probabilities = []
    for z in sequences:
        steps = [(pi_o[u] if redrawn else u == z[-1]) if v == q else pi_b[v, u]
                 for v, u in zip(z[:-2], z[1:-1])]
        probabilities.append(pi_u[z[0]] * pi_o[z[-1]] * np.prod(steps))
    keep = np.array(probabilities) > 0
    return sequences[keep], np.array(probabilities)[keep] / np.sum(probabilities)


REDRAWN = "output drawn anew at every visit, not once per sequence"
OUTPUTS = ("random", "uniform")
STEP = 0.05     # of gradient descent: small enough for leading order, far above rounding
ORDER = 0.1     # how far below a whole number the observed order of a remainder may stay


def order_of(remainder, order):
    """`order`, and log2 of how much a remainder shrinks when the step is halved, `order` at most.

    Where the coefficient of the remainder vanishes (two tokens, uniform outputs) it shrinks faster.
    """
    shrinks = np.linalg.norm(remainder(STEP)) / np.linalg.norm(remainder(STEP / 2))
    return order, min(np.log2(shrinks), order), ORDER


@claim("I7", "the first gradient of WO and WF is a Markov moment", source="BCBJB23",
       provenance="derived", derivation=moments.first_gradient, cases=10, control=REDRAWN,
       control_space=dict(T=(2, 5)),
       outputs=OUTPUTS, V=(2, 3), T=(1, 5))
def first_gradient_is_a_moment(case, outputs, V, T):
    """All four tables, against backpropagation summed over all sequences."""
    chain = TriggerChain(case, outputs, V, T)
    down = chain.descent(chain.frame)
    E, E_image, U, WV = chain.frame.E, chain.frame.E @ chain.frame.Phi.T, chain.frame.U, chain.frame.WV
    return (moments.first_gradient(moments.pair_moments(*chain.laws)),
            moments.FirstGradient(U @ down.WO @ WV @ E.T, U @ down.WO @ WV @ E_image.T,
                                  U @ down.WF @ E.T, U @ down.WF @ E_image.T))


@claim("I7b", "the second step, of WK2: leading order, remainder one higher", source="BCBJB23",
       provenance="derived", derivation=moments.second_gradient, kind="limit", cases=6, control=REDRAWN,
       reason="the remainder is η² (C + O(η)): from η = 0.05 to 0.025 its order is at least 2 − 0.1",
       outputs=OUTPUTS, V=(2, 3), T=(2, 4))
def second_gradient_at_leading_order(case, outputs, V, T):
    """The order of what is left of ∂L/∂WK2, after a gradient step of WO, when theory is taken off."""
    chain = TriggerChain(case, outputs, V, T)
    J = moments.pair_moments(*chain.laws)
    leading = moments.second_gradient(J, *moments.first_gradient(J)[:2])
    down = chain.descent(chain.frame)

    def remainder(step):
        return np.subtract(chain.descent_of_WK2(chain.frame._replace(WO=step * down.WO)),
                           step * np.array(leading))
    return order_of(remainder, 2)


@claim("I7c", "the third step, of WK1: leading order, remainder one higher", source="BCBJB23",
       provenance="derived", derivation=moments.third_gradient_by_keys, kind="limit", cases=6,
       control=REDRAWN, reason="as I7b; order 2 or, where the match alone teaches, 4",
       path=("keys", "values"), outputs=OUTPUTS, V=(2, 3), T=(3, 4))
def third_gradient_at_leading_order(case, path, outputs, V, T):
    """The order of what is left of ∂L/∂WK1, after steps of WO and WK2, when theory is taken off."""
    chain = TriggerChain(case, outputs, V, T)
    frame, q = chain.frame, chain.q
    J = moments.pair_moments(*chain.laws)
    A, B = moments.first_gradient(J)[:2]
    down = chain.descent(frame)
    if path == "values":
        def remainder(step):
            params = frame._replace(WO=step * down.WO)
            params = params._replace(WK2=step * chain.descent(params).WK2)
            return chain.descent_of_WK1(params) - step * moments.third_gradient_by_values(J, B)
        return order_of(remainder, 2)
    values, images = frame.E @ frame.WV.T, frame.E @ frame.Phi.T
    d = moments.second_gradient(J, A, np.zeros((V, V))).WK2_mixed
    leading = moments.third_gradient_by_keys(J, A, d)

    def remainder_of_match(step):
        params = frame._replace(WO=step * down.WO @ values.T @ values)
        learned = chain.descent_of_WK2(params).WK2_mixed
        params = params._replace(WK2=step * np.outer(frame.E[q], learned @ images))
        return chain.descent_of_WK1(params) - step ** 3 * leading
    return order_of(remainder_of_match, 4)


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


@claim("I9", "ledger: memories add up to the logits, blocks to the scores",
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


@claim("I11", "three layers find the previous token without positions", source="this project",
       provenance="derived", derivation=theory.without_positions,
       reason="rounding of scores up to 100, seen through two more softmaxes",
       control="layer 1 looks for another token than the first",
       control_space=dict(prompt=("sampled", "trigger first"), V=(4, 40), T=(4, 64), b1=(1.0, 10.0),
                          beta=(1.0, 100.0)),
       law=LAWS, prompt=PROMPTS,
       V=(2, 40), T=(1, 64), K=(1, 5), b1=(0.0, 10.0), beta=(0.0, 100.0), gamma=(0.0, 100.0),
       b3=(0.0, 20.0), bo=(0.0, 100.0))
def previous_token_without_positions(case, law, prompt, V, T, K, b1, beta, gamma, b3, bo):
    """All three attention maps and all logits; constant prompts are the blind spot, repetitions."""
    bigram = draw_bigram(case, law, V)
    V = len(bigram.pi_u)
    kappa = V - 1
    triggers = case.rng.permutation(V)[:K]
    z = draw_prompt(case, prompt, bigram, T, triggers) % kappa      # the marker nowhere else
    z[0] = kappa
    strengths = (b1, beta, gamma, b3, bo)
    params = nopos.construct(nopos.orthonormal_frame(V, case.rng), bigram, triggers,
                             0 if case.control else kappa, *strengths)
    predicted = theory.without_positions(z, np.log(bigram.pi_b), triggers, *strengths)
    return tuple(predicted), tuple(nopos.forward(params, z))


@claim("IG", "all nine gradients against the complex step", source="this project",
       provenance="derived", derivation=loss_and_grads, cases=10,
       reason="rounding; relative to the largest entry of each gradient",
       control="dWK1, dWK2 and dWF transposed", encoding=("relative", "absolute"),
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
        grads = grads._replace(WK1=grads.WK1.T, WK2=grads.WK2.T, WF=grads.WF.T)
    return complex_step(lambda p: loss(p, tokens, mask, encoding), params), grads
