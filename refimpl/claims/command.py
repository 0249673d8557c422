"""The commands `audit` and `explain`."""

import argparse
import inspect
import json
import os
import textwrap
from pathlib import Path

import numpy as np

from refimpl import claims
from refimpl.terminal import Progress, write_whole

WIDTH = 79          # of the page that `explain` prints


def add_commands(commands):
    """Add `audit` and `explain` to the subparsers."""
    audit = commands.add_parser(
        "audit", help="hold every claim against the numbers",
        description="Check each claim on drawn instances, and its control, which must fail. The JSON "
                    "holds a list `claims`; each entry has id, statement, source, provenance, exact, "
                    "instances, worst (null if not finite), tolerance, control, control_failed, "
                    "passed, seconds, failure (the smallest failing instance, or null), message.")
    audit.set_defaults(run=run_audit)
    audit.add_argument("--claim", metavar="ID", action="append", help="only this claim (repeatable)")
    audit.add_argument("--cases", metavar="N", type=positive, help="instances of each claim")
    audit.add_argument("--seed", metavar="S", type=natural, default=0, help="seed (default 0)")
    audit.add_argument("--json", metavar="FILE", help="write the results to FILE as JSON")
    audit.add_argument("--full", action="store_true",
                       help="ten times the instances, and the whole range of every trend: minutes")
    audit.add_argument("--list", action="store_true", help="list the claims and stop")
    audit.add_argument("--instance", metavar="'NAME=VALUE, …'", help="one instance of one claim")
    explain = commands.add_parser(
        "explain", help="one claim: derivation, an instance in numbers, the control failing",
        description="Print a claim's statement, provenance and derivation, one small instance with "
                    "predicted beside observed, and its control failing.")
    explain.set_defaults(run=run_explain)
    explain.add_argument("claim", metavar="ID")
    for command in (audit, explain):
        command.add_argument("--from", metavar="FILE.py", dest="file",
                             help="claims from this file in place of the project's own")
        command.add_argument("--text", metavar="FILE",
                             help="text (UTF-8) in place of Python's language reference")


def positive(word):
    """argparse type: an integer >= 1."""
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {value}")
    return value


def natural(word):
    """argparse type: an integer >= 0."""
    value = int(word)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {value}")
    return value


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
        raise ValueError(f"--text {path}: expected at least 4 different characters, "
                         f"got {len(set(text))}")
    return text


def select(args, wanted):
    """The claims that are asked for, in their own order."""
    known = claims.builtin() if args.file is None else claims.load(args.file)
    unknown = [id for id in wanted or [] if id not in [c.id for c in known]]
    if unknown:
        raise ValueError(f"unknown claim {', '.join(unknown)}; the claims are "
                         f"{', '.join(c.id for c in known)}")
    return [c for c in known if not wanted or c.id in wanted]


def run_audit(args):
    """`audit`: print the table, write the JSON; 0 if all passed, else 1."""
    chosen = select(args, args.claim)
    if args.list:
        for claim in chosen:
            print(f"{claim.id:4} {claim.provenance:10}  {claim.statement}")
        return 0
    if args.instance is not None and len(chosen) != 1:
        raise ValueError("--instance: expected exactly one --claim ID with it")
    instance = None if args.instance is None else parse_instance(chosen[0], args.instance)
    if args.json is not None and (Path(args.json).is_dir() or not os.access(Path(args.json).parent, os.W_OK)):
        raise ValueError(f"--json: expected a file in a folder that can be written, got {args.json}")
    text = read_text(args.text)
    print(f"{'id':4} {'claim':60} {'provenance':10} {'cases':>5}  {'worst':>7}  {'allowed':>7}  "
          f"{'control':13} verdict")
    results = []
    for number, claim in enumerate(chosen, start=1):
        with Progress(f"{claim.id} ({number} of {len(chosen)})") as progress:
            result = claims.audit(claim, text, args.cases, args.seed, instance, progress, args.full)
        results.append(result)
        print(f"{claim.id:4} {claim.statement:60} {claim.provenance:10} {result.instances:5}  "
              f"{result.worst:7.1e}  {claim.tolerance:7.0e}  "
              f"{f'fails {result.controls_failed}/{result.controls}':13} "
              f"{'passed' if result.passed else 'FAILED'}", flush=True)
        if not result.passed:
            print_failure(args, result)
    failed = [r.claim.id for r in results if not r.passed]
    print(f"{len(results) - len(failed)} of {len(results)} claims passed, "
          f"{sum(r.control_failed for r in results)} of {len(results)} controls failed as they must, "
          f"{sum(r.seconds for r in results):.1f} s")
    if args.json is not None:
        write_whole(args.json, json.dumps({"claims": [r.as_json() for r in results]}, indent=2) + "\n")
    return 1 if failed else 0


