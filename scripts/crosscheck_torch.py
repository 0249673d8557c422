"""Both models in PyTorch, held against the test vectors; then 200 steps side by side.

    python -m refimpl vectors write V
    python scripts/crosscheck_torch.py V [OUT]      # OUT keeps the arrays of this port

Gradients are autograd's and the steps torch.optim.SGD's: nothing of the reference but its vectors,
its data and its checker. Takes about 10 s. The exit status is 0 if everything agrees.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from refimpl import __main__, induction, recall, sgd, vectors

STEPS = 200
AGREE = 1e-9        # relative gap of the losses after 200 steps: rounding, which training amplifies


class Induction(torch.nn.Module):
    """The two-layer attention transformer, on a batch of sequences."""

    def __init__(self, params, encoding):
        super().__init__()
        for name, w in params.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(w)))
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
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(w)))
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


def optimizer(model, lr, momentum, weight_decay, trained):
    """SGD over the fields that move."""
    moving = [w for name, w in model.named_parameters() if name in trained]
    return torch.optim.SGD(moving, lr, momentum=momentum, weight_decay=weight_decay)


def step(model, moves, *batch):
    """One update; returns the loss before it. Afterwards each parameter's .grad is of that loss."""
    model.zero_grad()
    loss = model.loss(*batch)
    loss.backward()
    moves.step()
    return loss.item()


def answer(vector):
    """The arrays of this port for one case."""
    manifest, given = vector.manifest, vector.arrays
    params = {name[6:]: a for name, a in given.items() if name.startswith("param.")}
    model = MODELS[manifest["model"]](params, **manifest["setting"])
    labels = "mask" if manifest["model"] == "induction" else "targets"
    batch = torch.tensor(given["input.tokens"]), torch.tensor(given[f"input.{labels}"])
    first = batch[0][:1, :-1] if manifest["model"] == "induction" else batch[0][:1]
    ours = {f"trace.{name}": a[0] for name, a in model(first).items()}
    moves = optimizer(model, **manifest["sgd"])
    for number in (1, 2, 3):
        loss = step(model, moves, *batch)
        if number == 1:
            ours["loss"] = torch.tensor(loss, dtype=torch.float64)
            ours.update((f"grad.{name}", w.grad) for name, w in model.named_parameters())
        if number != 2:
            for name, w in model.named_parameters():
                ours[f"sgd{number}.param.{name}"] = w
                # Without momentum, PyTorch keeps no buffer: then the vectors' is left out.
                buffer = moves.state[w].get("momentum_buffer") if w in moves.state else None
                if buffer is not None:
                    ours[f"sgd{number}.momentum.{name}"] = buffer
        ours = {name: a.detach().clone() for name, a in ours.items()}
    return {name: a.numpy() for name, a in ours.items()}


def train(model, params, setting, batches, lr, momentum, weight_decay):
    """Losses of this port on the batches."""
    model = MODELS[model]({name: w for name, w in params._asdict().items()}, **setting)
    moves = optimizer(model, lr, momentum, weight_decay, params._fields)
    return [step(model, moves, *map(torch.tensor, batch)) for batch in batches]


def experiments():
    """Yield model, start, setting, batches and SGD settings of the two runs side by side."""
    rng = np.random.default_rng(0)
    start = induction.init(12, 24, 32, rng)
    bigram = induction.Bigram.random(12, rng)
    batches = []
    for _ in range(STEPS):
        batch = induction.sample(bigram, 8, 24, rng, triggers=2)
        batches.append((batch.tokens, np.ones(batch.occurrence.shape, bool)))
    yield "induction", start, {"encoding": "relative"}, batches, (0.5, 0.9, 1e-4)
    facts = recall.Facts.latin(12, 4, rng)
    start = recall.construct(facts, 2, 8.0)
    start = start._replace(WKQ=rng.normal(0, 0.1, start.WKQ.shape))
    prompts = [recall.sample(facts, 2, 8, rng).recall() for _ in range(STEPS)]
    yield ("recall", start, {"activation": "square", "slot": prompts[0][2]},
           [prompt[:2] for prompt in prompts], (0.05, 0.9, 1e-4))


def side_by_side():
    """Train the reference and this port on the same batches; print both losses. True if they agree."""
    agree = True
    for model, start, setting, batches, moves in experiments():
        system = {"induction": induction, "recall": recall}[model]
        theirs = [record.loss for record in sgd.train(
            start, batches, lambda params, *batch: system.loss_and_grads(params, *batch, **setting),
            *moves)]
        ours = train(model, start, setting, batches, *moves)
        gaps = np.abs(np.array(ours) / theirs - 1)
        print(f"\n{model}, {STEPS} steps side by side\nstep   reference         this port         apart")
        for number in (0, 1, 9, 49, 99, STEPS - 1):
            print(f"{number:4}   {theirs[number]:.14f}  {ours[number]:.14f}  {gaps[number]:.1e}")
        print(f"largest relative gap {gaps.max():.1e}, allowed {AGREE:.0e}")
        agree &= bool(gaps.max() <= AGREE)
    return agree


def main(folder, out=None):
    """Write this port's arrays, check them, train side by side; return the exit status."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(out or temporary)
        for vector in vectors.read(folder):
            place = out / "v1" / vector.name
            place.mkdir(parents=True, exist_ok=True)
            np.savez(place / "arrays.npz", **answer(vector))
        status = __main__.main(["vectors", "check", str(folder), str(out)])
    return status or int(not side_by_side())


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
