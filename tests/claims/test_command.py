"""`audit` and `explain`: what they print and write, what they refuse, and that it can be repeated."""

import json
import os
import re
import shlex

import numpy as np
import pytest
from hypothesis import given, strategies as st

from refimpl import claims, terminal
from refimpl.claims import command
from tests.claims.examples import MINE
from tests.test_claims import BUILTIN
from tests.test_main import run


def file_of(tmp_path, content):
    """A file of claims, and its path as a word for a command."""
    path = tmp_path / "mine.py"
    path.write_text(content, encoding="utf-8")
    return str(path)


def body(lines, id="X9", more="n=(1, 5)"):
    """A claim of that id whose check has these lines."""
    return (f"\n@claim({id!r}, 'broken', source='s', provenance='derived', control='c', {more})\n"
            f"def check_{abs(hash(id))}(case, n):\n    {lines}\n")


HEAD = "import os, sys\nimport numpy as np\nfrom refimpl.claims import claim\n"


def test_audit_prints_a_row_for_each_claim(capsys):
    status, out, err = run(capsys, "audit", "--claim", "M3", "--claim", "R1", "--cases", 5)
    assert status == 0 and err == ""        # no progress where stderr is no terminal
    header, first, second, last = out.splitlines()
    assert header.split() == ["id", "claim", "cases", "numbers", "worst", "allowed", "control", "verdict"]
    assert first.split()[0] == "M3" and second.split()[0] == "R1"
    cases, numbers, worst, allowed, control, verdict = first.split()[-6:]
    assert (cases, allowed, control, verdict) == ("5", "1e-12", "5/5", "passed")
    assert int(numbers) == claims.audit(BUILTIN["M3"], "", 5).numbers > 5 and 0 < float(worst) < 1e-12
    assert last.startswith("2 of 2 claims passed, 2 of 2 controls failed as they must")


TRENDS = (HEAD + body("return n, 9 * (not case.control)", "Q", "kind='inequality', n=(1, 8)")
          + body("return 2.0, 2.25 + 9 * case.control, 0.5", "L", "kind='limit', n=(1, 8)"))


def test_an_inequality_prints_its_margin_and_a_limit_its_power(capsys, tmp_path):
    path = file_of(tmp_path, TRENDS)
    status, out, _ = run(capsys, "audit", "--from", path)
    assert status == 0 and "+1.1e-01" in out        # 1/9
    assert "     rejects a prediction that is off by -0.25 or +0.75\n" in out


