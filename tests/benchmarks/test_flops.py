"""Operations of encoder passes: counted by hand, and what sharing forwards is worth."""

from __future__ import annotations

import pytest

from benchmarks.flops import LOCAL, Pass, cam_passes, encoder_flops, toco, unia

TINY = "vit_tiny_patch16_224"
TOKENS, DIM = 5, 192
PATCHES = 2 * 4 * 768 * DIM
BLOCK = 2 * TOKENS * DIM * (3 + 1 + 8) * DIM + 4 * TOKENS * TOKENS * DIM


def test_a_pass_of_four_patches_by_hand():
    """qkv, projection and MLP of ratio 4, two products of attention, and the patch embedding."""
    assert encoder_flops([Pass(1, 32)], TINY) == PATCHES + 12 * BLOCK
    assert encoder_flops([Pass(3, 32, blocks=10)], TINY) == 3 * (PATCHES + 10 * BLOCK)
    # Backward twice, but no gradient by pixels.
    assert encoder_flops([Pass(1, 32, gradient=True)], TINY) == 2 * PATCHES + 3 * 12 * BLOCK


def test_passes_of_the_cards():
    """toco.md 2.8: 7 B of CAM, 1 main, 2 teacher, 2 student; ours 6 of CAM and 2."""

    def equivalents(passes):
        return sum(p.images / 2 * (p.side / 448) ** 2 for p in passes if p.side > 96)

    assert equivalents(toco(published=True)) == pytest.approx(7 + 5)
    assert equivalents(toco(published=False)) == pytest.approx(6 + 2)
    assert [p.images for p in toco(published=False) if p.side == 96] == [2 * LOCAL]
    assert len(cam_passes((1.0, 0.5))) == 2
    assert equivalents(unia(published=True)) - equivalents(unia(published=False)) == pytest.approx(1)


def test_shared_forwards_save_what_is_documented():
    theirs, ours = (encoder_flops(toco(published=p), TINY) for p in (True, False))
    assert 1.35 < theirs / ours < 1.5
