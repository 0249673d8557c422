"""The catalogue of mistakes that ports make: for a case, every one that its model has room for.

Sums of products are changed by rule (a term or matrix left out, transposed, exchanged, another activation …),
and the name of the mistake is the equation itself. Attention, positions, loss and SGD are changed by hand.
Writing the vectors uses the catalogue to assert that a case catches its mistake; the checker, to explain one.
"""

from functools import lru_cache, partial

import numpy as np

from refimpl.vectors.equations import (
    FUNCTIONS, SCALES, SUMS, Edit, Term, chosen, expression, mixed, parse, right_step, row_losses, run, scores,
    softmax, text_of, weighted)
from refimpl.vectors.tape import Node, apply, exp, join, log, node, power, relu, stop

SQUARE = ("Phi", "WV", "WK1", "WK2", "WO", "WF")
PARTNER = {"U": "E", "A1": "A2", "A2": "A1"}
ACTIVATIONS = {"induction": ("E[z]", "x0", "h1", "x1", "h2", "x2", "y", "logits"),
               "recall": ("x", "preactivation", "hidden", "y", "logits")}
PLACES = ("U[z]", "pos[t]", "pos[t+1]", "pos[T-1-t]", "pos[t mod T/2]")
BLOCKS = (2, 4, 8, 16, 32, 64, 128)


def planted(name, case):
    """Yield the arrays of a port with the mistake of this name, in each of its variants."""
    for edit in catalogue(case):
        if edit.words == name:
            yield run(case, [edit])


def catalogue(case):
    """Every mistake for this case, as a tuple of Edit."""
    return by_setting(case.model, case.setting.get("encoding"), case.setting.get("activation"))


@lru_cache
def by_setting(model, encoding, activation):
    """The catalogue depends on the model and its setting alone."""
    own = induction(encoding) if model == "induction" else recall(activation)
    embedding = (Edit(words, {"E[z]": f}) for words, f in EMBEDDING.items())
    loss = (Edit(words, {"loss": f}, likely=True) for words, f in (*LOSS, *LOSS_OF[model]))
    return (*own, *sums(model, encoding or model), *embedding, *loss, *STEPS)


# Sums of products

def sums(model, kind):
    """Every change by rule of every sum."""
    for out, text in SUMS[kind].items():
        order = ACTIVATIONS[model]
        known = PLACES if out == "x0" else order[:order.index(out)]
        for new, wrap, likely in variations(parse(text), known):
            yield Edit(f"{out} = {text_of(new, wrap)}, not {text}", {out: expression(new, wrap)}, likely=likely)


def variations(terms, known):
    """Yield (terms, function of the whole, likely) for every change of one place."""
    for i, term in enumerate(terms):
        if len(terms) > 1:
            yield terms[:i] + terms[i + 1:], "", True
        for new, likely in term_variations(term, known):
            yield terms[:i] + (new,) + terms[i + 1:], "", likely
    for name in known:
        yield terms + (Term((name,)),), "", False
    for wrap in FUNCTIONS:
        if wrap not in ("", "detach"):
            yield terms, wrap, wrap == "LayerNorm"


def term_variations(term, known):
    """Yield (term, likely) for every change of one place of a product."""
    *matrices, last = term.factors
    for j, name in enumerate(matrices):
        before, after = tuple(matrices[:j]), (*matrices[j + 1:], last)
        others = [other for other in SQUARE if name in SQUARE and other != name]
        for new in (name + "ᵀ", "", PARTNER.get(name, name), *others):
            if new != name and (new or name not in "UW1W2"):
                yield term._replace(factors=(*before, *filter(None, [new]), *after)), new not in others
        if j and name in SQUARE:
            yield term._replace(factors=(*before[:-1], name, before[-1], *after)), True
    for name in known:
        if name != last:
            yield term._replace(factors=(*matrices, name)), True
    for function in filter(None, FUNCTIONS):
        yield term._replace(inner=function), function in ("LayerNorm", "relu")
        if matrices and function != "detach":
            yield term._replace(outer=function), function == "relu"
    for scale in filter(None, SCALES):
        yield term._replace(scale=scale), False


# Attention: functions of the scores S, of query t and key k, and of the width d

