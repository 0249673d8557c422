"""How fast is it: both systems beside PyTorch and JAX, the sampler, memory, cold start.

    python scripts/bench.py            all of it, up to 10 minutes
    python scripts/bench.py --quick    up to a minute: few sizes, no plain path, no cold start

What is compared runs in turn, REPEATS times over, so that a busy moment of the machine hits all
alike: calls for TURN seconds, or one, and a PAUSE in which its threads fall asleep, since they would
spin on, on the cores of the next. What is printed are medians and the spread of the seconds a call.
Losses must agree before anything is timed.
PyTorch and JAX, where they are installed, run in float32, the whole batch at once, without Python
loops, positions by gather, layer 2 and the output at the rows in the loss alone. JAX takes all cores.
In recall all weights but WKQ are frozen, in both.

The limit is what the mathematics needs, whatever the program: multiply-adds (list in tables.py) over
the rate of a large BLAS product, and exponentials over the rate of our kernel for them, on all threads.
The limit of dense tables is the same with V entries in every history, not those of the tokens seen so
far, and an exponential for each pair of layer 1: what is known before one looks at the text.
The numbers and their figure go to figures/bench.npz and figures/bench.png.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numba
import numpy as np

from refimpl import induction, recall
from refimpl.induction.tables.kernels import exponentials

HERE = Path(__file__).resolve().parent
ENVIRONMENT = dict(os.environ)      # of new processes: `drawing`, once imported, asks for one thread
V, B, TRIGGERS, REPEATS, TURN, PAUSE = 65, 64, 5, 7, 0.1, 0.02
SEED = 3        # its text of 256 tokens has 28.4 % of positions in the loss on trigger positions
CORES = [n for n in (1, 2) if n <= numba.config.NUMBA_NUM_THREADS]
OURS, THEIRS = f"tables float64, {CORES[-1]} threads", f"PyTorch float32, {CORES[-1]} threads"
JAX, PLAIN = "JAX float32", "plain float64"
# d, T, and whether everything is compared, or only what the figure shows.
SIZES = ([(d, 256, d == 128) for d in (64, 128, 256, 512)] + [(128, 128, False)]
         + [(d, 64, d == 128) for d in (64, 128, 256, 512)])
N_PAIRS, R, LAM, SUBJECTS, DENSE_SUBJECTS = 2, 8, 10.0, (5, 7, 9, 11, 14, 17, 20), 11       # powers of two
IMPLICIT, DENSE = "implicit float64", f"dense PyTorch float32, {CORES[-1]} threads"
COLD = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
STEP = ("import numpy as np; from refimpl import induction; "
        "params = induction.init(5, 4, 6, np.random.default_rng(0)); "
        "induction.{}loss_and_grads(params, np.zeros((1, 7), int), np.ones((1, 6), bool))")
AUDIT = "from refimpl.__main__ import main; main(['audit'])"


def instance(d, T, share):
    """Params of width d, tokens (B, T+1) of trigger-bigram text, the same at every d, mask (B, T)."""
    from pydoc_data.topics import topics
    rng = np.random.default_rng(SEED)
    bigram = induction.Bigram.from_text("\n".join(topics.values()), V)
    batch = induction.sample(bigram, B, T, rng, TRIGGERS)
    params = induction.init(V, d, T, rng)
    params = params._replace(**{name: rng.normal(0, 0.3 * d ** -0.5, (d, d))
                                for name in ("WK1", "WK2", "WO", "WF")})
    return params, batch.tokens, batch.occurrence >= 2 if share == "head" else batch.occurrence >= 0


def chosen_rows(mask):
    """(B, R) positions in the loss, filled up to the longest, and which of them are real."""
    R = mask.sum(axis=1).max()
    return np.argsort(~mask, axis=1, kind="stable")[:, :R], np.arange(R) < mask.sum(axis=1)[:, None]


def torch_step(params, tokens, mask, compiled=False):
    """The same step in PyTorch, as a function of the number of threads that returns the loss."""
    import torch
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = fields = [
        torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in params]
    rows, real = (torch.tensor(a) for a in chosen_rows(mask))
    z, b, t = torch.tensor(tokens), torch.arange(B)[:, None], torch.arange(mask.shape[1])
    back, ahead = (t[:, None] - t).clamp(min=0).expand(B, -1, -1), t > t[:, None]
    ahead_rows, target = t > rows[:, :, None], z[:, 1:][b, rows][real]

    def loss_of():
        x0 = E[z[:, :-1]]
        q1 = x0 @ WK1
        S1 = q1 @ x0.transpose(1, 2) + (q1 @ pos.T).gather(2, back)
        x1 = x0 + S1.masked_fill(ahead, -torch.inf).softmax(-1) @ x0 @ Phi.T
        x1_rows = x1[b, rows]
        S2 = (x1_rows @ WK2 @ x1.transpose(1, 2)).masked_fill(ahead_rows, -torch.inf)
        x2 = (x1_rows + S2.softmax(-1) @ x1 @ WV.T @ WO.T)[real]
        return torch.nn.functional.cross_entropy((x2 + x2 @ WF.T) @ U.T, target)

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def step(threads):
        torch.set_num_threads(threads)
        for field in fields:
            field.grad = None
        loss = loss_of()
        loss.backward()
        return loss.item()
    return step


def jax_step(params, tokens, mask):
    """The same step in JAX, jitted, as a function without arguments that returns the loss."""
    import jax
    import jax.numpy as jnp
    rows, real = chosen_rows(mask)
    b, t = np.arange(B)[:, None], np.arange(mask.shape[1])
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


def our_step(step, params, tokens, mask, dtype="float64"):
    """One of our paths in this dtype, as a function of the number of threads that returns the loss."""
    typed = induction.Params(*(a.astype(dtype) for a in params))

    def with_threads(threads):
        numba.set_num_threads(threads)
        return float(step(typed, tokens, mask)[0])
    return with_threads


def installed(name):
    """Whether the package can be imported; says so where it cannot."""
    try:
        return print(f"{name} {__import__(name).__version__}") or True
    except ImportError:
        print(f"{name} is not installed: no comparison with it")
        return False


def contenders(data, frameworks, full, plain):
    """{name: step without arguments} of all that is compared on this data."""
    steps = {}
    for n in CORES if full else CORES[-1:]:
        for dtype in ("float64", "float32") if full else ("float64",):
            steps[f"tables {dtype}, {n} threads"] = lambda step=our_step(
                induction.tables.loss_and_grads, *data, dtype), n=n: step(n)
        if "torch" in frameworks:
            steps[f"PyTorch float32, {n} threads"] = lambda step=torch_step(*data), n=n: step(n)
    if "jax" in frameworks:
        steps[JAX] = jax_step(*data)
    if full and plain:
        steps[PLAIN] = lambda step=our_step(induction.loss_and_grads, *data): step(CORES[-1])
        steps["plain float32"] = lambda step=our_step(
            induction.loss_and_grads, *data, "float32"): step(CORES[-1])
    return steps


def interleaved(steps, repeats=REPEATS):
    """Seconds of each step, (repeats,) arrays by name: calls of one after calls of the other, in turn."""
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            time.sleep(PAUSE)
            start, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - start < TURN:
                step()
                calls += 1
            times[name].append((time.perf_counter() - start) / calls)
    return {name: np.array(values) for name, values in times.items()}


def machine_rates():
    """Multiply-adds a second of a BLAS product on all cores, exponentials a second of one; the best of 20."""
    a, x = np.random.default_rng(0).random((1024, 1024)), np.linspace(-20, 0, 10 ** 4)
    steps = {"product": lambda: a @ a, "exp": lambda: exponentials(x.copy())}
    times = interleaved(steps, 21)
    return len(a) ** 3 / times["product"][1:].min(), len(x) / times["exp"][1:].min()


def limit(d, tokens, mask, rates, dense=False):
    """Seconds that the operations of one step take at these rates; the limit of dense tables on request."""
    products, exps = 21 * V * d ** 2, 0
    for z, chosen in zip(tokens, mask):
        rows = np.flatnonzero(chosen)
        if len(rows):
            T = rows[-1] + 1
            first, seen_by = np.unique(z[:T], return_index=True)[1], chosen[:T][::-1].cumsum()[::-1]
            # Tokens that a key's history can hold.
            known = np.full(T, V) if dense else np.isin(np.arange(T), first).cumsum()
            n, pairs = known[-1], (rows + 1).sum()
            products += T ** 2 + 6 * seen_by @ known + 6 * len(rows) * n ** 2 + 9 * len(rows) * n * V
            exps += pairs + len(rows) * V + dense * T * (T + 1) // 2
    return products / rates[0] + exps / rates[1] / CORES[-1]


def bench_induction(sizes, frameworks, plain, rates):
    """Print a table for each size; returns what `plot` draws."""
    results = []
    for d, T, full in sizes:
        for share in ("head", "all"):
            data = instance(d, T, share)
            steps = contenders(data, frameworks, full, plain)
            losses = {name: step() for name, step in steps.items()}
            if max(losses.values()) - min(losses.values()) > 1e-4:
                raise SystemExit(f"the losses disagree: {losses}")
            times, least = interleaved(steps), limit(d, *data[1:], rates)
            floors = {"limit of the operations": least,
                      "limit of dense tables": limit(d, *data[1:], rates, dense=True)}
            print(f"\nloss and nine gradients, d = {d}, T = {T}, B = {B}, V = {V}, "
                  f"{100 * data[2].mean():.1f} % of positions in the loss; the losses agree")
            for name, values in sorted(times.items(), key=lambda item: np.median(item[1])):
                print(f"  {name:28}{1e3 * np.median(values):9.1f} ms  ({1e3 * values.min():.1f} to "
                      f"{1e3 * values.max():.1f})   {np.median(values) / np.median(times[OURS]):6.2f} x")
            for name, seconds in floors.items():
                print(f"  {name:28}{1e3 * seconds:9.1f} ms"
                      f"{seconds / np.median(times[OURS]):31.2f} x", flush=True)
            results += [(d, T, share, name, values, least) for name, values in times.items()]
    d, T, share, name, seconds, least = zip(*results)
    return dict(d=np.array(d), T=np.array(T), share=np.array(share), name=np.array(name),
                seconds=np.array(seconds), limit=np.array(least))


def torch_recall(params, prompts):
    """L_infer + L_recall of the dense model and the gradient of WKQ, a function like that of `torch_step`."""
    import torch
    E, U, P, WKQ, W1, b1, W2 = (torch.tensor(a, dtype=torch.float32) for a in params)
    WKQ.requires_grad_()
    steps = []
    for tokens, targets, slot in (prompts.infer(), prompts.recall()):
        content = E[torch.tensor(tokens)]
        rows = torch.cat([content, P[:tokens.shape[1]].expand(len(tokens), -1, -1)], 2)
        steps.append((content, rows, torch.tensor(targets - slot[0]), U[slice(*slot)].T))

    def step(threads):
        torch.set_num_threads(threads)
        WKQ.grad, loss = None, 0
        for content, rows, target, UT in steps:
            scores = rows @ (rows[:, -1] @ WKQ)[:, :, None]
            x = (scores.softmax(1) * content).sum(1)
            loss += torch.nn.functional.cross_entropy((x @ W1.T + b1).square() @ W2.T @ UT, target)
        loss.backward()
        return loss.item()
    return step


def bench_recall(frameworks, subjects):
    """Print what a step of fine-tuning takes against the number of facts, N R; returns what `plot` draws."""
    print(f"\nloss of both steps and gradient of WKQ, {B} prompts, n = {N_PAIRS}, R = {R}, square; "
          "the losses agree")
    results = []
    for log in subjects:
        rng = np.random.default_rng(log)
        facts = recall.Facts.latin(2 ** log, R, rng)
        prompts = recall.sample(facts, N_PAIRS, B, rng)
        known = recall.implicit.seen(prompts)
        index = recall.implicit.index(known, prompts)
        weights = recall.implicit.Steps(*(rng.normal(0, 1, len(ids)) for ids in known))
        steps = {IMPLICIT: lambda: recall.implicit.loss_and_grads(weights, facts, prompts, LAM, index)[0]}
        if "torch" in frameworks and log <= DENSE_SUBJECTS:
            params = recall.construct(facts, N_PAIRS, LAM)
            for ids, w in zip(known, weights):
                params.WKQ.reshape(-1)[ids] = w
            steps[DENSE] = lambda step=torch_recall(params, prompts): step(CORES[-1])
            del params
        losses = [step() for step in steps.values()]
        if max(losses) - min(losses) > 1e-4:
            raise SystemExit(f"the losses disagree: {losses}")
        times = interleaved(steps)
        ours = np.median(times[IMPLICIT])
        print(f"  N = 2^{log:<2}" + "".join(
            f"   {name} {1e3 * np.median(values):8.2f} ms {np.median(values) / ours:6.1f} x"
            for name, values in times.items()), flush=True)
        results += [(log, name, values) for name, values in times.items()]
    log, name, seconds = zip(*results)
    return dict(recall_N=2 ** np.array(log), recall_name=np.array(name), recall_seconds=np.array(seconds))


def bench_compiled():
    """Print what torch.compile gains over eager PyTorch, d = 128, T = 256; says so where it does not work."""
    data = instance(128, 256, "head")
    try:
        steps = {name: lambda step=torch_step(*data, compiled): step(CORES[-1])
                 for name, compiled in (("eager", False), ("compiled", True))}
        start = time.perf_counter()
        steps["compiled"]()
    except Exception as error:      # whatever its compiler raises
        print(f"\ntorch.compile does not work here: {type(error).__name__}")
        return
    print(f"\ntorch.compile, d = 128, T = 256, head, compiled in {time.perf_counter() - start:.0f} s")
    for name, values in interleaved(steps).items():
        print(f"  {name:28}{1e3 * np.median(values):9.1f} ms  ({1e3 * values.min():.1f} to "
              f"{1e3 * values.max():.1f})")


def bench_sampler():
    """Print how many sequences a second are drawn, uniform random numbers included."""
    from pydoc_data.topics import topics
    rng = np.random.default_rng(0)
    text = induction.Bigram.from_text("\n".join(topics.values()), V)
    steps = {(name, n): lambda law=law, n=n: induction.sample(law, n, 256, rng, TRIGGERS)
             for name, law in (("bigram of text", text), ("random bigram", induction.Bigram.random(V, rng)))
             for n in (B, 4000)}
    for step in steps.values():
        step()
    print("\nsampler, T = 256, one thread")
    for (name, n), values in interleaved(steps).items():
        print(f"  {name:28}{n / np.median(values):9.0f} sequences a second, {n} at a time")


def peak():
    """Megabytes that this process has held at most."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def memory(name):
    """Print by how many megabytes two steps raise the peak of a fresh process, and the peak."""
    data = instance(128, 256, "all")
    frameworks = {THEIRS: ["torch"], JAX: ["jax"]}.get(name, [])
    step = contenders(data, frameworks, full=name == PLAIN, plain=True)[name]
    before = peak()
    step(), step()
    print(f"{peak() - before:.0f} MB above {before:.0f} MB")


