"""The steps of bench.py in PyTorch and JAX: float32, the whole batch at once, no Python loops.

Positions by gather; layer 2 and output at the rows in the loss alone. Arguments are arrays of NumPy: Params,
tokens (B, T+1), mask (B, T).
"""

import numpy as np


def chosen_rows(mask):
    """(B, R) positions in the loss, filled up to the longest, and which of them are real."""
    most = mask.sum(axis=1).max()
    return np.argsort(~mask, axis=1, kind="stable")[:, :most], np.arange(most) < mask.sum(axis=1)[:, None]


def torch_logits(fields, tokens, mask, compiled=False):
    """The logits at the positions in the mask as a function without arguments, and what follows there."""
    import torch
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = fields
    rows, real = (torch.tensor(a) for a in chosen_rows(mask))
    z, b, t = torch.tensor(tokens), torch.arange(len(tokens))[:, None], torch.arange(mask.shape[1])
    back, ahead = (t[:, None] - t).clamp(min=0).expand(len(tokens), -1, -1), t > t[:, None]
    ahead_rows = t > rows[:, :, None]

    def logits():
        x0 = E[z[:, :-1]]
        q1 = x0 @ WK1
        S1 = q1 @ x0.transpose(1, 2) + (q1 @ pos.T).gather(2, back)
        x1 = x0 + S1.masked_fill(ahead, -torch.inf).softmax(-1) @ x0 @ Phi.T
        x1_rows = x1[b, rows]
        S2 = (x1_rows @ WK2 @ x1.transpose(1, 2)).masked_fill(ahead_rows, -torch.inf)
        x2 = (x1_rows + S2.softmax(-1) @ x1 @ WV.T @ WO.T)[real]
        return (x2 + x2 @ WF.T) @ U.T
    return torch.compile(logits) if compiled else logits, z[:, 1:][b, rows][real]


def torch_step(params, tokens, mask, compiled):
    """Loss and all gradients, as a function without arguments that returns the loss."""
    import torch
    fields = [torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in params]
    logits, target = torch_logits(fields, tokens, mask, compiled)

    def call():
        for field in fields:
            field.grad = None
        loss = torch.nn.functional.cross_entropy(logits(), target)
        loss.backward()
        return loss.item()
    return call


def torch_recall(params, prompts, compiled=False):
    """L_infer + L_recall and the gradient of WKQ, the others frozen, as a function; and WKQ."""
    import torch
    E, U, P, WKQ, W1, b1, W2 = (torch.tensor(a, dtype=torch.float32) for a in params)
    WKQ.requires_grad_()
    steps = []
    for tokens, targets, slot in (prompts.infer(), prompts.recall()):
        content = E[torch.tensor(tokens)]
        rows = torch.cat([content, P[:tokens.shape[1]].expand(len(tokens), -1, -1)], 2)
        steps.append((content, rows, torch.tensor(targets - slot[0]), U[slice(*slot)].T))

    def loss_of():
        loss = 0
        for content, rows, target, UT in steps:
            scores = rows @ (rows[:, -1] @ WKQ)[:, :, None]
            x = (scores.softmax(1) * content).sum(1)
            loss += torch.nn.functional.cross_entropy((x @ W1.T + b1).square() @ W2.T @ UT, target)
        return loss
    loss_of = torch.compile(loss_of) if compiled else loss_of

    def call():
        WKQ.grad = None
        loss = loss_of()
        loss.backward()
        return loss.item()
    return call, WKQ


def jax_step(params, tokens, mask):
    """Loss and all gradients, jitted, as a function without arguments that returns the loss."""
    import jax
    import jax.numpy as jnp
    rows, real = chosen_rows(mask)
    b, t = np.arange(len(tokens))[:, None], np.arange(mask.shape[1])
    back, seen, seen_rows = np.maximum(t[:, None] - t, 0)[None], t <= t[:, None], t <= rows[:, :, None]
    target = tokens[:, 1:][b, rows]

    def loss(params, z):
        E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
        x0 = E[z]
        q1 = x0 @ WK1
        S1 = q1 @ x0.transpose(0, 2, 1) + jnp.take_along_axis(q1 @ pos.T, back, axis=2)
        x1 = x0 + jax.nn.softmax(S1, where=seen) @ x0 @ Phi.T
        x1_rows = x1[b, rows]
        S2 = x1_rows @ WK2 @ x1.transpose(0, 2, 1)
        x2 = x1_rows + jax.nn.softmax(S2, where=seen_rows) @ x1 @ WV.T @ WO.T
        logits = (x2 + x2 @ WF.T) @ U.T
        losses = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, target[..., None], -1)[..., 0]
        return jnp.mean(losses, where=real)

    both = jax.jit(jax.value_and_grad(loss))
    data = [jnp.asarray(a, jnp.float32) for a in params], jnp.asarray(tokens[:, :-1])
    return lambda: float(jax.block_until_ready(both(*data))[0])
