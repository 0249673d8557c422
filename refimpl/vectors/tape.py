"""Reverse-mode differentiation of array expressions, so that a model with a mistake has its own gradient."""

from itertools import count

import numpy as np
from scipy.special import ndtr

CREATED = count()


class Node:
    """value, an array; back, pairs (node, function: cotangent of this -> cotangent of that node)."""

    __array_ufunc__ = None      # array + node is left to the node

    def __init__(self, value, *back):
        self.value, self.back, self.created = value, back, next(CREATED)

    def __add__(a, b):
        b = node(b)
        return Node(a.value + b.value, (a, lambda g: g), (b, lambda g: g))

    def __mul__(a, b):
        b = node(b)
        return Node(a.value * b.value, (a, lambda g: g * b.value), (b, lambda g: g * a.value))

    def __truediv__(a, b):
        return a * power(node(b), -1)

    def __matmul__(a, b):
        return Node(a.value @ b.value, (a, lambda g: g @ swapped(b.value)),
                    (b, lambda g: swapped(a.value) @ g))

    def __getitem__(a, index):
        def back(g):
            whole = np.zeros_like(a.value)
            np.add.at(whole, index, g)
            return whole
        return Node(a.value[index], (a, back))

    __radd__, __rmul__ = __add__, __mul__
    T = property(lambda a: Node(swapped(a.value), (a, swapped)))    # the last two axes exchanged


def node(a):
    """A constant as a node."""
    return a if isinstance(a, Node) else Node(np.asarray(a, np.float64))


def swapped(a):
    """An array with its last two axes exchanged."""
    return np.swapaxes(a, -1, -2)


def apply(a, value, slope):
    """An elementwise function of a, by its value and its derivative."""
    return Node(value, (a, lambda g: g * slope))


def elementwise(f, slope):
    """The function of a node with value f(x) and derivative slope(x, value)."""
    return lambda a: apply(a, value := f(a.value), slope(a.value, value))


exp = elementwise(np.exp, lambda x, y: y)
log = elementwise(np.log, lambda x, y: 1 / x)
relu = elementwise(lambda x: np.maximum(x, 0), lambda x, y: x > 0)
gelu = elementwise(lambda x: x * ndtr(x), lambda x, y: ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi))
detach = elementwise(lambda x: x, lambda x, y: 0)


def power(a, k):
    """a to the power k."""
    return apply(a, a.value ** k, k * a.value ** (k - 1))


def total(a, axis=-1):
    """Sum along an axis, which stays with size 1."""
    return Node(a.value.sum(axis, keepdims=True), (a, lambda g: g + np.zeros_like(a.value)))


def join(a, b):
    """a and b side by side along the last axis."""
    n = a.value.shape[-1]
    return Node(np.concatenate([a.value, b.value], -1), (a, lambda g: g[..., :n]), (b, lambda g: g[..., n:]))


def norm(a, center, eps):
    """Layer normalisation along the last axis, or without centring that by the root mean square."""
    n = a.value.shape[-1]
    a = a + total(a) * (-1 / n) if center else a
    return a * power(total(a * a) * (1 / n) + eps, -0.5)


def gradients(output, leaves):
    """The derivative of a scalar by each leaf."""
    reached, todo = {output}, [output]
    while todo:
        new = {parent for parent, _ in todo.pop().back} - reached
        reached |= new
        todo += new
    found = {output: np.ones_like(output.value)}
    for each in sorted(reached, key=lambda n: -n.created):
        for parent, back in each.back:
            found[parent] = found.get(parent, 0) + summed(back(found[each]), parent.value.shape)
    return [found.get(leaf, np.zeros_like(leaf.value)) for leaf in leaves]


def summed(g, shape):
    """A cotangent summed over the axes along which its array was repeated."""
    g = g.sum(tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 != g.shape[i])
    return g.sum(repeated, keepdims=True) if repeated else g