def print_failure(args, result):
    """What went wrong with a claim, and the command that shows it again."""
    if result.failure is not None:
        words = ", ".join(f"{name}={value}" for name, value in result.failure.items())
        print(f"     smallest failing instance: {words}")
    if result.message or result.worst == np.inf:
        print(f"     {result.message or 'shapes that differ, or numbers that are not finite'}")
    if result.failure is None and not result.control_failed:
        print(f"     the control passed ({result.claim.control}): the check cannot fail")
    elif result.failure is not None:
        extra = "".join(f" {flag} {value}" for flag, value in
                        (("--from", args.file), ("--text", args.text)) if value is not None)
        extra += " --full" * args.full
        print(f"     python -m refimpl audit --claim {result.claim.id}{extra} --instance '{words}'")


def parse_instance(claim, words):
    """Read 'name=value, …' into an instance; every name of the claim, and seed, must be there."""
    kinds = {**{name: type(values[0]) for name, values in claim.space.items()}, "seed": int}
    instance = {}
    for word in words.split(","):
        name, _, value = (part.strip() for part in word.partition("="))
        try:
            instance[name] = kinds[name](value)
        except (KeyError, ValueError):
            raise ValueError(f"--instance: expected 'NAME=VALUE, …' with {', '.join(kinds)}, "
                             f"got {word.strip()!r}") from None
    missing = [name for name in kinds if name not in instance]
    if missing:
        raise ValueError(f"--instance: expected {', '.join(kinds)}, got no {', '.join(missing)}")
    return instance


def run_explain(args):
    """`explain ID`: the page on one claim; 0 if it passed on its instance and the control failed."""
    (claim,) = select(args, [args.claim])
    text = read_text(args.text)
    print(f"{claim.id}. {claim.statement[0].upper()}{claim.statement[1:]}.\n")
    print(f"Source: {claim.source}. Provenance: {claim.provenance}. "
          f"{'Exact' if claim.exact else 'Asymptotic'}.\n")
    print(derivation(claim))
    # An instance at which the control fails; without one, the last shows that it does not.
    for seed in range(20):
        instance = small_instance(claim, seed)
        control = claims.evaluate(claim, instance, text, control=True)
        if claims.fails(claim, control):
            break
    outcome = claims.evaluate(claim, instance, text)
    words = ", ".join(f"{name} = {value}" for name, value in instance.items())
    print("\n" + textwrap.fill(f"One instance: {words}", WIDTH))
    for title, each in (("As claimed", outcome), (f"Control: {claim.control}", control)):
        print("\n" + textwrap.fill(title, WIDTH))
        print(each.message or side_by_side(each.predicted, each.observed))
        print(f"error {each.error:.1e}, allowed {claim.tolerance:.0e}: "
              f"{'does not hold' if claims.fails(claim, each) else 'holds'}")
    return int(claims.fails(claim, outcome) or not claims.fails(claim, control))


def derivation(claim):
    """The docstring up to its list of parameters, for a narrow page: sentences filled, formulas kept."""
    text = inspect.cleandoc(claim.derivation.__doc__ or "No derivation is given.")
    lines = []
    for paragraph in text.partition("\nParameters")[0].strip().split("\n\n"):
        if paragraph.startswith("    "):
            for line in paragraph.split("\n"):
                lines += textwrap.wrap(line, WIDTH, subsequent_indent=" " * 8)
        else:
            lines += textwrap.wrap(paragraph, WIDTH)
        lines.append("")
    return "\n".join(lines[:-1])


def small_instance(claim, seed):
    """An instance a tenth of the way into each range, of the first kind (seed 0) or of any."""
    instance = claims.draw(claim.space, np.random.default_rng(seed), 2 * (seed > 0))
    for name, values in claim.space.items():
        low, high = values[0], values[-1]
        if isinstance(low, int):
            instance[name] = min(high, low + max(3, (high - low) // 10))
        elif isinstance(low, float):
            instance[name] = low + (high - low) / 10
    return {**instance, "seed": seed}


def side_by_side(predicted, observed):
    """The first numbers of both, in two columns."""
    if isinstance(predicted, (tuple, list)):
        return "\n".join(side_by_side(*pair) for pair in zip(predicted, observed))
    p, o = np.ravel(predicted) + 0.0, np.ravel(observed) + 0.0      # booleans count 0 and 1
    order = np.sort(np.argsort(-np.abs(p), kind="stable")[:6])
    rows = [f"{'predicted':>24} {'observed':>24}"] + [f"{p[i]:24.16g} {o[i]:24.16g}" for i in order]
    return "\n".join(rows + ([f"{'…':>24} {'…':>24}  ({p.size} numbers)"] if p.size > 6 else []))
