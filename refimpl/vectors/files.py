"""Test vectors as folders: written, read, and held against a port's folder."""

import ctypes
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from refimpl import __version__, check
from refimpl.induction.model import ENCODINGS
from refimpl.recall.model import ACTIVATIONS
from refimpl.vectors import cases, mistakes
from refimpl.vectors.cases import LABELS, SYSTEMS, Case
from refimpl.vectors.compare import (
    REASON, TOLERANCES, Report, compare_arrays, floors_of, gap, group, least_digits)
from refimpl.vectors.diagnose import Memory
from refimpl.vectors.dialects import as_array

SCHEMA = 1
SUMS = "SHA256SUMS"         # in v1: a line for each file of each case, as the program sha256sum has it
FILES = ("arrays.npz", "manifest.json")
WORK = ".writing-"          # what a write works in: a folder with `new`, and for a moment `old`
MANIFEST = {"schema": int, "model": str, "case": str, "why": str, "flags": list, "catches": str,
            "setting": dict, "sgd": dict, "arrays": dict, "tolerances": dict, "reason": str, "digits": dict,
            "seed": int, "versions": dict}


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


def write(folder, drawn=None, oracle=None):
    """Write vectors into a folder, and return how many cases and bytes they are.

    The folder is new, empty, or a vectors folder, whose v1 is then replaced as a whole. Whatever fails or
    interrupts this, the old set or the new one is there. drawn : iterable of cases.Case; None is all of this
    project. oracle : function of a case that returns its outputs {name: array}, more exact than those of the
    reference, which are written otherwise. Raises ValueError for any other folder, and AssertionError if a
    case does not catch its mistake.
    """
    folder = Path(folder)
    entries = [path.name for path in folder.iterdir() if not is_work(path)] if folder.is_dir() else []
    inside = [path.relative_to(folder / "v1").as_posix()
              for path in folder.glob("v1/**/*") if not path.is_dir()]
    vectors = entries == ["v1"] and any(name.endswith("/manifest.json") for name in inside) and all(
        name == SUMS or re.fullmatch("[^/]+/[^/]+/(%s)" % "|".join(FILES), name) for name in inside)
    if folder.exists() and not folder.is_dir() or entries and not vectors:
        raise ValueError(f"{folder}: expected an empty folder or a vectors folder, got other files; "
                         "nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder)
    work = Path(tempfile.mkdtemp(prefix=WORK, dir=folder))
    new, v1 = work / "new", folder / "v1"
    try:
        for count, case in enumerate(cases.all_cases() if drawn is None else drawn, start=1):
            write_case(new / case.model / case.name, case, oracle)
        paths = sorted(new.glob("*/*/*"))
        sums = [f"{digest(path.read_bytes())}  {path.relative_to(new).as_posix()}\n" for path in paths]
        (new / SUMS).write_text("".join(sums), encoding="utf-8")
        size = sum(path.stat().st_size for path in paths)
        if v1.exists():
            with suppress(AttributeError, OSError, TypeError):      # in one step, as Linux can
                exchange = ctypes.CDLL(None).renameat2      # 2: exchange; −100: from the current folder
                if exchange(-100, os.fsencode(new), -100, os.fsencode(v1), 2) == 0:
                    return count, size
            v1.rename(work / "old")
        new.rename(v1)
    finally:
        clean(folder)
    return count, size


def clean(folder):
    """Put an old set back that a write had moved away, and remove what writes have left."""
    for work in filter(is_work, folder.glob(WORK + "*")):
        if (work / "old").exists() and not (folder / "v1").exists():
            (work / "old").rename(folder / "v1")
        shutil.rmtree(work)


def is_work(path):
    """Whether a folder is one that a write works in."""
    return path.name.startswith(WORK) and path.is_dir() and {p.name for p in path.iterdir()} <= {"new", "old"}


def digest(content):
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_case(folder, case, oracle):
    """Write one case, once its mistake has been seen to change what a port must get right."""
    arrays = reference = cases.arrays(case)
    assert_catches(case, arrays)
    single = case._replace(params=case.params._make(w.astype(np.float32) for w in case.params))
    digits = {"float32": least_digits(arrays, cases.arrays(single))}
    if oracle is not None:
        arrays = {**reference, **oracle(case)}
        digits = {"reference": least_digits(arrays, reference), **digits}
    folder.mkdir(parents=True)
    # np.savez stores without compression and dates every member 1980: the same bytes each time.
    np.savez(folder / "arrays.npz", **arrays)
    manifest = {
        "schema": SCHEMA, "model": case.model, "case": case.name, "why": case.why,
        "flags": case.flags, "catches": case.catches, "setting": case.setting, "sgd": case.sgd,
        "arrays": {name: {"shape": a.shape, "dtype": str(a.dtype)} for name, a in arrays.items()},
        "tolerances": TOLERANCES, "reason": REASON, "digits": digits, "seed": case.seed,
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "numba": numba.__version__, "refimpl": __version__}}
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in manifest.items()]
    (folder / "manifest.json").write_text("{" + ",\n ".join(lines) + "}\n", encoding="utf-8")


