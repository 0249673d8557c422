"""Test vectors: what is stored, what is caught, what is named, and what is refused."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from refimpl import vectors
from refimpl.vectors import cases, files, mistakes
from refimpl.vectors.compare import compare_arrays
from refimpl.__main__ import main
from tests.test_vectors_files import sign

STORED = Path(__file__).parent / "vectors"
FLAGS = {"T = 1", "V = 2", "first token", "repeated tokens", "tied logits", "large logits", "relative",
         "absolute", "beyond training length", "masked positions", "one sequence", "several sequences",
         "constructed", "square", "ReLU", "ReLU at 0", "slot", "whole vocabulary", "momentum",
         "no momentum", "weight decay", "no weight decay", "long", "frozen embeddings"}


@pytest.fixture(scope="module")
def stored():
    """Every stored case, by name."""
    return {vector.name: vector for vector in vectors.read(STORED)}


@pytest.fixture
def copy(tmp_path):
    """A vectors folder with three cases, and right answers to them."""
    for name in ("induction/causal", "induction/one-position", "recall/relu"):
        shutil.copytree(STORED / "v1" / name, tmp_path / "V" / "v1" / name)
        (tmp_path / "theirs" / "v1" / name).mkdir(parents=True)
        shutil.copy(STORED / "v1" / name / "arrays.npz", tmp_path / "theirs" / "v1" / name)
    sign(tmp_path / "V")
    return tmp_path / "V", tmp_path / "theirs"


def said(ours, theirs, precision="float64"):
    """The message of `compare`, which must fail."""
    with pytest.raises(AssertionError) as error:
        vectors.compare(ours, theirs, precision)
    return str(error.value)


# What is stored

def test_stored_vectors_are_regenerated(stored):
    """Across machines: BLAS, LAPACK and exp may round otherwise, so within the tolerances of a port.

    The inputs come from numpy.random.Generator and one QR factorisation; if NumPy ever changes its
    stream, write the set anew.
    """
    drawn = {f"{case.model}/{case.name}": case for case in cases.all_cases()}
    assert drawn.keys() == stored.keys()
    for name, case in drawn.items():
        arrays = cases.arrays(case)
        vectors.compare(stored[name], arrays)
        assert list(arrays) == list(stored[name].arrays) == cases.names(case.model)
        assert json.loads(json.dumps(case.sgd)) == stored[name].manifest["sgd"]
        assert json.loads(json.dumps(case.setting)) == stored[name].manifest["setting"]
        assert (case.why, list(case.flags), case.catches) == tuple(
            stored[name].manifest[key] for key in ("why", "flags", "catches"))


def test_stored_vectors_are_small_and_cover_what_they_should(stored):
    assert len(stored) == 58
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 8e6
    flags = {flag for vector in stored.values() for flag in vector.manifest["flags"]}
    assert FLAGS <= flags
    assert all(vector.manifest["why"] for vector in stored.values())


def test_the_large_and_the_tied_are_what_they_say(stored):
    for name in ("induction/large-logits", "recall/large-logits"):
        assert 500 < np.abs(stored[name].arrays["trace.logits"]).max() < 5000
    assert not stored["induction/tied-logits"].arrays["trace.logits"].any()
    at_zero = stored["recall/relu-at-zero"].arrays
    zero = at_zero["trace.preactivation"] == 0
    assert zero.sum() == 4 and not at_zero["grad.W1"][zero].any()


@pytest.mark.parametrize("name", sorted(f"{case.model}/{case.name}" for case in cases.all_cases()))
def test_each_case_catches_its_mistake_and_the_checker_names_it(stored, name):
    vector = stored[name]
    catches = vector.manifest["catches"]
    files.assert_catches(vector.case, vector.arrays)
    for wrong in mistakes.planted(catches, vector.case):
        report = compare_arrays(vector, wrong, "float64")
        assert not report.passed
        overflows = catches == "softmax overflows" and report.diagnosis.startswith("not finite")
        assert overflows or report.looks[0][0] == catches and len(report.looks) == 1


def test_a_case_that_catches_nothing_is_not_written(stored):
    case = stored["recall/one-token"].case
    with pytest.raises(AssertionError, match="changes nothing"):
        files.assert_catches(case._replace(catches="momentum always on"), cases.arrays(case))
    with pytest.raises(AssertionError, match="does not apply"):
        files.assert_catches(case._replace(catches="encodings swapped"), cases.arrays(case))


# A wrong array

ARRAYS = {
    "transposed": (lambda a: a.T, "transposed"),
    "negated": (lambda a: -a, "negated"),
    "missing 2": (lambda a: a / 2, ("a 2 missing", "1/2 U y")),
    "sum for mean": (lambda a: 24 * a, "a sum in place of the mean"),
    "1/√d": (lambda a: a / 7 ** 0.5, (": 1/√d", "1/√d U y")),
    "1/T": (lambda a: a / 8, ": 1/T"),
    "other factor": (lambda a: 1.234 * a, "constant factor 1.234"),
    "rolled": (lambda a: np.roll(a, 1, axis=0), "shifted by one position"),
    "shifted": (lambda a: np.concatenate([a[1:], 0 * a[:1]]), "shifted by one position"),
    "permuted": (lambda a: a[np.random.default_rng(0).permutation(len(a))], "rows permuted"),
}


@pytest.mark.parametrize("name", ["trace.x1", "trace.logits", "grad.WK1", "grad.WO", "sgd1.momentum.WF"])
@pytest.mark.parametrize("mistake", ARRAYS)
def test_a_wrong_array_is_named(stored, mistake, name):
    vector = stored["induction/causal"]     # B = 3, T = 8, d = 7, all 24 positions in the loss
    change, words = ARRAYS[mistake]
    message = said(vector, {**vector.arrays, name: change(vector.arrays[name])})
    assert f"first departs: {name}" in message
    assert any(part in message.splitlines()[-1] for part in np.atleast_1d(words)), message


def test_float32_passes_as_float32_only(stored):
    for vector in stored.values():
        case = vector.case
        case = case._replace(params=case.params._make(w.astype(np.float32) for w in case.params))
        arrays = cases.arrays(case)
        assert arrays["grad.E"].dtype == np.float32
        vectors.compare(vector, arrays, "float32")
        assert said(vector, arrays).endswith("float32 precision only (passes with --precision float32)")


def test_a_mistake_in_float32_is_named(stored):
    vector = stored["induction/causal"]
    arrays = {name: a.astype(np.float32) for name, a in vector.arrays.items() if a.dtype.kind == "f"}
    arrays["grad.WV"] = arrays["grad.WV"].T.copy()
    assert said(vector, arrays).endswith("looks like: transposed (in grad.WV)")
    assert said(vector, arrays, "float32").endswith("looks like: transposed (in grad.WV)")


# Bad input

NOTHING = "nothing but inputs to compare: expected some of trace.*, loss, grad.*, sgd1.param.*"


def damage(file, change):
    """Rewrite an arrays.npz with changed arrays."""
    with np.load(file) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(file, **arrays)


def put(name, value):
    return lambda file: damage(file, lambda arrays: arrays.update({name: value}))


BAD_ANSWERS = {
    "missing file": (Path.unlink, "arrays.npz: No such file"),
    "truncated": (lambda f: f.write_bytes(f.read_bytes()[:5000]), "arrays.npz: File is not a zip file"),
    "empty": (lambda f: f.write_bytes(b""), "arrays.npz: File is not a zip file"),
    "no arrays": (lambda f: np.savez(f), NOTHING),
    "flipped byte": (lambda f: f.write_bytes(f.read_bytes()[:4000] + b"!!!!" + f.read_bytes()[4004:]),
                     "Bad CRC-32"),
    "object array": (put("loss", np.array([{}], dtype=object)), "loss: Object arrays cannot be loaded"),
    "extra array": (put("grad.W3", np.zeros(3)), "grad.W3: no such array"),
    "extra name with a path": (put("../loss", np.zeros(3)), "../loss: no such array"),
    "complex": (put("loss", np.array(1j)), "loss: dtype complex128, expected float64 or float32"),
    "half": (put("loss", np.array(1, np.float16)), "loss: dtype float16, expected float64 or float32"),
    "text": (put("loss", np.array("1.0")), "loss: dtype <U3, expected float64 or float32"),
    "float tokens": (put("input.tokens", np.zeros((3, 9))), "input.tokens: dtype float64, expected int"),
    "wrong tokens": (put("input.tokens", np.zeros((3, 9), int)), "first departs: input.tokens at ["),
    "wrong shape": (put("trace.x0", np.zeros((2, 3))), "trace.x0, shape (2, 3), expected (8, 7)"),
    "NaN": (put("trace.x0", np.full((8, 7), np.nan)), "looks like: not finite: 56 of 56 entries"),
    "infinite": (put("loss", np.array(np.inf)), "looks like: not finite: 1 of 1 entries"),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS)
def test_a_bad_answer_is_one_line_and_the_others_are_checked(copy, capsys, bad):
    change, words = BAD_ANSWERS[bad]
    change(copy[1] / "v1/induction/causal/arrays.npz")
    assert main(["vectors", "check", *map(str, copy)]) == 1
    out = capsys.readouterr().out
    assert words in out and "2 of 3 cases passed" in out
    assert len([line for line in out.splitlines() if line.startswith("    ")]) in (1, 3)


def edit(**changes):
    """Change the manifest."""
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}), encoding="utf-8")
    return change


BAD_VECTORS = {
    "tampered": (lambda f: put("loss", np.array(1.0))(f / "arrays.npz"), "SHA-256"),
    "no arrays": (lambda f: (f / "arrays.npz").unlink(), "arrays.npz: No such file"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json: No such file"),
    "not JSON": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: not JSON"),
    "not an object": (lambda f: (f / "manifest.json").write_text("[]"), "expected schema 1, got None"),
    "not UTF-8": (lambda f: (f / "manifest.json").write_bytes(b"\xff"), "manifest.json: not JSON"),
    "schema": (edit(schema=2), "expected schema 1, got 2"),
    "seed": (edit(seed="x"), "seed: expected int, got 'x'"),
    "path": (edit(case="../causal"), "got 'induction' and '../causal'"),
    "encoding": (edit(setting={"encoding": "rotary"}), "encoding: expected one of relative, absolute"),
    "no encoding": (edit(setting={}), "manifest.json: 'encoding'"),
    "rate": (edit(sgd={"lr": -1, "momentum": 0, "weight_decay": 0, "trained": []}), "lr: expected"),
    "arrays": (edit(arrays={}), "arrays: expected those of the model"),
}


@pytest.mark.parametrize("bad", BAD_VECTORS)
def test_bad_vectors_are_one_line_and_the_others_are_checked(copy, capsys, bad):
    change, words = BAD_VECTORS[bad]
    change(copy[0] / "v1/induction/causal")
    if not words.startswith(("SHA", "arrays.npz: No", "manifest.json: No")):
        sign(copy[0])       # else the digest alone would notice
    assert main(["vectors", "check", *map(str, copy)]) == 1
    out = capsys.readouterr().out
    assert words in out and "2 of 3 cases passed" in out
    with pytest.raises(ValueError):
        vectors.load(copy[0], "induction", "causal")


def test_an_answer_without_outputs_fails_and_says_what_is_missing(copy, capsys):
    """Nothing at all, inputs alone, parameters alone."""
    folder, theirs = copy
    shutil.rmtree(theirs / "v1")
    assert main(["vectors", "check", str(folder), str(theirs)]) == 1
    out = capsys.readouterr().out
    assert out.count("arrays.npz: No such file") == 3 and out.endswith("0 of 3 cases passed\n")
    for vector in vectors.read(folder):
        (theirs / "v1" / vector.name).mkdir(parents=True)
        given = "param" if vector.name == "recall/relu" else "input.tokens"
        np.savez(theirs / "v1" / vector.name / "arrays.npz",
                 **{name: a for name, a in vector.arrays.items() if name.startswith(given)})
        with pytest.raises(AssertionError, match="nothing but inputs to compare"):
            vectors.compare(vector, {"input.tokens": vector.arrays["input.tokens"]})
    assert main(["vectors", "check", str(folder), str(theirs)]) == 1
    out = capsys.readouterr().out
    assert out.count(NOTHING) == 3
    assert out.endswith("0 of 3 cases passed\n")


@pytest.mark.parametrize("name", ["recall/relu", "recall", ""])
def test_cases_that_are_missing_on_both_sides_are_noticed(copy, capsys, name):
    for folder in copy:
        shutil.rmtree(folder / "v1" / name)
    assert main(["vectors", "check", *map(str, copy)]) == (1 if name else 2)
    captured = capsys.readouterr()
    assert "No such file" in captured.out + captured.err and "3 of 3" not in captured.out
    assert not name or "2 of 3 cases passed" in captured.out


def test_a_case_that_is_in_no_list_is_noticed(copy, capsys):
    shutil.copytree(copy[0] / "v1/recall/relu", copy[0] / "v1/recall/other")
    assert main(["vectors", "check", *map(str, copy)]) == 1
    assert "not in SHA256SUMS" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [
    {"sgd": {"lr": 0.08, "momentum": 0.9, "weight_decay": 0.01, "trained": ["E"]}}, {"why": "x"}, {"seed": 1},
    {"setting": {"encoding": "absolute"}}, {"flags": []}])
def test_a_changed_manifest_is_noticed(copy, capsys, changes):
    edit(**changes)(copy[0] / "v1/induction/causal")
    assert main(["vectors", "check", *map(str, copy)]) == 1
    assert "manifest.json: its SHA-256 is not that of SHA256SUMS" in capsys.readouterr().out


@pytest.mark.parametrize("line", [
    "", "x", "0" * 64 + "  ../causal/arrays.npz/", "0" * 64 + " recall/relu/arrays.npz",
    "0" * 64 + "  recall/relu/run.py", "0" * 64 + "  /etc/passwd\x1b[2J"])
def test_a_list_that_is_none_is_refused(copy, capsys, line):
    (copy[0] / "v1/SHA256SUMS").write_text(line + "\n" * bool(line))
    assert main(["vectors", "check", *map(str, copy)]) == 2
    error = capsys.readouterr().err
    assert "expected a" in error and error.count("\n") == 1 and "\x1b" not in error


def test_a_deeply_nested_manifest_is_one_line(copy, capsys):
    (copy[0] / "v1/induction/causal/manifest.json").write_text("[" * 200000)
    sign(copy[0])
    assert main(["vectors", "check", *map(str, copy)]) == 1
    out = capsys.readouterr().out
    assert "manifest.json: not JSON: maximum recursion" in out and "2 of 3 cases passed" in out
    assert len(out.splitlines()) == 6


def npy(shape, content=b"", descr="<f8"):
    """A .npy file whose header may claim more than is there."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


