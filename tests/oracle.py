"""An oracle that shares nothing with the reference but its equations: backpropagation over balls.

A ball is an interval, midpoint ± radius, that is known to hold a number. FLINT's `arb` rounds each operation
outwards, so that the true result stays inside: a program run on balls encloses its result. Three parts:

1. `Number`: a scalar that remembers what it was made of. Every operation is written down with its local
   derivatives, and `backpropagate` reads that tape from its end.
2. The equations of both models, as `refimpl.vectors` states them for ports: one loss, no backward pass.
3. `enclosures`: every array of a case of the test vectors as balls, and `rounded`, as the nearest doubles.

NumPy serves as the notation: on arrays of objects, `@`, `+` and `np.exp` call the methods below.
"""

import numpy as np
from flint import arb, ctx

PRECISION = 256     # bits, 77 digits: three steps of SGD lose up to 30 of them
HIGHEST = 2048      # bits: enough for e^-1000 beside 1, and to see that a number rounds to 0, below 2^-1075


# 1. The tape

class Number:
    """A ball, and the tape: the numbers that it was made of, each with the derivative by it."""

    __slots__ = ("ball", "parents", "grad")

    def __init__(self, ball, parents=()):
        self.ball, self.parents, self.grad = ball, parents, arb(0)

    def __add__(self, other):
        return Number(self.ball + other.ball, ((self, 1), (other, 1)))

    def __sub__(self, other):
        return Number(self.ball - other.ball, ((self, 1), (other, -1)))

    def __mul__(self, other):
        return Number(self.ball * other.ball, ((self, other.ball), (other, self.ball)))

    def __truediv__(self, other):
        quotient = self.ball / other.ball
        return Number(quotient, ((self, 1 / other.ball), (other, -quotient / other.ball)))

    def exp(self):
        power = self.ball.exp()
        return Number(power, ((self, power),))

    def log1p(self):
        return Number(self.ball.log1p(), ((self, 1 / (1 + self.ball)),))

    def relu(self):
        """max(x, 0), whose derivative at exactly 0 is taken as 0."""
        if self.ball > 0:       # of balls a comparison holds if it holds of every number in them
            return Number(self.ball, ((self, 1),))
        if self.ball <= 0:
            return Number(arb(0), ((self, 0),))
        raise ArithmeticError(f"{self.ball}: its sign is not known at {ctx.prec} bits")


def backpropagate(root):
    """Set `grad`, the derivative of `root`, on every number that it was made of.

    A number's derivative must be complete before it is handed on. So the tape is put in order first, each
    number after all that it was made of, and then read from its end.
    """
    order, seen, stack = [], {id(root)}, [(root, iter(root.parents))]
    while stack:
        number, parents = stack[-1]
        for parent, _ in parents:
            if id(parent) not in seen:
                seen.add(id(parent))
                stack.append((parent, iter(parent.parents)))
                break
        else:
            order.append(number)
            stack.pop()
    root.grad = arb(1)
    for number in reversed(order):
        for parent, derivative in number.parents:
            parent.grad += number.grad * derivative


def each(function, *kinds):
    """A function of one entry, as one of arrays."""
    return np.vectorize(function, otypes=kinds or [object])


exact = each(arb)               # a double is a ball of radius 0
leaves = each(Number)
balls = each(lambda number: number.ball)
grads = each(lambda number: number.grad)
relu = each(Number.relu)
ZERO, ONE = Number(arb(0)), Number(arb(1))


# 2. The equations

def softmax(scores):
    """exp(s_i) / Σ_j exp(s_j): no ball overflows, so nothing need be subtracted first.

    A single key has the weight 1 whatever its score: said so, it is exact, as x / x of a ball is not.
    """
    powers = np.exp(scores)
    return powers / powers.sum() if len(scores) > 1 else np.array([ONE])


def cross_entropy(logits, target):
    """−log softmax(logits)[target] = log(1 + Σ_{u≠target} exp(logits_u − logits_target))."""
    others = np.delete(logits, target)
    return np.exp(others - logits[target]).sum().log1p() if len(others) else ZERO


def induction(p, z, encoding):
    """The trace of one sequence: position t sees the keys s ≤ t."""
    T = len(z)
    scores1, attention1, scores2, attention2 = np.full((4, T, T), ZERO)
    x0 = p["E"][z] + p["pos"][:T] if encoding == "absolute" else p["E"][z]
    h1, h2 = np.empty_like(x0), np.empty_like(x0)
    for t in range(T):
        past = t - np.arange(t + 1)                     # t − s
        keys = x0[:t + 1] + p["pos"][past] if encoding == "relative" else x0[:t + 1]
        scores1[t, :t + 1] = keys @ (x0[t] @ p["WK1"])
        attention1[t, :t + 1] = softmax(scores1[t, :t + 1])
        h1[t] = attention1[t, :t + 1] @ x0[:t + 1]
    x1 = x0 + h1 @ p["Phi"].T
    for t in range(T):
        scores2[t, :t + 1] = x1[:t + 1] @ (x1[t] @ p["WK2"])
        attention2[t, :t + 1] = softmax(scores2[t, :t + 1])
        h2[t] = attention2[t, :t + 1] @ x1[:t + 1]
    x2 = x1 + (h2 @ p["WV"].T) @ p["WO"].T
    y = x2 + x2 @ p["WF"].T
    return dict(x0=x0, scores1=scores1, attention1=attention1, h1=h1, x1=x1, scores2=scores2,
                attention2=attention2, h2=h2, x2=x2, y=y, logits=y @ p["U"].T)


