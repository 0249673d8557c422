"""Both models as tables of equations, any of which a mistake may replace.

This is a second, independent evaluation of the models: a batch at a time, with gradients from
`refimpl.vectors.tape`. It is slower than the reference, and is there to be changed. `run(case, edits)` gives the
arrays that a port with these mistakes would write; without mistakes they are the reference's, up to rounding.
"""

from types import SimpleNamespace
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from refimpl.vectors import cases
from refimpl.vectors.tape import (
    Node, exp, gelu, gradients, join, log, norm, relu, stop, total)


class Edit(NamedTuple):
    """One mistake: what it replaces."""

    words: str
    changes: dict = {}                      # equation -> function of the state
    case: Optional[Callable] = None         # case -> case: other inputs, weights or settings
    rule: Optional[Callable] = None         # (number, w, g, buffer, lr, momentum, weight_decay) -> w, buffer
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
    "": lambda a: a, "relu": relu, "gelu": gelu, "detach": stop,
    "LayerNorm": lambda a: norm(a, True, 1e-5), "LayerNorm (eps 1e-6)": lambda a: norm(a, True, 1e-6),
    "RMSNorm": lambda a: norm(a, False, 1e-6), "RMSNorm (eps 1e-5)": lambda a: norm(a, False, 1e-5)}
SCALES: dict[str, Callable] = {"": lambda d: 1, "2": lambda d: 2, "1/2": lambda d: 0.5, "1/√d": lambda d: d ** -0.5,
                               "√d": lambda d: d ** 0.5}
ATTENTION = {"A1": "attention1", "A2": "attention2"}


def parse(text):
    """The terms of a sum such as "x1 + WO WV h2"."""
    return tuple(Term(tuple(term.split())) for term in text.split(" + "))


def text_of(terms, wrap=""):
    """The sum as text."""
    words = []
    for factors, inner, outer, scale in terms:
        *matrices, last = factors
        product = " ".join((*matrices, f"{inner}({last})" if inner else last))
        words.append(" ".join(filter(None, (scale, f"{outer}({product})" if outer else product))))
    return f"{wrap}({' + '.join(words)})" if wrap else " + ".join(words)


def expression(terms, wrap=""):
    """A function of the state: the sum of the terms."""
    def evaluate(s):
        return FUNCTIONS[wrap](sum((product(term, s) for term in terms[1:]), product(terms[0], s)))
    return evaluate


def product(term, s):
    """One term, rows of activations going through each matrix as x @ W.T."""
    *matrices, last = term.factors
    a = FUNCTIONS[term.inner](vars(s)[last])
    for name in reversed(matrices):
        plain, transposed = name.rstrip("ᵀ"), name.endswith("ᵀ")
        matrix = vars(s)[ATTENTION.get(plain, plain)]
        matrix = matrix.T if transposed else matrix
        a = matrix @ a if plain in ATTENTION else a @ matrix.T
    a = FUNCTIONS[term.outer](a)
    return a * SCALES[term.scale](s.d) if term.scale else a


LAYERS = {"h1": "A1 x0", "x1": "x0 + Phi h1", "h2": "A2 x1", "x2": "x1 + WO WV h2", "y": "x2 + WF x2",
          "logits": "U y"}
SUMS = {"relative": {"x0": "E[z]", **LAYERS}, "absolute": {"x0": "E[z] + pos[t]", **LAYERS},
        "recall": {"preactivation": "W1 x + b1", "y": "W2 hidden", "logits": "U y"}}


# The equations that are no such sums

def softmax(S, allowed: Any = True, axis=-1):
    """Softmax over the allowed entries; zero where nothing is allowed."""
    S = S + np.where(allowed, 0.0, -np.inf)
    top = S.value.max(axis, keepdims=True)
    weights = exp(S - np.where(np.isfinite(top), top, 0))
    whole = total(weights, axis)
    return weights / (whole + (whole.value == 0))


def scores(s, W, query, key, row=None, mask=np.tril, scale=1.0):
    """query_t · W (key_s + pos[row]), row (T, T) of offsets or None: (B, T, T)."""
    q = query @ W
    S = q @ key.T
    if row is not None:
        S = S + (q @ s.pos.T)[:, np.arange(s.T)[:, None], row % len(s.pos.value)]
    return S * (scale * mask(np.ones((s.T, s.T))))


def row_losses(logits, target, start=0, stop_=None):
    """−log softmax(logits over start ≤ u < stop)[target], for every row."""
    logits = logits[..., start:stop_]
    top = logits.value.max(-1, keepdims=True)
    return (log(total(exp(logits - top))) + top)[..., 0] - chosen(logits, target - start)


def chosen(logits, target):
    """The logit of the target in every row."""
    return logits[(*np.indices(target.shape), target)]


def weighted(rows, weights):
    """Σ rows · weights, a scalar."""
    return total(total(rows * weights)[..., 0] if rows.value.ndim > 1 else rows * weights)[0]


