"""What would reproduce a paper: its plan files read and costed, what is missing here, and the ledger of the field."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.api.registry import registry
from harness.cli.parsing import main, parse_rows
from harness.cli.run_words import Words
from reports.main_results import run
from reports.papers.claims import load_claims
from reports.papers.reproducing import Cost, costs_of, hours, plans_of

PAPERS = ("fsr", "toco", "unia")
SIZES = {
    "fsr_voc": ["fsr", "fsr", "fsr", "fsr", "full"],
    "fsr_coco": ["fsr", "full"],
    "toco_voc": ["toco", "full"],
    "toco_coco": ["toco", "full"],
    "unia_voc": ["unia", "full"],
    "unia_coco": ["unia", "full"],
}


def costs(name: str) -> Sequence[Cost]:
    sets = parse_rows([f"plan={name}"], Words, "sweep", registry().names(), collect=True)
    assert not [p for parsed in sets for p in parsed.problems]
    return [cost for parsed in sets for cost in costs_of(parsed)]


@pytest.mark.parametrize("name", SIZES)
def test_plans_of_papers_run_the_card_s_sizes_with_three_seeds(name: str) -> None:
    found = costs(name)
    assert [c.method for c in found] == SIZES[name]
    method, _, data = name.partition("_")
    preset = registry().choose(method).preset(data, "paper", "default")
    assert (found[0].runs, found[0].iterations, found[0].batch, found[0].crop, found[0].backbone) == (
        3, preset.iterations, preset.batch, preset.crop, preset.backbone,
    )  # fmt: skip


def test_cost_of_a_vit_b_at_448_pixels_by_hand() -> None:
    """785 tokens: 12 blocks of 24 n d^2 + 4 n^2 d, and the patches' projection of 2 * 784 * 768 * 768; d = 768."""
    n, d = 785, 768
    forward = 12 * (24 * n * d**2 + 4 * n**2 * d) + 2 * 784 * (3 * 16 * 16) * d
    one = costs("toco_voc")[0]
    assert one.crop == 448
    assert one.flops == pytest.approx(3 * forward * one.runs * one.iterations * one.batch, rel=1e-3)
    assert hours(3.6e18, 1000.0) == 1.0


@pytest.mark.parametrize("paper", PAPERS)
def test_each_paper_has_its_plans(paper: str) -> None:
    assert {f"{paper}_voc", f"{paper}_coco"} <= set(plans_of(paper))


def test_how_says_what_is_missing_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, ["paper=toco", "how=true", "tflops=100", "root=/no/such/folder"]) == 0
    out = capsys.readouterr().out
    assert "python -m harness.sweep plan=toco_voc store=results data.root=/no/such/folder" in out
    assert "3 runs of 20,000 steps of" in out
    assert "at 100 TFLOP/s" in out
    assert out.count("missing here:") == 2
    assert "/no/such/folder" in out.partition("missing here:")[2]


def test_without_a_paper_it_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, []) == 0
    out = capsys.readouterr().out
    assert "  fsr: 104 numbers in 1, 2, 3, 4, 5; plans fsr_coco, fsr_voc" in out
    assert "field_2026" in out
    assert main(run, ["paper=nope"]) == 2
    assert main(run, ["paper=fsr", "tflops=0"]) == 2


def test_the_field_is_a_ledger_in_sections_by_pretraining_and_extra_data() -> None:
    claims = load_claims("field_2026")
    sections = {c.row: c.table for c in claims}
    assert sections["SeCo"] == "ImageNet, no extra data"
    assert sections["S2C"] == "ImageNet, extra SAM"
    assert sections["ToCo"] == "ImageNet-21k, no extra data"
    assert sections["DuPL"] == "ImageNet-1k, no extra data"
    assert sections["WeCLIP"] == "CLIP, extra text"
    for claim in claims:
        extra = claim.table.partition(", ")[2]
        assert claim.supervision == ("tags" if extra == "no extra data" else f"tags+{extra.removeprefix('extra ')}")
    seco = {c.column: c.value for c in claims if c.row == "SeCo"}
    assert seco == {"VOC val": 74.0, "VOC test": 73.8, "COCO val": 46.7}


def test_the_field_s_tables_have_no_rank(tmp_path_factory: pytest.TempPathFactory, toy_root: object,
                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert main(run, ["paper=field_2026", f"store={toy_root}", "format=csv"]) == 0
    out = capsys.readouterr().out
    assert "rank" not in out.splitlines()[0]
    assert out.index("ImageNet-1k, no extra data") < out.index("ImageNet-21k, no extra data")
