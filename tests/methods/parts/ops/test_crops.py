"""Windows around uncertain pixels: card numbers of toco.md 8.2, places, flags, refusals."""

from __future__ import annotations

import pytest
import torch

from methods.parts.ops.crops import FOREGROUND, certainty_map, cut_windows, object_windows, pick_windows


def test_certainty_of_the_card():
    cam = torch.tensor([0.0, 0.25, 0.2500001, 0.5, 0.6999999, 0.7, 0.9]).view(1, 1, 1, 7)
    found = certainty_map(cam, torch.ones(1, 1), low=0.25, high=0.7)
    assert found.tolist() == [[[0, 0, 1, 1, 1, 2, 2]]]
    assert found.dtype == torch.uint8
    absent = certainty_map(cam.expand(1, 2, 1, 7), torch.tensor([[0.0, 0.0]]), low=0.25, high=0.7)
    assert absent.tolist() == [[[0] * 7]]
    with pytest.raises(ValueError, match=r"low 0\.7 lies above high 0\.25"):
        certainty_map(cam, None, low=0.7, high=0.25)


@pytest.mark.parametrize(("share", "mean", "shown"), [(0.09, 0.18, False), (0.11, 0.22, True)])
def test_flags_of_the_card(share, mean, shown):
    """9 % of a 96 x 96 window certain: mean .18, negative; 11 %: .22, positive (toco.md 8.2)."""
    certainty = torch.zeros(1, 96, 96, dtype=torch.uint8)
    certainty.view(-1)[: round(share * 96 * 96)] = 2
    corner = torch.zeros(1, 1, 2, dtype=torch.int64)
    assert object_windows(certainty, corner, 96, 0.2).tolist() == [[shown]]
    assert cut_windows(certainty[:, None].float(), corner, 96).mean() == pytest.approx(mean, abs=2e-4)


def test_a_mean_at_the_limit_shows_no_object():
    certainty = torch.zeros(1, 10, 10, dtype=torch.uint8)
    certainty.view(-1)[:10] = 2
    assert object_windows(certainty, torch.zeros(1, 1, 2, dtype=torch.int64), 10, 0.2).tolist() == [[False]]


def test_windows_of_the_picked_corners():
    maps = torch.arange(2 * 3 * 7 * 9, dtype=torch.float32).view(2, 3, 7, 9).requires_grad_()
    corner = torch.tensor([[[0, 0], [3, 5]], [[2, 1], [2, 1]]])
    found = cut_windows(maps, corner, 4)
    assert found.shape == (2, 2, 3, 4, 4)
    for image in range(2):
        for window, (y, x) in enumerate(corner[image].tolist()):
            assert torch.equal(found[image, window], maps[image, :, y : y + 4, x : x + 4])
    found.sum().backward()
    assert maps.grad[1, 0, 2:6, 1:5].eq(2).all()
    assert maps.grad.sum() == found.numel()


@pytest.mark.parametrize("side", [4, 5])
def test_windows_are_centred_where_the_object_is_not_certain(side):
    torch.manual_seed(0)
    certainty = torch.randint(0, 3, (3, 20, 17), dtype=torch.uint8)
    corner = pick_windows(certainty, torch.rand(3, 21 - side, 18 - side), 8, side)
    assert corner.shape == (3, 8, 2)
    assert corner.min() >= 0
    assert (corner[..., 0] + side).max() <= 20
    assert (corner[..., 1] + side).max() <= 17
    for image in range(3):
        places = corner[image].tolist()
        assert len({tuple(p) for p in places}) == 8, "without replacement"
        assert all(certainty[image, y + side // 2, x + side // 2] != FOREGROUND for y, x in places)


def test_too_few_uncertain_pixels_open_the_whole_image():
    certainty = torch.full((2, 8, 8), FOREGROUND, dtype=torch.uint8)
    certainty[0, 4, 4] = 1  # one place is fewer than two
    certainty[1, 4, 4:6] = 0
    noise = torch.zeros(2, 5, 5)
    noise[:, 0, 0], noise[:, 0, 1] = 0.9, 0.8
    corner = pick_windows(certainty, noise, 2, 4)
    assert corner[0].tolist() == [[0, 0], [0, 1]]
    assert sorted(corner[1].tolist()) == [[2, 2], [2, 3]]


def test_places_are_drawn_uniformly():
    torch.manual_seed(1)
    certainty = torch.zeros(4000, 6, 6, dtype=torch.uint8)
    certainty[:, 2, 2] = FOREGROUND
    corner = pick_windows(certainty, torch.rand(4000, 3, 3), 2, 4)
    counts = torch.bincount((corner[..., 0] * 3 + corner[..., 1]).flatten(), minlength=9).float()
    assert counts[0] == 0  # centred on certain foreground
    # 8 places share 8000 draws: 1000 each, standard deviation 27.
    assert (counts[1:] - 1000).abs().max() < 110


@pytest.mark.parametrize(
    ("noise", "count", "side", "says"),
    [((1, 3, 3), 10, 4, "no room for 10"), ((1, 0, 0), 1, 7, "no room"), ((1, 2, 3), 1, 4, "noise")],
)
def test_refusals(noise, count, side, says):
    with pytest.raises(ValueError, match=says):
        pick_windows(torch.zeros(1, 6, 6, dtype=torch.uint8), torch.rand(noise), count, side)
