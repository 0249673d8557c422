"""Both models in JAX, held against the test vectors; then 200 steps side by side.

    python -m refimpl vectors write V
    python scripts/crosscheck_jax.py V [OUT]        # OUT keeps the arrays of this port

Models are functions of one sequence, batched by vmap; gradients are jax.grad's, the SGD step is plain
JAX over dicts of arrays. Takes about 60 s, mostly compiling. The exit status is 0 if every array of
every case and the losses of both training runs agree.
"""

from functools import partial

import jax
import jax.numpy as jnp

import crosscheck

jax.config.update("jax_enable_x64", True)


def induction(p, z, encoding):
    """p dict of parameters, z (T,) -> every activation of one sequence, logits (T, V) the last."""
    t = jnp.arange(len(z))
    offset = t[:, None] - t                                         # (T, T), t − s
    x0 = p["E"][z]
    if encoding == "absolute":
        x0 = x0 + p["pos"][:len(z)]
    q1 = x0 @ p["WK1"]
    scores1 = q1 @ x0.T
    if encoding == "relative":
        scores1 = scores1 + (q1 @ p["pos"].T)[t[:, None], jnp.maximum(offset, 0)]
    attention1 = jax.nn.softmax(scores1, where=offset >= 0)
    h1 = attention1 @ x0
    x1 = x0 + h1 @ p["Phi"].T
    scores2 = x1 @ p["WK2"] @ x1.T
    attention2 = jax.nn.softmax(scores2, where=offset >= 0)
    h2 = attention2 @ x1
    x2 = x1 + h2 @ p["WV"].T @ p["WO"].T
    y = x2 + x2 @ p["WF"].T
    return dict(x0=x0, scores1=jnp.tril(scores1), attention1=attention1, h1=h1, x1=x1,
                scores2=jnp.tril(scores2), attention2=attention2, h2=h2, x2=x2, y=y,
                logits=y @ p["U"].T)


def induction_loss(p, tokens, mask, encoding):
    """tokens (B, T+1), mask (B, T) bool: cross-entropy of the next token, mean over the mask."""
    logits = jax.vmap(lambda z: induction(p, z, encoding)["logits"])(tokens[:, :-1])
    return jnp.mean(cross_entropy(logits, tokens[:, 1:]), where=mask)


def recall(p, z, activation):
    """p dict of parameters, z (T,) -> every activation of one prompt, logits (V,) the last."""
    content = p["E"][z]
    rows = jnp.hstack([content, p["P"][:len(z)]])
    scores = rows @ (rows[-1] @ p["WKQ"])
    attention = jax.nn.softmax(scores)
    x = attention @ content
    preactivation = p["W1"] @ x + p["b1"]
    # jax.nn.relu has derivative 0 at 0; that of jnp.maximum(x, 0) is ½ there.
    hidden = {"square": jnp.square, "relu": jax.nn.relu}[activation](preactivation)
    y = p["W2"] @ hidden
    return dict(rows=rows, scores=scores, attention=attention, x=x, preactivation=preactivation,
                hidden=hidden, y=y, logits=p["U"] @ y)


def recall_loss(p, tokens, targets, activation, slot):
    """tokens (B, T), targets (B,): cross-entropy within the slot, mean over the prompts."""
    logits = jax.vmap(lambda z: recall(p, z, activation)["logits"])(tokens)
    start, stop = slot or (0, logits.shape[1])
    return jnp.mean(cross_entropy(logits[:, start:stop], targets - start))


def cross_entropy(logits, target):
    """logits (…, V), target (…) -> (…), in nats."""
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


# Compiled once for every setting and shape.
TRACE = {"induction": jax.jit(induction, static_argnames="encoding"),
         "recall": jax.jit(recall, static_argnames="activation")}
STEP = {"induction": jax.jit(jax.value_and_grad(induction_loss), static_argnames="encoding"),
        "recall": jax.jit(jax.value_and_grad(recall_loss), static_argnames=("activation", "slot"))}


@partial(jax.jit, static_argnames="trained")
def sgd(params, grads, buffers, lr, momentum, weight_decay, trained):
    """One step of PyTorch's SGD: new params and buffers."""
    params, buffers = dict(params), dict(buffers)
    for name in trained:
        g = grads[name] + weight_decay * params[name]
        buffers[name] = momentum * buffers[name] + g
        params[name] = params[name] - lr * buffers[name]
    return params, buffers


def answer(manifest, given):
    """The arrays of this port for one case."""
    model, setting = manifest["model"], manifest["setting"]
    settings = {**manifest["sgd"], "trained": tuple(manifest["sgd"]["trained"])}
    params = {name.removeprefix("param."): jnp.array(w) for name, w in given.items()
              if name.startswith("param.")}
    batch = [jnp.array(a) for name, a in given.items() if name.startswith("input.")]
    if model == "induction":
        trace = TRACE[model](params, batch[0][0, :-1], encoding=setting["encoding"])
    else:
        trace = TRACE[model](params, batch[0][0], activation=setting["activation"])
        setting = {**setting, "slot": setting["slot"] and tuple(setting["slot"])}
    arrays = {f"trace.{name}": a for name, a in trace.items()}
    buffers = jax.tree.map(jnp.zeros_like, params)
    for number in (1, 2, 3):
        loss, grads = STEP[model](params, *batch, **setting)
        params, buffers = sgd(params, grads, buffers, **settings)
        if number == 1:
            arrays["loss"] = loss
            arrays |= {f"grad.{name}": g for name, g in grads.items()}
        if number != 2:
            arrays |= {f"sgd{number}.param.{name}": w for name, w in params.items()}
            arrays |= {f"sgd{number}.momentum.{name}": b for name, b in buffers.items()}
    return arrays


def train(model, params, setting, batches, settings):
    """Losses of this port on the batches."""
    params = {name: jnp.array(w) for name, w in params.items()}
    buffers = jax.tree.map(jnp.zeros_like, params)
    losses = []
    for batch in batches:
        loss, grads = STEP[model](params, *batch, **setting)
        params, buffers = sgd(params, grads, buffers, **settings)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    crosscheck.main(answer, train, __doc__)
