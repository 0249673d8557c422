"""The commands `vectors write` and `vectors check`."""

import json
from pathlib import Path

from refimpl.terminal import write_whole
from refimpl.vectors import files
from refimpl.vectors.compare import TOLERANCES


def add_commands(commands):
    """`vectors write DIR` and `vectors check DIR THEIRS`."""
    parser = commands.add_parser("vectors", help="test vectors for ports to other frameworks",
                                 description="Write test vectors, or hold a port's arrays against them. "
                                             "The format: python -m pydoc refimpl.vectors")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    write = actions.add_parser("write", help="write the vectors into an empty or a vectors folder")
    write.set_defaults(run=run_vectors_write)
    write.add_argument("folder", metavar="DIR")
    check = actions.add_parser(
        "check", help="compare arrays in .npz files with the vectors",
        description="Compare THEIRS/v1/<model>/<case>/arrays.npz with DIR and diagnose. The JSON holds "
                    "`precision`, `passed` and a list `cases`; each entry has name, passed, problems, "
                    "checked, missing, departing, worst (null if not finite), worst_name, and of the "
                    "first array that departs error, where, detail, allowed, diagnosis.")
    check.set_defaults(run=run_vectors_check)
    check.add_argument("folder", metavar="DIR")
    check.add_argument("theirs", metavar="THEIRS")
    check.add_argument("--precision", choices=list(TOLERANCES), default="float64",
                       help="which tolerances (default float64)")
    check.add_argument("--model", choices=["induction", "recall"], help="only the cases of one model")
    check.add_argument("--json", metavar="FILE", help="write the reports to FILE as JSON")


def run_vectors_write(args):
    """`vectors write`: write all cases; 0."""
    count, size = files.write(args.folder)
    print(f"{count} cases, {size / 1e6:.1f} MB in {Path(args.folder) / 'v1'}")
    return 0


def run_vectors_check(args):
    """`vectors check`: a report on each case; 0 if all passed, else 1."""
    reports = []
    for report in files.check_folder(args.folder, args.theirs, args.precision, args.model):
        reports.append(report)
        print(report, flush=True)
    print(files.conclusion(reports))
    passed = all(report.passed for report in reports)
    if args.json is not None:
        content = {"precision": args.precision, "passed": passed,
                   "cases": [report.as_json() for report in reports]}
        write_whole(args.json, json.dumps(content, indent=2) + "\n")
    return 0 if passed else 1