def right(case):
    """The equations of a case as they should be, in order: name -> function of the state."""
    sums = {name: expression(parse(text))
            for name, text in SUMS[case.setting.get("encoding", case.model)].items()}
    embed = {"E[z]": lambda s: s.E[s.z]}
    if case.model == "recall":
        phi = (lambda a: a * a) if case.setting["activation"] == "square" else relu
        return {
            **embed, "rows": lambda s: join(vars(s)["E[z]"], s.P[s.places]),
            "scores": lambda s: (s.rows[:, -1:] @ s.WKQ @ s.rows.T)[:, 0],
            "attention": lambda s: softmax(s.scores),
            "x": lambda s: mixed(s.attention, s.rows[..., :s.d]), "preactivation": sums["preactivation"],
            "hidden": lambda s: phi(s.preactivation), "y": sums["y"], "logits": sums["logits"],
            "loss": lambda s: weighted(row_losses(s.logits, s.target, *s.slot), s.weights)}
    relative = case.setting["encoding"] == "relative"
    return {
        **embed, "x0": sums["x0"],
        "scores1": lambda s: scores(s, s.WK1, s.x0, s.x0, s.offset if relative else None),
        "attention1": lambda s: softmax(s.scores1, s.offset >= 0), "h1": sums["h1"], "x1": sums["x1"],
        "scores2": lambda s: scores(s, s.WK2, s.x1, s.x1),
        "attention2": lambda s: softmax(s.scores2, s.offset >= 0), "h2": sums["h2"], "x2": sums["x2"],
        "y": sums["y"], "logits": sums["logits"],
        "loss": lambda s: weighted(row_losses(s.logits, s.target), s.weights)}


def mixed(attention, values):
    """Σ_i attention_i values_i: (B, T), (B, T, d) -> (B, d)."""
    return total(attention[..., None] * values, -2)[:, 0]


# Running them

def state(case, first=False, params=None):
    """What the equations start from; of the first sequence alone, if so asked."""
    many = slice(0, 1) if first else slice(None)
    tokens, labels = case.tokens[many], case.labels[many]
    induction = case.model == "induction"
    z = tokens[:, :-1] if induction else tokens
    s = SimpleNamespace(case=case, z=z, T=z.shape[1], d=case.params.E.shape[1], tokens=tokens, labels=labels)
    for name, w in zip(case.params._fields, params or case.params):
        setattr(s, name, Node(np.asarray(w, np.float64)))
    s.target = tokens[:, 1:] if induction else labels
    s.weights = labels / max(labels.sum(), 1) if induction else np.full(len(z), 1 / len(z))
    s.offset = np.subtract.outer(np.arange(s.T), np.arange(s.T))
    s.places = np.broadcast_to(np.arange(s.T), z.shape)
    s.slot = case.setting.get("slot") or (0, len(case.params.E))
    if induction:
        t, L, half = np.arange(s.T), len(case.params.pos), tokens.shape[1] // 2
        places = {"pos[t]": t, "pos[t+1]": t + 1, "pos[T-1-t]": s.T - 1 - t, "pos[t mod T/2]": t % max(half, 1)}
        vars(s).update({name: s.pos[row % L] for name, row in places.items()}, **{"U[z]": s.U[z]})
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
    """The arrays that a port with these mistakes writes, by name; up to trace, loss or grad, if `last` says so."""
    with np.errstate(all="ignore"):
        case, equations = edited(case, edits)
        arrays, history = {}, []
        s = evaluated(case, equations)
        for name in list(equations)[1:-1]:
            arrays[f"trace.{name}"] = vars(s)[name].value[0]
        arrays["loss"] = s.loss.value
        if last in ("trace", "loss"):
            return arrays
        history.append(gradients(s.loss, [vars(s)[name] for name in case.params._fields]))
        arrays.update(zip([f"grad.{name}" for name in case.params._fields], history[0]))
        return arrays if last == "grad" else {**arrays, **steps(case, equations, edits, history)}


def evaluated(case, equations, params=None):
    """The state after all equations."""
    s = state(case, params=params)
    for name, equation in equations.items():
        setattr(s, name, equation(s))
    return s


def steps(case, equations, edits, history, numbers=(1, 2, 3)):
    """Three SGD steps from the gradients of the first, as arrays by name."""
    arrays, params, settings = {}, [np.array(w, np.float64) for w in case.params], dict(case.sgd)
    trained = settings.pop("trained") or case.params._fields
    buffers = [np.zeros_like(w) for w in params]
    rules = [(edit.rule, edit.fields) for edit in edits if edit.rule]
    gather = next((edit.gather for edit in edits if edit.gather), lambda history: history[-1])
    for number in numbers:
        if number > 1:
            s = evaluated(case, equations, params)
            history = [*history, gradients(s.loss, [vars(s)[name] for name in case.params._fields])]
        for i, (name, g) in enumerate(zip(case.params._fields, gather(history))):
            if name in trained:
                rule = next((r for r, fields in rules if fields is None or name in fields), right_step)
                params[i], buffers[i] = rule(number, params[i], g, buffers[i], **settings)
            if number != 2:
                arrays[f"sgd{number}.param.{name}"] = params[i].copy()
                arrays[f"sgd{number}.momentum.{name}"] = buffers[i].copy()
    return arrays


def right_step(number, w, g, buffer, lr, momentum, weight_decay):
    """PyTorch's SGD."""
    buffer = momentum * buffer + g + weight_decay * w
    return w - lr * buffer, buffer

