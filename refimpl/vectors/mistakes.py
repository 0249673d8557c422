"""The catalogue of mistakes that ports make: for a case, every one that its model has room for.

Sums of products are changed by rule (a term or matrix left out, transposed, exchanged, another activation …),
and the name of the mistake is the equation itself. Attention, positions, loss and SGD are changed by hand.
Writing the vectors uses the catalogue to assert that a case catches its mistake; the checker, to explain one.
"""

from functools import lru_cache, partial
from typing import Callable

import numpy as np

from refimpl.vectors.equations import (
    FUNCTIONS, SCALES, SUMS, Edit, Term, chosen, expression, mixed, parse, row_losses, run,
    scores, softmax, text_of, weighted)
from refimpl.vectors.rules import STEPS
from refimpl.vectors.tape import Node, apply, detach, exp, join, log, node, power, relu, total

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
        known = PLACES if out == "x0" else order[kind == "relative":order.index(out)]     # x0 is E[z] there
        for new, wrap, likely in variations(parse(text), known):
            words = f"{out} = {text_of(new, wrap)}, not {text}"
            yield Edit(words, {out: expression(new, wrap)}, likely=likely)


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
    for scale in SCALES:
        yield term._replace(scale=scale), False


# Attention: functions of the scores S, of query t and key k, and of the width d

def largest(S, seen):
    """All weight on the first of the largest scores."""
    allowed = np.where(seen, S.value, -np.inf)
    return node(np.arange(allowed.shape[-1]) == allowed.argmax(-1)[..., None])


