"""Claims R9 and R12: attention before and after fine-tuning, the same for every memory.

Shown: the memory pretrained with random embeddings, position-only, n = 4; rows are seeds, columns positions
of the prompt, colours means over new prompts. The line below is on all: constructed memory (square, λ = 10,
by `implicit`); ReLU memory of width 1024, pretrained by SGD on all facts to 100 % recall and frozen,
one-hot and random embeddings, position-only and by content too (full WKQ). Accuracy is that on new prompts,
the lowest of all seeds. Run time: some 2 minutes on two cores.
"""

from itertools import repeat

import drawing
import numpy as np

from refimpl import sgd
from refimpl.recall import Facts, Params, batched, implicit, sample

N, R, LAM, SEEDS, PAIRS, TEST = 32, 8, 10.0, tuple(range(10)), (4, 2), 500
WIDTH, D, INIT, PRETRAIN_STEPS, PRETRAIN_LR = 1024, 64, 0.3, 150, 1.0
START, STEPS, LR, MOMENTUM, PROMPTS = 0.1, 150, 0.5, 0.9, 128
CONSTRUCTED_STEPS, CONSTRUCTED_LR = 2000, 0.3
KINDS = ("one-hot", "random")
MEMORIES, SHOWN = ("constructed", *KINDS, "one-hot_full", "random_full"), "random"


def both(params, *steps):
    """Loss and gradients of both steps together."""
    (a, da), (b, db) = (batched.loss_and_grads(params, *step, "relu") for step in steps)
    return a + b, params._make(x + y for x, y in zip(da, db))


def look(params, steps):
    """Accuracy of each step, and the mean attention over its prompts."""
    accuracies, attention = [], []
    for tokens, targets, slot in steps:
        trace = batched.forward_pass(params, tokens, slot, "relu")[0]
        accuracies.append((trace.logits.argmax(axis=1) == targets - slot[0]).mean())
        attention.append(trace.attention.mean(axis=0))
    return accuracies, np.concatenate(attention)


