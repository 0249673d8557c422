"""The pytest fixture `refimpl_case`: a port's test runs once for each case of the test vectors.

    from refimpl import vectors

    def test_my_port(refimpl_case):
        case = refimpl_case.case            # params, tokens, setting, sgd as the reference takes them
        vectors.compare(refimpl_case, {"loss": my_loss(case)})

pytest finds the fixture where refimpl is installed, and else with -p refimpl.pytest_plugin. Cases are drawn
afresh, or read from a folder: --refimpl-vectors DIR. -k 'induction and absolute' picks some by their names.
"""

import pytest


def pytest_addoption(parser):
    parser.addoption("--refimpl-vectors", metavar="DIR", help="stored cases for the fixture refimpl_case")


def pytest_generate_tests(metafunc):
    if "refimpl_case" in metafunc.fixturenames:
        from refimpl.vectors import cases, files    # not above: every run of pytest loads this file
        folder = metafunc.config.getoption("--refimpl-vectors")
        params = list(files.read_sums(folder) if folder else cases.all_cases())
        ids = [p if folder else f"{p.model}/{p.name}" for p in params]
        metafunc.parametrize("refimpl_case", params, ids=ids, indirect=True)


@pytest.fixture
def refimpl_case(request):
    """One case of refimpl's test vectors: .name, .case (given to a port), .arrays (what it must give)."""
    from refimpl.vectors import cases, files
    if folder := request.config.getoption("--refimpl-vectors"):
        return files.read_case(folder, request.param, files.read_sums(folder))
    return files.Vector({**request.param._asdict(), "case": request.param.name}, cases.arrays(request.param))