def blocks(S, seen, size, stale):
    """Softmax in blocks of keys against a running maximum, some of whose sums are not rescaled."""
    masked = S + np.where(seen, 0.0, -np.inf)
    running, T = np.maximum.accumulate(masked.value, -1), masked.value.shape[-1]
    old = exp(masked + -running[..., np.minimum((np.arange(T) // size + 1) * size, T) - 1])
    new = exp(masked + -running[..., -1:])
    return (new if stale == "their total" else old) / total(new if stale == "their values" else old)


ATTENTION: dict[str, Callable] = {
    "masked scores count as 0": lambda S, t, k, d: softmax(S * (k <= t)),
    "query excluded from its keys": lambda S, t, k, d: softmax(S, k < t),
    "missing first token": lambda S, t, k, d: softmax(S, (k <= t) & ((k > 0) | (t == 0))),
    "scores scaled by 1/√d": lambda S, t, k, d: softmax(S * d ** -0.5, k <= t),
    "scores scaled by √d": lambda S, t, k, d: softmax(S * d ** 0.5, k <= t),
    "sigmoid in place of the attention's softmax": lambda S, t, k, d:
        power(exp(S * -1.0) + 1.0, -1) * (k <= t),
    "attention without a softmax": lambda S, t, k, d: S * (k <= t),
    "attention not divided by its sum": lambda S, t, k, d: exp(S) * (k <= t),
    "a 1 too many in the denominator of the attention": lambda S, t, k, d:
        exp(S) * (k <= t) / (total(exp(S) * (k <= t)) + 1.0),
    "uniform attention": lambda S, t, k, d: softmax(S * 0.0, k <= t),
    "attention to the largest score alone": lambda S, t, k, d: largest(S, k <= t),
    "no gradient through the attention": lambda S, t, k, d: detach(softmax(S, k <= t)),
    "masked scores lowered by 10 only": lambda S, t, k, d: softmax(S + np.where(k <= t, 0, -10.0)),
    **{f"blocks of {size} keys that do not rescale {what}":
       lambda S, t, k, d, size=size, what=what: blocks(S, k <= t, size, what)
       for size in BLOCKS for what in ("their sums", "their values", "their total")},
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
        yield Edit(f"WK{other} in place of WK{layer}", {name: partial(like, key_matrix=f"WK{other}")},
                   likely=True)
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
        yield Edit("positions in layer 2, too", {"scores2": lambda s: layer_scores(s, 2, True, row=s.offset)},
                   likely=True)
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
            offsets = row(s.offset) if relative and layer == 1 else None
            return layer_scores(s, layer, relative, row=offsets, mask=np.asarray)
        return {f"scores{layer}": wrong, **of_attention(lambda S, t, k, d: softmax(S))(layer)}

    for words, f in ATTENTION.items():
        yield words, of_attention(f)
    yield "softmax over the wrong axis", of_attention(lambda S, t, k, d: softmax(S, k <= t, -2))
    for row in (lambda o: o, abs, lambda o: np.maximum(o, 0)) if relative else (None,):
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
    def asked(s, query, W, scale=1.0):
        return (query @ W @ s.rows.T)[:, 0] * scale

    def values(s):
        return mixed(s.attention, s.rows[..., :s.d])

    for words, f in ATTENTION.items():
        yield Edit(words, {"attention": lambda s, f=f: f(
            s.scores[:, None], s.T - 1, np.arange(s.T), s.d)[:, 0]}, likely="blocks" not in words)
    for name, words, change in (
            ("rows", "U in place of E", lambda s: join(s.U[s.z], s.P[s.places])),
            ("rows", "positions above the content", lambda s: join(s.P[s.places], vars(s)["E[z]"])),
            ("rows", "no positions", lambda s: join(vars(s)["E[z]"], node(0 * s.P.value[s.places]))),
            ("rows", "positions counted from 1", lambda s: join(
                vars(s)["E[z]"], s.P[(s.places + 1) % len(s.P.value)])),
            ("rows", "positions counted backwards", lambda s: join(vars(s)["E[z]"], s.P[s.T - 1 - s.places])),
            ("rows", "no gradient for the positions", lambda s: join(vars(s)["E[z]"], detach(s.P[s.places]))),
            ("scores", "WKQ used transposed", lambda s: asked(s, s.rows[:, -1:], s.WKQ.T)),
            ("scores", "first token asks", lambda s: asked(s, s.rows[:, :1], s.WKQ)),
            ("scores", "scores scaled by 1/√d", lambda s: asked(s, s.rows[:, -1:], s.WKQ, s.d ** -0.5)),
            ("scores", "scores scaled by 1/√(d+dp)", lambda s: asked(
                s, s.rows[:, -1:], s.WKQ, len(s.WKQ.value) ** -0.5)),
            ("x", "x of U, not E", lambda s: mixed(s.attention, s.U[s.z])),
            ("x", "x with a residual, E of the last token", lambda s: values(s) + vars(s)["E[z]"][:, -1]),
            ("x", "x = E of the last token", lambda s: vars(s)["E[z]"][:, -1]),
            ("x", "no gradient through the values", lambda s: mixed(s.attention, detach(s.rows[..., :s.d]))),
            ("hidden", "ReLU in place of the square", lambda s: relu(s.preactivation)),
            ("hidden", "square in place of ReLU", lambda s: s.preactivation * s.preactivation),
            ("hidden", "half the square", lambda s: s.preactivation * s.preactivation * 0.5),
            ("hidden", "no activation", lambda s: s.preactivation),
            ("hidden", "GELU in place of the activation", lambda s: FUNCTIONS["gelu"](s.preactivation)),
            ("y", "y = x + W2 hidden, not W2 hidden", expression(parse("x + W2 hidden")))):
        yield Edit(words, {name: change}, likely=True)
    for at_zero in (0.5, 1.0) if activation == "relu" else ():
        yield Edit("derivative of ReLU at 0 is not 0", {"hidden": lambda s, h=at_zero: apply(
            s.preactivation, (x := s.preactivation.value) * (x > 0), (x > 0) + h * (x == 0))})
    if activation == "square":
        yield Edit("derivative of the square lacks its 2", {"hidden": lambda s: apply(
            s.preactivation, s.preactivation.value ** 2, s.preactivation.value)})
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
    "no gradient for the embeddings": lambda s: detach(s.E[s.z]),
    "no gradient for token 0 (padding_idx)": lambda s:
        s.E[s.z] * (s.z != 0)[..., None] + detach(s.E[s.z]) * (s.z == 0)[..., None]}


# The loss

def loss(logits=lambda s: s.logits, target=lambda s: s.target, weights=lambda s: s.weights,
         slot=lambda s: s.slot, rows=lambda rows, s: rows):
    """The loss with something else in it."""
    return lambda s: weighted(rows(row_losses(logits(s), target(s), *slot(s)), s), weights(s))


def smoothed(epsilon):
    """Label smoothing: the share epsilon of the target goes to all tokens of the slot alike."""
    def change(rows, s):
        tokens = [row_losses(s.logits, np.full_like(s.target, u), *s.slot) for u in range(*s.slot)]
        return rows * (1 - epsilon) + sum(tokens[1:], tokens[0]) * (epsilon / len(tokens))
    return loss(rows=change)


def summed(exponentials):
    """log of a sum over the slot, exponentials(logits, largest), in place of the softmax's."""
    def change(_, s):
        logits = s.logits[..., slice(*s.slot)]
        top = logits.value.max(-1, keepdims=True)
        return exponentials(logits, top)[..., 0] + chosen(logits, s.target - s.slot[0]) * -1.0
    return loss(rows=change)


def inside(s):
    """1 for tokens of the slot, 0 for others, (V,)."""
    u = np.arange(len(s.E.value))
    return ((u >= s.slot[0]) & (u < s.slot[1])) * 1.0


def whole(s):
    """The slot that is the whole vocabulary."""
    return 0, len(s.E.value)


def share(mask):
    """Weights in the proportion of a mask, whose sum is 1."""
    return mask / max(mask.sum(), 1)


LOSS = (
    ("loss in bits", loss(rows=lambda rows, s: rows * (1 / np.log(2)))),
    ("loss negated", loss(rows=lambda rows, s: rows * -1.0)),
    *((f"label smoothing {epsilon}", smoothed(epsilon)) for epsilon in (0.1, 0.05, 0.2)),
    ("softmax overflows", summed(lambda logits, top: log(total(exp(logits))))),
    ("ties left out of the sum", summed(lambda logits, top: top + log(1.0 + total(
        exp(logits + -top) * (logits.value < top - 1e-9 * abs(top)))))),
    ("sigmoid in place of softmax", loss(
        rows=lambda _, s: log(exp(chosen(s.logits, s.target) * -1.0) + 1.0))),
    ("softmax taken twice", loss(lambda s: softmax(s.logits))),
    ("logits scaled by 1/√d", loss(lambda s: s.logits * s.d ** -0.5)),
    ("a sum in place of the mean", loss(weights=lambda s: (s.weights > 0) * 1.0)),
    ("the mean taken twice", loss(weights=lambda s: s.weights * s.weights.max())),
    ("loss of the first sequence alone", loss(weights=lambda s: share(
        np.concatenate([s.weights[:1], 0 * s.weights[1:]])))),
)
LOSS_OF = {
    "induction": (
        ("targets shifted by one position", loss(target=lambda s: s.z)),
        ("targets shifted by one position", loss(target=lambda s: np.roll(s.target, -1, 1))),
        ("mask of the loss ignored", loss(weights=lambda s: share(np.ones(s.z.shape)))),
        *(("mask of the loss shifted by one position", loss(
            weights=lambda s, by=by: share(np.roll(s.labels, by, 1)))) for by in (1, -1)),
        ("mean over all positions, not the mask", loss(weights=lambda s: s.labels / s.labels.size)),
        ("mean of the sequences' means", loss(weights=lambda s: s.labels / len(s.z) / np.maximum(
            s.labels.sum(1, keepdims=True), 1))),
        ("a sum over positions, a mean over sequences", loss(weights=lambda s: s.labels / len(s.z))),
        ("loss of the last position alone", loss(weights=lambda s: share(
            np.broadcast_to(np.arange(s.T) == s.T - 1, s.z.shape))))),
    "recall": (
        ("slot ignored", loss(slot=whole)),
        ("slot always on", loss(
            slot=lambda s: (min(int(s.target.min()), len(s.E.value) - 2), len(s.E.value)))),
        ("slot one too long", loss(slot=lambda s: (s.slot[0], min(s.slot[1] + 1, len(s.E.value))))),
        ("slot one too short", loss(slot=lambda s: (s.slot[0], max(s.slot[1] - 1, s.slot[0] + 1)))),
        ("logits outside the slot count as 0", loss(lambda s: s.logits * inside(s), slot=whole)),
        ("logits outside the slot lowered by 10 only", loss(
            lambda s: s.logits + (inside(s) - 1) * 10.0, slot=whole)),
        ("targets counted within the slot, logits not", loss(
            target=lambda s: s.target - s.slot[0], slot=whole))),
}
