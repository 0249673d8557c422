"""One generator for each test, seeded, and hypothesis without deadlines: kernels compile on first use."""

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("refimpl", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("refimpl")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def pytest_terminal_summary(terminalreporter):
    """Print what tests recorded under "say": how many mutants were caught."""
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties:
            if name == "say":
                terminalreporter.write_line(line)