def sigmoid(S):
    """1 / (1 + exp(−S))."""
    return power(exp(S * -1.0) + 1.0, -1)


def row_sum(a):
    """Σ over the last axis of an array, which stays with size 1."""
    return a @ Node(np.ones((a.value.shape[-1], 1)))


def largest(S, seen):
    """All weight on the first of the largest scores."""
    allowed = np.where(seen, S.value, -np.inf)
    return node(np.arange(allowed.shape[-1]) == allowed.argmax(-1)[..., None])


def blocks(S, seen, size, stale):
    """Softmax in blocks of keys against a running maximum, where `stale` sums are not rescaled when it grows.

    stale : the names of "weights" (which sum up the values) and "total" (which divides them), or of one
    """
    masked = S + np.where(seen, 0.0, -np.inf)
    running, T = np.maximum.accumulate(masked.value, -1), masked.value.shape[-1]
    old = exp(masked - running[..., np.minimum((np.arange(T) // size + 1) * size, T) - 1])
    new = exp(masked - running[..., -1:])
    return (old if "weights" in stale else new) / row_sum(old if "total" in stale else new)


ATTENTION = {
    "masked scores count as 0": lambda S, t, k, d: softmax(S * (k <= t)),
    "query excluded from its keys": lambda S, t, k, d: softmax(S, k < t),
    "missing first token": lambda S, t, k, d: softmax(S, (k <= t) & ((k > 0) | (t == 0))),
    "scores scaled by 1/√d": lambda S, t, k, d: softmax(S * d ** -0.5, k <= t),
    "scores scaled by √d": lambda S, t, k, d: softmax(S * d ** 0.5, k <= t),
    "sigmoid in place of the attention's softmax": lambda S, t, k, d: sigmoid(S) * (k <= t),
    "attention without a softmax": lambda S, t, k, d: S * (k <= t),
    "attention not divided by its sum": lambda S, t, k, d: exp(S) * (k <= t),
    "a 1 too many in the denominator of the attention": lambda S, t, k, d:
        exp(S) * (k <= t) / (row_sum(exp(S) * (k <= t)) + 1.0),
    "uniform attention": lambda S, t, k, d: softmax(S * 0.0, k <= t),
    "attention to the largest score alone": lambda S, t, k, d: largest(S, k <= t),
    "no gradient through the attention": lambda S, t, k, d: stop(softmax(S, k <= t)),
    "masked scores lowered by 10 only": lambda S, t, k, d: softmax(S + np.where(k <= t, 0, -10.0)),
    **{f"blocks of {size} keys that do not rescale {what}":
       (lambda S, t, k, d, size=size, stale=stale: blocks(S, k <= t, size, stale))
       for size in BLOCKS for stale, what in ((("weights", "total"), "their sums"), (("weights",), "their values"),
                                              (("total",), "their total"))},
}


# Induction

OFTEN = ("scores scaled by 1/√d", "softmax over the wrong axis", "mask includes the future")
OTHER_WAY = (lambda o, T, L: -o, lambda o, T, L: L - 1 - o, lambda o, T, L: T - 1 - o)
OFFSETS = (
    *(("relative offset reversed", row) for row in OTHER_WAY),
    ("offsets clipped", lambda o, T, L: np.minimum(o, T // 2)),
    ("relative positions counted from 1", lambda o, T, L: o + 1),
    ("pos[t] in place of pos[t-s]", lambda o, T, L: o * 0 + np.arange(T)[:, None]),
    ("pos[s] in place of pos[t-s]", lambda o, T, L: o * 0 + np.arange(T)))


def induction(encoding):
    """Attention and positions of both layers."""
    relative = encoding == "relative"
    for words, make in layered(relative):
        for layers, where in (((1, 2), ""), ((1,), " in layer 1"), ((2,), " in layer 2")):
            yield Edit(words + where, {name: f for layer in layers for name, f in make(layer).items()},
                       likely=words in OFTEN or not where and "blocks" not in words)
    for layer, other in ((1, 2), (2, 1)):
        like = partial(layer_scores, layer=layer, relative=relative)
        x, name = f"x{layer - 1}", f"scores{layer}"
        yield Edit(f"WK{layer} used transposed", {name: partial(like, key_matrix=f"WK{layer}ᵀ")}, likely=True)
        yield Edit(f"WK{other} in place of WK{layer}", {name: partial(like, key_matrix=f"WK{other}")}, likely=True)
        known = ACTIVATIONS["induction"][relative:2 * layer]
        for query in known:
            for key in known:
                if (query, key) != (x, x):
                    yield Edit(f"{name} of queries {query} and keys {key}, not {x} and {x}",
                               {name: partial(like, query=query, key=key)}, likely=query == key)
        for function in filter(None, FUNCTIONS):
            yield Edit(f"{name} of {function}({x}), not {x}", {name: partial(like, function=function)},
                       likely=function == "LayerNorm")
    if relative:
        for words, row in OFFSETS:
            yield Edit(words, {"scores1": lambda s, row=row: layer_scores(
                s, 1, True, row=row(s.offset, s.T, len(s.pos.value)))}, likely=True)
        yield Edit("no positions", {"scores1": partial(layer_scores, layer=1, relative=False)}, likely=True)
        yield Edit("positions in layer 2, too", {"scores2": lambda s: layer_scores(s, 2, True, row=s.offset)}, likely=True)
        yield Edit("positions on the queries, not the keys", {"scores1": on_queries}, likely=True)
        yield Edit("positions on the values, too", {"h1": on_values}, likely=True)
    swapped = dict(x0=expression(parse(SUMS["absolute" if relative else "relative"]["x0"])),
                   scores1=partial(layer_scores, layer=1, relative=not relative))
    yield Edit("encodings swapped", swapped)
    yield Edit("missing first token", case=lambda case: case._replace(
        tokens=case.tokens[:, 1:], labels=case.labels[:, 1:]))


def layer_scores(s, layer, relative, query=None, key=None, key_matrix=None, function="", row=None, **how):
    """The scores of a layer, with something else in them."""
    x, f = f"x{layer - 1}", FUNCTIONS[function]
    W = vars(s)[(key_matrix or f"WK{layer}").rstrip("ᵀ")]
    row = s.offset if row is None and relative and layer == 1 else row
    return scores(s, W.T if (key_matrix or "").endswith("ᵀ") else W, f(vars(s)[query or x]),
                  f(vars(s)[key or x]), row, **how)


def layered(relative):
    """Yield words and a function, layer -> changes, of what may be wrong in either layer or in both."""
    def of_attention(f):
        return lambda layer: {f"attention{layer}": lambda s: f(
            vars(s)[f"scores{layer}"], *np.indices((s.T, s.T)), s.d)}

    def full(layer, row):
        def wrong(s):
            offsets = row(s.offset, s.T, len(s.case.params.pos)) if relative and layer == 1 else None
            return layer_scores(s, layer, relative, row=offsets, mask=np.asarray)
        return {f"scores{layer}": wrong, **of_attention(lambda S, t, k, d: softmax(S))(layer)}

    for words, f in ATTENTION.items():
        yield words, of_attention(f)
    yield "softmax over the wrong axis", of_attention(lambda S, t, k, d: softmax(S, k <= t, -2))
    for row in (lambda o, T, L: o, lambda o, T, L: abs(o), lambda o, T, L: np.maximum(o, 0))[:3 if relative else 1]:
        yield "mask includes the future", partial(full, row=row)
    yield "scores scaled by 1/√d", lambda layer: {f"scores{layer}": lambda s: layer_scores(
        s, layer, relative, scale=s.d ** -0.5)}


def on_queries(s):
    """(x0_t + pos[t−s]) · WK1 x0_s."""
    position = (s.pos @ s.WK1 @ s.x0.T)[:, s.offset % len(s.pos.value), np.arange(s.T)]
    return (s.x0 @ s.WK1 @ s.x0.T + position) * np.tri(s.T)


def on_values(s):
    """Σ_s A1_ts (x0_s + pos[t−s])."""
    position = s.pos[s.offset % len(s.pos.value)]                   # (T, T, d)
    return s.attention1 @ s.x0 + (s.attention1[:, :, None] @ position)[:, :, 0]


# Recall

def recall(activation):
    """Rows, attention and activation."""
    for words, f in ATTENTION.items():
        yield Edit(words, {"attention": lambda s, f=f: f(
            s.scores[:, None], s.T - 1, np.arange(s.T), len(s.WKQ.value))[:, 0]}, likely="blocks" not in words)
    for words, f in {
            "U in place of E": lambda s: join(s.U[s.z], s.P[s.places]),
            "positions above the content": lambda s: join(s.P[s.places], vars(s)["E[z]"]),
            "no positions": lambda s: join(vars(s)["E[z]"], Node(0 * s.P.value[s.places])),
            "positions counted from 1": lambda s: join(
                vars(s)["E[z]"], s.P[(s.places + 1) % len(s.P.value)]),
            "positions counted backwards": lambda s: join(vars(s)["E[z]"], s.P[s.T - 1 - s.places])}.items():
        yield Edit(words, {"rows": f}, likely=True)
    for words, f in {
            "WKQ used transposed": lambda s: (s.rows[:, -1:] @ s.WKQ.T @ s.rows.T)[:, 0],
            "first token asks": lambda s: (s.rows[:, :1] @ s.WKQ @ s.rows.T)[:, 0],
            "scores scaled by 1/√d": lambda s: (s.rows[:, -1:] @ s.WKQ @ s.rows.T)[:, 0] * s.d ** -0.5,
            "scores scaled by 1/√(d+dp)": lambda s:
                (s.rows[:, -1:] @ s.WKQ @ s.rows.T)[:, 0] * len(s.WKQ.value) ** -0.5}.items():
        yield Edit(words, {"scores": f}, likely=True)
    values = lambda s: mixed(s.attention, s.rows[..., :s.d])        # noqa: E731
    for words, f in {
            "x = U[z] mixed, not E[z]": lambda s: mixed(s.attention, s.U[s.z]),
            "x with a residual, E of the last token": lambda s: values(s) + vars(s)["E[z]"][:, -1],
            "x = E of the last token": lambda s: vars(s)["E[z]"][:, -1],
            "no gradient through the values": lambda s: mixed(s.attention, stop(s.rows[..., :s.d]))}.items():
        yield Edit(words, {"x": f}, likely=True)
    for words, f in {
            "ReLU in place of the square": relu, "square in place of ReLU": lambda a: a * a,
            "no activation": lambda a: a, "GELU in place of the activation": FUNCTIONS["gelu"],
            "half the square": lambda a: a * a * 0.5}.items():
        yield Edit(words, {"hidden": lambda s, f=f: f(s.preactivation)}, likely=True)
    for at_zero in (0.5, 1.0) if activation == "relu" else ():
        yield Edit("derivative of ReLU at 0 is not 0", {"hidden": lambda s, h=at_zero: relu(s.preactivation, h)})
    if activation == "square":
        yield Edit("derivative of the square lacks its 2", {"hidden": lambda s: apply(
            s.preactivation, s.preactivation.value ** 2, s.preactivation.value)})
    yield Edit("y with a residual, x + W2 hidden", {"y": expression(parse("x + W2 hidden"))}, likely=True)
    yield Edit("missing first token", case=lambda case: case._replace(tokens=case.tokens[:, 1:]))


# Embeddings

def overwritten(s):
    """E[z], whose gradient keeps the last occurrence of a token in each sequence."""
    def back(g):
        whole = np.zeros_like(s.E.value)
        for z, rows in zip(s.z, g):
            one = np.zeros_like(whole)
            one[z] = rows
            whole += one
        return whole
    return Node(s.E.value[s.z], (s.E, back))


EMBEDDING = {
    "repeated tokens overwrite the gradient": overwritten,
    "no gradient for the embeddings": lambda s: stop(s.E[s.z]),
    "no gradient for token 0 (padding_idx)": lambda s:
        s.E[s.z] * (s.z != 0)[..., None] + stop(s.E[s.z]) * (s.z == 0)[..., None]}


# The loss

def of_rows(change):
    """The loss with its rows changed."""
    return lambda s: weighted(change(row_losses(s.logits, s.target, *s.slot), s), s.weights)


def with_weights(f):
    """The loss with other weights, f(mask or ones of the prompts, B)."""
    return lambda s: weighted(row_losses(s.logits, s.target, *s.slot), f(
        s.labels if s.case.model == "induction" else np.ones(len(s.z)), len(s.z)))


def with_targets(f):
    """The loss with other targets."""
    return lambda s: weighted(row_losses(s.logits, f(s), *s.slot), s.weights)


def with_logits(f):
    """The loss of other logits within the slot, f(s)."""
    return lambda s: weighted(row_losses(f(s), s.target, *s.slot), s.weights)


def smoothed(epsilon):
    """Label smoothing: the share epsilon of the target goes to all tokens of the slot alike."""
    def change(rows, s):
        tokens = [row_losses(s.logits, np.full_like(s.target, u), *s.slot) for u in range(*s.slot)]
        return rows * (1 - epsilon) + sum(tokens[1:], tokens[0]) * (epsilon / len(tokens))
    return of_rows(change)


def untied(s):
    """log(1 + Σ exp(logit − largest)) over the logits *below* the largest: its ties are lost."""
    logits = s.logits[..., slice(*s.slot)]
    top = logits.value.max(-1, keepdims=True)
    below = logits.value < top - 1e-9 * abs(top)
    rest = exp(logits - top) * below
    return weighted((log(row_sum(rest) + 1.0) + top)[..., 0] - chosen(logits, s.target - s.slot[0]), s.weights)


def overflowing(s):
    """log Σ exp(logits), the largest not subtracted."""
    logits = s.logits[..., slice(*s.slot)]
    return weighted(log(row_sum(exp(logits)))[..., 0] - chosen(logits, s.target - s.slot[0]), s.weights)


def other_slot(f):
    """The loss over another slot: f(start, stop, V, first target)."""
    return lambda s: weighted(row_losses(s.logits, s.target, *f(
        *s.slot, len(s.E.value), int(s.target.min()))), s.weights)


LOSS = (
    ("loss in bits", of_rows(lambda rows, s: rows * (1 / np.log(2)))),
    ("loss negated", of_rows(lambda rows, s: rows * -1.0)),
    *((f"label smoothing {epsilon}", smoothed(epsilon)) for epsilon in (0.1, 0.05, 0.2)),
    ("softmax overflows", overflowing), ("ties left out of the sum", untied),
    ("sigmoid in place of softmax", lambda s: weighted(
        log(exp(chosen(s.logits, s.target) * -1.0) + 1.0), s.weights)),
    ("softmax taken twice", with_logits(lambda s: softmax(s.logits))),
    ("logits scaled by 1/√d", with_logits(lambda s: s.logits * s.d ** -0.5)),
    ("a sum in place of the mean", with_weights(lambda mask, B: mask)),
    ("the mean taken twice", with_weights(lambda mask, B: mask / mask.sum() ** 2)),
    ("loss of the first sequence alone", with_weights(
        lambda mask, B: np.concatenate([mask[:1], 0 * mask[1:]]) / max(mask[0].sum(), 1))),
)
LOSS_OF = {
    "induction": (
        ("targets shifted by one position", with_targets(lambda s: s.z)),
        ("targets shifted by one position", with_targets(lambda s: np.roll(s.target, -1, 1))),
        ("mask of the loss ignored", with_weights(lambda mask, B: np.ones(mask.shape) / mask.size)),
        *(("mask of the loss shifted by one position", with_weights(
            lambda mask, B, by=by: np.roll(mask, by, 1) / mask.sum())) for by in (1, -1)),
        ("mean over all positions, not the mask", with_weights(lambda mask, B: mask / mask.size)),
        ("mean of the sequences' means", with_weights(
            lambda mask, B: mask / np.maximum(mask.sum(1, keepdims=True), 1) / B)),
        ("a sum over positions, a mean over sequences", with_weights(lambda mask, B: mask / B)),
        ("loss of the last position alone", with_weights(
            lambda mask, B: (np.arange(mask.shape[1]) == mask.shape[1] - 1) * np.ones(mask.shape) / B))),
    "recall": (
        ("slot ignored", other_slot(lambda start, stop, V, target: (0, V))),
        ("slot always on", other_slot(lambda start, stop, V, target: (min(target, V - 2), V))),
        ("slot one too long", other_slot(lambda start, stop, V, target: (start, min(stop + 1, V)))),
        ("slot one too short", other_slot(lambda start, stop, V, target: (start, max(stop - 1, start + 1)))),
        ("logits outside the slot count as 0", lambda s: weighted(row_losses(
            s.logits * inside(s), s.target), s.weights)),
        ("logits outside the slot lowered by 10 only", lambda s: weighted(row_losses(
            s.logits + (inside(s) - 1) * 10.0, s.target), s.weights)),
        ("targets counted within the slot, logits not", lambda s: weighted(row_losses(
            s.logits, s.target - s.slot[0]), s.weights))),
}


def inside(s):
    """1 for tokens of the slot, 0 for others, (V,)."""
    u = np.arange(len(s.E.value))
    return ((u >= s.slot[0]) & (u < s.slot[1])) * 1.0


# SGD. Rules as `equations.right_step`.

def decoupled(number, w, g, buffer, lr, momentum, weight_decay):
    """AdamW's weight decay: beside the buffer, not through it."""
    buffer = momentum * buffer + g
    return w - lr * (buffer + weight_decay * w), buffer


def dampened(number, w, g, buffer, lr, momentum, weight_decay, spared=1):
    """The new gradient times 1 − momentum; PyTorch's dampening spares the first."""
    buffer = momentum * buffer + (1 if number <= spared else 1 - momentum) * (g + weight_decay * w)
    return w - lr * buffer, buffer


def nesterov(number, w, g, buffer, lr, momentum, weight_decay):
    """A step along the buffer that the next gradient would meet."""
    g = g + weight_decay * w
    buffer = momentum * buffer + g
    return w - lr * (g + momentum * buffer), buffer


def rate_twice(number, w, g, buffer, lr, momentum, weight_decay, in_buffer=1):
    """lr² in all; `in_buffer` of the two factors are in the buffer already."""
    buffer = momentum * buffer + lr ** in_buffer * (g + weight_decay * w)
    return w - lr ** (2 - in_buffer) * buffer, buffer


def rate_in_buffer(number, w, g, buffer, lr, momentum, weight_decay):
    """The same steps as long as lr is constant, but the buffer is lr times PyTorch's."""
    buffer = momentum * buffer + lr * (g + weight_decay * w)
    return w - buffer, buffer


def stepping(**other):
    """The right step, with other settings; each is a number, or a function of the step's number."""
    def rule(number, w, g, buffer, **settings):
        return right_step(number, w, g, buffer, **{**settings, **{
            key: f(number, settings[key]) if callable(f) else f for key, f in other.items()}})
    return rule


def clipped(largest):
    """Gradients shortened to this norm, all fields together."""
    def gather(history):
        norm = np.sqrt(sum((g ** 2).sum() for g in history[-1]))
        return [g * min(1, largest / norm) if norm else g for g in history[-1]]
    return gather


RULES = (
    ("weight decay decoupled", decoupled), ("momentum with dampening", dampened),
    ("momentum with dampening", partial(dampened, spared=0)), ("momentum with Nesterov", nesterov),
    *(("learning rate applied twice", partial(rate_twice, in_buffer=k)) for k in (0, 1, 2)),
    ("learning rate inside the momentum buffer", rate_in_buffer),
    ("weight decay ignored", stepping(weight_decay=0.0)), ("momentum ignored", stepping(momentum=0.0)),
    ("momentum always on", stepping(momentum=0.9)), ("weight decay always on", stepping(weight_decay=0.01)),
    ("weight decay subtracted", stepping(weight_decay=lambda number, wd: -wd)),
    ("gradient ascent", stepping(lr=lambda number, lr: -lr)),
    *((f"warm-up of the learning rate over {n} steps", stepping(lr=lambda number, lr, n=n: lr * min(1, number / n)))
      for n in (2, 3, 5, 10, 100, 1000)),
    ("frozen", lambda number, w, g, buffer, **settings: (w, 0 * buffer)),
)
STEPS = (
    *(Edit(words, rule=rule) for words, rule in RULES),
    Edit("all fields move", case=lambda case: case._replace(sgd={**case.sgd, "trained": None})),
    Edit("gradients added up over the steps (zero_grad forgotten)",
         gather=lambda history: [sum(gs) for gs in zip(*history)]),
    *(Edit(f"gradients clipped to norm {n}", gather=clipped(n)) for n in (0.1, 0.25, 0.5, 1.0, 5.0)),
)
