"""What fine-tuning makes of prompts that break the assumptions of R4 to R9.

Position-only fine-tuning from nearly uniform attention, constructed memory; new prompts of the same kind
as in training. Wrong answers: each answer shown is replaced by a random one with probability p. The line is
R19, 1 − p_e^n: some pair is right. The dashed line is 1 − p_e: one pair is, which is all that the attention
of R9 looks at. At N = LARGE, inside the assumption of R19, the mean over the seeds is on the line; at N = 64
other pairs vote by accident, and it is below. In words, since accuracy stays 1: collisions, N answers against
rows of R = 8; the number of pairs (n = 1 has no competitor); tables that are not Latin (dense model), where
some subjects share another's row. Run time: a minute and a half on two cores.
"""

import drawing      # first: it sets the number of threads
from itertools import repeat

import numpy as np

from refimpl import sgd
from refimpl.recall import Facts, batched, construct, implicit, sample, theory

LAM, LR, MOMENTUM, START, PROMPTS, TEST, STEPS = 10.0, 0.3, 0.9, 0.1, 128, 1000, 600
SEEDS, N, R, N_PAIRS = tuple(range(5)), 64, 8, 4
LARGE, LARGE_TEST = 2 ** 16, 20_000
WRONG = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
SIZES = (8, 12, 16, 24, 32, 48, 64)
PAIRS = (1, 2, 3, 4, 5, 6, 7)
SHARED, SMALL_N, SMALL_R, SMALL_PAIRS, SMALL_STEPS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), 20, 4, 2, 400


def spoil(prompts, wrong, rng):
    """The same prompts, each answer shown replaced by a random one with probability `wrong`."""
    answers = prompts.answers.copy()
    shown = answers[:, :-1]
    shown[:] = np.where(rng.random(shown.shape) < wrong, rng.integers(0, prompts.N, shown.shape), shown)
    return prompts._replace(answers=answers)


def summary(infer, recall, correct):
    """Accuracies of both steps, weight of the winning pair, and of the query with the relation."""
    return [*correct, (infer[0:-1:2] + infer[1::2]).max(), recall[-2:].sum()]


def finetune(N, R, n, wrong, seed, steps, tested=TEST):
    """Train and test on prompts that are spoilt alike."""
    rng = np.random.default_rng(seed)
    facts = Facts.latin(N, R, rng)
    prompts, test = (spoil(sample(facts, n, count, rng), wrong, rng) for count in (PROMPTS, tested))
    start = implicit.Steps(rng.normal(0, START, 2 * n + 1), rng.normal(0, START, 2 * n + 2))
    for last in sgd.train(start, repeat((facts, prompts, LAM), steps), implicit.loss_and_grads, LR, MOMENTUM):
        pass
    traces = implicit.forward(last.params, facts, test, LAM)
    return summary(*(trace.attention[0] for trace in traces),
                   [(trace.margins > 0).mean() for trace in traces])


def finetune_shared(shared, seed, steps):
    """The same with the dense model, on a table in which some subjects have the row of another."""
    rng = np.random.default_rng(seed)
    latin, n = Facts.latin(SMALL_N, SMALL_R, rng), SMALL_PAIRS
    sigma = latin.sigma.copy()
    moved = rng.permutation(SMALL_N)[:round(shared * SMALL_N)]
    sigma[moved] = rng.integers(0, SMALL_N, len(moved))
    facts = Facts(latin.pi, sigma, latin.shifts, is_latin=False)
    params, L = construct(facts, n, LAM), 2 * n + 2
    d = params.E.shape[1]
    positions = np.zeros_like(params.WKQ)
    positions[d + 2 * n:, d:] = 1
    params = params._replace(WKQ=positions * rng.normal(0, START, (d + L, d + L)))

    def position_only(params, *steps):
        (a, da), (b, db) = (batched.loss_and_grads(params, *step) for step in steps)
        return a + b, da._replace(WKQ=positions * (da.WKQ + db.WKQ))
    train, test = sample(facts, n, PROMPTS, rng), sample(facts, n, TEST, rng)
    for last in sgd.train(params, repeat((train.infer(), train.recall()), steps), position_only, LR / 3,
                          MOMENTUM, trained=("WKQ",)):
        pass
    correct, attention = [], []
    for tokens, targets, slot in (test.infer(), test.recall()):
        trace = batched.forward_pass(last.params, tokens, slot, "square")[0]
        true = np.arange(TEST), targets - slot[0]
        others = trace.logits.copy()
        others[true] = -np.inf
        # Where subjects share a row, relations or answers tie exactly: that is not right.
        correct.append((trace.logits[true] > others.max(axis=1) + 1e-9).mean())
        attention.append(trace.attention[0])
    return summary(*attention, correct)


