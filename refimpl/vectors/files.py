"""Test vectors as folders: written, read, and held against a port's folder."""

import hashlib
import json
import platform
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from refimpl import __version__, check
from refimpl.induction.model import ENCODINGS
from refimpl.recall.model import ACTIVATIONS
from refimpl.vectors import cases, mistakes
from refimpl.vectors.cases import LABELS, SYSTEMS, Case
from refimpl.vectors.compare import REASON, TOLERANCES, Report, compare_arrays, floors_of, gap, group
from refimpl.vectors.dialects import as_array

SCHEMA = 1
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, MemoryError,
              NotImplementedError, RuntimeError, SyntaxError)
MANIFEST = {"schema": int, "model": str, "case": str, "why": str, "flags": list, "catches": str,
            "setting": dict, "sgd": dict, "arrays": dict, "tolerances": dict, "reason": str, "seed": int,
            "versions": dict, "sha256": str}


class Vector(NamedTuple):
    """One case as it was read: `manifest` as JSON gives it, `arrays` by name."""

    manifest: dict
    arrays: dict

    @property
    def name(self):
        """<model>/<case>."""
        return f"{self.manifest['model']}/{self.manifest['case']}"

    @property
    def case(self):
        """The inputs and settings as the reference takes them."""
        m, model = self.manifest, self.manifest["model"]
        params = SYSTEMS[model].Params(*(self.arrays[f"param.{field}"]
                                         for field in SYSTEMS[model].Params._fields))
        return Case(model, m["case"], m["why"], tuple(m["flags"]), m["catches"], m["seed"], m["setting"],
                    m["sgd"], params, self.arrays["input.tokens"], self.arrays[f"input.{LABELS[model]}"])


# Writing