def assert_catches(case, arrays):
    """Raise AssertionError unless every variant of its mistake changes the loss, a gradient or a step."""
    variants, floors = list(mistakes.planted(case.catches, case)), floors_of(arrays)
    for wrong in variants:
        if not any(name in wrong and gap(arrays[name], wrong[name], floors[name])[0]
                   > TOLERANCES["float32"][group(name)]
                   for name in arrays if group(name) in ("loss", "grad", "sgd1", "sgd3")):
            raise AssertionError(f"{case.model}/{case.name}: {case.catches} changes nothing")
    if case.catches and not variants:
        raise AssertionError(f"{case.model}/{case.name}: {case.catches} does not apply")


def load(folder, model, case):
    """Read one case of a vectors folder: a Vector. Raises ValueError saying what is wrong with it."""
    check.choice("model", model, tuple(SYSTEMS))
    if not isinstance(case, str) or case != Path(case).name or "\\" in case or case in ("", ".", ".."):
        raise ValueError(f"case: expected a name without path separators, got {case!r}")
    return read_case(folder, f"{model}/{case}", read_sums(folder))


def read(folder):
    """Yield every case of a vectors folder in order. Raises ValueError as `load`."""
    sums = read_sums(folder)
    for name in sums:
        yield read_case(folder, name, sums)


def read_sums(folder):
    """The cases that a vectors folder must hold, in order: {model/case: {file: SHA-256}}."""
    sums: dict[str, dict] = {}
    try:
        lines = (Path(folder) / "v1" / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        versions = sorted(path.name for path in Path(folder).glob("v*") if path.is_dir())
        raise ValueError(f"{folder}: expected test vectors of version {SCHEMA} (v1/{SUMS}), "
                         f"got {', '.join(versions) or 'none'}: {first_line(error)}") from None
    for line in lines:
        match = re.fullmatch("([0-9a-f]{64})  ([^/]+/[^/]+)/(%s)" % "|".join(FILES), line)
        if not match:
            raise ValueError(f"{folder}/v1/{SUMS}: expected a SHA-256 and a path, got {line!r:.99}")
        sums.setdefault(match[2], {})[match[3]] = match[1]
    if not sums:
        raise ValueError(f"{folder}/v1/{SUMS}: expected at least one case, got none")
    return sums


def read_case(folder, name, sums):
    """Read and verify one case."""
    content = {}
    for file in ("manifest.json", "arrays.npz"):
        try:
            content[file] = (Path(folder) / "v1" / name / file).read_bytes()
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}") from None
        if digest(content[file]) != sums.get(name, {}).get(file):
            raise ValueError(f"{file}: its SHA-256 is not that of {SUMS} (truncated or changed)")
    manifest = read_manifest(content["manifest.json"], name)
    sizes = {key: 8 * math.prod(entry["shape"]) for key, entry in manifest["arrays"].items()}
    if sum(sizes.values()) > 8 * len(content["arrays.npz"]):
        raise ValueError("arrays.npz: too short for the arrays of the manifest")
    arrays, problems = read_arrays(io.BytesIO(content["arrays.npz"]), sizes)
    found = {key: {"shape": list(a.shape), "dtype": str(a.dtype)} for key, a in arrays.items()}
    if problems or found != manifest["arrays"]:
        raise ValueError(problems[0] if problems else "arrays.npz: not the arrays of the manifest")
    return Vector(manifest, arrays)


def read_manifest(content, name):
    """Read a manifest and check its version, its keys and its place."""
    try:
        manifest = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"manifest.json: not JSON: {first_line(error)}") from None
    if isinstance(manifest, dict):
        manifest.setdefault("digits", {})       # of sets that were written before there were any
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        version = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"manifest.json: expected schema {SCHEMA}, got {version!r}")
    for key, kind in MANIFEST.items():
        if not isinstance(manifest.get(key), kind):
            raise ValueError(f"manifest.json: {key}: expected {kind.__name__}, got {manifest.get(key)!r}")
    if f"{manifest['model']}/{manifest['case']}" != name:
        raise ValueError(f"manifest.json: expected model and case as the folders, "
                         f"got {manifest['model']!r} and {manifest['case']!r}")
    model, setting, sgd = manifest["model"], manifest["setting"], manifest["sgd"]
    try:
        if check.choice("model", model, tuple(SYSTEMS)) == "induction":
            check.choice("encoding", setting["encoding"], ENCODINGS)
        else:
            check.choice("activation", setting["activation"], tuple(ACTIVATIONS))
        for key in ("lr", "momentum", "weight_decay"):
            check.real(key, sgd[key], 0)
        for value in [value for least in manifest["digits"].values() for value in least.values()]:
            check.real("digits", value, 0)
        for name in sgd["trained"]:
            check.choice("trained", name, SYSTEMS[model].Params._fields)
        if list(manifest["arrays"]) != cases.names(model):
            raise ValueError("arrays: expected those of the model, in order")
        sizes = [size for entry in manifest["arrays"].values() for size in entry["shape"]]
        for bound in (*sizes, *(model == "recall" and setting["slot"] or ())):
            check.integer("sizes", bound, 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"manifest.json: {first_line(error)}") from None
    return manifest


