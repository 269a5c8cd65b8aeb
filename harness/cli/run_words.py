"""The words of runs: every word of `harness.sweep` and `harness.train`, with its default."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.vocabulary import DECODERS, KEEP, PROTOCOLS, SPLITS, TIERS, VARIANTS
from harness.cli.parsing import word

TRAINING = ("sweep", "train")
"""Commands that train."""


@dataclass
class WhichData:
    """Which images, and where."""

    name: str = word("shapes", "shapes, folder, or another dataset of harness/datasets")
    root: str | None = word(None, "where the dataset lies")
    masks: str | None = word(None, "which mask folder")
    classes: str | None = word(
        None, "file with one class name per line; default classes_<masks>.txt, classes.txt, numbers of the masks"
    )
    keep: str | None = word(
        None, "class names, a list: these are scored and trained on, pixels of others become 255",
        example="data.keep=cat,dog", option=True,
    )  # fmt: skip
    drop: str | None = word(
        None, "class names, a list: their pixels become 255, all others are kept", example="data.drop=cow", option=True
    )
    annotations: str | None = word(
        None, "COCO-style JSON with categories of its own, read as the masks of folder",
        example="data.annotations=annotations.json", option=True,
    )  # fmt: skip


@dataclass
class DataWords(WhichData):
    """Which images, where, and what is tuned on."""

    tune: str = word("auto", "tuning split: auto, val, or carve", choices=("auto", "val", "carve"))


@dataclass
class BackboneWords:
    """The pretrained network that a method stands on."""

    name: str | None = word(None, "any timm ViT name, shapes_vit or shapes_cnn; default by preset")
    weights: str | None = word(None, "local safetensors or state dict, or random; default timm's hub")


@dataclass
class NetworkWords:
    """A further network of a recipe; what is not said is the preset's."""

    backbone: str | None = word(None, "its backbone", *TRAINING)
    weights: str | None = word(
        None, "its pretrained weights; default those of the first network where both have one backbone", *TRAINING
    )
    decoder: str | None = word(None, "its decoder", *TRAINING, choices=DECODERS)
    crop: int | None = word(None, "side of its square training input, pixels", *TRAINING, least=1)
    batch: int | None = word(None, "images per step of its training", *TRAINING, least=1)
    group: int | None = word(None, "images over which its losses may normalise", *TRAINING, least=1)
    iterations: int | None = word(None, "its training steps", *TRAINING, least=1)


NETWORK_WORDS = ("segmenter", "affinity")
"""Networks of recipes that have words of their own."""


