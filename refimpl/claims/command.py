"""The commands `audit` and `explain`."""

import argparse
import ast
import inspect
import json
import multiprocessing
import re
import shlex
import signal
import textwrap
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from refimpl import claims, terminal
from refimpl.claims import enumeration
from refimpl.claims.verdict import parts

WIDTH = 79          # of the page that `explain` prints
ROWS = 6            # numbers of an array that it shows
# What the letters of the project's own claims stand for.
LEGEND = dict(
    V="tokens in the vocabulary", T="tokens in the prompt", d="width", B="sequences", K="triggers",
    b1="strength of WK1", b2="strength of WK2", b3="strength of WK3", bo="strength of WO",
    spare="sizes more than needed", beyond="positions beyond the training length", law="the bigram's origin",
    k="copies of q u", fillers="other tokens", ratio="gap / bo", N="facts of a relation, or pairs",
    R="relations", n="pairs in the prompt", lam="strength of the memory of facts", count="prompts",
    M="training prompts", table="of facts", bias="of the hidden units", seed="of all that is drawn further")
# One NAME=VALUE: a value that holds commas or quotes, or is not plain, is a Python string in quotes.
PAIR = re.compile(r"""\s*([^=,\s]+)\s*=\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,'"]*?)\s*(?:,|$)""")


def add_commands(commands):
    """Add `audit` and `explain` to the subparsers."""
    audit = commands.add_parser(
        "audit", help="hold every claim against the numbers",
        description="Check each claim on drawn instances, and its control, which must fail in all of its "
                    "own. `worst` is the largest error, or, with a sign, the smallest margin of an "
                    "inequality; limits count in units of what they allow. The JSON holds a list `claims`; "
                    f"each entry has {', '.join(claims.KEYS)}. Numbers that are not finite are null.")
    explain = commands.add_parser(
        "explain", help="one claim: derivation, an instance in numbers, the control failing",
        description="Print a claim's statement, provenance and derivation, one small instance with "
                    "predicted beside observed, and its control failing.")
    audit.set_defaults(run=run_audit)
    explain.set_defaults(run=run_explain)
    explain.add_argument("claim", metavar="ID")
    audit.add_argument("--claim", metavar="ID,…", action="append", help="only these claims (repeatable)")
    audit.add_argument("--json", metavar="FILE", help="write the results to FILE as JSON")
    for flag, metavar, low, default, words in (
            ("--cases", "N", 1, None, "instances of each claim"), ("--seed", "S", 0, 0, "seed (default 0)"),
            ("--jobs", "N", 1, 1, "spread the instances over N processes: the same result, sooner")):
        audit.add_argument(flag, metavar=metavar, type=at_least(low), default=default, help=words)
    for flag, words in (("--full", "ten times the instances, and the whole range of every trend: minutes"),
                        ("--list", "list the claims, and how each is known, and stop"),
                        ("--enumerate", "prove what is rational for all instances up to a size: 2 minutes")):
        audit.add_argument(flag, action="store_true", help=words)
    for command in (audit, explain):
        command.add_argument("--instance", metavar="'NAME=VALUE, …'",
                             help="one instance of one claim, in numbers")
        command.add_argument("--from", metavar="FILE.py", dest="file",
                             help="claims from this file in place of the project's own")
        command.add_argument("--text", metavar="FILE",
                             help="text (UTF-8) in place of Python's language reference")
        command.add_argument("--digits", metavar="D", type=at_least(1),
                             help="enclose exact claims to D digits, on balls of python-flint: theorems on "
                             "small instances (5 of each, or --cases), not measurements")


def at_least(low):
    """An argparse type: an integer from `low` up to the largest seed."""
    def integer(word):
        if not low <= int(word) <= claims.SEEDS[1]:
            raise argparse.ArgumentTypeError(f"expected an integer >= {low} and below 2^63, got {word}")
        return int(word)
    return integer


def read_text(path):
    """The text of a file, or, without one, Python's own language reference."""
    if path is None:
        from pydoc_data.topics import topics
        return "\n".join(topics.values())
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--text {path}: expected UTF-8, got {error.reason}") from None
    if len(set(text)) < 4:
        raise ValueError(f"--text {path}: expected at least 4 different characters, got {len(set(text))}")
    return text


def select(args, wanted):
    """The claims that are asked for, in their own order; a word that is no id is a list of them."""
    known = claims.builtin() if args.file is None else claims.load(args.file)
    ids = [c.id for c in known]
    chosen = [id for word in wanted or [] for id in ([word] if word in ids else word.split(","))]
    unknown = [id for id in chosen if id not in ids]
    if unknown:
        raise ValueError(f"unknown claim {', '.join(unknown)}; the claims are {', '.join(ids)}")
    return [c for c in known if wanted is None or c.id in chosen]


