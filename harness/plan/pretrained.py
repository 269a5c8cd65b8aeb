"""Where a backbone's pretrained weights come from, what they are called in tables, and their digest for the key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from harness.errors import BadInput, Problem, nearest
from harness.files import file_digest

PACKAGED = {"shapes_vit": "glyphs", "shapes_cnn": "glyphs"}
"""Backbones whose weights lie in the package, and the data that they were trained on."""


RANDOM = "random"
"""The word for no pretrained weights at all."""


@dataclass(frozen=True)
class Pretrained:
    """Weights of one backbone. `path` is None where each worker takes them from timm's hub."""

    path: str | None
    digest: str
    label: str


@lru_cache(maxsize=32)
def find(backbone: str, weights: str | None) -> Pretrained:
    """The weights that a backbone name and the word `backbone.weights` stand for.

    Raises BadInput for unknown backbones, missing files, and a hub that cannot be reached.
    """
    if backbone not in PACKAGED:
        _check_timm(backbone)
    if weights == RANDOM:
        return Pretrained(RANDOM, RANDOM, "none")
    if backbone in PACKAGED and weights is None:
        packaged = files("methods.parts.nets") / "weights" / f"{backbone}.safetensors"
        return Pretrained(None, file_digest(Path(str(packaged))), PACKAGED[backbone])
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise BadInput(Problem("backbone.weights", f"{path} is no file", "give a safetensors file or state dict"))
        if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
            raise BadInput(
                Problem(
                    "backbone.weights",
                    f"{path.name} is neither .safetensors nor .pth",
                    "give a safetensors file or a state dict saved by torch",
                )
            )
        return Pretrained(str(path.resolve()), file_digest(path), path.name)
    return _from_hub(backbone)


def _check_timm(backbone: str) -> None:
    import timm

    if not timm.is_model(backbone):
        known = [*PACKAGED, *timm.list_models("vit_*"), *timm.list_models("deit*")]
        raise BadInput(
            Problem(
                f"backbone {backbone!r}",
                "is neither a timm model nor one of ours",
                nearest(backbone, known)
                if nearest(backbone, known).startswith("did")
                else "list timm's with python -c 'import timm; print(timm.list_models())'",
            )
        )


def _from_hub(backbone: str) -> Pretrained:
    import timm
    from huggingface_hub import hf_hub_download

    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is None or not cfg.hf_hub_id:
        raise BadInput(
            Problem(
                f"backbone {backbone!r}",
                "has no pretrained weights on timm's hub",
                "name a local file with backbone.weights=<file>",
            )
        )
    for name in ("model.safetensors", "pytorch_model.bin"):
        try:
            path = Path(hf_hub_download(cfg.hf_hub_id, name))
        except Exception as e:  # any failure of network or hub has the same cure
            problem = e
            continue
        return Pretrained(None, file_digest(path), f"timm {cfg.hf_hub_id.removeprefix('timm/')}")
    raise BadInput(
        Problem(
            f"backbone {backbone!r}",
            f"its weights cannot be had from timm's hub ({problem!r:.200})",
            "name a local file with backbone.weights=<file>, or run once with a network",
        )
    )
