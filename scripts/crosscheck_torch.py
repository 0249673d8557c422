"""Both models in PyTorch, held against the test vectors; then 200 steps side by side.

    python -m refimpl vectors write V
    python scripts/crosscheck_torch.py V [OUT]      # OUT keeps the arrays of this port

Gradients are autograd's and the steps torch.optim.SGD's. Takes about a minute. The exit status is 0 if
every array of every case and the losses of both training runs agree.
"""

import torch
import torch.nn.functional as F

import crosscheck


class Induction(torch.nn.Module):
    """The two-layer attention transformer, on a batch of sequences."""

    def __init__(self, params, encoding):
        super().__init__()
        for name, w in params.items():
            setattr(self, name, torch.nn.Parameter(torch.tensor(w)))
        self.encoding = encoding

    def forward(self, z):
        """z (B, T) -> every activation, logits (B, T, V) the last."""
        T = z.shape[1]
        t = torch.arange(T)
        offset = t[:, None] - t                                     # (T, T), t − s
        hidden = offset < 0
        x0 = F.embedding(z, self.E)
        if self.encoding == "absolute":
            x0 = x0 + self.pos[:T]
        q1 = x0 @ self.WK1
        scores1 = q1 @ x0.mT
        if self.encoding == "relative":
            scores1 = scores1 + (q1 @ self.pos.T)[:, t[:, None], offset.clamp(min=0)]
        attention1 = scores1.masked_fill(hidden, -torch.inf).softmax(-1)
        h1 = attention1 @ x0
        x1 = x0 + F.linear(h1, self.Phi)                            # F.linear(x, W) is x @ W.T
        scores2 = x1 @ self.WK2 @ x1.mT
        attention2 = scores2.masked_fill(hidden, -torch.inf).softmax(-1)
        h2 = attention2 @ x1
        x2 = x1 + F.linear(F.linear(h2, self.WV), self.WO)
        y = x2 + F.linear(x2, self.WF)
        return dict(x0=x0, scores1=scores1.tril(), attention1=attention1, h1=h1, x1=x1,
                    scores2=scores2.tril(), attention2=attention2, h2=h2, x2=x2, y=y,
                    logits=F.linear(y, self.U))

    def loss(self, tokens, mask):
        """tokens (B, T+1), mask (B, T) bool: cross-entropy of the next token, mean over the mask."""
        logits = self(tokens[:, :-1])["logits"]
        return F.cross_entropy(logits[mask], tokens[:, 1:][mask])


class Recall(torch.nn.Module):
    """The one-layer attention transformer with its memory, on a batch of prompts."""

    def __init__(self, params, activation, slot):
        super().__init__()
        for name, w in params.items():
            setattr(self, name, torch.nn.Parameter(torch.tensor(w)))
        self.phi = {"square": torch.square, "relu": torch.relu}[activation]
        self.slot = slice(*slot) if slot else slice(None)

    def forward(self, z):
        """z (B, T) -> every activation, logits (B, V) the last."""
        content = F.embedding(z, self.E)
        positions = self.P[:z.shape[1]].expand(len(z), -1, -1)
        rows = torch.cat([content, positions], dim=-1)
        scores = torch.einsum("bj,jk,bik->bi", rows[:, -1], self.WKQ, rows)
        attention = scores.softmax(-1)
        x = torch.einsum("bi,bid->bd", attention, content)
        preactivation = F.linear(x, self.W1, self.b1)
        hidden = self.phi(preactivation)
        y = F.linear(hidden, self.W2)
        return dict(rows=rows, scores=scores, attention=attention, x=x, preactivation=preactivation,
                    hidden=hidden, y=y, logits=F.linear(y, self.U))

    def loss(self, tokens, targets):
        """tokens (B, T), targets (B,): cross-entropy within the slot, mean over the prompts."""
        logits = self(tokens)["logits"][:, self.slot]
        return F.cross_entropy(logits, targets - (self.slot.start or 0))


MODELS = {"induction": Induction, "recall": Recall}


class Recorder:
    """What the submodules of a model return while this is open, by name: `names` maps theirs to ours.

    with Recorder(model, {"layers.0.attention": "trace.h1"}) as found: model(z); "" is the model itself. A
    submodule that returns a dict, as the models here do, gives one array for each of its keys.
    """

    def __init__(self, model, names):
        self.found = {}
        self.hooks = [model.get_submodule(theirs).register_forward_hook(self.keep(ours))
                      for theirs, ours in names.items()]

    def keep(self, name):
        def hook(module, inputs, output):
            parts = {f"{name}.{key}": a for key, a in output.items()} if isinstance(output, dict) else \
                {name: output}
            self.found |= parts
        return hook

    def __enter__(self):
        return self.found

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def optimizer(model, lr, momentum, weight_decay, trained):
    """SGD over the fields that move."""
    moving = [getattr(model, name) for name in trained]
    return torch.optim.SGD(moving, lr, momentum=momentum, weight_decay=weight_decay)


def step(model, sgd, *batch):
    """One update. Returns the loss before it, and leaves its gradients in the parameters' .grad."""
    model.zero_grad()
    loss = model.loss(*batch)
    loss.backward()
    sgd.step()
    return loss.detach()


def answer(manifest, given):
    """The arrays of this port for one case."""
    params = {name.removeprefix("param."): w for name, w in given.items() if name.startswith("param.")}
    model = MODELS[manifest["model"]](params, **manifest["setting"])
    sgd = optimizer(model, **manifest["sgd"])
    batch = [torch.tensor(a) for name, a in given.items() if name.startswith("input.")]
    with Recorder(model, {"": "trace"}) as found:
        model(batch[0][:1, :-1] if manifest["model"] == "induction" else batch[0][:1])
    arrays = {name: a[0] for name, a in found.items()}
    for number in (1, 2, 3):
        loss = step(model, sgd, *batch)
        if number == 1:
            arrays["loss"] = loss
            arrays |= {f"grad.{name}": w.grad for name, w in model.named_parameters()}
        if number != 2:
            arrays |= {f"sgd{number}.param.{name}": w for name, w in model.named_parameters()}
            # Buffers of fields that do not move, or without momentum, do not exist here: left out.
            arrays |= {f"sgd{number}.momentum.{name}": sgd.state[w]["momentum_buffer"]
                       for name, w in model.named_parameters()
                       if sgd.state[w].get("momentum_buffer") is not None}
        arrays = {name: a.detach().clone() for name, a in arrays.items()}   # later steps change them
    return {name: a.numpy() for name, a in arrays.items()}


def train(model, params, setting, batches, settings):
    """Losses of this port on the batches."""
    model = MODELS[model](params, **setting)
    sgd = optimizer(model, **settings)
    return [step(model, sgd, *map(torch.tensor, batch)).item() for batch in batches]


if __name__ == "__main__":
    crosscheck.main(answer, train, __doc__)