def run_audit(args):
    """`audit`: print the table, write the JSON; 0 if all passed, else 1."""
    chosen = select(args, args.claim)
    if args.list:
        for claim in chosen:
            print(f"{claim.id:4} {claim.provenance:10}  {known(claim, args.file):29}  {claim.statement}")
        return 0
    if args.instance is not None and (len(chosen) != 1 or args.cases is not None):
        raise ValueError("--instance: expected exactly one --claim ID with it, and no --cases")
    if args.enumerate:
        return enumeration.enumerate_all()
    if args.digits:
        balls = enclosable(args, chosen)
        return balls.run(chosen, read_text(args.text), args.digits, args.cases or 5, args.seed)
    instance = None if args.instance is None else parse_instance(chosen[0], args.instance)
    if args.json is not None:
        terminal.refuse_unwritable("--json", args.json)
    text, columns = read_text(args.text), widths(chosen)
    results: list = []
    print(row(columns, "id", "claim", "cases", "numbers", "worst", "allowed", "control", "verdict"))
    with pool(args.jobs) as executor:
        for number, claim in enumerate(chosen, start=1):
            with terminal.progress(f"{claim.id} ({number} of {len(chosen)})") as progress:
                results.append(claims.audit(claim, text, args.cases, args.seed, instance, progress, args.full,
                                            executor))
            print_result(args, columns, results[-1])
    if instance is not None:
        print("\n" + in_numbers(chosen[0], claims.evaluate(chosen[0], instance, text, full=args.full)))
    passed = sum(r.passed for r in results)
    print(f"{passed} of {len(results)} claims passed, {sum(r.control_failed for r in results)} of "
          f"{sum(r.controls > 0 for r in results)} controls failed as they must, "
          f"{sum(r.seconds for r in results):.1f} s")
    if args.json is not None:
        content = {"claims": [result.as_json() for result in results]}
        terminal.write_whole(args.json, json.dumps(content, indent=2) + "\n")
    return int(passed < len(results))


def known(claim, file):
    """How a claim is known. Only the project's own are proved for all instances up to a size, or enclosed."""
    ways = {"enumerated": file is None and claim.id in enumeration.ALL,
            "enclosed": file is None and claim.id in claims.ENCLOSED,
            "sampled" if claim.exact else "fitted": True}
    return ", ".join(way for way, holds in ways.items() if holds)


def enclosable(args, chosen):
    """The module balls.py; `chosen` loses claims that are neither enclosed nor, in a file, exact ones."""
    others = [c for c in chosen if not (c.id in claims.ENCLOSED if args.file is None else c.kind == "exact")]
    if others and args.claim or others == chosen:
        raise ValueError(f"--digits: expected claims among {', '.join(claims.ENCLOSED)}, or exact ones of a "
                         f"file, got {', '.join(c.id for c in others)}")
    chosen[:] = [c for c in chosen if c not in others]
    from refimpl.claims import balls
    return balls


@contextmanager
def pool(jobs):
    """An executor of so many processes; None for one. They are new ones, since forks of threads may hang."""
    if jobs == 1:
        yield None
        return
    executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), in_worker)
    # Interrupts are for their parent alone: processes that start now ignore them from their first moment.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(jobs):
            executor.submit(int)
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield executor
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(error, BrokenExecutor):
            raise ValueError("--jobs: one of the processes ended before its work was done") from None
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def in_worker():
    """One thread to each process, and interrupts to their parent alone."""
    import numba
    numba.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def widths(chosen):
    """Columns of the ids and of the statements, such that rows fit the terminal; in a pipe, all they need."""
    ids = max(4, *(len(claim.id) for claim in chosen))
    statements = max(len(claim.statement) for claim in chosen)
    columns = terminal.width()
    return ids, statements if columns is None else min(statements, max(8, columns - ids - 48))


def row(columns, id, statement, cases, numbers, worst, allowed, control, verdict):
    """One row of the table: up to 48 columns beside the id and the statement."""
    ids, wide = columns
    statement = statement if len(statement) <= wide else statement[:wide - 1] + "…"
    return (f"{id:{ids}} {statement:{wide}} {cases:>5} {numbers:>7} {worst:>8} {allowed:>7} "
            f"{control:>7} {verdict}")


def count(number, digits):
    """A number of things in so many columns."""
    return str(number) if number < 10 ** digits else f"{number:.0e}"