BOMBS = {
    "large when unpacked": (lambda: npy((2_000_000,), b"\0" * 16_000_000), "bytes, expected at most"),
    "claims more than is there": (lambda: npy((10 ** 12,)), "of which 128 bytes are there"),
    "of no size, many": (lambda: npy((10 ** 12,), descr="|S0"), "of which 128 bytes are there"),
    "negative": (lambda: npy((-1,)), "loss: "),
    "a header of two gigabytes": (lambda: b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{", "loss: "),
    "a version that nobody knows": (lambda: b"\x93NUMPY\x09\x00" + b" " * 100, "loss: "),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_archive_that_would_not_fit_is_refused_by_its_headers(copy, capsys, bomb):
    make, words = BOMBS[bomb]
    file = copy[1] / "v1/induction/causal/arrays.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("loss.npy", make())
    assert file.stat().st_size < 1e5
    assert main(["vectors", "check", *map(str, copy)]) == 1
    out = capsys.readouterr().out
    assert words in out and "2 of 3 cases passed" in out
    # The same in the set itself, whose manifest declares it and whose list has its digest.
    ours = copy[0] / "v1/induction/causal"
    shutil.copy(file, ours / "arrays.npz")
    manifest = json.loads((ours / "manifest.json").read_text(encoding="utf-8"))
    manifest["arrays"]["loss"] = {"shape": [10 ** 8], "dtype": "float64"}
    (ours / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign(copy[0])
    with pytest.raises(ValueError, match="too short for the arrays of the manifest"):
        vectors.load(copy[0], "induction", "causal")


def test_an_array_that_is_there_twice_is_refused(copy, capsys):
    file = copy[1] / "v1/induction/causal/arrays.npz"
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("loss.npy", npy((), b"\0" * 8))
    assert main(["vectors", "check", *map(str, copy)]) == 1
    assert "loss: there twice" in capsys.readouterr().out


def test_control_characters_in_names_are_not_printed(copy, capsys):
    evil = "grad.\x1b[2J\u202egnp\r"
    with zipfile.ZipFile(copy[1] / "v1/induction/causal/arrays.npz", "a") as archive:
        archive.writestr(evil, b"")
        for i in range(1000):
            archive.writestr(f"extra{i}", b"")
    (copy[1] / "v1" / "recall" / "\x1b]0;x\x07").mkdir()
    assert main(["vectors", "check", *map(str, copy)]) == 1
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable() and "grad.\\x1b[2J\\u202egnp\\r: no such array" in out
    assert "and 991 more" in out and len(out.splitlines()) < 20


def test_only_says_what_is_left_out(copy, capsys):
    (copy[1] / "v1/recall/relu/arrays.npz").unlink()
    assert main(["vectors", "check", *map(str, copy), "--only", "induction/*"]) == 0
    assert capsys.readouterr().out.endswith("2 of 2 cases passed; 1 left out\n")
    assert main(["vectors", "check", *map(str, copy), "--only", "induction/*ona*"]) == 2
    assert main(["vectors", "check", *map(str, copy), "--only", "induction/*", "--model", "recall"]) == 2
    assert "only: expected a pattern that a case matches" in capsys.readouterr().err


def test_unknown_cases_and_folders_are_refused(copy, capsys):
    (copy[1] / "v1/induction/casual").mkdir()
    assert main(["vectors", "check", *map(str, copy)]) == 1
    assert "no such case" in capsys.readouterr().out
    for case in ("../causal", "a/b", "a\\b", "..", "", 3):
        with pytest.raises(ValueError, match="path separators"):
            vectors.load(copy[0], "induction", case)
    for folders in ((copy[0] / "v1", copy[1]), (copy[0], copy[1] / "none")):
        assert main(["vectors", "check", *map(str, folders)]) == 2
        assert "expected" in capsys.readouterr().err
    (copy[0] / "v1").rename(copy[0] / "v7")
    assert main(["vectors", "check", *map(str, copy)]) == 2
    assert "got v7" in capsys.readouterr().err


def test_a_pickle_is_never_opened(copy, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    file = copy[1] / "v1/recall/relu/arrays.npz"
    np.savez(file, loss=np.array([Trap()], dtype=object))
    assert main(["vectors", "check", *map(str, copy)]) == 1
    assert not (tmp_path / "opened").exists()


# The command

def test_check_says_what_is_missing_and_writes_json(copy, capsys, tmp_path):
    file = copy[1] / "v1/recall/relu/arrays.npz"
    damage(file, lambda arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("sgd")])
    report = tmp_path / "report.json"
    assert main(["vectors", "check", *map(str, copy), "--json", str(report)]) == 0
    assert "28 not there: sgd1.param.*, sgd1.momentum.*, sgd3.param.*" in capsys.readouterr().out
    content = json.loads(report.read_text())
    assert content["passed"] and content["precision"] == "float64" and len(content["cases"]) == 3
    damage(file, lambda arrays: arrays.update(loss=-arrays["loss"]))
    put("trace.y", np.full(5, np.nan))(file)
    assert main(["vectors", "check", *map(str, copy), "--json", str(report), "--model", "recall"]) == 1
    case, = json.loads(report.read_text())["cases"]
    assert case["departing"] == ["trace.y", "loss"] and case["error"] is None and not case["passed"]
    assert case["name"] == "recall/relu" and case["where"] == [0]


def test_compare_passes_and_returns_what_was_missing(stored):
    vector = stored["recall/one-token"]
    report = vectors.compare(vector, {"loss": vector.arrays["loss"].astype(">f8")})
    assert report.passed and report.checked == 1 and "grad.E" in report.missing
