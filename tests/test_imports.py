"""Imports run one way: check, ops ← systems ← claims, vectors ← __main__.

The core imports no instrument, and theory imports numpy, scipy and check alone: a formula that calls the code
that it must check is no oracle, and checks of arguments hold no formula.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

import refimpl

ROOT = pathlib.Path(refimpl.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What of ours each file may import. A name that ends in / stands for every file below it; every file of
# refimpl is in this table, and a file may import nothing that stands below itself.
FLOORS = {
    "check.py": (), "ops.py": (), "terminal.py": (),
    "sgd.py": ("check",), "gradcheck.py": ("check",), "associative.py": ("check",),
    "induction/theory/": ("check", "induction/theory/"), "recall/theory/": ("check", "recall/theory/"),
    "induction/task.py": ("check",), "recall/task.py": ("check",),
    "induction/model.py": ("check", "ops"), "recall/model.py": ("check", "ops"),
    "induction/memory.py": ("check", "induction/model", "induction/task"),
    "recall/memory.py": ("check", "recall/model", "recall/task"),
    "induction/probes.py": ("check", "induction/model", "induction/task", "induction/memory"),
    "induction/nopos.py": ("check", "ops", "induction/task", "induction/memory"),
    "induction/tables/": ("check", "ops", "induction/model", "induction/tables/"),
    "recall/implicit.py": ("check", "recall/task"),
    "recall/batched.py": ("check", "ops", "recall/model", "recall/task"),
    "induction/__init__.py": ("induction/",), "recall/__init__.py": ("recall/",),
    "claims/": ("terminal", "check",
                "ops", "sgd", "gradcheck", "associative", "induction/", "recall/", "claims/"),
    "vectors/": ("__init__", "terminal", "check",
                 "ops", "sgd", "gradcheck", "induction/", "recall/", "vectors/"),
    "gradient_verdict.py": ("check", "gradcheck", "terminal"),
    "pytest_plugin.py": ("vectors/",),
    "__init__.py": (),
    "__main__.py": ("__init__", "check", "claims/", "vectors/", "gradient_verdict", "induction/",
                    "recall/"),
}


def allowed(name):
    """The entry of FLOORS for a file, by its name within refimpl."""
    entries = [key for key in FLOORS if name == key or key.endswith("/") and name.startswith(key)]
    assert entries, f"{name} is not in the table of imports"
    return FLOORS[min(entries, key=lambda key: key.endswith("/"))]


def imports(tree):
    """Yield the dotted name of every import as a list, nested imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                yield [*node.module.split("."), alias.name]


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(parts):
    """The file of ours that a dotted name leads to: ["refimpl", "recall", "model", "Params"]."""
    path = ROOT
    for depth, part in enumerate(parts[1:], 1):
        if (path / f"{part}.py").exists():
            return path / f"{part}.py"
        if not (path / part).is_dir():
            break
        path /= part
    return path / "__init__.py"


def is_kernel(function):
    """Whether a function is decorated with njit or jit."""
    return isinstance(function, ast.FunctionDef) and any(
        isinstance(node, ast.Name) and node.id in ("njit", "jit", "vectorize", "guvectorize")
        or isinstance(node, ast.Attribute) and node.attr in ("njit", "jit", "vectorize", "guvectorize")
        for decorator in function.decorator_list for node in ast.walk(decorator))


def foreign_calls(tree):
    """Yield what a kernel uses of our other modules."""
    ours = {parts[-1] for parts in imports(tree) if parts[0] == "refimpl"}
    for function in filter(is_kernel, ast.walk(tree)):
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and node.id in ours:
                yield f"{function.name} uses {node.id}"


def name_of(path):
    """A file's name within refimpl."""
    return path.relative_to(ROOT).as_posix()


def edges(path):
    """The files of ours that a file imports."""
    return {module_of(parts) for parts in imports(parse(path)) if parts[0] == "refimpl"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path):
    name = name_of(path)
    for parts in imports(parse(path)):
        assert parts[0] not in ("matplotlib", "tests", "scripts", "torch", "jax"), parts
        if name == "ops.py":
            assert parts[0] in ("numpy", "numba"), parts
        if "theory/" in name:
            assert parts[0] in ("numpy", "scipy", "typing", "refimpl"), parts
    for target in map(name_of, edges(path)):
        assert any(target.startswith(entry) if entry.endswith("/") else target == f"{entry}.py"
                   for entry in allowed(name)), f"{name} imports {target}"


def test_no_circle_and_six_floors():
    """Each file stands above all that it imports. Folders of instruments and systems count as one floor."""
    above = {path: edges(path) - {path} for path in FILES}
    floor = {}
    while len(floor) < len(above):
        ready = [path for path in above if path not in floor and above[path] <= set(floor)]
        assert ready, f"a circle among {sorted(map(name_of, set(above) - set(floor)))}"
        floor.update({path: 1 + max((floor[below] for below in above[path]), default=0) for path in ready})
    rooms = {path: name_of(path).partition("/")[0] for path in FILES}
    between = {room: {rooms[below] for path in FILES if rooms[path] == room for below in above[path]} - {room}
               for room in set(rooms.values())}

    def height(room):
        return 1 + max(map(height, between[room]), default=0)
    assert max(map(height, between)) <= 5       # the scripts are the sixth


def test_the_table_names_what_exists():
    for key in FLOORS:
        assert (ROOT / key).exists(), key


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_kernels_call_no_kernels_of_other_modules(path):
    assert not list(foreign_calls(parse(path)))


def test_the_files_were_found():
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"ops.py", "check.py", "sgd.py", "gradcheck.py", "associative.py"} <= names
    kernels = [node.name for node in ast.walk(parse(ROOT / "ops.py")) if is_kernel(node)]
    assert "softmax_forward" in kernels and "square_backward" in kernels


def test_moments_call_nothing_that_they_check():
    function, = (node for node in parse(ROOT / "associative.py").body
                 if isinstance(node, ast.FunctionDef) and node.name == "moments")
    assert not {"write", "read"} & {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


def test_the_core_loads_no_instrument():
    for module in ("associative", "induction", "recall", "sgd", "gradcheck"):
        loaded = subprocess.run(
            [sys.executable, "-c", f"import sys, refimpl.{module}; print(*sys.modules)"],
            capture_output=True, text=True, check=True, cwd=ROOT.parent).stdout.split()
        assert not [name for name in loaded if name.startswith(("refimpl.claims", "refimpl.vectors"))]


def test_a_foreign_kernel_is_seen():
    """Control."""
    source = "from refimpl import ops\n@njit(cache=True)\ndef f(x):\n    return {}\n"
    assert not list(foreign_calls(ast.parse(source.format("x"))))
    assert list(foreign_calls(ast.parse(source.format("ops.square_forward(x)"))))
    assert module_of(["refimpl", "ops", "square_forward"]) == ROOT / "ops.py"
    assert module_of(["refimpl", "ops"]) == ROOT / "ops.py"
    assert module_of(["refimpl", "sgd"]) == ROOT / "sgd.py"
    assert module_of(["refimpl", "recall"]) == ROOT / "recall" / "__init__.py"
