"""Imports run one way: ops ← model ← sgd, probes, tables; task, memory ← claims.

And theory imports numpy, scipy and check alone: a formula that calls the code it must check is no oracle,
and checks of arguments hold no formula.
"""

import ast
import pathlib

import pytest

import refimpl

ROOT = pathlib.Path(refimpl.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What of ours a file may import, by the file's name; names stand for files of the same system or of
# refimpl itself. Files not named here (claims, the command line, …) may import everything of ours.
ALLOWED = {
    "ops": set(), "check": set(), "theory": {"check"}, "moments": {"check"},
    "gradcheck": {"check"}, "sgd": {"check"},
    "associative": {"check", "claims"},         # its claims M stand beside it
    "model": {"ops", "check"}, "task": {"check"},
    "memory": {"check", "model", "task"},
    "nopos": {"check", "ops", "memory", "task"},
    "table_kernels": set(), "tables": {"check", "model", "table_kernels"},
    "probes": {"check", "model", "task", "memory", "tables"},
    "finetuning": {"check", "theory"},          # more of the theory, over its helpers
    "implicit": {"check", "memory", "task"},
    "batched": {"check", "model", "task"},
}


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


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_imports_run_one_way(path):
    name = path.stem
    for parts in imports(parse(path)):
        assert parts[0] not in ("matplotlib", "tests", "scripts", "torch", "jax"), parts
        if name == "ops":
            assert parts[0] in ("numpy", "numba"), parts
        if name in ("theory", "moments"):
            assert parts[0] in ("numpy", "scipy", "typing", "refimpl"), parts
        if parts[0] == "refimpl" and name in ALLOWED:
            target = module_of(parts)
            assert target.stem in ALLOWED[name], f"{name} imports {target}"
            assert target.parent in (path.parent, ROOT), f"{name} imports another system: {target}"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
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


def test_a_foreign_kernel_is_seen():
    """Control."""
    source = "from refimpl import ops\n@njit(cache=True)\ndef f(x):\n    return {}\n"
    assert not list(foreign_calls(ast.parse(source.format("x"))))
    assert list(foreign_calls(ast.parse(source.format("ops.square_forward(x)"))))
    assert module_of(["refimpl", "ops", "square_forward"]) == ROOT / "ops.py"
    assert module_of(["refimpl", "ops"]) == ROOT / "ops.py"
    assert module_of(["refimpl", "sgd"]) == ROOT / "sgd.py"
    assert module_of(["refimpl", "recall"]) == ROOT / "recall" / "__init__.py"
