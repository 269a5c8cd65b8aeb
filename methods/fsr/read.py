"""What FSR's passes leave for its losses.

Axes: B images, C classes, H W pixels, h w tokens a side, N tokens, M slots of masked tokens, K prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.fsr.model import Tokens
from methods.parts.bases.aux_segmenter import Tokens as CamTokens


@dataclass(frozen=True)
class StudentPasses:
    """Tokens of one step's student forward: of view 1, clean, and of the masked view where a term reads them."""

    view1: Tokens
    hidden: Tokens | None = None
    masked_BN: Tensor | None = None


@dataclass(frozen=True)
class Projected:
    """What student and teacher make of their views for the distillation terms, as far as these are on."""

    student_BK: Tensor | None = None
    teacher_BK: Tensor | None = None
    student_BMK: Tensor | None = None
    """Of the masked tokens, in M slots."""
    teacher_BMK: Tensor | None = None
    real_BM: Tensor | None = None
    """Slots that hold a masked token."""
    teacher_BNK: Tensor | None = None
    """Of every token."""


@dataclass(frozen=True)
class Read:
    """What is made image by image, as far as a term reads it."""

    view1: CamTokens
    top_BC: Tensor | None
    aux_BC: Tensor | None
    """Class logits of both classifiers."""
    projected: Projected
    aux_Bhw: Tensor | None = None
    """Label values of tokens by the auxiliary CAM."""
    label_BHW: Tensor | None = None
    """Pseudo labels."""