def read_arrays(file, sizes=None):
    """Read an .npz file without pickles: its arrays by name, and a line for each that is unreadable.

    sizes : {name: bytes}; no array of another name is read, and none that by a header takes 64 times as many
    bytes. None: all are read.
    """
    arrays: dict[str, np.ndarray] = {}
    problems = []
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                try:
                    if name in arrays or sizes is not None and name not in sizes:
                        raise ValueError("there twice" if name in arrays else "no such array")
                    limit = 64 * (sizes[name] + 1024) if sizes is not None else np.inf
                    arrays[name] = read_array(archive, member, limit)
                except Exception as error:       # zipfile, zlib and numpy raise whatever comes
                    problems.append(f"{name}: {first_line(error)}")
    except Exception as error:
        problems.append(f"arrays.npz: {first_line(error)}")
    return arrays, problems


def read_array(archive, member, limit):
    """Read one .npy of at most `limit` bytes, whose header claims no more than is there."""
    form = np.lib.format
    headers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    if member.file_size > limit:
        raise ValueError(f"{member.file_size} bytes, expected at most {limit}; not read")
    with archive.open(member) as file:
        shape, _, dtype = headers[form.read_magic(file)](file)
        if math.prod(shape) * max(dtype.itemsize, 1) > member.file_size:
            raise ValueError(f"shape {shape}, of which {member.file_size} bytes are there; not read")
    with archive.open(member) as file:
        return form.read_array(file, allow_pickle=False)


def first_line(error):
    """One line on an error, never empty."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__


def compare(ours, theirs, precision="float64"):
    """Hold a port's arrays against one case, a Vector: the Report. For a port's own tests.

    theirs : dict of array name -> array, or tensor of PyTorch or JAX; a part of the names is enough
    precision : "float64", "float32", "float16" or "bfloat16", which tolerances
    Raises AssertionError with the report as its message unless the comparison passes.
    """
    report = compare_arrays(ours, {name: as_array(a) for name, a in theirs.items()}, precision)
    if not report.passed:
        raise AssertionError(f"\n{report}")
    return report


def check_folder(folder, theirs, precision="float64", model=None, only=None):
    """A list of Reports, one for every case of a vectors folder, held against a port's folder.

    precision as in `compare`; model and only, if given, leave out cases, as `select` has them.
    Raises ValueError if `folder` has no vectors, no case is selected, or `theirs` is not a folder.
    """
    check.choice("precision", precision, tuple(TOLERANCES))
    if not Path(theirs).is_dir():
        raise ValueError(f"{theirs}: expected a folder with v1/<model>/<case>/arrays.npz")
    sums, memory, reports = read_sums(folder), Memory(), []
    for name in select(sums, model, only):
        try:
            vector = read_case(folder, name, sums)
        except ValueError as error:
            reports.append(Report(name, [f"in {folder}: {error}"]))
            continue
        arrays, problems = read_arrays(Path(theirs) / "v1" / name / "arrays.npz",
                                       {key: a.nbytes for key, a in vector.arrays.items()})
        reports.append(compare_arrays(vector, arrays, precision, problems, memory))
    for place, what in ((folder, f"not in {SUMS}"), (theirs, "no such case")):
        for path in sorted(Path(place).glob("v1/*/*")):
            name = f"{path.parent.name}/{path.name}"
            if name not in sums:
                reports.append(Report(name, [f"in {place}: {what}"]))
    # Of names that explain a case alike, those are kept that explain the most cases.
    counts = Counter(words for report in reports for alike in report.looks for words in alike)
    return [report._replace(looks=tuple(
        tuple(words for words in alike if counts[words] == max(counts[w] for w in alike))
        for alike in report.looks)) for report in reports]


def select(names, model=None, only=None):
    """The names of the cases of a model that match a pattern such as 'induction/*absolute*', in order."""
    chosen = [name for name in names
              if fnmatchcase(name, f"{model or '*'}/*") and fnmatchcase(name, only or "*")]
    if not chosen:
        raise ValueError(f"only: expected a pattern that a case matches, such as 'induction/*absolute*', "
                         f"got {only or model!r}, which none of {len(names)} does")
    return chosen
