"""Knobs of `brnf`. Defaults are the card's values for VOC, brnf.md sections 2, 3 and 6; what the card infers is marked.
No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import knob
from harness.errors import Problem
from methods.parts.bases.recipe_knobs import MAPS, RecipeKnobs
from methods.parts.bases.segmenter_knobs import MaskSegmenterKnobs
from methods.parts.knobs import (
    SHARE,
    WIDEST,
    between,
    blocks,
    counted,
    each,
    list_of,
    not_negative,
    one_of,
    positive,
    share,
    steps,
)

CARD_STEPS = 6 * 661
"""Steps of the card's run on VOC: six epochs."""
WORDS = {
    "side_detach": ("all", "x1x2"),
    "feature_scale": ("sqrt", "unit"),
    "mean_init": ("normal", "orthogonal"),
    "f2_prior": ("classes", "single"),
    "optimiser": ("sgd", "adamw"),
    "final": ("prototype", "classifier", "gmm", "seed"),
}
"""Legal values of the knobs that are words."""
SEED = "seed"
"""What the maps of a base are called among what travels with an image."""
INFERRED = "inferred"
SIPE = "code of SIPE"
DDFP = "code of DDFP"


@dataclass(frozen=True, kw_only=True)
class BrnfConfig(RecipeKnobs, MaskSegmenterKnobs):
    """SIPE's network guided by a base's seeds, two flows over its pixel features, a bank of regions and samples."""

    clip_norm: float = knob(
        1.0, "largest norm of the network's gradient; 0 leaves it alone", source=f"brnf.md 3, {SIPE}", stage="train"
    )
    rw_power: float = knob(1.5, "exponent of the maps before the walk", source=f"brnf.md 4, {SIPE}", stage="masks")
    label_factor: float = knob(
        0.5, "weakens the background for labels that are unsure", source=f"brnf.md 4, {SIPE}", stage=MAPS
    )
    optimiser: str = knob(
        "sgd",
        "of the network: sgd, or adamw with lr 6e-5 and warmup .075 for a ViT",
        source=f"brnf.md 3, {SIPE}; {INFERRED}",
    )
    warmup: float = knob(0.0, "adamw: linear warm-up", unit=SHARE, source=f"brnf.md 3, {INFERRED}")
    card_iterations: int = knob(
        CARD_STEPS, "the card's T, from which ema is fitted", unit="steps", source=f"brnf.md 3, {INFERRED}: 6 epochs"
    )
    side_dims: tuple[int, ...] = knob(
        (128, 128, 256, 256), "widths of the side convolutions, D together", unit="channels", fit="width",
        source=f"brnf.md 2.1, {SIPE}",
    )  # fmt: skip
    side_detach: str = knob(
        "all", "side branches whose maps are detached: all, or x1x2", source=f"brnf.md 2.1, {SIPE}; x1x2 {INFERRED}"
    )
    background_factor: float = knob(0.5, "weakens the background among structural seeds", source=f"brnf.md 2.1, {SIPE}")
    seeds_train: str = knob("x4", "features of structural seeds in training: x4, H", source=f"brnf.md 2.1, {SIPE}")
    seeds_infer: str = knob(
        "H", "features of structural seeds of written maps: x4, H", source=f"brnf.md 2.1, {SIPE}", stage="write-cams"
    )

    seeds: str = knob(
        "", "folder of maps, one file an image, in place of the base's; final=seed reads those of scored images too",
        unit="folder", source="brnf.md 2.2: CLIP-ES, SFC",
    )  # fmt: skip
    seed_power: float = knob(1.0, "background of a base seed is (1 - largest class) to this power",
                             source="brnf.md 2.2, code of CLIP-ES: 1 or 2")  # fmt: skip
    seed_tau: float = knob(0.5, "score from which a base seed labels a pixel", source=f"brnf.md 2.5, {INFERRED}")
    w_gui: float = knob(1.0, "weight of the prototype CAM's distance to the seed", source=f"brnf.md 2.8, {INFERRED}")
    w_gsc: float = knob(0.5, "weight of the consistency of CAM and prototype CAM", source=f"brnf.md 2.6, {INFERRED}")
    w_gsc_warm: float = knob(1.0, "that weight before the flows learn", source=f"brnf.md 2.6, {INFERRED}")
    w_cal: float = knob(0.5, "weight of the CAM's distance to the GMM's posterior; 0: no GMM classifier",
                        source=f"brnf.md 2.8, {INFERRED}")  # fmt: skip
    w_nce: float = knob(0.1, "weight of the contrast with the bank; 0: no bank", source=f"brnf.md 2.8, {INFERRED}")
    gate: bool = knob(
        True, "seeds are depressed where f2 finds them unlikely", unit="bool", source="brnf.md 2.5, figure"
    )
    flow_start: float = knob(
        1 / 6, "the flows start to learn", unit=SHARE, source=f"brnf.md 2.8, {INFERRED}: epoch 1 of 6"
    )
    use_start: float = knob(
        1 / 3, "gate, w_cal and w_nce start", unit=SHARE, source=f"brnf.md 2.8, {INFERRED}: epoch 2 of 6"
    )
    ramp: float = knob(
        300 / CARD_STEPS, "they rise linearly over this", unit=SHARE, source=f"brnf.md 2.8, {INFERRED}: 300 steps"
    )

    hidden: int = knob(256, "channels inside the flows", unit="channels", fit="width", source=f"brnf.md 2.3, {DDFP}")
    n_blocks: int = knob(2, "coupling blocks of a flow", source=f"brnf.md 2.3, {DDFP}")
    clamp: float = knob(
        2.0, "largest log-scale of a coordinate in half a block", unit="nats", source="brnf.md 2.3, FrEIA"
    )
    flow_lr: float = knob(1e-3, "learning rate of the flows", source=f"brnf.md 3, {DDFP}")
    flow_decline: float = knob(0.01, "their learning rate ends at this share", source=f"brnf.md 3, {DDFP}")
    flow_clip: float = knob(50.0, "largest norm of a flow's gradient; 0 leaves it alone", source=f"brnf.md 3, {DDFP}")
    noise: float = knob(0.05, "deviation of noise on what a flow learns from", source=f"brnf.md 2.3, {DDFP}")
    feature_scale: str = knob("sqrt", "length of a flow's input: sqrt of D, or unit", source=f"brnf.md 2.3, {INFERRED}")
    flow_dim: int = knob(
        0, "width to which features are projected for flows and bank; 0: as they are", unit="channels",
        source=f"brnf.md 2.3, {INFERRED}",
    )  # fmt: skip
    flow_pixels: int = knob(20480, "pixels that a flow learns from in a step, at most", source=f"brnf.md 2.3, {DDFP}")
    class_pixels: int = knob(2000, "of these of one class, at most", source=f"brnf.md 2.3, {INFERRED}")
    tau_c: float = knob(0.6, "prototype score from which a pixel is labelled for f1", source=f"brnf.md 2.3, {INFERRED}")
    margin: float = knob(0.1, "lead over the second class that it needs", source=f"brnf.md 2.3, {INFERRED}")
    density_cutoff: float = knob(
        0.0, "f1 learns from labelled pixels above this score alone, .95 say; 0: from all, unlabelled ones too",
        source="ours: later work trains densities on sure pixels",
    )  # fmt: skip
    density_pixels: int = knob(
        1000, "pixels of a class that its density must have learned from before it is used; the class waits",
        source="ours: above the D numbers of a mean",
    )  # fmt: skip
    components: int = knob(1, "Gaussians of a class", source="ours: later work has several")
    learned_weights: bool = knob(False, "mixture weights are learned", unit="bool", source="ours; brnf.md 2.3: equal")
    w_disc: float = knob(0.0, "weight of the cross-entropy of f1's labelled pixels", source="ours: later work adds it")
    mean_init: str = knob("normal", "first class means: normal, orthogonal", source=f"brnf.md 2.3, {DDFP}")

    t_g: float = knob(0.05, "temperature of the GMM's posterior", unit="share of D", source=f"brnf.md 2.4, {INFERRED}")
    gamma: float = knob(0.8, "posterior from which a pixel calibrates the CAM", source=f"brnf.md 2.4, {INFERRED}")
    f2_prior: str = knob("classes", "latent prior of f2: classes, or a single Gaussian of all foreground",
                         source=f"brnf.md 2.5, {INFERRED}")  # fmt: skip
    kappa: float = knob(
        1.0, "the gate's threshold lies this many deviations below the mean", source=f"brnf.md 2.5, {INFERRED}"
    )
    gate_softness: float = knob(
        0.25, "width of the gate, 0 is hard", unit="deviations", source=f"brnf.md 2.5, {INFERRED}"
    )
    ema: float = knob(0.99, "momentum of the gate's mean and deviation", fit="ema", source=f"brnf.md 2.5, {INFERRED}")

    n_reg: int = knob(64, "regions of a class in the bank", source=f"brnf.md 2.7, {INFERRED}")
    n_aug: int = knob(32, "samples of a class in the bank", source=f"brnf.md 2.7, {INFERRED}")
    draws: int = knob(4, "a sample is the likeliest of this many draws", source=f"brnf.md 2.7, {INFERRED}")
    aug_every: float = knob(
        50 / CARD_STEPS, "samples are drawn anew", unit=SHARE, source=f"brnf.md 2.7, {INFERRED}: 50 steps"
    )
    sample_t: float = knob(0.5, "spread of draws around a mean; 0 is the mode", source=f"brnf.md 2.7, {INFERRED}")
    density_weighted: bool = knob(
        True, "samples weigh by their likelihood", unit="bool", source=f"brnf.md 2.7, {INFERRED}"
    )
    t_d: float = knob(0.05, "temperature of those weights", unit="share of D", source=f"brnf.md 2.7, {INFERRED}")
    nce_tau: float = knob(0.1, "temperature of the contrast", source=f"brnf.md 2.7, {INFERRED}")
    region_tau: float = knob(0.6, "prototype score of a region's pixels", source=f"brnf.md 2.7, {INFERRED}")
    region_min: int = knob(5, "structural seeds that a region needs", unit="cells", source=f"brnf.md 2.7, {INFERRED}")
    bank_background: bool = knob(
        True, "background is a row of the bank", unit="bool", source=f"brnf.md 2.7, {INFERRED}"
    )

    final: str = knob(
        "seed", "added to the prototype CAM of written maps: seed (gated), classifier, gmm; prototype: nothing",
        source=f"brnf.md 4, {INFERRED}", stage="write-cams",
    )  # fmt: skip
    final_weight: float = knob(0.5, "weight of what is added", source=f"brnf.md 4, {INFERRED}", stage="write-cams")

    @property
    def f1(self) -> bool:
        """Whether the first flow is there: the GMM classifier and samples need it."""
        return self.w_cal > 0 or self.w_nce > 0

    @property
    def f2(self) -> bool:
        """Whether the second flow is there."""
        return self.gate

    def problems(self) -> list[Problem]:
        """Rules on phases, flows, mixture, gate and bank."""
        found = [
            *super().problems(),
            *each(not_negative, self, ("w_gui", "w_gsc", "w_gsc_warm", "w_cal", "w_nce", "w_disc", "kappa", "sample_t",
                                       "gate_softness", "noise", "flow_clip", "final_weight")),
            *each(positive, self, ("seed_power", "clamp", "flow_lr", "t_g", "t_d", "nce_tau")),
            *each(share, self, ("seed_tau", "tau_c", "margin", "gamma", "ema", "region_tau", "flow_start", "use_start",
                                "ramp", "aug_every", "density_cutoff", "background_factor", "label_factor")),
            *each(counted, self, ("hidden", "flow_pixels", "class_pixels", "components", "n_reg", "n_aug", "draws")),
            *blocks("n_blocks", self.n_blocks),
            *steps("card_iterations", self.card_iterations),
            *between("density_pixels", self.density_pixels, 0, 1e9),
            *between("region_min", self.region_min, 0, 1e9),
            *between("flow_dim", self.flow_dim, 0, WIDEST),
            *between("flow_decline", self.flow_decline, 0, 1, open_low=True),
            *between("warmup", self.warmup, 0, 1, open_high=True),
        ]  # fmt: skip
        if self.flow_start >= self.use_start:
            fix = "flow_start < use_start: a density is used once it has learned"
            found.append(Problem("flow_start", f"{self.flow_start:g} is not before use_start={self.use_start:g}", fix))
        if len(self.side_dims) != 4 or list_of("side_dims", self.side_dims, 1, WIDEST):
            found.append(Problem("side_dims", f"{self.side_dims}", f"4 widths in [1,{WIDEST}]"))
        if self.flow_dim == 1:
            found.append(Problem("flow_dim", "1: a flow couples two halves", "0, or at least 2"))
        if self.final == "gmm" and not self.f1:
            found.append(Problem("final", "gmm, and there is no GMM: w_cal=0 and w_nce=0", "final=seed or prototype"))
        for name, words in (*WORDS.items(), ("seeds_train", ("x4", "H")), ("seeds_infer", ("x4", "H"))):
            found += one_of(name, getattr(self, name), words)
        return found
