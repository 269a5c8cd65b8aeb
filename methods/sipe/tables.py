"""The ablation table of the SIPE paper (sipe.md section 5): which words run each row. No torch here."""

from __future__ import annotations

from harness.api.papers import Paper, PaperTable, TableColumn, TableRow

TABLE_4 = PaperTable(
    table="4",
    title="components",
    heads=("IPE", "GSC"),
    rows=(
        TableRow(name="base", ablation="base", cells={"IPE": "", "GSC": ""}),
        TableRow(name="no_gsc", ablation="no_gsc", cells={"IPE": "yes", "GSC": ""}),
        TableRow(name="SIPE", cells={"IPE": "yes", "GSC": "yes"}),
    ),
    columns=(TableColumn(name="maps", title="maps", target="cam", rule="fixed", tags="truth"),),
    words={"until": "write-cams"},
    baseline="base",
    notes=(
        "rows are run until their maps are written; plain CAMs have a threshold, the others a background of their own",
        "the paper scores the 1,464 images of train",
    ),
)
PAPER = Paper(
    name="sipe", method="sipe", title="Self-supervised Image-specific Prototype Exploration (CVPR 2022)",
    tables=(TABLE_4,),
)  # fmt: skip
