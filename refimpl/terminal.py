"""What commands run, print and write: a user's file, a line of progress, files that are never half there."""

import importlib.util
import os
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path

LONGEST = 300       # characters of a message


@contextmanager
def progress(title):
    """A function of (done, total) that shows rate and time left on stderr, if that is a terminal."""
    start = time.monotonic()

    def show(done, total):
        rate = done / max(time.monotonic() - start, 1e-9)
        print(f"\r\x1b[K{title}: {done} of {total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left",
              end="", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def write_whole(path, content):
    """Write a file under a temporary name and rename it, so that it is never half there.

    A link stays, and what it leads to is written; devices and pipes are written as they are.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        Path(path).write_text(content, encoding="utf-8")
        return
    path = Path(os.path.realpath(path))
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable(name, path):
    """Raise ValueError unless `write_whole` may write there."""
    direct = os.path.exists(path) and not os.path.isfile(path)
    if os.path.isdir(path) or not os.access(path if direct else Path(os.path.realpath(path)).parent, os.W_OK):
        raise ValueError(f"{name}: expected a file in a folder that can be written, got {path}")


def width():
    """Columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def printable(words):
    """The words, with characters that do not print (they may steer a terminal) escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def first_line(error):
    """What was raised, in one printable line."""
    try:
        words = f"{type(error).__name__}: {error}"
    except BaseException:       # of its own __str__
        words = f"{type(error).__name__}, whose message cannot be told"
    return printable(words.partition("\n")[0][:LONGEST])


def run_file(path):
    """The module that a Python file makes. Raises ValueError, in one line, if it does not run."""
    spec = importlib.util.spec_from_file_location("file_of_user", path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:      # SystemExit among them: it must not pass for success
        raise ValueError(f"{path}: {first_line(error)}") from error
    return module
