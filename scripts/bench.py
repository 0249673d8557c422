"""How fast is it: both systems beside PyTorch and JAX, a step and the whole job.

    python scripts/bench.py            all of it, half an hour; refused on a busy machine
    python scripts/bench.py --quick    up to a minute, whatever the machine; draws and saves nothing

Each contender runs in a process of its own, one at a time, in turns: in a turn it goes through all settings.
Its time in a setting is the median of its calls for TURN seconds; what is printed is the median over ROUNDS
turns, with their range. Losses must agree. Ours are float64 unless it is said, theirs float32; all use all
cores. The baseline is the best of theirs: PyTorch eager or compiled, JAX jitted.

The work of others is measured before and during a run: what the cores did beyond our own processes. Threads
that wait for each other at every product, as theirs do, lose more by it than ours. Above FOREIGN cores the
numbers are "not to be quoted".

The limit of the operations is what the mathematics needs, whatever the program: the multiply-adds that
induction/tables/fast.py lists at the rate of a large BLAS product, exponentials at that of our kernel. The
limit of dense tables has V entries in every history, and an exponential for each pair of layer 1.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path

import numba
import numpy as np
import peers

from refimpl import induction, recall, sgd

HERE = Path(__file__).resolve().parent
V, B, TRIGGERS, SEED = 65, 64, 5, 3     # this seed's text of 256 tokens has 28.4 % of positions in the loss
CORES, ROUNDS, TURN, FOREIGN = os.cpu_count(), 5, 0.3, 0.1
N_PAIRS, R, LAM, DENSE = 2, 8, 10.0, 11     # in recall; PyTorch has the dense model up to 2^DENSE subjects
LR, ACCURACY, EVERY, SEEDS = 10.0, 0.95, 10, (0, 1, 2)
FULL = ([("step", d, 256, share, "text") for d in (64, 128, 256, 512) for share in ("head", "all")]
        + [("step", 128, T, share, "text") for T in (64, 1024) for share in ("head", "all")]
        + [("step", 128, 256, share, "random") for share in ("head", "all")]
        + [("recall", log) for log in (5, 7, 9, 11, 14, 17, 20)])
QUICK = [("step", 128, 256, "head", "text"), ("step", 128, 256, "all", "text"), ("recall", 7)]
JOBS = [("train", seed) for seed in SEEDS] + [("months",), ("positions",)]


def instance(d, T, share, tokens):
    """Params of width d, tokens (B, T+1), the same at every d, and mask (B, T)."""
    from pydoc_data.topics import topics
    rng = np.random.default_rng(SEED)
    batch = induction.sample(induction.Bigram.from_text("\n".join(topics.values()), V), B, T, rng, TRIGGERS)
    params = induction.init(V, d, T, rng)
    params = params._replace(**{name: rng.normal(0, 0.3 * d ** -0.5, (d, d))
                                for name in ("WK1", "WK2", "WO", "WF")})
    mask = batch.occurrence >= (2 if share == "head" else 0)
    return params, batch.tokens if tokens == "text" else rng.integers(0, V, (B, T + 1)), mask


def prompts_of(log):
    """Facts of 2^log subjects, B prompts, and the weights that these see, with their index."""
    rng = np.random.default_rng(log)
    facts = recall.Facts.latin(2 ** log, R, rng)
    prompts = recall.sample(facts, N_PAIRS, B, rng)
    known = recall.implicit.seen(prompts)
    weights = recall.implicit.Steps(*(rng.normal(0, 1, len(ids)) for ids in known))
    return facts, prompts, known, weights


def our_step(dtype, loss_and_grads=induction.tables.loss_and_grads):
    """A contender: setting -> None, or a function that takes a step and returns the loss."""
    def step(kind, *sizes):
        if kind == "step":
            params, *batch = instance(*sizes)
            typed = induction.Params(*(a.astype(dtype) for a in params))
            return lambda: float(loss_and_grads(typed, *batch)[0])
        if dtype == "float64" and loss_and_grads is not induction.loss_and_grads:
            facts, prompts, known, weights = prompts_of(*sizes)
            index = recall.implicit.index(known, prompts)
            return lambda: recall.implicit.loss_and_grads(weights, facts, prompts, LAM, index)[0]
    return step


def torch_step(compiled):
    """A contender."""
    def step(kind, *sizes):
        if kind == "step":
            return peers.torch_step(*instance(*sizes), compiled)
        if sizes[0] <= DENSE:
            facts, prompts, known, weights = prompts_of(*sizes)
            params = recall.construct(facts, N_PAIRS, LAM)
            for ids, w in zip(known, weights):
                params.WKQ.reshape(-1)[ids] = w
            return peers.torch_recall(params, prompts, compiled)[0]
    return step


def jax_step(kind, *sizes):
    """A contender."""
    return peers.jax_step(*instance(*sizes)) if kind == "step" else None


OURS = "ours"
CONTENDERS = {OURS: our_step("float64"), "ours float32": our_step("float32"),
              "plain model": our_step("float64", induction.loss_and_grads), "JAX jitted": jax_step,
              "PyTorch eager": torch_step(False), "PyTorch compiled": torch_step(True)}


def job(name, kind, seed=0):
    """Seconds of a whole job, what it reached, and the peak of memory in MB; None where it cannot."""
    rng, start, reached = np.random.default_rng(seed), time.perf_counter(), None
    if kind == "train":
        reached = train(name != OURS, rng)
    elif kind == "months":
        facts, steps, lr = recall.Facts.months(), 300, 0.3
        prompts = recall.sample(facts, N_PAIRS, 48, rng)
        params = recall.construct(facts, N_PAIRS, LAM)
        params.WKQ[params.E.shape[1]:, params.E.shape[1]:] = rng.normal(0, 0.1, (2 * N_PAIRS + 2,) * 2)
        if name == OURS:
            from months import both
            batches = repeat((prompts.infer(), prompts.recall()), steps)
            loss = [last.loss for last in sgd.train(params, batches, both, lr, trained=("WKQ",))][-1]
        else:
            call, WKQ = peers.torch_recall(params, prompts)
            for _ in range(steps):
                loss = call()
                WKQ.data -= lr * WKQ.grad
        reached = f"loss {loss:.4f} after {steps} steps"
    elif name == OURS:
        facts = recall.Facts.latin(2 ** 22, 32, rng)
        batches = repeat((facts, recall.sample(facts, 4, B, rng), 40.0), 100)
        weights = recall.implicit.Steps(rng.normal(0, 0.1, 9), rng.normal(0, 0.1, 10))
        *_, last = sgd.train(weights, batches, recall.implicit.loss_and_grads, 0.3)
        trace = recall.implicit.forward(last.params, facts, recall.sample(facts, 4, 500, rng), 40.0)
        right = np.mean([step.margins > 0 for step in trace])
        reached = f"{100 * right:.1f} % right on {facts.N * facts.R:.1e} facts"
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return reached and (seconds, reached, peak)


def train(torch, rng):
    """Head accuracy ACCURACY from zero: same seeds and recipe for all, asked every EVERY steps."""
    import training
    bigram = training.text_bigram()
    params = induction.init(V, training.WIDTH, training.LENGTH, rng)
    held_out = induction.sample(bigram, B, training.LENGTH, rng, TRIGGERS)
    if not torch:
        for last in training.steps(bigram, params, rng, 10 ** 4, LR):
            if last.step % EVERY == EVERY - 1 and training.measure(
                    last.params, bigram, held_out)[0] >= ACCURACY:
                return f"{last.step + 1} steps"
    from torch import optim, tensor
    from torch.nn.functional import cross_entropy
    fields = [tensor(a.astype("float32"), requires_grad=name in training.HEAD)
              for name, a in zip(params._fields, params)]
    moving = optim.SGD([field for field in fields if field.requires_grad], LR, 0.9, weight_decay=1e-4)
    for step in range(10 ** 4):
        batch = induction.sample(bigram, B, training.LENGTH, rng, TRIGGERS)
        logits, target = peers.torch_logits(fields, batch.tokens, training.head(batch))
        moving.zero_grad()
        cross_entropy(logits(), target).backward()
        moving.step()
        if step % EVERY == EVERY - 1:
            logits, target = peers.torch_logits(fields, held_out.tokens, training.head(held_out))
            if (logits().argmax(1) == target).float().mean() >= ACCURACY:
                return f"{step + 1} steps"


def rates():
    """Multiply-adds a second of a BLAS product on all cores, exponentials of one; the best of 20."""
    from refimpl.induction.tables.kernels import exponentials
    a, x = np.random.default_rng(0).random((1024, 1024)), np.linspace(-20, 0, 10 ** 4)
    product, exps = (min(calls(step, 20)) for step in (lambda: a @ a, lambda: exponentials(x.copy())))
    return len(a) ** 3 / product, len(x) / exps


def limit(rates, kind, d, *sizes, dense):
    """Seconds that the operations of a step take at these rates; nan in recall."""
    if kind != "step":
        return np.nan
    _, tokens, mask = instance(d, *sizes)
    products, exps = 21 * V * d ** 2 + 30 * V ** 2 * d, 0
    for z, chosen in zip(tokens, mask):
        rows = np.flatnonzero(chosen)
        if len(rows):
            T = rows[-1] + 1
            first, seen_by = np.unique(z[:T], return_index=True)[1], chosen[:T][::-1].cumsum()[::-1]
            # Tokens that a key's history can hold.
            known = np.full(T, V) if dense else np.isin(np.arange(T), first).cumsum()
            n = known[-1]
            products += T ** 2 + 6 * seen_by @ known + 6 * len(rows) * n ** 2 + 9 * len(rows) * n * V
            exps += (rows + 1).sum() + len(rows) * V + dense * T * (T + 1) // 2
    return products / rates[0] + exps / rates[1] / CORES


def calls(step, least=1, seconds=0.0):
    """Seconds of each call."""
    times, start = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return times


def turn(name, settings):
    """In a process of its own: [loss, seconds of a call] for each setting; None where `name` is not in it."""
    results = []
    for setting in settings:
        step = CONTENDERS[name](*setting)
        results.append(step and [(step(), step())[0], np.median(calls(step, 1, TURN))])
    return results


def child(function, *arguments):
    """What function(*arguments) returns in a new process; None where it fails: a package is missing."""
    program = f"import bench, json; print(json.dumps(bench.{function}(*{arguments!r})))"
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, cwd=HERE,
                          env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        return print(f"{function} {arguments[:1]}: {done.stderr.strip().splitlines()[-1][:80]}")
    return json.loads(done.stdout.splitlines()[-1])


def used():
    """Seconds: the clock; what all cores have worked, nan where nobody says; what we and ours have."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    try:
        with open("/proc/stat") as stat:
            user, nice, system, _, _, *rest = map(int, stat.readline().split()[1:9])
        all_cores = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    except OSError:
        all_cores = np.nan
    return np.array([time.perf_counter(), all_cores, sum(r.ru_utime + r.ru_stime for r in own)])


