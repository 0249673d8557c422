"""What fine-tuning makes of prompts that break the assumptions of R4 to R9.

Position-only fine-tuning from nearly uniform attention, constructed memory; new prompts of the same kind
as in training. Wrong answers: each answer shown is replaced by a random one with probability p. The line is
R19, 1 − p_e^n: some pair is right. The dashed line is 1 − p_e: one pair is, which is all that the attention
of R9 looks at. At N = LARGE, inside the assumption of R19, the mean over the seeds is on the line; at N = 64
other pairs vote by accident, and it is below. Collisions: N answers against rows of R = 8. Pairs: n = 1 has
no competitor. Tables that are not Latin (dense model): some subjects share another's row.
Run time: a minute and a half on two cores.
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
    figure, axes = drawing.plt.subplots(1, 4, figsize=(16, 4.2), sharey=True)
    panels = (("wrong", "Wrong answers, n = 4, N = 64", "probability p of a wrong answer"),
              ("sizes", "Collisions, n = 4", "answers N, rows of R = 8"),
              ("pairs", "Number of pairs", "pairs n, N = 64, R = 8"),
              ("shared", "Not Latin, n = 2, N = 20, R = 4", "share of subjects with another's row"))
    looks = (("infer: accuracy", "o", drawing.COLOURS["infer"]), ("recall: accuracy", "s",
             drawing.COLOURS["recall"]), ("weight of the winning pair", "^", drawing.GREEN),
             ("weight of $(s_n, r)$", "v", drawing.PURPLE))
    for axis, (name, title, label) in zip(axes, panels):
        x, values = data[f"{name}_x"], data[name]
        for k, (what, marker, colour) in enumerate(looks):
            mean = values[:, :, k].mean(axis=1)
            spread = np.abs([values[:, :, k].min(axis=1) - mean, values[:, :, k].max(axis=1) - mean])
            axis.errorbar(x, mean, spread, fmt=marker + "-", lw=0.8, color=colour, label=what)
        axis.set(title=title, xlabel=label, ylim=(0, 1.05))
    p = np.linspace(0, data["wrong_x"].max(), 50)
    axes[0].plot(p, [theory.noisy_accuracy(each, N_PAIRS, LARGE, R)[0] for each in p], color=drawing.BLACK,
                 label="law $1 - p_e^n$ (R19)")
    axes[0].plot(p, 1 - p, "--", lw=1, color=drawing.BLACK, label="$1 - p_e$: the winning pair alone")
    mean, x = data["large"].mean(axis=1), data["wrong_x"]
    spread = np.abs([data["large"].min(axis=1) - mean, data["large"].max(axis=1) - mean])
    axes[0].errorbar(x, mean, spread, fmt="D", ms=5, color=drawing.RED, label="infer: accuracy, N = 65,536")
    axes[0].legend(fontsize=8.5, loc="lower left")
    axes[0].set_ylabel("share, mean and range of the seeds")
    axes[1].axvline((N_PAIRS + 1) * R, ls=":", color=drawing.BLACK)
    axes[1].text((N_PAIRS + 1) * R + 1, 0.1, "rows can be\ndisjoint", va="bottom", fontsize=8.5)
    return figure


if __name__ == "__main__":
    drawing.main("recall_noise", compute, plot)