def induction_loss(p, tokens, mask, encoding):
    """The loss of the next token at each position of the mask, and the trace of the first sequence."""
    traces = [induction(p, row[:-1], encoding) for row in tokens]
    return [cross_entropy(traces[b]["logits"][t], tokens[b, t + 1]) for b, t in np.argwhere(mask)], traces[0]


def recall(p, z, activation):
    """The trace of one prompt: the last token asks, every token is a key."""
    rows = np.concatenate([p["E"][z], p["P"][:len(z)]], axis=1)
    scores = rows @ (rows[-1] @ p["WKQ"])
    attention = softmax(scores)
    x = attention @ p["E"][z]
    preactivation = p["W1"] @ x + p["b1"]
    hidden = relu(preactivation) if activation == "relu" else preactivation * preactivation
    y = p["W2"] @ hidden
    return dict(rows=rows, scores=scores, attention=attention, x=x, preactivation=preactivation,
                hidden=hidden, y=y, logits=p["U"] @ y)


def recall_loss(p, tokens, targets, activation, slot):
    """The loss within the slot of each prompt, and the trace of the first one."""
    traces = [recall(p, row, activation) for row in tokens]
    start, stop = slot or (0, len(p["E"]))
    return [cross_entropy(trace["logits"][start:stop], target - start)
            for trace, target in zip(traces, targets)], traces[0]


LOSSES = {"induction": induction_loss, "recall": recall_loss}


# 3. The arrays of a case

def enclosures(case, precision=PRECISION):
    """Every array of a case (`refimpl.vectors.cases.Case`) that is not an input, as balls: {name: array}.

    SGD is PyTorch's: g += weight_decay w; buffer = momentum buffer + g, from zero; w −= lr buffer.
    """
    with ctx.workprec(precision):
        values = {name: exact(w) for name, w in case.params._asdict().items()}
        buffers = {name: exact(np.zeros(w.shape)) for name, w in values.items()}
        lr, momentum, decay = (arb(case.sgd[key]) for key in ("lr", "momentum", "weight_decay"))
        for step in (1, 2, 3):
            params = {name: leaves(w) for name, w in values.items()}
            losses, trace = LOSSES[case.model](params, case.tokens, case.labels, **case.setting)
            loss = np.array(losses).sum() / Number(arb(len(losses)))
            backpropagate(loss)
            gradients = {name: grads(w) for name, w in params.items()}
            if step == 1:
                arrays = {f"trace.{name}": balls(a) for name, a in trace.items()}
                arrays["loss"] = balls(loss)
                arrays |= {f"grad.{name}": g for name, g in gradients.items()}
            for name in case.sgd["trained"]:
                buffers[name] = momentum * buffers[name] + (gradients[name] + decay * values[name])
                values[name] = values[name] - lr * buffers[name]
            if step != 2:
                for kind, fields in (("param", values), ("momentum", buffers)):
                    arrays |= {f"sgd{step}.{kind}.{name}": a for name, a in fields.items()}
        return arrays


def rounded(case):
    """Every array of a case that is not an input, correctly rounded: {name: float64 array}.

    Where the ends of a ball round to different doubles, more bits are taken, or ArithmeticError is raised.
    """
    for precision in (PRECISION, HIGHEST):
        with ctx.workprec(precision):
            ends = {name: each(lambda ball: (double(ball.lower()), double(ball.upper())), float, float)(a)
                    for name, a in enclosures(case, precision).items()}
        if all(np.array_equal(low, high) for low, high in ends.values()):   # + 0.0: no zero is negative
            return {name: np.asarray(low + 0.0) for name, (low, _) in ends.items()}
    raise ArithmeticError(f"{case.model}/{case.name}: not decided at {HIGHEST} bits")


def double(point):
    """The double nearest to a ball of radius 0, ties to even as Python divides integers."""
    mantissa, exponent = map(int, point.man_exp())
    return float(mantissa << exponent) if exponent >= 0 else mantissa / (1 << -exponent)


def distance(array, enclosure):
    """How far each double is from the true number, at most, in units of its own last place: float64."""
    units = np.spacing(np.abs(array, dtype=np.float64))
    return each(lambda x, ball, unit: float((abs(arb(x) - ball) / arb(unit)).upper()), float)(
        array, enclosure, units)