def print_result(args, columns, result):
    """The row of a claim, what a limit would have rejected, and what went wrong, with how to see it again."""
    claim = result.claim
    worst = f"{result.worst:.1e}" if result.margin is None else f"{result.margin:+.1e}"
    print(row(columns, claim.id, claim.statement, count(result.instances, 5), count(result.numbers, 7), worst,
              f"{claim.tolerance:.0e}", f"{result.controls_failed}/{result.controls}",
              "passed" if result.passed else "FAILED"))
    if result.accepted and result.passed:
        power = ", and another by ".join(f"{low:+.2g} or {high:+.2g}" for low, high in result.accepted)
        print(textwrap.fill(f"rejects a prediction that is off by {power}", sum(columns) + 48,
                            initial_indent="     ", subsequent_indent="     "))
    for instance, message, title in (
            (result.failure, result.message, "smallest failing instance:"),
            (result.control_passed, result.control_message,
             f"the control did not fail as it must ({claim.control}):")):
        if instance is not None:
            words = ", ".join(f"{name}={quoted(value)}" for name, value in instance.items())
            print(f"     {title} {words}" + f"\n     {message}" * bool(message))
            print(f"     python -m refimpl audit{option('--claim', claim.id)}{option('--from', args.file)}"
                  f"{option('--text', args.text)}{' --full' * args.full}{option('--instance', words)}")
    print(end="", flush=True)


def option(flag, value):
    """A flag and its value for a shell, or nothing for None."""
    return "" if value is None else f" {flag}{'=' if value.startswith('-') else ' '}{shlex.quote(value)}"


def quoted(value):
    """A value as PAIR reads it."""
    words = str(value)
    plain = (words.isascii() and words.isprintable() and words == words.strip() != ""
             and not set(words) & set(",'\""))
    return words if plain else ascii(words)


def parse_instance(claim, words):
    """Read 'name=value, …' into an instance: each name of the claim, and seed, once and in range."""
    space, at = {**claim.space, "seed": (0,)}, 0
    instance: dict = {}
    while at < len(words):
        try:
            found = PAIR.match(words, at)
            if found is None or found[1] in instance:
                raise ValueError
            value = ast.literal_eval(found[2]) if found[2][:1] in ("'", '"') else found[2]
            instance[found[1]] = type(space[found[1]][0])(value)
        except (KeyError, ValueError, SyntaxError):
            raise ValueError(f"--instance: expected 'NAME=VALUE, …' with {', '.join(space)}, each once, "
                             f"got {words[at:].strip()!r}") from None
        at = found.end()
    for name, values in claims.misfits(claim.space, instance).items():
        raise ValueError(f"--instance: expected {name} in {values}, got {instance.get(name, 'none')!r}")
    return instance


def run_explain(args):
    """`explain ID`: the page on one claim; 0 if it passes its audit, else 1.

    The instance is the given one, or the smallest failing one that the audit found, or a small one.
    """
    claim, *others = select(args, [args.claim])
    if others:
        raise ValueError(f"expected one claim, got {args.claim}")
    text, legend = read_text(args.text), LEGEND if args.file is None else {}
    instance = None if args.instance is None else parse_instance(claim, args.instance)
    small = small_instance(claim.control_space)
    if args.digits:
        balls, passed = enclosable(args, [claim]), True
        instance, failed, words = instance or small, None, f"On balls, to {args.digits} digits."
    else:
        with terminal.progress(claim.id) as progress:
            result = claims.audit(claim, text, instance=instance, progress=progress)
        instance, failed, passed = instance or result.failure or small, result.control_passed, result.passed
        words = (f"{'Passed' if result.passed else 'FAILED'} the audit: {result.instances} instances, "
                 f"{result.numbers} numbers, {result.controls_failed} of {result.controls} controls failed.")
    control = failed or (instance if claims.covers(claim.control_space, instance) else small)
    print(f"{claim.id}. {claim.statement[:1].upper()}{claim.statement[1:]}.\n")
    print(textwrap.fill(f"Source: {claim.source}. Provenance: {claim.provenance}. Kind: {claim.kind}. "
                        f"{words}", WIDTH) + f"\n\n{derivation(claim)}")
    for title, each, broken in (("As claimed", instance, False),
                                (f"Control: {claim.control}", control, True)):
        lines = {} if broken and each == instance else {
            f"{name} ({legend[name]})" if name in legend else name: value for name, value in each.items()}
        if args.digits:
            outcome = balls.enclose(claim, each, text, args.digits, broken, show=lines.__setitem__)
            numbers = in_digits(claim, outcome, args.digits)
            passed = passed and broken == (outcome.error > 0)
        else:
            outcome = claims.evaluate(claim, each, text, broken, show=lines.__setitem__)
            numbers = in_numbers(claim, outcome)
        print("\n" + textwrap.fill(title, WIDTH) + "\n")
        for name, value in lines.items():
            print(textwrap.fill(f"{name} = {terminal.printable(str(value))}", WIDTH,
                                initial_indent="    ", subsequent_indent="        "))
        print("\n" * bool(lines) + numbers)
    return int(not passed)


