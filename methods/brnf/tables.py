"""The component grid of BRNF (brnf.md 6): its rows here, no printed number is known. No torch here."""

from __future__ import annotations

from harness.api.papers import Paper, PaperTable, TableColumn, TableRow


def _row(name: str, gmm: str, fscl: str, bsdnf: str) -> TableRow:
    return TableRow(
        name=name, ablation=None if name == "all" else name, cells={"GMM": gmm, "FSCL": fscl, "BSDNF": bsdnf}
    )


COMPONENTS = PaperTable(
    table="components",
    title="components",
    heads=("GMM", "FSCL", "BSDNF"),
    rows=(
        _row("base", "", "", ""),
        _row("only_gmm", "yes", "", ""),
        _row("only_fscl", "", "yes", ""),
        _row("only_bsdnf", "", "", "yes"),
        _row("no_gmm", "", "yes", "yes"),
        _row("no_fscl", "yes", "", "yes"),
        _row("no_bsdnf", "yes", "yes", ""),
        _row("all", "yes", "yes", "yes"),
    ),
    columns=(
        TableColumn(name="CAM", title="CAM", target="cam", rule="fixed", tags="truth"),
        TableColumn(name="masks", title="masks", target="pseudo", rule="fixed", tags="truth"),
    ),
    words={"until": "masks"},
    baseline="base",
    notes=("the paper's component table could not be recovered: the grid is ours, on the cheapest base",),
)
PAPER = Paper(
    name="brnf",
    method="cam+brnf",
    title="Bias-Resilient Weakly Supervised Semantic Segmentation using Normalizing Flows (ICCV 2025)",
    tables=(COMPONENTS,),
)
