"""The command `probe`: what a model in another dialect has learned, as far as this theory sees it."""

import numpy as np
from scipy.special import log_softmax

from refimpl import check, induction
from refimpl.induction import ledger, probes, theory
from refimpl.vectors import dialects, files

VALUES = {"True": True, "False": False, "None": None, "1": 1}


def add_commands(commands):
    """Add `probe`."""
    parser = commands.add_parser(
        "probe", help="what a checkpoint in another dialect has learned",
        description="Print what each memory recalls, which memories the logits at the end of a prompt come "
                    "from, and what claims I3 and I5 predict with the strengths found. FILE.npz holds a "
                    "state dict, and may hold the task's bigram pi_b (V, V); else WF stands for it. "
                    "Dialects and their options: python -m pydoc refimpl.vectors.dialects")
    parser.set_defaults(run=run_probe)
    parser.add_argument("file", metavar="FILE.npz")
    parser.add_argument("--dialect", choices=list(dialects.UNSEEN), required=True)
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[],
                        help="what a state dict does not show, such as n_heads=1 (repeatable)")
    parser.add_argument("--triggers", metavar="IDS", type=token_ids, help="as in 3,0,1 (default: all tokens)")
    parser.add_argument("--prompt", metavar="IDS", type=token_ids, help="default: drawn from the bigram")
    parser.add_argument("--train-length", metavar="T", type=int, help="length seen in training (default: L)")
    parser.add_argument("--seed", metavar="S", type=int, default=0)


def token_ids(words):
    """argparse type."""
    return np.array([int(word) for word in words.split(",")])


def run_probe(args):
    """`probe`: print what the model has learned; 0."""
    state, problems = files.read_arrays(files.Path(args.file))
    if problems:
        raise ValueError(problems[0])
    pi_b, options = state.pop("pi_b", None), (option.partition("=")[::2] for option in args.option)
    params = dialects.read(state, args.dialect, **{name: VALUES.get(word, word) for name, word in options})
    rng = np.random.default_rng(check.integer("--seed", args.seed, 0))
    (V, d), L = params.E.shape, len(params.pos)
    Q = np.arange(V) if args.triggers is None else args.triggers
    L0 = L if args.train_length is None else check.integer("--train-length", args.train_length, 2, L + 1)
    with np.errstate(divide="ignore"):
        log_pi_b = log_softmax(params.E @ (params.U @ params.WF).T, axis=1) if pi_b is None else \
            np.log(check.law("pi_b", pi_b, 2, V))
    bigram = induction.Bigram(tuple(range(V)), np.full(V, 1 / V), np.exp(log_pi_b))
    print(f"V = {V} tokens, d = {d}, L = {L} positions\n\nmemory  recalled     margin   strength")
    both, strengths = params._replace(WO=params.WO + params.WF @ params.WO), []  # WF acts on what WO writes
    for name, probe, *given in (("WK1", probes.WK1, params, "absolute", L0), ("WK2", probes.WK2, params, Q),
                                ("WO", probes.WO, params), ("WO, WF", probes.WO, both),
                                ("WF", probes.WF, params, bigram))[:4 if pi_b is None else 5]:
        try:
            argmax, margin, strength = probe(*given)
            print(f"{name:6}  {argmax:8.3f} {margin:10.3g} {strength:10.3g}")
        except ValueError as error:         # a memory of zeros
            strength = 0.0
            print(f"{name:6}  {error}")
        strengths.append(strength)
    b1, b2, _, bo = strengths[:4]
    z = args.prompt if args.prompt is not None else induction.sample(
        bigram, 1, min(L0, 64), rng, max(1, min(5, V // 4)) if args.triggers is None else Q,
        drawn=args.triggers is None).tokens[0, :-1]
    found = induction.forward(params, z, "absolute").logits
    expected = theory.logits(z, log_pi_b, Q, b1, b2, bo, "absolute", L0)
    print(f"\nprompt {' '.join(map(str, z))}\n\nlogits at its end     share   first token")
    for name, part in parts(params, z).items():
        print(f"{name:18} {share(found[-1], part):8.3f} {part.argmax():8}")
    same = np.mean(found.argmax(axis=1) == expected.argmax(axis=1))
    print(f"{'all':18} {1:8.3f} {found[-1].argmax():8}\nI3, strengths above   {expected[-1].argmax():14}\n\n"
          f"I3 has the model's first token at {same:.3f} of all {len(z)} positions\n"
          f"I5 at {min(L0, 64)} tokens: {hijack(params, log_pi_b, Q[0], min(L0, 64), b2, bo, rng)}")
    return 0


def parts(params, z):
    """The ledger's eight parts of the last logits, with absolute positions.

    If each E[z_t] + pos[t] counts as a token of its own, no positions are left, and the ledger holds.
    """
    x0, n = params.E[z] + params.pos[:len(z)], max(len(z), len(params.U))
    E, U = (np.pad(rows, ((0, n - len(rows)), (0, 0))) for rows in (x0, params.U))
    own = params._replace(E=E, U=U, pos=0 * params.pos)
    return {name: part[-1, :len(params.U)] for name, part in ledger.logits(own, np.arange(len(z))).items()}


def share(total, part):
    """Σ total · part / Σ total², both centred over the tokens; the shares of all parts add up to 1."""
    total = total - total.mean()
    return total @ (part - part.mean()) / (total @ total or 1)


def hijack(params, log_pi_b, q, T, b2, bo, rng):
    """Claim I5 in words for trigger q, beside the model on designed prompts of T tokens."""
    rivals = [v for v in np.argsort(log_pi_b[q]) if v != q and np.isfinite(log_pi_b[q, v])]
    gap = np.ptp(log_pi_b[q, rivals]) if len(rivals) > 2 else 0.0
    if bo <= 0 or T < 4 or gap < 1e-9:
        return "needs bo > 0, four tokens and a bigram that prefers one of them"
    u, *others, w = rivals
    k_star = theory.hijack(1, T, gap, b2, bo).critical_repetitions
    won = []
    for k in range(1, T // 2):
        z = np.concatenate([rng.choice(others, T - 2 * k - 1), [q, u] * k, [q]])
        last = induction.forward(params, z, "absolute").logits[-1]
        won += [str(k)] if last[u] > last[w] else []
    return (f"after k copies of '{q} {u}' {q} recalls {u} and not {w}, ahead by {gap:.3g} nats, if k > "
            f"{k_star:.3g}; the model at k = {', '.join(won[:6]) or 'none'}{', …' * (len(won) > 6)}")