def write(folder):
    """Write all vectors into a folder, and return how many cases and bytes they are.

    The folder is new, empty, or a vectors folder, whose v1 is then replaced as a whole: everything is
    written beside it first, and renamed. Raises ValueError for any other folder, and AssertionError if
    a case does not catch its mistake.
    """
    folder = Path(folder)
    if not is_replaceable(folder):
        raise ValueError(f"{folder}: expected an empty folder or a vectors folder, got other files; "
                         "nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        for count, case in enumerate(cases.all_cases(), start=1):
            write_case(work / "new" / case.model / case.name, case)
        if (folder / "v1").exists():
            (folder / "v1").rename(work / "old")
        (work / "new").rename(folder / "v1")
    finally:
        shutil.rmtree(work)
    return count, sum(path.stat().st_size for path in (folder / "v1").rglob("*.*") if path.is_file())


def is_replaceable(folder):
    """Whether a folder is new or empty, or holds vectors and nothing else."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    entries = [path for path in folder.iterdir() if not path.name.startswith(".writing-")]
    if not entries:
        return True
    cases_there = list(folder.glob("v1/*/*"))
    return ([path.name for path in entries] == ["v1"] and bool(cases_there)
            and all({"manifest.json", "arrays.npz"} == {file.name for file in path.iterdir()}
                    for path in cases_there if path.is_dir())
            and all(path.is_dir() for path in cases_there))


def write_case(folder, case):
    """Write one case, once its mistake has been seen to change what a port must get right."""
    arrays = cases.arrays(case)
    assert_catches(case, arrays)
    folder.mkdir(parents=True)
    # np.savez stores without compression and dates every member 1980: the same bytes each time.
    np.savez(folder / "arrays.npz", **arrays)
    manifest = {
        "schema": SCHEMA, "model": case.model, "case": case.name, "why": case.why,
        "flags": case.flags, "catches": case.catches, "setting": case.setting, "sgd": case.sgd,
        "arrays": {name: {"shape": a.shape, "dtype": str(a.dtype)} for name, a in arrays.items()},
        "tolerances": TOLERANCES, "reason": REASON, "seed": case.seed,
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "numba": numba.__version__, "refimpl": __version__},
        "sha256": hashlib.sha256((folder / "arrays.npz").read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(as_lines(manifest) + "\n", encoding="utf-8")


def as_lines(value, depth=2, indent=""):
    """JSON with one line for each entry of the outer objects; what lies deeper stays on its line."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    lines = [f"{inner}{json.dumps(key)}: {as_lines(item, depth - 1, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def assert_catches(case, arrays):
    """Raise AssertionError unless every variant of its mistake changes the loss, a gradient or a step."""
    variants = list(mistakes.run(case.catches, case))
    floors = floors_of(arrays)
    for wrong in variants:
        if not any(name in wrong and gap(arrays[name], wrong[name], floors[name])[0]
                   > TOLERANCES["float32"][group(name)]
                   for name in arrays if group(name) in ("loss", "grad", "sgd1", "sgd3")):
            raise AssertionError(f"{case.model}/{case.name}: {case.catches} changes nothing")
    if not variants:
        raise AssertionError(f"{case.model}/{case.name}: {case.catches} does not apply")


# Reading

def load(folder, model, case):
    """Read one case of a vectors folder: a Vector. Raises ValueError saying what is wrong with it."""
    check.choice("model", model, tuple(SYSTEMS))
    if not isinstance(case, str) or case != Path(case).name or "\\" in case or case in ("", ".", ".."):
        raise ValueError(f"case: expected a name without path separators, got {case!r}")
    return read_case(Path(folder) / "v1" / model / case)


def read(folder):
    """Yield every case of a vectors folder in order. Raises ValueError as `load`."""
    for path in case_folders(folder):
        yield read_case(path)


def case_folders(folder):
    """The folders of all cases; raises ValueError if there is none."""
    found = sorted(path for path in Path(folder).glob("v1/*/*") if path.is_dir())
    if not found:
        versions = sorted(path.name for path in Path(folder).glob("v*") if path.is_dir())
        raise ValueError(f"{folder}: expected test vectors of version {SCHEMA} (v1/<model>/<case>/), "
                         f"got {', '.join(versions) or 'none'}")
    return found


def read_case(path):
    """Read and verify one case."""
    manifest = read_manifest(path)
    try:
        content = (path / "arrays.npz").read_bytes()
    except OSError as error:
        raise ValueError(f"arrays.npz: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise ValueError("arrays.npz: its SHA-256 is not that of the manifest (truncated or changed)")
    arrays, problems = read_arrays(path / "arrays.npz")
    found = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in arrays.items()}
    if problems or found != manifest["arrays"]:
        raise ValueError(problems[0] if problems else "arrays.npz: not the arrays of the manifest")
    return Vector(manifest, arrays)


def read_manifest(path):
    """Read a manifest and check its version, its keys and its place."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"manifest.json: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"manifest.json: not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        version = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"manifest.json: expected schema {SCHEMA}, got {version!r}")
    for key, kind in MANIFEST.items():
        if not isinstance(manifest.get(key), kind):
            raise ValueError(f"manifest.json: {key}: expected {kind.__name__}, got {manifest.get(key)!r}")
    if (manifest["model"], manifest["case"]) != (path.parent.name, path.name):
        raise ValueError(f"manifest.json: expected model and case as the folders, "
                         f"got {manifest['model']!r} and {manifest['case']!r}")
    try:
        check_settings(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"manifest.json: {first_line(error)}") from None
    return manifest


def check_settings(manifest):
    """Raise ValueError, KeyError or TypeError unless settings and array names are those of the model."""
    model = check.choice("model", manifest["model"], tuple(SYSTEMS))
    setting, sgd = manifest["setting"], manifest["sgd"]
    if model == "induction":
        check.choice("encoding", setting["encoding"], ENCODINGS)
    else:
        check.choice("activation", setting["activation"], tuple(ACTIVATIONS))
        for bound in setting["slot"] or ():
            check.integer("slot", bound, 0)
    for key in ("lr", "momentum", "weight_decay"):
        check.real(key, sgd[key], 0)
    for name in sgd["trained"]:
        check.choice("trained", name, SYSTEMS[model].Params._fields)
    if list(manifest["arrays"]) != cases.names(model):
        raise ValueError("arrays: expected those of the model, in order")


def read_arrays(path):
    """Read an .npz file without pickles: its arrays by name, and a line for each that is unreadable."""
    arrays, problems = {}, []
    try:
        with zipfile.ZipFile(path):
            pass
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    array = archive[name]
                    if not isinstance(array, np.ndarray):
                        raise ValueError("not an array")
                    arrays[name] = array
                except UNREADABLE as error:
                    problems.append(f"{name}: {first_line(error)}")
    except UNREADABLE as error:
        problems.append(f"{path.name}: {first_line(error)}")
    return arrays, problems


def first_line(error):
    """One line on an error, never empty."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__


# Comparing

def compare(ours, theirs, precision="float64"):
    """Hold a port's arrays against one case; for use in a port's own tests.

    Parameters
    ----------
    ours : Vector, from `load` or `read`
    theirs : dict of array name -> array, or tensor of PyTorch or JAX; a part of the names is enough
    precision : "float64" or "float32", which tolerances

    Returns
    -------
    Report, of a comparison that passed. Raises AssertionError with the report as its message otherwise.
    """
    report = compare_arrays(ours, {name: as_array(a) for name, a in theirs.items()}, precision)
    if not report.passed:
        raise AssertionError(f"\n{report}")
    return report


def check_folder(folder, theirs, precision="float64", model=None):
    """Yield a Report for every case of a vectors folder, held against a port's folder.

    precision is "float64" or "float32"; model, if given, leaves out the cases of the other one.
    Raises ValueError if `folder` has no vectors, or `theirs` is not a folder.
    """
    check.choice("precision", precision, tuple(TOLERANCES))
    if not Path(theirs).is_dir():
        raise ValueError(f"{theirs}: expected a folder with v1/<model>/<case>/arrays.npz")
    names = []
    for path in case_folders(folder):
        names.append(f"{path.parent.name}/{path.name}")
        if model is not None and path.parent.name != model:
            continue
        file = Path(theirs) / "v1" / names[-1] / "arrays.npz"
        try:
            vector = read_case(path)
        except ValueError as error:
            yield Report(names[-1], [f"in {folder}: {error}"])
            continue
        arrays, problems = read_arrays(file)
        yield compare_arrays(vector, arrays, precision, problems)
    for path in sorted(Path(theirs).glob("v1/*/*")):
        if f"{path.parent.name}/{path.name}" not in names:
            yield Report(f"{path.parent.name}/{path.name}", ["no such case"])


def conclusion(reports):
    """One line on all cases, with the diagnosis that most of those that failed share."""
    failed = [report for report in reports if not report.passed]
    line = f"{len(reports) - len(failed)} of {len(reports)} cases passed"
    looks = Counter(report.diagnosis for report in failed if report.diagnosis)
    if looks:
        (words, count), = looks.most_common(1)
        line += f"; {count} of {len(failed)} failures look like: {words}"
    return line