def test_audit_writes_the_documented_json(capsys, tmp_path):
    path = tmp_path / "out.json"
    assert run(capsys, "audit", "--claim", "R2", "--cases", 4, "--json", path)[0] == 0
    (entry,) = json.loads(path.read_text())["claims"]
    expected = {"id": str, "statement": str, "source": str, "provenance": str, "kind": str, "exact": bool,
                "instances": int, "numbers": int, "worst": float, "tolerance": float, "accepted": list,
                "control": str, "controls": int, "controls_failed": int, "control_failed": bool,
                "passed": bool, "seconds": float, "message": str}
    assert {key: type(entry[key]) for key in expected} == expected
    assert entry["id"] == "R2" and entry["instances"] == 4 and entry["passed"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    status, out, _ = run(capsys, "audit", "--help")
    assert status == 0 and not [key for key in entry if not re.search(rf"\b{key}\b", out)]


def test_audit_lists_the_claims(capsys):
    status, out, _ = run(capsys, "audit", "--list")
    assert status == 0 and "I3 " in out and "formalised" in out


def test_the_list_says_how_each_claim_is_known(capsys, tmp_path):
    """What a file claims under an id of ours is neither enumerated nor enclosed."""
    _, out, _ = run(capsys, "audit", "--list", "--claim", "M5,I3,I4,R8,R14")
    assert [line[17:48].strip() for line in out.splitlines()] == [
        "fitted", "enclosed, sampled", "enumerated, enclosed, sampled", "sampled", "enumerated, sampled"]
    _, out, _ = run(capsys, "audit", "--list", "--from", file_of(tmp_path, HEAD + body("return 1, 1", "I4")))
    assert out.split()[2] == "sampled"


def test_audit_runs_on_a_given_text(capsys, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("in the beginning was the word", encoding="utf-8")
    assert run(capsys, "audit", "--claim", "I3", "--cases", 6, "--text", path)[0] == 0


@pytest.mark.parametrize("words, ids", [
    (["--claim", "M3,R1"], ["M3", "R1"]), (["--claim", "R1,M3", "--claim", "M3"], ["M3", "R1"])])
def test_claims_may_be_given_as_a_list(capsys, words, ids):
    _, out, _ = run(capsys, "audit", *words, "--list")
    assert [line.split()[0] for line in out.splitlines()] == ids


def test_seed_is_used(capsys, tmp_path):
    def worst(seed):
        out = tmp_path / "out.json"
        run(capsys, "audit", "--claim", "M3", "--cases", 4, "--seed", seed, "--json", out)
        return json.loads(out.read_text())["claims"][0]["worst"]
    assert worst(1) == worst(1) != worst(2)


def test_full_takes_more_and_is_passed_on(capsys, tmp_path):
    path = file_of(tmp_path, HEAD + body("return 1.0, 1.0 + (case.full or case.control)"))
    assert run(capsys, "audit", "--from", path)[0] == 0
    status, out, _ = run(capsys, "audit", "--from", path, "--full")
    assert status == 1 and " 250 " in out and "--full --instance" in out


@pytest.mark.parametrize("columns", [80, 100, None])
def test_the_table_fits_its_terminal(capsys, monkeypatch, tmp_path, columns):
    monkeypatch.setattr(terminal, "width", lambda: columns)
    path = file_of(tmp_path, HEAD + body("return 2.0, 2.0 + case.control, 1.0 * (n < 9) / 8", "A" * 9,
                                         "kind='limit', cases=1000, n=(1, 5)"))
    for words in (["--from", path], ["--claim", "M3,I1,R1,R8", "--cases", 2]):
        status, out, _ = run(capsys, "audit", *words)
        assert status == 0 and max(map(len, out.splitlines())) <= (columns or 200)
    assert ("growth rates where all pair…" in out) == (columns == 80)


def test_rows_of_all_claims_fit_eighty_columns(monkeypatch):
    monkeypatch.setattr(terminal, "width", lambda: 80)
    columns = command.widths(claims.builtin())
    for claim in claims.builtin():
        for number in (0, 99, 10 ** 5, 10 ** 9):
            row = command.row(columns, claim.id, claim.statement, command.count(number, 5),
                              command.count(number, 7), "+1.1e-100", "1e-12", "10/10", "FAILED")
            assert len(row) <= 80


def test_failing_claim_prints_an_instance_and_the_command_that_shows_it_again(capsys, tmp_path):
    path = file_of(tmp_path, MINE)
    status, out, _ = run(capsys, "audit", "--from", path)
    assert status == 1 and "smallest failing instance: n=12, seed=0" in out
    (line,) = re.findall("python -m refimpl (.*)", out)
    assert line == f"audit --claim X2 --from {path} --instance 'n=12, seed=0'"
    status, out, _ = run(capsys, *shlex.split(line))
    assert status == 1 and re.search(r"\n +169 +170 +1\.0e\+00\n", out) and "does not hold" in out
    status, out, _ = run(capsys, "audit", "--claim", "X2", "--from", path, "--instance", "n=11, seed=0")
    assert status == 0 and "predicted" in out and "observed" in out


NASTY = st.text(st.sampled_from("a '\",=\\\n\t\x1b#${}é…🙂-"), max_size=6)


@given(st.lists(NASTY, min_size=1, max_size=3, unique=True), st.data())
def test_instances_survive_their_way_through_a_shell(words, data):
    claim = BUILTIN["M3"]._replace(space={"kind": tuple(words), "x": (-9.0, 9.0), "n": (-9, 9)})
    instance = {"kind": data.draw(st.sampled_from(words)), "x": data.draw(st.floats(-9, 9)),
                "n": data.draw(st.integers(-9, 9)), "seed": data.draw(st.integers(0, 2 ** 63 - 1))}
    printed = ", ".join(f"{name}={command.quoted(value)}" for name, value in instance.items())
    flag, value = shlex.split(command.option("--instance", printed))
    assert printed.isascii() and printed.isprintable()
    assert flag == "--instance" and command.parse_instance(claim, value) == instance


@pytest.mark.parametrize("id", ["a,b", "a b", "it's", '"', "-x", "--list", "$HOME", "é", "a=b", "X9,", ""])
def test_ids_survive_their_way_through_a_shell(capsys, tmp_path, id):
    folder = tmp_path / "it's a folder, really"
    folder.mkdir()
    path = file_of(folder, HEAD + body("return 1, 2", id) + body("return 1, 1 + case.control", "X8"))
    status, out, _ = run(capsys, "audit", "--from", path)
    (line,) = re.findall("python -m refimpl (.*)", out)
    assert status == 1
    status, out, _ = run(capsys, *shlex.split(line))
    assert status == 1 and out.splitlines()[1].startswith(f"{id:4} broken") and "0 of 1 claims" in out


BROKEN = {
    "raises": ("raise RuntimeError('first line\\nsecond')", "RuntimeError: first line\n"),
    "leaves": ("sys.exit(0)", "SystemExit: 0\n"),
    "stops": ("raise BaseException('stop')", "BaseException: stop\n"),
    "nan": ("return float('nan'), 1.0", "ValueError: expected finite numbers, got others\n"),
    "shapes": ("return np.ones(3), np.ones(4)",
               "ValueError: expected equal shapes, got (3,) predicted and (4,) observed\n"),
    "nothing": ("return None",
                "TypeError: the check returned NoneType, not (predicted, observed[, scale])\n")}


def test_broken_claims_fail_in_one_line_each_and_the_others_still_run(capsys, tmp_path):
    out = tmp_path / "out.json"
    path = file_of(tmp_path, HEAD + MINE + "".join(body(lines, id) for id, (lines, _) in BROKEN.items()))
    status, printed, _ = run(capsys, "audit", "--from", path, "--json", out)
    assert status == 1 and "second" not in printed
    for _, message in BROKEN.values():
        assert f"     {message}" in printed
    entries = {entry["id"]: entry["passed"] for entry in json.loads(out.read_text())["claims"]}
    assert entries == {"X1": True, "X2": False, **dict.fromkeys(BROKEN, False)}


@pytest.mark.parametrize("lines, message", [
    ("return n, n", "the control did not fail as it must (c): n=1, seed="),
    ("return (float('nan'),) * 2 if case.control else (n, n)", "     ValueError: expected finite"),
    ("return n, n if not case.control else 1 / 0", "     ZeroDivisionError")])
def test_a_control_that_shows_nothing_is_told_with_its_instance(capsys, tmp_path, lines, message):
    status, out, _ = run(capsys, "audit", "--from", file_of(tmp_path, HEAD + body(lines)))
    assert status == 1 and message in out and "0 of 1 controls failed" in out
    (line,) = re.findall("python -m refimpl (.*)", out)
    assert run(capsys, *shlex.split(line))[0] == 1


@pytest.mark.parametrize("content, message", [
    ("def (", "SyntaxError"), ("x = 1", "expected claims"), ("1 / 0", "ZeroDivisionError"),
    ("raise SystemExit(0)", "SystemExit"), ("raise BaseException", "BaseException"),
    ("raise ValueError('one\\ntwo')", "ValueError: one")])
def test_a_claims_file_that_cannot_be_loaded_is_a_usage_error_in_one_line(capsys, tmp_path, content,
                                                                          message):
    status, _, err = run(capsys, "audit", "--from", file_of(tmp_path, content))
    assert status == 2 and message in err and len(err.splitlines()) == 1


M3 = ["audit", "--claim", "M3", "--instance"]
I1 = ["audit", "--claim", "I1", "--instance"]


@pytest.mark.parametrize("argv, message", [
    (["audit", "--claim", "I99"], "unknown claim I99; the claims are M1, M2, "),
    (["audit", "--claim", "M3,I99"], "unknown claim I99;"),
    (["audit", "--claim", "M3,,R1"], "unknown claim ;"), (["audit", "--claim", ""], "unknown claim ;"),
    (["audit", "--cases", "0"], "expected an integer >= 1"),
    (["audit", "--cases", "-3"], "expected an integer >= 1"),
    (["audit", "--cases", "many"], "invalid"), (["audit", "--cases", "nan"], "invalid"),
    (["audit", "--jobs", "0"], "expected an integer >= 1"),
    (["audit", "--seed", "-1"], "expected an integer >= 0"),
    (["audit", "--seed", str(2 ** 63)], "below 2^63"),
    (["audit", "--text", "no-such-file"], "no-such-file"),
    (["audit", "--from", "no-such-file.py"], "no-such-file.py"),
    (["audit", "--instance", "n=1"], "exactly one --claim"),
    (["audit", "--claim", "M3,R1", "--instance", "n=1"], "exactly one --claim"),
    ([*M3, "N=1, spare=1, seed=0", "--cases", "3"], "no --cases"),
    ([*M3, ""], "expected N in (1, 40), got 'none'"),
    ([*M3, "N=1"], "expected spare in (0, 40), got 'none'"), ([*M3, "N=1, spare=2"], "expected seed in"),
    ([*M3, "N=one"], "got 'N=one'"), ([*M3, "M=1"], "got 'M=1'"), ([*M3, "N"], "got 'N'"),
    ([*M3, "N=1, N=1, spare=2, seed=0"], "each once, got 'N=1, spare=2, seed=0'"),
    ([*M3, "N=0, spare=2, seed=0"], "expected N in (1, 40), got 0"),
    ([*M3, "N=41, spare=2, seed=0"], "expected N in (1, 40), got 41"),
    ([*M3, "N=1.0, spare=2, seed=0"], "got 'N=1.0"), ([*M3, "N=nan, spare=2, seed=0"], "got 'N=nan"),
    ([*M3, "N=1, spare=2, seed=-1"], "expected seed in (0, "),
    ([*M3, "N=1; spare=2"], "got 'N=1; spare=2'"), ([*M3, "N='1"], "got \"N='1\""),
    ([*I1, "law=text, prompt=sampled, V=2, T=5, b1=nan, seed=0"], "expected b1 in (0.0, 20.0), got nan"),
    ([*I1, "law=text, prompt=sampled, V=2, T=5, b1=inf, seed=0"], "expected b1 in (0.0, 20.0), got inf"),
    ([*I1, "law=text, prompt=sample, V=2, T=5, b1=1, seed=0"], "prompt in ('sampled', 'trigger first'"),
    (["explain", "I1", "--instance", "law=text"], "expected b1 in"),
    (["audit", "--claim", "M3", "--cases", "2", "--json", "no/such/folder/out.json"], "no/such/folder"),
    (["audit", "--json", "."], "expected a file"),
    (["explain", "I99"], "unknown claim I99"), (["explain", "M3,R1"], "expected one claim")])
def test_bad_usage_is_one_message_and_exit_status_2(capsys, argv, message):
    status, out, err = run(capsys, *argv)
    assert status == 2 and message in err and "Traceback" not in err and out == ""


@pytest.mark.parametrize("content", [b"\xff\xfe", b"aaaa", b""])
def test_text_that_cannot_be_used_is_refused(capsys, tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    status, _, err = run(capsys, "audit", "--claim", "I1", "--text", path)
    assert status == 2 and "--text" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("words", [["audit"], ["explain", "X9"]])
def test_a_full_disk_is_the_machines_fault_not_the_claims(capsys, tmp_path, words):
    """As when Numba cannot write what it compiled."""
    path = file_of(tmp_path, HEAD + body("raise OSError(28, 'No space left on device', 'cache.nbc')"))
    status, out, err = run(capsys, *words, "--from", path)
    assert status == 2 and "No space left on device" in err and "FAILED" not in out
    assert len(err.splitlines()) == 1


def test_jobs_give_the_same_result(capsys, tmp_path):
    path, found = file_of(tmp_path, MINE), []
    for jobs in (1, 2):
        status, out, err = run(capsys, "audit", "--from", path, "--jobs", jobs, "--json",
                               tmp_path / "out.json")
        assert status == 1 and err == ""
        entries = json.loads((tmp_path / "out.json").read_text())["claims"]
        found.append(([{**entry, "seconds": None} for entry in entries], re.sub(r"[\d.]+ s\n", "", out)))
    assert found[0] == found[1]


def test_a_process_that_dies_is_no_pass(capsys, tmp_path):
    path = file_of(tmp_path, HEAD + body("os._exit(0)"))
    status, out, err = run(capsys, "audit", "--from", path, "--jobs", 2)
    assert status == 2 and "passed" not in out and "ended before its work was done" in err


@pytest.mark.parametrize("id", BUILTIN)
def test_explain_shows_the_derivation_the_numbers_and_the_control(capsys, id):
    """And its exit status is that of the audit with all instances."""
    status, out, _ = run(capsys, "explain", id)
    assert status == 0, out
    for words in ("Provenance:", "Passed the audit:", "As claimed", "Control:", "holds", "does not hold",
                  "margin" if BUILTIN[id].kind == "inequality" else "predicted"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80
    assert all(part in out for part in BUILTIN[id].parts)


@pytest.mark.parametrize("id", [id for id in BUILTIN if BUILTIN[id].parts])
def test_parts_have_names_as_many_as_they_are(id):
    claim = BUILTIN[id]
    outcome = claims.evaluate(claim, command.small_instance(claim.control_space), "a text of letters")
    assert len(claim.parts) == len(command.parts(outcome.predicted))


EXPLAINED = HEAD + """
from typing import NamedTuple

class Heads(NamedTuple):
    first: np.ndarray
    second: np.ndarray

@claim("X1", "two heads", source="s", provenance="derived", control="c", parts=("attention", "total"),
       n=(1, 50), sort=("plain", "other one"))
def heads(case, n, sort):
    '''Both are one.

    Parameters
    '''
    case.show("prompt", "q u x q")
    ones = Heads(np.ones(2), np.eye(3))
    return (ones, 3.0), (Heads(np.ones(2), np.eye(3) + (n > 12) * 1e-3), 3.0 + case.control)
"""


def test_explain_names_parts_and_fields_and_shows_what_the_claim_tells(capsys, tmp_path):
    path = file_of(tmp_path, EXPLAINED)
    status, out, _ = run(capsys, "explain", "X1", "--from", path, "--instance", "n=3, sort=other one, seed=0")
    assert status == 0
    for words in ("    prompt = q u x q\n", "    sort = other one\n", "attention first ", "attention second ",
                  "total ", "Both are one.", "1 of 1 controls failed"):
        assert words in out
    assert "Parameters" not in out and re.search(r"\[1, 1\] +1 +1 +0.0e\+00", out)


def test_explain_of_a_failing_claim_shows_its_failing_instance(capsys, tmp_path):
    status, out, _ = run(capsys, "explain", "X1", "--from", file_of(tmp_path, EXPLAINED))
    assert status == 1 and "FAILED the audit" in out and "    n = 13\n" in out
    assert "does not hold" in out.partition("Control")[0]
    status, out, _ = run(capsys, "explain", "X2", "--from", file_of(tmp_path, MINE))
    assert status == 1 and "    n = 12\n" in out and re.search(r" 169 +170 +1\.0e\+00\n", out)


def test_explain_shows_the_instance_at_which_a_control_does_not_fail(capsys, tmp_path):
    path = file_of(tmp_path, HEAD + body("return n, n + (case.control and n < 50)", more="n=(1, 50)"))
    status, out, _ = run(capsys, "explain", "X9", "--from", path)
    assert status == 1 and "    n = 50\n" in out.partition("Control")[2]


def test_explain_shows_both_sides_of_an_inequality_and_what_a_limit_rejects(capsys, tmp_path):
    path = file_of(tmp_path, TRENDS)
    out = run(capsys, "explain", "Q", "--from", path)[1]
    assert "smaller" in out and "larger" in out and "margin +5.6e-01, allowed" in out and "margin -1" in out
    out = run(capsys, "explain", "L", "--from", path)[1]
    assert "a prediction below 1.75 or above 2.75 would be rejected" in out


def test_explain_says_so_where_there_is_no_derivation(capsys, tmp_path):
    """As with `python -OO`, which drops docstrings."""
    status, out, _ = run(capsys, "explain", "X1", "--from", file_of(tmp_path, MINE))
    assert status == 0 and "No derivation is given." in out


def test_json_through_a_link_writes_what_it_leads_to(capsys, tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    for before in ("old", None):
        link.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        if before:
            target.write_text(before)
            target.chmod(0o600)
        link.symlink_to(target)
        assert run(capsys, "audit", "--claim", "M3", "--cases", 1, "--json", link)[0] == 0
        assert link.is_symlink() and len(json.loads(target.read_text())["claims"]) == 1
        assert not before or target.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "target.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_json_to_a_device_or_a_pipe_leaves_it_one(capsys, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert run(capsys, "audit", "--claim", "M3", "--cases", 1, "--json", fifo)[0] == 0
    assert fifo.is_fifo() and len(json.loads(os.read(reader, 2 ** 16))["claims"]) == 1
    os.close(reader)
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    for device in (os.devnull, link):
        assert run(capsys, "audit", "--claim", "M3", "--cases", 1, "--json", device)[0] == 0
    assert link.is_symlink() and not os.path.isfile(os.devnull)


def test_side_by_side_shows_where_two_arrays_differ_most():
    a = np.arange(100.0).reshape(10, 10)
    b = a.copy()
    b[3, 4] += 1e-3
    lines = list(command.side_by_side("exact", "logits", a, b))
    assert lines[0].split() == ["logits", "predicted", "observed", "gap"] and "(100 numbers)" in lines[-1]
    assert any(line.split()[:2] == ["[3,", "4]"] and line.endswith("1.0e-03") for line in lines)
    assert any(line.split()[:2] == ["[9,", "9]"] for line in lines) and len(lines) == 8
