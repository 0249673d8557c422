"""What commands run, print and write: a user's file, a line of progress, files that are never half there."""

import importlib.util
import os
import sys
import time
from pathlib import Path


class Progress:
    """A line on stderr with rate and time left, if that is a terminal; nothing otherwise."""

    def __init__(self, title):
        self.title, self.start, self.shown = title, time.monotonic(), False

    def __call__(self, done, total):
        if sys.stderr.isatty():
            seconds = time.monotonic() - self.start
            rate = done / max(seconds, 1e-9)
            print(f"\r\x1b[K{self.title}: {done} of {total}, {rate:.1f}/s, "
                  f"{(total - done) / rate:.0f} s left", end="", file=sys.stderr, flush=True)
            self.shown = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def write_whole(path, content):
    """Write a file under a temporary name and rename it, so that it is never half there."""
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run_file(path):
    """The module that a Python file makes. Raises ValueError, in one line, if it does not run."""
    spec = importlib.util.spec_from_file_location("file_of_user", path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}".partition("\n")[0]) from error
    return module
