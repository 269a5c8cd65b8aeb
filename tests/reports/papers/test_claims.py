"""Printed numbers: counts, spot values and typed fields."""

import re
from collections import Counter

import pytest

from harness.errors import BadInput
from reports.papers.claims import Claim, load_claims, papers


def one(paper: str, table: str, row: str, column: str) -> Claim:
    found = [c for c in load_claims(paper) if (c.table, c.row, c.column) == (table, row, column)]
    assert len(found) == 1
    return found[0]


def test_rows_of_fsr_tables() -> None:
    claims = load_claims("fsr")
    rows = {t: list(dict.fromkeys(c.row for c in claims if c.table == t)) for t in "12345"}
    assert {t: len(r) for t, r in rows.items()} == {"1": 23, "2": 14, "3": 12, "4": 6, "5": 4}
    assert Counter(c.table for c in claims) == {"1": 46, "2": 14, "3": 24, "4": 12, "5": 8}
    assert (rows["1"][0], rows["1"][-1], rows["2"][0], rows["2"][-2:]) == ("RIB", "FSR", "EPS", ["ToCo", "FSR"])
    assert rows["4"] == ["none", "unc", "cer_gap", "cer_gmp", "cer", "both"]


@pytest.mark.parametrize(
    ("paper", "table", "row", "column", "value"),
    [
        ("fsr", "1", "FSR", "val", 75.7),
        ("fsr", "1", "FSR", "test", 75.0),
        ("fsr", "1", "MCTformer+", "test", 73.6),
        ("fsr", "2", "FSR", "val", 45.4),
        ("fsr", "2", "ToCo", "val", 42.3),
        ("fsr", "3", "unc_uncertain_40", "Pseu.", 74.4),
        ("fsr", "3", "unc_edge_strict", "Pred.", 71.6),
        ("fsr", "3", "unc_random_30", "Pred.", 71.3),
        ("fsr", "4", "none", "Pseu.", 71.1),
        ("fsr", "4", "cer_gmp", "Pred.", 70.0),
        ("fsr", "5", "autoaugment", "Pseu.", 74.8),
        ("toco", "results", "ToCo", "VOC val", 71.1),
        ("toco", "results", "ToCo", "COCO val", 42.2),
        ("toco", "log", "ToCo (DeiT-B)", "COCO val_part, aux CAM", 30.9),
        ("unia", "results", "UniA", "VOC test", 73.6),
        ("fsae", "results", "SIPE + FSAE", "VOC mask", 70.5),
        ("fsae", "results", "PPC + FSAE", "COCO val", 35.4),
        ("fsae", "results", "PPC", "VOC val", 74.4),
        ("fsae", "corrected_baselines", "PPC", "VOC val", 72.6),
        ("fsae", "corrected_baselines", "SIPE", "VOC test", 69.7),
        ("brnf", "results", "SFC + BRNF", "VOC val", 74.8),
        ("brnf", "results", "CLIP-ES + BRNF", "COCO val", 47.9),
        ("brnf", "results", "OCR+SEAM", "COCO val", 33.2),
        ("unia", "log", "UniA", "VOC val, seg", 71.94),
        ("unia", "log_voc_by_iteration", "UniA (8k)", "MCR map", 72.01),
        ("unia", "log_coco_by_iteration", "UniA (74k)", "seg", 43.15),
        ("unia", "log_voc_per_class", "UniA (chair)", "IoU", 39.0),
        ("toco", "log_voc_by_iteration", "ToCo (DeiT-B, 4k)", "aux CAM", 57.8),
        ("toco", "log_coco_losses", "ToCo (12200)", "ctc", 2.74),
    ],
)
def test_spot_values(paper: str, table: str, row: str, column: str, value: float) -> None:
    assert one(paper, table, row, column).value == value


def test_rows_of_brnf_and_fsae() -> None:
    brnf, fsae = load_claims("brnf"), load_claims("fsae")
    assert len({c.row for c in brnf}) == 15
    assert Counter(c.column for c in brnf) == {"VOC val": 15, "VOC test": 15, "COCO val": 13}
    assert {c.method for c in fsae if "+" in c.method} == {"ppc+fsae", "sipe+fsae", "mctformer+fsae"}
    assert Counter((c.table, c.target) for c in fsae) == {
        ("results", "pseudo"): 6,
        ("results", "segmentation"): 16,
        ("corrected_baselines", "segmentation"): 4,
    }
    assert "72.6" in one("fsae", "results", "PPC", "VOC val").remark


def test_typed_fields() -> None:
    fsr = one("fsr", "1", "FSR", "val")
    assert (fsr.dataset, fsr.split, fsr.target, fsr.crf, fsr.scales) == ("voc", "val", "segmentation", "toco",
                                                                         (1.0, 1.25, 1.5))  # fmt: skip
    assert (fsr.backbone, fsr.supervision, fsr.group, fsr.reference) == ("ViT-B", "tags", "single-stage", "this paper")
    assert "text and citations" in fsr.source
    eps = one("fsr", "1", "EPS", "val")
    assert (eps.supervision, eps.crf, eps.scales, eps.group) == (
        "tags+saliency",
        None,
        None,
        "multi-stage, first block",
    )
    assert one("fsr", "5", "blur", "Pseu.").spread == 0.05
    assert "read as cer alone" in one("fsr", "4", "cer", "Pseu.").remark
    assert {c.method for c in load_claims("toco")} == {"toco"}
    assert one("fsr", "4", "none", "Pseu.").crf == "none"


@pytest.mark.parametrize("paper", papers())
def test_claims_are_numbers_with_a_unit_and_name_their_source(paper: str) -> None:
    for claim in load_claims(paper):
        assert 0 < claim.value < 100
        assert claim.source
        assert claim.unit == {"image_f1": "F1", "loss": "nats"}.get(re.split("[:@]", claim.target)[0], "%")
        assert claim.paper == paper


def test_unknown_paper() -> None:
    with pytest.raises(BadInput, match="did you mean fsr"):
        load_claims("fsrr")