@dataclass
class Words:
    """Every word of `harness.sweep` and `harness.train`, with its default; commands that do not train take a part."""

    methods: str | None = word(None, "list of methods, or all; a plug-in is written base+name", "sweep")
    method: str | None = word(None, "the method", "train", "evaluate", "predict")
    data: DataWords = word(DataWords, "dataset; data=voc is data.name=voc; data.<option> per dataset")
    labels: str | None = word(
        None, "weak labels, a list: tags, points, scribbles, clicks20/50/100, blocks, coarse, pseudo, masks"
    )
    backbone: BackboneWords = word(BackboneWords, "backbone=x is backbone.name=x")
    decoder: str | None = word(
        None, "largefov, deeplabv2 or deeplabv3plus; default by backbone family", choices=DECODERS
    )
    variant: str = word("default", "which reading of a method: default, released or paper", choices=VARIANTS)
    tier: str | None = word(
        None, "size of work: smoke, lab or paper; default smoke on shapes, else paper", choices=TIERS
    )
    crop: int | None = word(None, "side of the square training input, pixels; default by tier", least=1)
    batch: int | None = word(None, "images per step over all workers; default by tier", *TRAINING, least=1)
    iterations: int | None = word(None, "training steps; default by tier", *TRAINING, least=1)
    group: int | None = word(None, "images over which a loss may normalise; default by tier", *TRAINING, least=1)
    fidelity: float = word(1.0, "share of the iterations, in (0,1]; warm-ups and loss starts shrink with it", *TRAINING)
    until: str | None = word(
        None, "stage that a recipe ends with; its last target so far is the objective", *TRAINING, example="masks"
    )
    segmenter: NetworkWords = word(NetworkWords, "the segmenter of a multi-stage recipe", *TRAINING)
    affinity: NetworkWords = word(NetworkWords, "the affinity network of a multi-stage recipe", *TRAINING)
    search: str = word(
        "tpe",
        "tpe (Optuna TPE with ASHA) or rules (quasi-random, trial i depends on seed and i)",
        "sweep",
        choices=("tpe", "rules"),
    )
    trials: int | None = word(None, "trials per study, trial 0 (the preset's values) included", "sweep", least=1)
    seeds: int | None = word(None, "seeds that the chosen config is run with", "sweep", least=1)
    protocol: str = word(
        "held-out", "how thresholds and knobs are chosen: fixed, held-out or oracle", choices=PROTOCOLS
    )
    seed: int = word(0, "root of all randomness", least=0)
    workers: int = word(1, "Train workers per run", *TRAINING, least=1)
    gpus: float | None = word(None, "GPUs per worker, fractions allowed; default 1 where there is one, else 0", least=0)
    threads: int | None = word(None, "CPU threads per worker; default 1 on CPU", least=1)
    loaders: int | None = word(
        None,
        "loader processes per worker; default 0 on CPU, on GPU as many as its first steps show to be needed, to 4 or "
        "its threads",
        *TRAINING,
        least=0,
    )
    precision: str = word(
        "auto",
        "fp32, bf16, or bf16-nograd, which is fp32 but for training passes without gradient (CAMs, masks, teachers); "
        "default bf16 on GPU, fp32 on CPU",
        choices=("auto", "fp32", "bf16", "bf16-nograd"),
    )
    checkpoint_every: int | None = word(
        None, "steps between checkpoints; default about every 30 seconds", *TRAINING, least=1
    )
    keep: str = word(
        "last,best",
        "what stays on disk after a run: last, best, maps, none; a list",
        *TRAINING,
        choices=KEEP,
        several=True,
    )
    scales: str | None = word(
        None, "scales of segmentation scoring, a list, or a protocol by name (docs/evaluate.md); default by tier"
    )
    flip: str | None = word(
        None, "score the mirrored image too: false, true (scores added), mean or max; default by tier"
    )
    fusion: str | None = word(None, "how scales are fused: max, sum or mean; default by tier")
    crf: str = word("none", "score with a dense CRF beside without: toco, toco-cam, afa, irn, fsae, deeplab")
    split: str | None = word(None, "split that is reported; default test where it has masks, else val", choices=SPLITS)
    ablation: str | None = word(None, "named sets of overrides of a method, a list: fsr.no_unc")
    plan: str | None = word(
        None, "YAML file of these same words, also of rows (sets of words); the line wins", *TRAINING
    )
    config: str | None = word(
        None, "file with a stored config (column config of runs), which is run again exactly", "train",
        example="config=run.json",
    )  # fmt: skip
    store: str = word("results", "folder of results")
    mlflow: str | None = word(None, "tracking URI; default a local SQLite file in the store; off for none", "sweep")
    address: str | None = word(None, "Ray cluster address, auto on its head; default a local Ray", "sweep")
    cluster: str | None = word(
        None, "file of the cluster at address=, which says what its machines have; default ~/ray_bootstrap_config.yaml",
        "sweep", example="cluster=cluster.yaml",
    )  # fmt: skip
    ray: bool = word(True, "off: everything in this process", *TRAINING)
    retry: str | None = word(None, "failed: run failed rows again", *TRAINING, choices=("failed",))
    dry_run: bool = word(False, "print plan, resolved configs, what is done, estimated time and disk")

    @property
    def elsewhere(self) -> bool:
        """Whether runs go to the cluster at `address=`."""
        return self.ray and self.address is not None


@dataclass
class StatusWords:
    """Words of `harness.sweep status`."""

    store: str = word("results", "folder of results")
