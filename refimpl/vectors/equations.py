"""Both models as tables of equations, any of which a mistake may replace.

This is a second evaluation of the models, independent of the reference: a batch at a time, with gradients
from `refimpl.vectors.tape`. `run(case, edits)` gives the arrays that a port with these mistakes would write.
"""

from types import SimpleNamespace
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from refimpl.vectors.tape import Node, detach, exp, gelu, gradients, join, log, norm, relu, total


class Edit(NamedTuple):
    """One mistake: what it replaces."""

    words: str
    changes: dict = {}                      # equation -> function of the state
    case: Optional[Callable] = None         # case -> case: other inputs or settings
    rule: Optional[Callable] = None         # of a step, as `right_step`
    gather: Optional[Callable] = None       # gradients of all steps so far, lists -> those of this step
    fields: Any = None                      # the fields that `rule` is for; None is all
    likely: bool = False                    # tried in pairs, too


class Term(NamedTuple):
    """A product of matrices and an activation: scale · outer(W W' inner(x))."""

    factors: tuple          # names; ᵀ marks a matrix that is transposed
    inner: str = ""
    outer: str = ""
    scale: str = ""


FUNCTIONS: dict[str, Callable] = {
    "": lambda a: a, "relu": relu, "gelu": gelu, "detach": detach,
    **{f"{name}Norm{words}": lambda a, center=center, eps=eps: norm(a, center, eps)
       for name, center in (("Layer", True), ("RMS", False))
       for words, eps in (("", 1e-5), ("[eps=1e-6]", 1e-6), ("[eps=0]", 0))}}
SCALES: dict[str, Callable] = {
    "2": lambda d: 2, "1/2": lambda d: 0.5, "1/√d": lambda d: d ** -0.5, "√d": lambda d: d ** 0.5}
ATTENTION = {"A1": "attention1", "A2": "attention2"}
LAYERS = {"h1": "A1 x0", "x1": "x0 + Phi h1", "h2": "A2 x1", "x2": "x1 + WO WV h2", "y": "x2 + WF x2",
          "logits": "U y"}
SUMS = {"relative": {"x0": "E[z]", **LAYERS}, "absolute": {"x0": "E[z] + pos[t]", **LAYERS},
        "recall": {"preactivation": "W1 x + b1", "y": "W2 hidden", "logits": "U y"}}


def sums_of(case):
    """The equations of a case that are sums of products, as texts."""
    return SUMS[case.setting.get("encoding", case.model)]


def parse(text):
    """The terms of a sum such as "x1 + WO WV h2"."""
    return tuple(Term(tuple(term.split())) for term in text.split(" + "))


def text_of(terms, wrap=""):
    """The sum as text."""
    words = []
    for (*matrices, last), inner, outer, scale in terms:
        product = " ".join((*matrices, f"{inner}({last})" if inner else last))
        words.append(" ".join(filter(None, (scale, f"{outer}({product})" if outer else product))))
    return f"{wrap}({' + '.join(words)})" if wrap else " + ".join(words)


def expression(terms, wrap=""):
    """A function of the state: the sum of the terms."""
    return lambda s: FUNCTIONS[wrap](sum((product(term, s) for term in terms[1:]), product(terms[0], s)))


def product(term, s):
    """One term, rows of activations going through each matrix as x @ W.T."""
    *matrices, last = term.factors
    a = FUNCTIONS[term.inner](vars(s)[last])
    for name in reversed(matrices):
        plain = name.rstrip("ᵀ")
        matrix = vars(s)[ATTENTION.get(plain, plain)]
        matrix = matrix.T if name.endswith("ᵀ") else matrix
        a = matrix @ a if plain in ATTENTION else a @ matrix.T
    a = FUNCTIONS[term.outer](a)
    return a * SCALES[term.scale](s.d) if term.scale else a


# The equations that are no such sums

def softmax(S, allowed: Any = True, axis=-1):
    """Softmax over the allowed entries; zero where nothing is allowed."""
    S = S + np.where(allowed, 0.0, -np.inf)
    top = S.value.max(axis, keepdims=True)
    weights = exp(S + np.where(np.isfinite(top), -top, 0))
    whole = total(weights, axis)
    return weights / (whole + (whole.value == 0))


def scores(s, W, query, key, row=None, mask=np.tril, scale=1.0):
    """query_t · W (key_s + pos[row]), row (T, T) of offsets or None: (B, T, T)."""
    q = query @ W
    S = q @ key.T
    if row is not None:
        S = S + (q @ s.pos.T)[:, np.arange(s.T)[:, None], row % len(s.pos.value)]
    return S * (scale * mask(np.ones((s.T, s.T))))


def mixed(attention, values):
    """Σ_i attention_i values_i: (B, T), (B, T, d) -> (B, d)."""
    return total(attention[..., None] * values, -2)[:, 0]


def chosen(logits, target):
    """The logit of the target in every row."""
    return logits[tuple(np.indices(target.shape)) + (target,)]


def row_losses(logits, target, start=0, stop=None):
    """−log softmax(logits over start ≤ u < stop)[target], for every row."""
    logits = logits[..., start:stop]
    top = logits.value.max(-1, keepdims=True)
    return (log(total(exp(logits + -top))) + top)[..., 0] + chosen(logits, target - start) * -1.0


def weighted(rows, weights):
    """Σ rows · weights, a scalar."""
    rows = rows * weights
    return total(total(rows)[..., 0] if rows.value.ndim > 1 else rows)[0]


