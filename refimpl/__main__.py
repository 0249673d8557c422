"""The command line: `python -m refimpl audit | explain | vectors | gradcheck | probe`."""

import os
import signal
import sys

# An interrupt while the modules load, which takes a second, ends it at once: some of them would go on.
LOADING = signal.getsignal(signal.SIGINT) is signal.default_int_handler
try:
    if LOADING:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
except ValueError:          # loaded by a thread, which gets no interrupts
    LOADING = False

# Small products gain nothing from threads and wait for them where the machine is busy: 93 s, not 6, once.
# OpenBLAS reads this when NumPy is loaded, and processes that are started later inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if any(word.startswith("--digits") for word in sys.argv[1:]):
    os.environ["NUMBA_DISABLE_JIT"] = "1"       # kernels take balls as plain Python alone

import argparse             # noqa: E402
import contextlib           # noqa: E402

try:
    from refimpl import __version__, gradient_verdict
    from refimpl.claims import command as claims
    from refimpl.vectors import command as vectors, probe
except RuntimeError as numba_error:      # it finds no folder for compiled code
    print(f"refimpl: {numba_error}; set NUMBA_CACHE_DIR to a folder that can be written", file=sys.stderr)
    sys.exit(2)
if LOADING:
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLES = """\
examples:
  python -m refimpl audit                          every claim, on Python's own language reference
  python -m refimpl audit --from my_claims.py      your own derivation
  python -m refimpl explain I5                     a claim, its derivation, one instance in numbers
  python -m refimpl vectors write V                test vectors for a port in another framework
  python -m refimpl vectors check V THEIRS         what the port gets wrong, and what it looks like
  python -m refimpl gradcheck my_layer.py          what is wrong with a gradient of your own
  python -m refimpl probe theirs.npz --dialect birth   what a checkpoint has learned

exit status: 0 all is well, 1 a claim failed, its control passed, a port departs or a gradient is wrong,
2 bad usage or a machine that cannot write, 130 interrupted, 141 the reader of its output stopped reading
"""


def main(argv=None):
    """Run the command line; return the exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:      # closed: what is opened next must not take its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(getattr(sys, name), "reconfigure"):    # "?" where the encoding lacks a character
            getattr(sys, name).reconfigure(errors="replace")
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
        status = parser.print_help() or 0 if args.command is None else args.run(args)
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, so that the interpreter does not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        with contextlib.suppress(OSError):
            print(f"refimpl {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser():
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="refimpl", description="Audit the theory of two small transformers against the numbers.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"refimpl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in (claims, vectors, gradient_verdict, probe):
        module.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
