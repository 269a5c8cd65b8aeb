"""The benchmark command, and that FSR's step equals a plain restatement of the released one over three steps."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import Case, run
from benchmarks.reference.par import par as plain_par
from benchmarks.suites import step
from benchmarks.timing import Timed, measure
from methods.parts.nets.token_linear import TokenLinear
from methods.parts.ops.par import par


@pytest.mark.parametrize("phase", ["uncertain", "before-seg"])
def test_every_term_agrees_over_three_steps(phase):
    case = next(c for c in step.cases(quick=True) if phase in c.name)
    assert "agree to" in case.equal()


def test_a_wrong_term_is_seen():
    with pytest.raises(AssertionError, match="apart"):
        step.agree({"cls": 1.0}, {"cls": 1.01})
    with pytest.raises(AssertionError, match="terms"):
        step.agree({"cls": 1.0}, {})


def test_the_plain_par_is_par():
    torch.manual_seed(0)
    image, scores = torch.rand(2, 3, 30, 26), torch.rand(2, 4, 15, 13)
    torch.testing.assert_close(par(image, scores, 3), plain_par(image, scores, 3), rtol=1e-4, atol=1e-6)


def test_suites_are_found_and_listed(capsys):
    assert {"step"} <= set(run.known_suites())
    assert run.run(["suite=step", "quick=true", "dry_run=true"]) == 0
    assert "fsr uncertain" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["suite=stpe"], ["suite=step", "case=nothing"], ["rounds=0"], ["sweet=1"]])
def test_bad_words_are_named(words):
    from harness.errors import BadInput

    with pytest.raises(BadInput) as error:
        run.run(words)
    assert error.value.problems[0].where.split("'")[0] in ("suite", "case", "rounds", "word ")


def slow(seconds):
    return lambda: sum(i * i for i in range(int(seconds * 1e5)))


def test_disagreement_and_missed_goals_fail(monkeypatch, tmp_path, capsys):
    def broken():
        raise AssertionError("not equal")

    same = "equal"
    found = [
        Case("good", slow(5), slow(1), lambda: same, goal=1.5),
        Case("broken", slow(1), slow(1), broken),
    ]
    monkeypatch.setattr(run, "collect", lambda *a: [("fake", c) for c in found])
    out = tmp_path / "out.json"
    assert run.run(["suite=step", "rounds=3", f"json={out}"]) == 1
    assert "the sides disagree: not equal" in capsys.readouterr().err
    rows = json.loads(out.read_text())["cases"]
    assert [r["name"] for r in rows] == ["good"]
    missed = Case("slow", slow(1), slow(5), lambda: same, goal=1.0)
    monkeypatch.setattr(run, "collect", lambda *a: [("fake", missed)])
    assert run.run(["rounds=3"]) == 1


def test_verdicts():
    def timed(ratio, low, goal):
        return Timed("a", "", "", 3, 1.0, 1.0, ratio, low, goal).verdict

    assert [timed(4, 4, 3.5), timed(3, 3, 3.5), timed(4, 2, 3.5), timed(4, 4, None)] == [
        "passed",
        "missed",
        "unsure",
        "",
    ]
    assert measure(Case("x", slow(1), slow(1), lambda: "ok"), 1).equality == "ok"


def test_the_reference_keeps_pytorchs_linear_layers():
    sides = step.Sides(64, "smoke")
    ours, reference = sides.method.net, sides.other.student
    assert any(isinstance(m, TokenLinear) for m in ours.modules())
    assert not any(isinstance(m, TokenLinear) for net in (reference, sides.other.teacher) for m in net.modules())
    assert [n for n, _ in reference.named_parameters()] == [n for n, _ in ours.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), reference.parameters(), strict=True))
