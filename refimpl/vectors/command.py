"""The commands `vectors write` and `vectors check`."""

import json
from pathlib import Path

from refimpl.terminal import write_whole
from refimpl.vectors import cases, files
from refimpl.vectors.compare import TOLERANCES, conclusion

YOURS = {"induction": {"encoding": ["relative", "absolute"], **dict.fromkeys(("V", "d", "T", "L", "B"), int)},
         "recall": {"step": ["infer", "recall"], "activation": ["square", "relu"],
                    **dict.fromkeys(("N", "R", "n", "dp", "m", "d", "B"), int)}}


def add_commands(commands):
    """`vectors write DIR` and `vectors check DIR THEIRS`."""
    parser = commands.add_parser("vectors", help="test vectors for ports to other frameworks",
                                 description="Write test vectors, or hold a port's arrays against them. "
                                             "The format: python -m pydoc refimpl.vectors")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    write = actions.add_parser(
        "write", help="write the vectors into an empty or a vectors folder",
        description="Write all cases of this project into DIR/v1; or, with --model, one of your own sizes.")
    write.set_defaults(run=run_vectors_write)
    write.add_argument("folder", metavar="DIR")
    write.add_argument("--model", choices=list(YOURS), help="one case of this model, and of the sizes below")
    write.add_argument("--seed", type=int, default=0, help="of numpy.random.default_rng (default 0)")
    write.add_argument("--trained", metavar="FIELDS", help="fields that move, as WK1,WK2,WO (default all)")
    for model, options in YOURS.items():
        group = write.add_argument_group(f"sizes of {model}")
        for name, kind in options.items():
            if name not in ("B", "d") or model == "induction":      # those are of both
                group.add_argument(f"--{name}", **{"type" if kind is int else "choices": kind})
    check = actions.add_parser(
        "check", help="compare arrays in .npz files with the vectors",
        description="Compare THEIRS/v1/<model>/<case>/arrays.npz with DIR and diagnose. The JSON holds "
                    "`precision`, `passed` and a list `cases`; each entry has name, passed, problems, "
                    "checked, missing, departing, worst (null if not finite), worst_name, digits (of the "
                    "worst output), and of the first array that departs error, where, detail, allowed, "
                    "diagnosis.")
    check.set_defaults(run=run_vectors_check)
    check.add_argument("folder", metavar="DIR")
    check.add_argument("theirs", metavar="THEIRS")
    check.add_argument("--precision", choices=list(TOLERANCES), default="float64",
                       help="which tolerances (default float64)")
    check.add_argument("--model", choices=["induction", "recall"], help="only the cases of one model")
    check.add_argument("--only", metavar="PATTERN", help="only cases that match, as 'induction/*absolute*'")
    check.add_argument("--json", metavar="FILE", help="write the reports to FILE as JSON")


def run_vectors_write(args):
    """`vectors write`: write all cases, or one of given sizes; 0."""
    given = {name: value for options in YOURS.values() for name in (*options, "trained")
             if (value := getattr(args, name)) is not None}
    for name in given:
        whose = [model for model in YOURS if name in (*YOURS[model], "trained")]
        if args.model not in whose:
            raise ValueError(f"--{name}: expected --model {' or '.join(whose)}, whose it is")
    drawn = [cases.yours(args.model, args.seed, **given)] if args.model else None
    count, size = files.write(args.folder, drawn)
    print(f"{count} cases, {size / 1e6:.1f} MB in {Path(args.folder) / 'v1'}")
    return 0


def run_vectors_check(args):
    """`vectors check`: a report on each case; 0 if all passed, else 1."""
    names = files.read_sums(args.folder)
    reports = files.check_folder(args.folder, args.theirs, args.precision, args.model, args.only)
    for report in reports:
        print(report)
    compared = [report for report in reports if report.digits]
    if compared:
        worst = min(compared, key=lambda report: report.digits["yours"])
        array, *digits = worst.digits.items()
        print(f"fewest digits: {', '.join(f'{who} {n}' for who, n in digits)} ({worst.name}, {array[1]})")
    print(conclusion(reports, len(names) - len(files.select(names, args.model, args.only))))
    passed = all(report.passed for report in reports)
    if args.json is not None:
        content = {"precision": args.precision, "passed": passed,
                   "cases": [report.as_json() for report in reports]}
        write_whole(args.json, json.dumps(content, indent=2) + "\n")
    return 0 if passed else 1
