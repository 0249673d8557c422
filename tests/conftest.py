"""One generator for each test, seeded, and hypothesis without deadlines: kernels compile on first use."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")      # before NumPy is loaded, as the command line does

import numpy as np                      # noqa: E402
import pytest                           # noqa: E402
from hypothesis import settings         # noqa: E402

settings.register_profile("refimpl", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("refimpl")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def pytest_terminal_summary(terminalreporter):
    """Print how many mutants were caught, and how many wrong calls the fuzz test tried."""
    recorded = [item for report in terminalreporter.getreports("passed") for item in report.user_properties]
    for name, line in recorded:
        if name == "say":
            terminalreporter.write_line(line)
    tried = [count for name, count in recorded if name == "tried"]
    if tried:
        terminalreporter.write_line(f"{sum(tried)} changed arguments of {len(tried)} public functions tried, "
                                    "no violation")