def pretrained(kind, seed, pairs, width, pretrain_steps, steps):
    """Recall of the memory; for each n, position-only and full, accuracy and attention before and after."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    facts, V = Facts.latin(N, R, rng), 2 * N + R
    E, U = (np.eye(V), np.eye(V)) if kind == "one-hot" else rng.normal(0, D ** -0.5, (2, V, D))
    d = E.shape[1]
    no_positions = np.zeros((2, 1)), np.zeros((d + 1, d + 1))
    params = Params(E, U, *no_positions, rng.normal(0, INIT, (width, d)), np.zeros(width),
                    rng.normal(0, width ** -0.5, (d, width)))
    params = params._make(a.astype(np.float32) for a in params)
    known = batched.facts_as_prompts(facts)
    for last in sgd.train(params, repeat(known, pretrain_steps), both, PRETRAIN_LR, MOMENTUM,
                          trained=("W1", "b1", "W2")):
        pass
    recall, results = look(last.params, known)[0], []
    for n in pairs:
        L = 2 * n + 2
        positions = np.zeros((d + L, d + L), np.float32)
        positions[d + 2 * n:, d:] = 1       # the rows of the last position, in each step
        params = last.params._replace(
            P=np.eye(L, dtype=np.float32),
            WKQ=positions * rng.normal(0, START, positions.shape).astype(np.float32))

        def position_only(params, *steps):
            loss, grads = both(params, *steps)
            return loss, grads._replace(WKQ=positions * grads.WKQ)
        prompts, test = sample(facts, n, PROMPTS, rng), sample(facts, n, TEST, rng)
        before = look(params, (test.infer(), test.recall()))
        for gradients in (position_only, both):
            for end in sgd.train(params, repeat((prompts.infer(), prompts.recall()), steps), gradients,
                                 LR, MOMENTUM, trained=("WKQ",)):
                pass
            results.append((before, look(end.params, (test.infer(), test.recall()))))
    return recall, results


def constructed(n, seed, steps):
    """Accuracy and attention before and after fine-tuning with the constructed memory."""
    rng = np.random.default_rng([seed, n])
    facts = Facts.latin(N, R, rng)
    prompts, test = sample(facts, n, PROMPTS, rng), sample(facts, n, TEST, rng)
    start = implicit.Steps(rng.normal(0, START, 2 * n + 1), rng.normal(0, START, 2 * n + 2))
    for last in sgd.train(start, repeat((facts, prompts, LAM), steps), implicit.loss_and_grads,
                          CONSTRUCTED_LR, MOMENTUM):
        pass
    results = []
    for weights in (start, last.params):
        traces = implicit.forward(weights, facts, test, LAM)
        results.append(([(trace.margins > 0).mean() for trace in traces],
                        np.concatenate([trace.attention.mean(axis=0) for trace in traces])))
    return results


def compute(seeds=SEEDS, pairs=PAIRS, width=WIDTH, pretrain_steps=PRETRAIN_STEPS, steps=STEPS,
            constructed_steps=CONSTRUCTED_STEPS):
    data = {}

    def keep(name, n, results):
        """Store accuracies (seeds, 2) and attention (seeds, T) before and after, of all seeds."""
        for when, runs in zip(("before", "after"), zip(*results)):
            data[f"{name}_{n}_{when}_accuracy"] = np.array([run[0] for run in runs])
            data[f"{name}_{n}_{when}"] = np.array([run[1] for run in runs])
    for n in pairs:
        keep("constructed", n, drawing.each(constructed, [(n, seed, constructed_steps) for seed in seeds]))
    for kind in KINDS:
        recall, results = zip(*drawing.each(pretrained, [
            (kind, seed, pairs, width, pretrain_steps, steps) for seed in seeds]))
        data[f"{kind}_pretrained"] = np.array(recall)
        for index, n in enumerate(pairs):
            keep(kind, n, [result[2 * index] for result in results])
            keep(f"{kind}_full", n, [result[2 * index + 1] for result in results])
    return dict(data, pairs=np.array(pairs))


def lowest(data):
    """Over all memories, n and seeds, after training: accuracy, and weights of what wins in each step."""
    accuracy, pair, recall = [], [], []
    for n in data["pairs"]:
        for memory in MEMORIES:
            accuracy.append(data[f"{memory}_{n}_after_accuracy"].min())
            for alpha in data[f"{memory}_{n}_after"]:
                pairs = alpha[:2 * n].reshape(n, 2)
                pair.append(pairs[pairs.sum(axis=1).argmax()].min())
                recall.append(alpha[-2:].min())
    return [np.floor(1000 * min(values)) / 1000 for values in (accuracy, pair, recall)]


def plot(data):
    figure, axes = drawing.plt.subplots(2, 2, figsize=(13, 8.8))
    n = data["pairs"].max()
    names = [name for i in range(n) for name in (f"$s_{i}$", f"$a_{i}$")] + [f"$s_{n}$", "$r$"]
    titles = (("Infer the relation, before: on all alike", "After: one pair has ½ + ½"),
              ("Recall the answer, before: on all alike", "After: query and relation share all"))
    for step, (row, words) in enumerate(zip(axes, titles)):
        part, T = (slice(0, 2 * n + 1), slice(2 * n + 1, None))[step], 2 * n + 1 + step
        for axis, when, title in zip(row, ("before", "after"), words):
            image = axis.imshow(data[f"{SHOWN}_{n}_{when}"][:, part], vmin=0, vmax=0.6, aspect="auto",
                                interpolation="none")
            accuracy = np.floor(100 * data[f"{SHOWN}_{n}_{when}_accuracy"][:, step].min()).astype(int)
            axis.set_title(f"{title}\n(lowest accuracy {accuracy} %)")
            axis.set_xticks(range(T), names[:T])
            axis.set_yticks(range(0, len(data[f"{SHOWN}_{n}_{when}"]), 3))
            axis.grid(False)
        row[0].set_ylabel("seed")
    figure.colorbar(image, ax=axes, label="attention of the last token", shrink=0.8)
    figure.suptitle(f"Memory pretrained, random embeddings, n = {n}; each row is a seed", fontsize=18,
                    weight="bold")
    accuracy, pair, recall = lowest(data)
    figure.supxlabel(f"Lowest of all memories (constructed, pretrained; positions only, or content too),"
                     f" both n, all seeds, after:\naccuracy {accuracy:g}; weights within the winning pair "
                     f"{pair:g}, of query and relation {recall:g}", fontsize=16)
    return figure


if __name__ == "__main__":
    drawing.main("recall_attention", compute, plot)
