"""Where a backbone's pretrained weights come from, what they are called in tables, and their digest for the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from harness.errors import BadInput, Problem, StoreError, nearest
from harness.files import file_digest
from harness.store.pretraining import GLYPHS, HUB, NONE, Pretraining, named, pretraining_of

PACKAGED = {"shapes_vit": GLYPHS, "shapes_cnn": GLYPHS}
"""Backbones whose weights lie in the package, and the data that they were trained on."""

RANDOM = "random"
"""The word for no pretrained weights at all."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_SECONDS = 5.0
"""For the hub to answer at all."""


@dataclass(frozen=True)
class Pretrained:
    """Weights of one backbone. `path` is None where each worker takes them from timm's hub."""

    path: str | None
    digest: str
    pretraining: Pretraining
    """What they are called, and what they were trained on."""

    @property
    def label(self) -> str:
        """Their name in tables."""
        return self.pretraining.weights

    def with_further(self, further: Mapping[str, Pretrained]) -> Pretraining:
        """What a whole recipe starts from: these, and those of further networks that are others."""
        others = {name: one.pretraining for name, one in further.items() if one.digest != self.digest}
        return replace(self.pretraining, networks=others)


@lru_cache(maxsize=32)
def find(backbone: str, weights: str | None) -> Pretrained:
    """The weights that a backbone name and the word `backbone.weights` stand for.

    Raises BadInput for unknown backbones, missing files, and a hub that cannot be reached.
    """
    if backbone not in PACKAGED:
        _check_timm(backbone)
    if weights == RANDOM:
        return Pretrained(RANDOM, RANDOM, named(NONE))
    if backbone in PACKAGED and weights is None:
        packaged = files("methods.parts.nets") / "weights" / f"{backbone}.safetensors"
        return Pretrained(None, file_digest(Path(str(packaged))), named(PACKAGED[backbone]))
    if weights is not None:
        # It imports torch, which takes seconds.
        from harness.api.weight_files import read_weights

        path = Path(weights).expanduser()
        read = read_weights(path, "backbone.weights")
        label = f"{path.name} ({read.inside})" if read.inside else path.name
        return Pretrained(str(path.resolve()), file_digest(path), _of_file(label, read.metadata.get("pretraining")))
    return _from_hub(backbone)


def must_be_fetched(backbone: str, weights: str | None) -> bool:
    """Whether `find` would ask timm's hub. Raises BadInput for unknown backbones."""
    if backbone in PACKAGED:
        return False
    _check_timm(backbone)
    return weights is None and _cached(backbone) is None


def _cached(backbone: str) -> Path | None:
    """The file of a backbone's weights that the hub's client has fetched before."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    cfg = timm.get_pretrained_cfg(backbone)
    repo = cfg.hf_hub_id if cfg is not None else None
    found = [try_to_load_from_cache(repo, name) for name in HUB_FILES] if repo else []
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _of_file(label: str, told: str | None) -> Pretraining:
    """What a file says of itself in its metadata `pretraining`, else what its name tells."""
    if not told:
        return named(label)
    try:
        return replace(pretraining_of(told), weights=label)
    except StoreError as e:
        fix = "write a name there, or JSON with texts data, supervision and extra"
        raise BadInput(Problem("backbone.weights", f"{label}: {e}", fix)) from e


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
    from huggingface_hub import constants, hf_hub_download

    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is None or not cfg.hf_hub_id:
        raise BadInput(
            Problem(
                f"backbone {backbone!r}",
                "has no pretrained weights on timm's hub",
                "name a local file with backbone.weights=<file>",
            )
        )
    said = named(f"{HUB}{cfg.hf_hub_id.removeprefix('timm/')}")
    cached = _cached(backbone)
    if cached is not None:
        return Pretrained(None, file_digest(cached), said)
    problem = _unreachable(constants.ENDPOINT)
    for name in HUB_FILES if problem is None else ():
        try:
            return Pretrained(None, file_digest(Path(hf_hub_download(cfg.hf_hub_id, name))), said)
        except Exception as e:  # any failure of network or hub has the same cure
            problem = repr(e)
    url = f"{constants.ENDPOINT}/{cfg.hf_hub_id}/resolve/main/{HUB_FILES[0]}"
    raise BadInput(
        Problem(
            f"backbone {backbone!r}",
            f"its weights are not in {constants.HF_HUB_CACHE} and cannot be had from timm's hub ({problem:.200})",
            f"download {url} elsewhere and name the file with backbone.weights=<file>, or backbone.weights={RANDOM}",
        )
    )


@lru_cache(maxsize=4)
def _unreachable(endpoint: str) -> str | None:
    """Why the hub does not answer; None where it does. Asked once: the hub's own client tries for half a minute."""
    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=HUB_SECONDS)
    except HTTPError:
        return None
    except OSError as e:
        return str(getattr(e, "reason", e))
    return None
