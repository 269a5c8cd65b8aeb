"""The ablation table of the AGMM paper that is known by number (agmm.md 5): its rows here. No torch here."""

from __future__ import annotations

from harness.api.papers import Paper, PaperTable, TableColumn, TableRow

TABLE_3 = PaperTable(
    table="3",
    title="variance of the Gaussians",
    heads=("variance",),
    rows=(
        TableRow(name="constant", ablation="var_constant", cells={"variance": "constant, 1/2 (released code)"}),
        TableRow(name="weighted", ablation="var_weighted", cells={"variance": "by the prediction (equation 7)"}),
        TableRow(name="unweighted", ablation="var_unweighted", cells={"variance": "of all pixels"}),
        TableRow(name="learned", ablation="var_learned", cells={"variance": "learned for each class (ours)"}),
        TableRow(name="base", ablation="base", cells={"variance": "no Gaussian (partial cross-entropy)"}),
    ),
    columns=(TableColumn(name="mIoU", title="mIoU", target="segmentation"),),
    baseline="base",
    notes=(
        "what the paper's table 3 prints could not be recovered; its rows here are the forms of the variance in the "
        "published code and in equation 7, and ours",
    ),
)
PAPER = Paper(
    name="agmm",
    method="agmm",
    title="Sparsely Annotated Semantic Segmentation with Adaptive Gaussian Mixtures (CVPR 2023)",
    tables=(TABLE_3,),
)
