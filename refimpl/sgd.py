"""Stochastic gradient descent with PyTorch's semantics, and a training loop as a generator.

Weight decay λ, momentum μ and learning rate lr, coordinate by coordinate:

    g ← g + λ w,   buffer ← μ buffer + g,   w ← w − lr buffer

The buffer starts at zero, so that the first one is g: PyTorch with dampening 0, no Nesterov.
Source: the documentation of torch.optim.SGD.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from refimpl import check


class Step(NamedTuple):
    """One step of `train`: loss and gradient before the update, params after it."""

    step: int               # from 0: how many updates came before the loss
    loss: float             # of this batch, in nats for both models
    gradient_norm: float    # Euclidean, over the fields that move, without weight decay
    params: Any             # NamedTuple of arrays, after step + 1 updates; later steps do not change it


@njit(cache=True)
def update(w, g, buffer, lr, momentum, weight_decay):
    """w, g, buffer (n,) of one dtype, like the three scalars; changes w and buffer."""
    for i in range(w.shape[0]):
        buffer[i] = momentum * buffer[i] + (g[i] + weight_decay * w[i])
        w[i] -= lr * buffer[i]


def step(params, grads, buffers, lr, momentum=0.0, weight_decay=0.0, trained=None):
    """Return the parameters and momentum buffers after one step; the arguments are not changed.

    Parameters
    ----------
    params : NamedTuple of float64 or float32 arrays
    grads : the same type, shapes and dtypes: the derivative of the loss by each
    buffers : the same again, from the step before; None is zeros, the start
    lr, momentum, weight_decay : finite and ≥ 0
    trained : names of the fields that move; None is all. The others are returned unchanged

    Returns
    -------
    params, buffers : NamedTuples like `params`

    Raises ValueError on anything else, on unknown names, and on numbers that are not finite.
    """
    trained = check_names(params, trained)
    scalars = (check.real("lr", lr, 0), check.real("momentum", momentum, 0),
               check.real("weight_decay", weight_decay, 0))
    if buffers is None:
        buffers = params._make(np.zeros_like(w) for w in params)
    after = []
    for name, w, g, buffer in check_fields(params, grads, buffers):
        if name in trained:
            w, buffer = w.copy(), buffer.copy()
            # Scalars of the arrays' dtype: float32 is computed in float32, as PyTorch does.
            update(w.reshape(-1), g.reshape(-1), buffer.reshape(-1), *map(w.dtype.type, scalars))
        after.append((w, buffer))
    new_params, new_buffers = zip(*after)
    return params._make(new_params), params._make(new_buffers)


def train(params, batches, loss_and_grads, lr, momentum=0.0, weight_decay=0.0, trained=None):
    """Take one step for each batch, and yield a Step after each.

    Parameters
    ----------
    params : NamedTuple of float64 or float32 arrays, the start
    batches : iterable of tuples; it may be endless, as the caller can stop
    loss_and_grads : (params, *batch) -> loss, grads
    lr, momentum, weight_decay, trained : as in `step`

    Yields
    ------
    Step: step, loss and gradient_norm at the params before the update, params after it.

    Raises FloatingPointError, naming the step and the last finite loss, when the loss, a gradient
    or an updated parameter is not finite; such an update is not yielded. Errors as in `step`.
    """
    trained = check_names(params, trained)
    check.instance("batches", batches, Iterable, "an iterable of tuples")
    buffers = last = None
    for number, batch in enumerate(batches):
        try:
            loss, grads = loss_and_grads(params, *batch)
            if not check.finite((loss, *grads)):
                raise check.Overflow(f"the loss ({loss}) or its gradient is not finite")
            last = float(loss)
            params, buffers = step(params, grads, buffers, lr, momentum, weight_decay, trained)
            if not check.finite(params):
                raise check.Overflow("the update is not finite")
        except check.Overflow as error:
            raise FloatingPointError(f"step {number}: {error}; last finite loss: {last}") from None
        yield Step(number, last, norm(getattr(grads, name) for name in trained), params)


def norm(arrays):
    """Euclidean norm of all entries together: in float64 and without BLAS, whose bits depend on threads."""
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))


def check_names(params, trained):
    """Return the names of the fields that move."""
    if not isinstance(params, tuple) or not hasattr(params, "_fields"):
        raise ValueError(f"params: expected a NamedTuple of arrays, got {type(params).__name__}")
    if trained is None:
        return params._fields
    check.instance("trained", trained, (tuple, list, set), "a tuple, list or set of names")
    return [check.choice("trained", name, params._fields) for name in trained]


def check_fields(params, grads, buffers):
    """Yield the name of each field with its arrays in params, grads and buffers, all alike."""
    for label, values in (("grads", grads), ("buffers", buffers)):
        if type(values) is not type(params):
            raise ValueError(f"{label}: expected {type(params).__name__}, got {type(values).__name__}")
    for name, *arrays in zip(params._fields, params, grads, buffers):
        w = check.asarray(f"params.{name}", arrays[0])
        check.real_dtype(f"params.{name}", w.dtype)
        yield name, *(check.floats(f"{label}.{name}", array, w.shape, w.dtype)
                      for label, array in zip(("params", "grads", "buffers"), arrays))