def compute(seeds=SEEDS, steps=STEPS, small_steps=SMALL_STEPS, wrong=WRONG, sizes=SIZES, pairs=PAIRS,
            shared=SHARED, large_test=LARGE_TEST):
    sweeps = dict(wrong=[(N, R, N_PAIRS, p) for p in wrong],
                  sizes=[(size, R, N_PAIRS, 0.0) for size in sizes],
                  pairs=[(N, R, n, 0.0) for n in pairs])
    data = {name: np.reshape(drawing.each(finetune, [(*setting, seed, steps) for setting in settings
                                                     for seed in seeds]), (len(settings), len(seeds), 4))
            for name, settings in sweeps.items()}
    large = drawing.each(finetune, [(LARGE, R, N_PAIRS, p, seed, steps, large_test) for p in wrong
                                    for seed in seeds])
    data["large"] = np.reshape(large, (len(wrong), len(seeds), 4))[:, :, 0]
    cases = [(share, seed, small_steps) for share in shared for seed in seeds]
    data["shared"] = np.reshape(drawing.each(finetune_shared, cases), (len(shared), len(seeds), 4))
    return dict(data, wrong_x=np.array(wrong), sizes_x=np.array(sizes), pairs_x=np.array(pairs),
                shared_x=np.array(shared))


def plot(data):
    figure, axis = drawing.plt.subplots(figsize=(13, 7.6))
    black, x = drawing.BLACK, data["wrong_x"]
    p = np.linspace(0, x.max(), 100)
    right = 1 - p * (1 - 1 / LARGE)         # one pair is
    axis.plot(p, [theory.noisy_accuracy(each, N_PAIRS, LARGE, R)[0] for each in p], color=black)
    axis.plot(p, right, "--", color=black)
    at = 1.02 * x.max()
    axis.text(at, right[-1], "theory, were the winning pair\nalone to decide: $1 - p_e$", va="center")
    axis.text(at, theory.noisy_accuracy(x.max(), N_PAIRS, LARGE, R)[0] - 0.015,
              "theory (R19), some pair is right:\n$1 - p_e^n$, n = 4 pairs", va="top")
    for values, size, marker, colour, place, words in (
            (data["large"], LARGE, "D", drawing.RED, "bottom", "on the law"),
            (data["wrong"][:, :, 0], N, "o", drawing.BLUE, "center", "other\npairs vote by accident")):
        mean = values.mean(axis=1)
        spread = np.abs([values.min(axis=1) - mean, values.max(axis=1) - mean])
        axis.errorbar(x, mean, spread, fmt=marker, capsize=4, color=colour, ms=9)
        axis.text(at, mean[-1] + 0.01 * (place == "bottom"), f"N = {size:,} answers: {words}", color=colour,
                  va=place)
    lows = [np.floor(1000 * low) / 1000 for low in (
        min(data[name][..., :2].min() for name in ("sizes", "pairs", "shared")), data["wrong"][..., 1].min())]
    axis.text(0, 0.03, "Without wrong answers nothing is lost to collisions "
              f"(N = {data['sizes_x'].min()} … {data['sizes_x'].max()}), to\nn = {data['pairs_x'].min()} … "
              f"{data['pairs_x'].max()} pairs, to tables that are not Latin: lowest accuracy {lows[0]:g}.\n"
              f"Recall, the relation given, at every p: lowest {lows[1]:g}.", va="bottom")
    axis.set(xlim=(-0.02, 1.62 * x.max()), ylim=(0, 1.05), xticks=x,
             xlabel="probability p that an answer shown is redrawn (it is wrong with $p_e = p (1 - 1/N)$)",
             ylabel="share of prompts whose relation is inferred",
             title="One pair holds most of the attention; where its answer is wrong, the others decide\n"
                   f"(markers: mean and range of {values.shape[1]} seeds)")
    return figure


if __name__ == "__main__":
    drawing.main("recall_noise", compute, plot)