def right(case):
    """The equations of a case as they should be, in order: name -> function of the state."""
    sums = {name: expression(parse(text)) for name, text in sums_of(case).items()}
    embed = {"E[z]": lambda s: s.E[s.z]}
    loss = {"loss": lambda s: weighted(row_losses(s.logits, s.target, *s.slot), s.weights)}
    if case.model == "recall":
        phi = (lambda a: a * a) if case.setting["activation"] == "square" else relu
        return {
            **embed, "rows": lambda s: join(vars(s)["E[z]"], s.P[s.places]),
            "scores": lambda s: (s.rows[:, -1:] @ s.WKQ @ s.rows.T)[:, 0],
            "attention": lambda s: softmax(s.scores),
            "x": lambda s: mixed(s.attention, s.rows[..., :s.d]), "preactivation": sums["preactivation"],
            "hidden": lambda s: phi(s.preactivation), "y": sums["y"], "logits": sums["logits"], **loss}
    relative = case.setting["encoding"] == "relative"
    return {
        **embed, "x0": sums["x0"],
        "scores1": lambda s: scores(s, s.WK1, s.x0, s.x0, s.offset if relative else None),
        "attention1": lambda s: softmax(s.scores1, s.offset >= 0), "h1": sums["h1"], "x1": sums["x1"],
        "scores2": lambda s: scores(s, s.WK2, s.x1, s.x1),
        "attention2": lambda s: softmax(s.scores2, s.offset >= 0),
        **{name: sums[name] for name in ("h2", "x2", "y", "logits")}, **loss}


# Running them

def state(case, first=False, params=None):
    """What the equations start from; of the first sequence alone, if so asked."""
    tokens, labels = case.tokens[:1 if first else None], case.labels[:1 if first else None]
    induction = case.model == "induction"
    z = tokens[:, :-1] if induction else tokens
    t, V = np.arange(z.shape[1]), len(case.params.E)
    s = SimpleNamespace(
        case=case, z=z, T=len(t), d=case.params.E.shape[1], labels=labels, offset=np.subtract.outer(t, t),
        places=np.broadcast_to(t, z.shape), slot=case.setting.get("slot") or (0, V),
        target=tokens[:, 1:] if induction else labels,
        weights=labels / max(labels.sum(), 1) if induction else np.full(len(z), 1 / len(z)))
    for name, w in zip(case.params._fields, params or case.params):
        setattr(s, name, Node(np.asarray(w, np.float64)))
    if induction:       # what may stand in the place of E[z] or pos[t]
        places = {"pos[t]": t, "pos[t+1]": t + 1, "pos[T-1-t]": s.T - 1 - t,
                  "pos[t mod T/2]": t % max(tokens.shape[1] // 2, 1)}
        vars(s).update({name: s.pos[row % len(case.params.pos)] for name, row in places.items()})
        setattr(s, "U[z]", s.U[z])
    return s


def evaluated(s, pending):
    """A copy of the state after these equations."""
    s = SimpleNamespace(**vars(s))
    for name, equation in pending.items():
        setattr(s, name, equation(s))
    return s


def edited(case, edits):
    """The case and its equations, with these mistakes."""
    for edit in edits:
        case = edit.case(case) if edit.case else case
    equations = right(case)
    for edit in edits:
        equations.update(edit.changes)
    return case, equations


def run(case, edits=(), last=None):
    """The arrays that a port with these mistakes writes, by name; up to `last`, "loss" or "grad"."""
    with np.errstate(all="ignore"):
        case, equations = edited(case, edits)
        s = evaluated(state(case), equations)
        arrays = {f"trace.{name}": vars(s)[name].value[0] for name in list(equations)[1:-1]}
        arrays["loss"] = s.loss.value
        if last == "loss":
            return arrays
        grads = gradients(s.loss, [vars(s)[name] for name in case.params._fields])
        arrays.update(zip([f"grad.{name}" for name in case.params._fields], grads))
        return arrays if last == "grad" else {**arrays, **steps(case, equations, edits, grads)}


def steps(case, equations, edits, grads, last=3):
    """SGD steps up to the last, from the gradients of the first: arrays by name."""
    arrays, params, trained = {}, list(case.params), case.sgd["trained"] or case.params._fields
    settings = [case.sgd[key] for key in ("lr", "momentum", "weight_decay")]
    buffers, history = [np.zeros_like(w) for w in params], [grads]
    rules = [(edit.rule, edit.fields or trained) for edit in edits if edit.rule]
    gather = next((edit.gather for edit in edits if edit.gather), lambda history: history[-1])
    for number in range(1, last + 1):
        if number > 1:
            s = evaluated(state(case, params=params), equations)
            history = [*history, gradients(s.loss, [vars(s)[name] for name in case.params._fields])]
        for i, (name, g) in enumerate(zip(case.params._fields, gather(history))):
            if name in trained:
                rule = next((rule for rule, fields in rules if name in fields), right_step)
                params[i], buffers[i] = rule(number, params[i], g, buffers[i], *settings)
            if number != 2:
                arrays[f"sgd{number}.param.{name}"] = params[i]
                arrays[f"sgd{number}.momentum.{name}"] = buffers[i]
    return arrays


def right_step(number, w, g, buffer, lr, momentum, weight_decay):
    """PyTorch's SGD: the parameter and its buffer after a step."""
    buffer = momentum * buffer + g + weight_decay * w
    return w - lr * buffer, buffer
