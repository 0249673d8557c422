"""How fast is it: the plain path, the tables and PyTorch side by side, the sampler, and a cold start.

    python scripts/bench.py            four widths, the plain path too, cold start
    python scripts/bench.py --quick    about a minute: d = 128, no plain path, no cold start

Everything that is compared runs in turn, REPEATS times over, so that a busy moment of the machine
hits all alike; what is printed are medians and the spread. Losses must agree before anything is
timed. PyTorch, where it is installed, runs eagerly in float32, the whole batch at once, without
Python loops, positions by gather, the same number of threads.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numba
import numpy as np

from refimpl import induction

V, L, B, TRIGGERS, REPEATS = 65, 256, 64, 5, 7
COLD = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
STEP = ("import numpy as np; from refimpl import induction; "
        "params = induction.init(5, 4, 6, np.random.default_rng(0)); "
        "induction.{}loss_and_grads(params, np.zeros((1, 7), int), np.ones((1, 6), bool))")


def torch_step(params, tokens, mask):
    """The same step in PyTorch, as a function without arguments that returns the loss; None if not there."""
    try:
        import torch
    except ImportError:
        return None
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = (
        torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in params)
    fields = (E, U, pos, Phi, WV, WK1, WK2, WO, WF)
    z, chosen = torch.tensor(tokens), torch.tensor(mask)
    T = mask.shape[1]
    ahead = torch.ones(T, T, dtype=torch.bool).triu(1)
    back = (torch.arange(T)[:, None] - torch.arange(T)).clamp(min=0).expand(len(tokens), T, T)

    def step():
        for field in fields:
            field.grad = None
        x0 = E[z[:, :-1]]
        q1 = x0 @ WK1
        S1 = q1 @ x0.transpose(1, 2) + (q1 @ pos[:T].T).gather(2, back)
        x1 = x0 + S1.masked_fill(ahead, -torch.inf).softmax(-1) @ x0 @ Phi.T
        S2 = (x1 @ WK2 @ x1.transpose(1, 2)).masked_fill(ahead, -torch.inf)
        # Only rows in the loss go on to the output matrices.
        x2 = x1[chosen] + (S2.softmax(-1) @ x1)[chosen] @ WV.T @ WO.T
        logits = (x2 + x2 @ WF.T) @ U.T
        loss = torch.nn.functional.cross_entropy(logits, z[:, 1:][chosen])
        loss.backward()
        return loss.item()

    def with_threads(threads):
        torch.set_num_threads(threads)
        return step()
    return with_threads


def tables_step(params, tokens, mask, dtype):
    """The fast path in this dtype, as a function of the number of threads."""
    typed = induction.Params(*(a.astype(dtype) for a in params))

    def with_threads(threads):
        numba.set_num_threads(threads)
        return induction.tables.loss_and_grads(typed, tokens, mask)[0]
    return with_threads


def interleaved(calls, repeats):
    """Seconds of each call, (repeats,) arrays by name, one of each in turn; all have run once before."""
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def bench_gradients(bigram, d, share, plain, repeats, rng):
    """Print the table of one width and one share of positions in the loss."""
    params = induction.init(V, d, L, rng)
    params = params._replace(**{name: rng.normal(0, 0.3 * d ** -0.5, (d, d))
                                for name in ("WK1", "WK2", "WO", "WF")})
    batch = induction.sample(bigram, B, L, rng, TRIGGERS)
    mask = batch.occurrence >= 2 if share == "head" else np.ones_like(batch.occurrence, bool)
    threads = [n for n in (1, 2) if n <= numba.config.NUMBA_NUM_THREADS]
    data = (params, batch.tokens, mask)
    calls = {}
    for n in threads:
        for dtype in ("float64", "float32"):
            calls[f"tables {dtype}, {n} threads"] = lambda step=tables_step(*data, dtype), n=n: step(n)
        torch = torch_step(*data)
        if torch:
            calls[f"PyTorch float32, {n} threads"] = lambda torch=torch, n=n: torch(n)
    if plain:
        calls["plain float64"] = lambda: induction.loss_and_grads(*data)[0]
    losses = {name: float(call()) for name, call in calls.items()}
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise SystemExit(f"the losses disagree: {losses}")
    times = interleaved(calls, repeats)
    print(f"\nloss and nine gradients, d = {d}, T = {L}, B = {B}, V = {V}, {100 * mask.mean():.1f} % of "
          f"positions in the loss; the losses agree")
    ours = np.median(times[f"tables float64, {threads[-1]} threads"])
    for name, values in sorted(times.items(), key=lambda item: np.median(item[1])):
        print(f"  {name:28}{1e3 * np.median(values):9.1f} ms  ({1e3 * values.min():.1f} to "
              f"{1e3 * values.max():.1f})   {np.median(values) / ours:6.2f} x")


def bench_sampler(bigram, rng, repeats):
    """Print how many sequences a second are drawn, uniform random numbers included."""
    print("\nsampler, T = 256, one thread")
    for name, law in (("bigram of text", bigram), ("random bigram", induction.Bigram.random(V, rng))):
        for n in (B, 4000):
            calls = {name: lambda: induction.sample(law, n, L, rng, TRIGGERS)}
            calls[name]()
            values = interleaved(calls, repeats)[name]
            print(f"  {name:28}{n / np.median(values):9.0f} sequences a second, {n} at a time")


def bench_cold_start():
    """Print what a new process waits for, with an empty cache of compiled code and with a full one."""
    print("\ncold start, seconds: first time, then from the cache")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        for name, program in (("import numba", "import numba"),
                              ("import refimpl.induction", "import refimpl.induction"),
                              ("plain step", STEP.format("")), ("tables step", STEP.format("tables."))):
            seconds = [float(subprocess.run([sys.executable, "-c", COLD.format(program)], env=environment,
                                            check=True, capture_output=True, text=True).stdout)
                       for _ in "12"]
            print(f"  {name:28}{seconds[0]:9.1f} {seconds[1]:9.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="d = 128 only, no plain path, no cold start")
    parser.add_argument("--d", type=int, action="append", help="widths (default 64, 128, 256, 512)")
    args = parser.parse_args()
    from pydoc_data.topics import topics
    rng = np.random.default_rng(0)
    bigram = induction.Bigram.from_text("\n".join(topics.values()), V)
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, Numba {numba.__version__}, "
          f"{os.cpu_count()} cores")
    try:
        import torch
        print(f"PyTorch {torch.__version__}")
    except ImportError:
        print("PyTorch is not installed: no comparison with it")
    for d in args.d or ([128] if args.quick else [64, 128, 256, 512]):
        for share in ("head", "all"):
            bench_gradients(bigram, d, share, plain=not args.quick, repeats=REPEATS, rng=rng)
    bench_sampler(bigram, rng, REPEATS)
    if not args.quick:
        bench_cold_start()


if __name__ == "__main__":
    main()