def foreign(before):
    """Cores that others kept busy since then."""
    seconds, all_cores, own = used() - before
    return (all_cores - own) / seconds


def compare(settings, names, rounds, rates):
    """Take turns and print a table for each setting; returns rows (setting, name, seconds, limit)."""
    turns = [(name, child("turn", name, settings)) for _ in range(rounds) for name in names]
    rows = []
    for i, setting in enumerate(settings):
        times, losses = {}, []
        for name, results in turns:
            if results and results[i]:
                losses.append(results[i][0])
                times.setdefault(name, []).append(results[i][1])
        if np.ptp(losses) > 1e-4:
            raise SystemExit(f"{setting}: the losses disagree: {losses}")
        floors = [limit(rates, *setting, dense=dense) for dense in (False, True)]
        print("\n" + " ".join(map(str, setting)))
        ours = np.median(times[OURS])
        for name, values in sorted(times.items(), key=lambda item: np.median(item[1])):
            print(f"  {name:24}{1e3 * np.median(values):9.2f} ms  ({1e3 * min(values):.2f} to "
                  f"{1e3 * max(values):.2f})   {np.median(values) / ours:6.2f} x")
            rows.append((" ".join(map(str, setting)), name, np.resize(values, rounds), floors[0]))
        if setting[0] == "step":
            print(f"  limits: operations {1e3 * floors[0]:.2f} ms, dense tables {1e3 * floors[1]:.2f} ms")
    return rows