def derivation(claim):
    """The docstring up to its list of parameters, for a narrow page: sentences filled, formulas kept."""
    text = inspect.cleandoc(claim.derivation.__doc__ or "No derivation is given.")
    paragraphs = text.partition("\nParameters")[0].strip().split("\n\n")
    return "\n\n".join("\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent=" " * 8)
        for line in (paragraph.split("\n") if paragraph.startswith("    ") else [paragraph]))
        for paragraph in paragraphs)


def small_instance(space):
    """An instance a tenth of the way into each range, of the first kinds."""
    small = {str: lambda low, high: low, float: lambda low, high: low + (high - low) / 10,
             int: lambda low, high: min(high, low + max(3, (high - low) // 10))}
    instance = {name: small[type(values[0])](values[0], values[-1]) for name, values in space.items()}
    return {**instance, "seed": 0}


def in_numbers(claim, outcome):
    """What a check returned, part by part and side by side, and the verdict."""
    if outcome.message:
        return f"{outcome.message}: does not hold"
    sides = [named_parts(side, claim.parts) for side in (outcome.predicted, outcome.observed)]
    lines = [line for (name, *left), (_, *right) in zip(*sides)
             for line in side_by_side(claim.kind, name, *left, *right)]
    singles = [part for _, part in sides[0] if np.ndim(part) == 0]
    lines += [f"a prediction below {value + below:.3g} or above {value + above:.3g} would be rejected"
              for value, (below, above) in zip(singles, outcome.accepted)]
    verdict = "does not hold" if claims.fails(claim, outcome) else "holds"
    worst = f"error {outcome.error:.1e}" if outcome.margin is None else f"margin {outcome.margin:+.1e}"
    return "\n".join([*lines, f"{worst}, allowed {claim.tolerance:.0e}: {verdict}"])


def in_digits(claim, outcome, digits):
    """What a check returned on balls: the numbers that differ, then the largest; and what is proved."""
    sides = [named_parts(side, claim.parts) for side in (outcome.predicted, outcome.observed)]
    arrays = [(name, np.asarray(left, object), np.asarray(right, object))
              for (name, left), (_, right) in zip(*sides)]
    pairs = [(f"{name} {list(i) if i else ''}".strip(), x, y) for name, left, right in arrays
             for (i, x), y in zip(np.ndenumerate(left), right.flat)]
    lines = []
    for name, x, y in sorted(pairs, key=lambda pair: (
            -round(abs(float(pair[1] - pair[2])), digits), -abs(float(pair[1]))))[:ROWS // 2]:
        lines.append(name)
        for title, number in ("predicted", x), ("observed ", y):
            exact = hasattr(number, "rad")
            lines.append(f"    {title} {number.str(digits, radius=False) if exact else number}")
    proved = (f"a difference is at least {outcome.error:.1e}: does not hold" if outcome.error else
              f"every difference contains 0, and none is wider than {2 * outcome.margin:.0e}: holds")
    return "\n".join([*lines, f"({outcome.numbers} numbers)", proved])


def named_parts(value, names):
    """(name, part) for each part; the fields of a NamedTuple have their own names."""
    return [named for name, part in zip(chain(names, repeat("")), parts(value)) for named in (
        [(f"{name} {field}".strip(), item) for field, item in zip(part._fields, part)]
        if hasattr(part, "_fields") else [(name, part)])]


def side_by_side(kind, name, left, right):
    """Yield a part's numbers in columns: those that differ most, and the largest."""
    left, right = np.asarray(left) + 0.0, np.asarray(right) + 0.0       # booleans count 0 and 1
    titles = ("smaller", "larger", "margin") if kind == "inequality" else ("predicted", "observed", "gap")
    gap = right - left
    order = [*np.argsort(gap if kind == "inequality" else -np.abs(gap), axis=None, kind="stable")[:ROWS // 2],
             *np.argsort(-np.abs(left), axis=None, kind="stable")[:ROWS]]
    shown = sorted(list(dict.fromkeys(order))[:ROWS])
    yield f"{name:18}{titles[0]:>{max(1, 43 - max(18, len(name)))}} {titles[1]:>24} {titles[2]:>9}"
    for i in shown:
        where = str([int(n) for n in np.unravel_index(i, left.shape)]) if left.ndim else ""
        yield f"{where:>18} {left.flat[i]:24.16g} {right.flat[i]:24.16g} {gap.flat[i]:9.1e}"
    if left.size > len(shown):
        yield f"{'…':>18} ({left.size} numbers)"
