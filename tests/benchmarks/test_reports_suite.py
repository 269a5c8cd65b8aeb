"""The suite of reports at scale, small."""

from benchmarks.suites import reports


def test_both_sides_agree() -> None:
    (case,) = reports.cases(quick=True)
    assert case.equal() == "every row equal, in order"
    assert len(case.ours()) == reports.LOOKED_UP