def plot(data):
    """How many times as fast as the best of theirs each of ours is, by setting; the limit as a line."""
    import drawing
    figure, axis = drawing.plt.subplots(figsize=(13, 9))
    labels = []
    for setting in dict.fromkeys(data["setting"]):
        mine, y = data["setting"] == setting, len(labels)
        median = dict(zip(data["name"][mine], np.median(data["seconds"][mine], axis=1)))
        theirs = [seconds for name, seconds in median.items() if name.split()[0] in ("PyTorch", "JAX")]
        if theirs:
            labels.append(in_words(*setting.split()))
            for name, marker, colour in ((OURS, "o", drawing.BLUE), ("ours float32", "s", drawing.ORANGE)):
                if name in median:
                    axis.plot(min(theirs) / median[name], y, marker, color=colour, markersize=9,
                              label=None if y else name)
            axis.plot(min(theirs) / data["limit"][mine][0], y, "|", color=drawing.BLACK, markersize=18,
                      label=None if y else "limit of the operations")
    axis.set(xscale="log", xlabel="times as fast as the best of PyTorch and JAX (float32)")
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncol=3)
    return figure


def in_words(kind, size, *more):
    """A setting as the figure has it."""
    if kind == "recall":
        return f"recall, {R * 2 ** int(size)} facts"
    return f"d = {size}, T = {more[0]}, {more[1]} positions" + ", random tokens" * (more[2] == "random")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few settings, two turns; saves nothing")
    parser.add_argument("--plot", action="store_true", help="draw again from the saved numbers")
    args = parser.parse_args()
    if args.plot:
        import drawing
        return save(drawing.read(drawing.FIGURES / "bench.npz"))
    quick, before = args.quick, used()
    time.sleep(1)
    load, start = foreign(before), used()
    machine = (f"{platform.processor() or platform.machine()}, {CORES} cores, Python "
               f"{platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}")
    print(f"{machine}\nothers keep {load:.2f} cores busy")
    if not quick and not load <= FOREIGN:
        raise SystemExit(f"refused: at most {FOREIGN} may be; --quick runs all the same")
    speed = child("rates")
    print(f"{1e-9 * speed[0]:.1f} G multiply-adds a second, {1e-6 * speed[1]:.0f} M exponentials and core")
    names = [name for name in CONTENDERS if not quick or name in (OURS, "PyTorch eager", "JAX jitted")]
    rows = compare(QUICK if quick else FULL, names, 2 if quick else ROUNDS, speed)
    for setting in [] if quick else JOBS:
        for name in (OURS, "PyTorch eager"):
            done = child("job", name, *setting)
            if done:
                print(f"{' '.join(map(str, setting)):12} {name:16}{done[0]:8.2f} s, {done[1]}, "
                      f"{done[2]:.0f} MB at most")
    load = foreign(start)
    quotable = load <= FOREIGN
    print(f"\nothers kept {load:.2f} cores busy meanwhile" + ("" if quotable else ": not to be quoted"))
    if not quick:
        import drawing
        setting, name, seconds, least = map(np.array, zip(*rows))
        data = dict(setting=setting, name=name, seconds=seconds, limit=least, machine=np.array(machine),
                    foreign=np.array(load), quotable=np.array(quotable))
        drawing.replace(drawing.FIGURES / "bench.npz", lambda path: np.savez_compressed(path, **data))
        if quotable:
            save(data)


def save(data):
    """Draw figures/bench.png."""
    import drawing
    figure = plot(data)
    drawing.replace(drawing.FIGURES / "bench.png",
                    lambda path: figure.savefig(path, metadata={"Software": None}))


if __name__ == "__main__":
    main()
