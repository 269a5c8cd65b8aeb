"""The ablation tables of the FSR paper (fsr.md section 5): which words run each row. No torch here."""

from __future__ import annotations

from harness.api.papers import Paper, PaperTable, TableColumn, TableRow

COLUMNS = (
    TableColumn(name="Pseu.", title="Pseu.", target="cam", rule="fixed", tags="truth"),
    TableColumn(name="Pred.", title="Pred.", target="segmentation", scales=(1.0,), flip=False),
)
"""fsr.md section 4, ablations: labels derived from CAMs at the fixed threshold, and the decoder; no CRF."""
WORDS = {"scales": "1", "flip": "off"}
RATIOS = (10, 20, 30, 40, 50)
SCALE_NOTE = "the paper does not say at which scales Pred. was scored; ours is at one scale without flip"


def _selection(selection: str, region: str, name: str) -> TableRow:
    return TableRow(name=name, ablation=name, cells={"selection": selection, "region": region})


def _ratio(selection: str, percent: int) -> TableRow:
    return _selection(selection, f"CAM {percent / 100:g}", f"unc_{selection}_{percent}")


def _component(name: str, masking: str, unc: str, cer: str) -> TableRow:
    ablation = None if name == "both" else name
    return TableRow(name=name, ablation=ablation, cells={"masking": masking, "unc.FSR": unc, "cer.FSR": cer})


TABLE_3 = PaperTable(
    table="3",
    title="selection and ratio of masked patches, unc.FSR only",
    heads=("selection", "region"),
    rows=(
        *(_ratio("random", r) for r in RATIOS),
        _selection("uncertain", "edge (strict)", "unc_edge_strict"),
        _selection("uncertain", "CAM (strict)", "unc_cam_strict"),
        *(_ratio("uncertain", r) for r in RATIOS),
    ),
    columns=COLUMNS,
    words=WORDS,
    notes=("a row here is a cell of the paper's table, which has regions across", SCALE_NOTE),
)
TABLE_4 = PaperTable(
    table="4",
    title="components",
    heads=("masking", "unc.FSR", "cer.FSR"),
    rows=(
        _component("none", "", "", ""),
        _component("unc", "CAM", "yes", ""),
        _component("cer_gap", "CAM", "", "GAP"),
        _component("cer_gmp", "CAM", "", "GMP"),
        _component("cer", "CAM", "", "MCA"),
        _component("both", "CAM", "yes", "MCA"),
    ),
    columns=COLUMNS,
    words=WORDS,
    baseline="none",
    notes=(SCALE_NOTE,),
)
TABLE_5 = PaperTable(
    table="5",
    title="augmentation",
    heads=("augmentation",),
    rows=(
        TableRow(name="base", cells={"augmentation": "ours"}),
        TableRow(name="blur", ablation="blur", cells={"augmentation": "+GaussianBlur"}),
        TableRow(name="solarize", ablation="solarize", cells={"augmentation": "+Solarization"}),
        TableRow(name="autoaugment", ablation="autoaugment", cells={"augmentation": "AutoAugment"}),
    ),
    columns=COLUMNS,
    words=WORDS,
    baseline="base",
    notes=(SCALE_NOTE,),
)
PAPER = Paper(
    name="fsr",
    method="fsr",
    title="Progressive Feature Self-Reinforcement (AAAI 2024)",
    tables=(TABLE_3, TABLE_4, TABLE_5),
)