def bench_memory(frameworks):
    """Print the peak memory of a step, each in its own process."""
    print("\npeak memory of a step, d = 128, T = 256, all positions in the loss, above what was held before")
    for name in [OURS, PLAIN] + [THEIRS] * ("torch" in frameworks) + [JAX] * ("jax" in frameworks):
        print(f"  {name:28}{run(f'import bench; bench.memory({name!r})').strip():>24}")


def run(program, **environment):
    """What a Python program prints in a new process that starts in the folder of this file."""
    path = os.pathsep.join([str(HERE.parent), ENVIRONMENT.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-c", program], cwd=HERE, check=True, text=True,
                          stdout=subprocess.PIPE,
                          env={**ENVIRONMENT, "PYTHONPATH": path, **environment}).stdout


def bench_cold_start():
    """Print what a new process waits for, with an empty cache of compiled code and with a full one."""
    print("\ncold start, seconds: first time, then from the cache")
    with tempfile.TemporaryDirectory() as cache:
        for name, program in (("import numba", "import numba"), ("import refimpl.induction",) * 2,
                              ("plain step", STEP.format("")), ("tables step", STEP.format("tables.")),
                              ("audit, after these steps", AUDIT)):
            seconds = [float(run(COLD.format(program), NUMBA_CACHE_DIR=cache).split()[-1]) for _ in "12"]
            print(f"  {name:28}{seconds[0]:9.1f} {seconds[1]:9.1f}", flush=True)


def errorbar(axis, x, seconds, **look):
    """Medians over the repeats in ms, and their whole range, against x."""
    milliseconds = 1e3 * seconds
    middle = np.median(milliseconds, axis=1)
    spread = np.abs(np.percentile(milliseconds, [0, 100], axis=1) - middle)
    axis.errorbar(x, middle, spread, linestyle="none" if len(x) == 1 else "-", capsize=2, **look)


def plot(data):
    """Cost against d, T and the number of facts, ours and theirs, and the machine's limit as a line."""
    import drawing
    figure, axes = drawing.plt.subplot_mosaic([["a", "b", "e"], ["c", "d", "e"]], figsize=(11, 6.5))
    looks = {OURS: (drawing.BLUE, "o"), THEIRS: (drawing.RED, "s"), JAX: (drawing.ORANGE, "^"),
             PLAIN: (drawing.GREEN, "D")}
    for panel, share, x, fixed, value in (("a", "head", "d", "T", 256), ("b", "head", "T", "d", 128),
                                          ("c", "all", "d", "T", 256), ("d", "all", "T", "d", 128)):
        axis, chosen = axes[panel], (data["share"] == share) & (data[fixed] == value)
        for name, (colour, marker) in looks.items():
            mine = chosen & (data["name"] == name)
            if mine.any():
                order = np.argsort(data[x][mine])
                errorbar(axis, data[x][mine][order], data["seconds"][mine][order],
                         color=colour, marker=marker, label=name)
        mine = chosen & (data["name"] == OURS)
        order = np.argsort(data[x][mine])
        axis.plot(data[x][mine][order], 1e3 * data["limit"][mine][order], color=drawing.BLACK,
                  label="limit of the operations")
        axis.set(xscale="log", yscale="log", ylabel="time of one step (ms)",
                 title=f"induction, {fixed} = {value}, loss on {share} positions",
                 xlabel={"d": "width d", "T": "sequence length T (tokens)"}[x])
        axis.set_xticks(np.unique(data[x][chosen]), np.unique(data[x][chosen]))
        axis.minorticks_off()
    for name, (colour, marker) in ((IMPLICIT, looks[OURS]), (DENSE, looks[THEIRS])):
        mine = data["recall_name"] == name
        if mine.any():
            errorbar(axes["e"], data["recall_N"][mine], data["recall_seconds"][mine],
                     color=colour, marker=marker, label=name.split(",")[0])
    axes["e"].set(xscale="log", yscale="log", title="recall", xlabel=f"subjects N (facts: {R} N)",
                  ylabel="time of one step (ms)")
    axes["e"].legend(loc="lower right", bbox_to_anchor=(1, 0.26))
    figure.legend(*axes["a"].get_legend_handles_labels(), loc="outside lower center", ncol=3)
    return figure


def save(data):
    """Write figures/bench.npz and figures/bench.png."""
    import drawing
    drawing.FIGURES.mkdir(exist_ok=True)
    drawing.replace(drawing.FIGURES / "bench.npz", lambda path: np.savez_compressed(path, **data))
    figure = plot(data)
    drawing.replace(drawing.FIGURES / "bench.png",
                    lambda path: figure.savefig(path, metadata={"Software": None}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few sizes; writes no figure")
    args = parser.parse_args()
    start, rates = time.perf_counter(), machine_rates()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}\n"
          f"{1e-9 * rates[0]:.1f} G multiply-adds a second in a product of float64, "
          f"{1e-6 * rates[1]:.0f} M exponentials a second and core")
    frameworks = [name for name in ("torch", "jax") if installed(name)]
    sizes = [(128, 256, False)] if args.quick else SIZES
    data = bench_induction(sizes, frameworks, not args.quick, rates)
    data |= bench_recall(frameworks, SUBJECTS[1:3] if args.quick else SUBJECTS)
    if not args.quick:
        save(data)
    bench_sampler()
    if not args.quick:
        if "torch" in frameworks:
            bench_compiled()
        bench_memory(frameworks)
        bench_cold_start()
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
