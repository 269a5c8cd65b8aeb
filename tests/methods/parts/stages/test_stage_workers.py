"""The shared workers of recipes: maps that a network writes, confident labels, masks of every refinement."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.images import BACKGROUND, ImageInfo, ImageInput, Maps
from harness.api.method import BuildInfo, Method
from harness.datasets.io.image_files import ExtraReader, encoded, fuse, read
from harness.engine.stages.fan_out import fanned_out, written_by
from harness.scoring.crf import PRESETS
from methods.fsae.config import FsaeConfig
from methods.fsae.method import Fsae
from methods.irn.config import IrnConfig
from methods.irn.method import Irn
from methods.irn.rules import IrnRules
from methods.parts.bases.boundary_trainer import BoundaryTrainer
from methods.parts.ops.pseudo import refined_scores
from methods.parts.stages.masks import MaskWorker
from methods.parts.stages.refine import LabelWorker, maps_of
from methods.parts.stages.write_cams import CamWriter, writer
from methods.sipe.config import SipeConfig
from methods.sipe.method import Sipe
from methods.sipe.rules import SipeRules

BUILD = BuildInfo(
    num_classes=3, has_background=True, crop=64, iterations=10, group=4, tier="smoke", variant="default",
    labels="tags", backbone="shapes_cnn", backbone_weights=None, decoder="deeplabv2",
)  # fmt: skip
INFO = ImageInfo(num_classes=3, has_background=True, crop=64, variant="default")


def image(height: int = 50, width: int = 70) -> ImageInput:
    """A red square and a blue bar on rough grey; tags name classes 0 and 2."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    pixels[10:30, 12:36, 0] = 240
    pixels[35:45, 40:66, 2] = 235
    pixels.setflags(write=False)
    return ImageInput("a", pixels, np.array([1, 0, 1], np.float32))


def with_maps(maps: list[np.ndarray], classes: list[int]) -> ImageInput:
    written = Maps(np.array(classes, np.int16), {"cam": maps})
    return dataclasses.replace(image(), inputs={"cams": written})


def blobs(hw: tuple[int, int] = (25, 35)) -> list[np.ndarray]:
    """Maps of the two classes at two scales: high on their objects, low elsewhere."""
    maps = np.full((2, *hw), 0.02, np.float32)
    maps[0, 6:14, 7:17] = 3.0
    maps[1, 18:22, 21:32] = 2.0
    return [maps, maps[:, ::2, ::2].copy()]


@pytest.fixture(scope="module")
def irn() -> Irn:
    torch.manual_seed(0)
    return Irn(IrnConfig(), BUILD).eval()


def test_maps_are_the_network_s_own_at_its_stride(irn: Irn) -> None:
    one = image()
    found = writer(IrnConfig(), dataclasses.replace(INFO, networks={"network": irn}))(one)
    assert found.classes.tolist() == [0, 2]
    assert [m.shape for m in found.scales["cam"]] == [(2, 7, 9), (2, 4, 5), (2, 10, 14), (2, 13, 18)]
    assert all(m.dtype == np.float16 for m in found.scales["cam"])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in irn.normalisation())
    pixels = (torch.from_numpy(one.image_HW3.copy()).permute(2, 0, 1) / 255 - mean) / std
    cam = irn.predict(pixels[None], torch.tensor([[1.0, 0.0, 1.0]]), want=frozenset({"cam"})).cam_BCHW
    assert cam is not None
    assert torch.allclose(fuse(found, "cam", (50, 70)), cam[0, [0, 2]], atol=2e-3)


def test_scores_and_labels_read_a_file_alike_and_its_last_cells_reach_beyond_the_image(irn: Irn, tmp_path) -> None:
    """irn.md 2.2 high_res: 50 x 70 pixels at stride 8 are 7 x 9 cells, which cover 56 x 72."""
    one = image()
    written = writer(IrnConfig(), dataclasses.replace(INFO, networks={"network": irn}))(one)
    assert written.grain == 8
    suffix, content = encoded(written)
    (tmp_path / f"a{suffix}").write_bytes(content)
    stored = read(tmp_path, "a")
    assert stored.grain == 8
    maps = [torch.from_numpy(m).float() for m in stored.scales["cam"]]
    total = sum(F.interpolate(m[None], (56, 72), mode="bilinear", align_corners=False)[0] for m in maps)[:, :50, :70]
    expected = total / (total.amax((1, 2), keepdim=True) + 1e-5)
    assert torch.allclose(fuse(stored, "cam", (50, 70)), expected, atol=1e-6)
    given = dataclasses.replace(one, inputs={"cams": stored})
    rules = IrnRules(IrnConfig(label_crf=False), 64)
    score, best = expected.max(0)
    sure = torch.where(score > 0.3, torch.tensor([1, 3])[best], torch.where(score > 0.05, 255, 0))
    assert np.array_equal(LabelWorker(rules, INFO)(given), sure.numpy())
    assert {255} < set(sure.unique().tolist())


def test_maps_beyond_the_image_are_cut_by_hand() -> None:
    """Two cells of 16 pixels over 24: the last pixel lies 15.5 of 16 pixels behind the first centre."""
    ramp = np.array([[[0.0, 1.0]]], np.float32)
    maps = Maps(np.array([0], np.int16), {"cam": [ramp]}, grain=16)
    row = fuse(maps, "cam", (1, 24))[0, 0]
    assert row[[0, 7, 8, 23]].tolist() == pytest.approx([0, 0, 0.5 / 15.5, 1], abs=2e-5)
    with np.load(io.BytesIO(encoded(dataclasses.replace(maps, grain=1))[1])) as f:
        assert "grain" not in f.files
    extra = ExtraReader(lambda _: maps, 1)("a")
    assert extra.tolist() == [[[0.0, pytest.approx(1.0, abs=2e-5)]]]


def test_a_network_that_resizes_its_images_shows_them_alone() -> None:
    torch.manual_seed(0)
    network = Irn(IrnConfig(), dataclasses.replace(BUILD, backbone="shapes_vit", backbone_weights="random")).eval()
    found = writer(IrnConfig(cam_scales=(1.0,)), dataclasses.replace(INFO, networks={"network": network}))(image())
    assert found.grain == 1
    assert Sipe(SipeConfig(), BUILD).grain == 1, "sipe.md 2.4: straight to the image's size"


def test_a_background_of_its_own_is_kept_first() -> None:
    torch.manual_seed(0)
    network = Sipe(SipeConfig(), BUILD).eval()
    write = writer(SipeConfig(), dataclasses.replace(INFO, networks={"network": network}))
    assert write(image()).classes.tolist() == [BACKGROUND, 0, 2]
    nothing = dataclasses.replace(image(), tags_C=np.zeros(3, np.float32))
    assert write(nothing).classes.tolist() == [BACKGROUND]
    _, labels_n = maps_of(dataclasses.replace(image(), inputs={"cams": write(image())}), "cpu")
    assert labels_n.tolist() == [0, 1, 3]


class Colours(torch.nn.Module):
    """A method whose class maps are the colours, 8 pixels a cell, less one half."""

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def cam_logits(self, images_B3HW: Tensor) -> Tensor:
        assert images_B3HW.shape[-1] in (64, 32)
        return torch.nn.functional.avg_pool2d(images_B3HW, 8) - 0.5


@pytest.mark.parametrize("base", [Irn(IrnConfig(), BUILD), Sipe(SipeConfig(), BUILD)], ids=["irn", "sipe"])
def test_a_plugin_that_trains_its_base_writes_the_base_s_maps(base: Method) -> None:
    """FSAE on IRN: all scales at the image's own size; on SIPE the background's own map is first."""
    beside = Fsae(FsaeConfig(), dataclasses.replace(BUILD, base=base)).eval()
    alone, found = (CamWriter(network, INFO)(image()) for network in (base.eval(), beside))
    assert found.classes.tolist() == alone.classes.tolist()
    assert found.grain == alone.grain
    for ours, theirs in zip(found.scales["cam"], alone.scales["cam"], strict=True):
        assert np.array_equal(ours, theirs)


def test_any_method_with_cam_logits_writes_at_the_size_that_it_is_scored_at() -> None:
    found = CamWriter(Colours(), INFO, (1.0, 0.5))(image())  # type: ignore[arg-type]
    assert [m.shape for m in found.scales["cam"]] == [(2, 8, 8), (2, 4, 4)]
    # Image and mirror see the same colours: the sum is twice what lies above one half.
    red = found.scales["cam"][0][0]
    assert float(red.max()) == pytest.approx(2 * (240 / 255 - 0.5), abs=0.02)
    assert float(red[6:, :].max()) < 0.05


def test_an_image_without_class_keeps_no_map(irn: Irn, tmp_path) -> None:
    nothing = dataclasses.replace(image(), tags_C=np.zeros(3, np.float32))
    found = CamWriter(irn, INFO)(nothing)
    suffix, content = encoded(found)
    (tmp_path / f"a{suffix}").write_bytes(content)
    again = dataclasses.replace(nothing, inputs={"cams": read(tmp_path, "a")})
    for refine in ("none", "par", "crf"):
        rules = IrnRules(IrnConfig(refine=refine, label_crf=False), 64)
        assert not MaskWorker(rules, INFO)(again).any()
    assert not LabelWorker(IrnRules(IrnConfig(), 64), INFO)(again).any()


def test_plain_masks_are_the_constant_s(irn: Irn) -> None:
    one = with_maps(blobs(), [0, 2])
    rules = IrnRules(IrnConfig(refine="none", cam_background=0.4), 64)
    maps, labels_n = maps_of(one, "cpu")
    score, best = rules.full(maps, (50, 70)).max(0)
    expected = torch.where(score > 0.4, labels_n[best], 0)
    found = MaskWorker(rules, INFO)(one)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected.numpy())
    assert set(np.unique(found)) == {0, 1, 3}


def test_par_masks_are_those_of_the_refined_maps() -> None:
    one = with_maps(blobs(), [0, 2])
    rules = IrnRules(IrnConfig(refine="par", cam_background=0.3, par_dilations=(1, 2), par_iterations=4), 64)
    maps, labels_n = maps_of(one, "cpu")
    full = rules.full(maps, (50, 70))
    pixels = torch.from_numpy(one.image_HW3.copy()).permute(2, 0, 1)[None]
    score, best = refined_scores(pixels, full[None], None, 4, (1, 2))[0].max(0)
    found = MaskWorker(rules, INFO)(one)
    assert np.array_equal(found, torch.where(score > 0.3, labels_n[best], 0).numpy())
    assert not np.array_equal(found, MaskWorker(IrnRules(IrnConfig(refine="none", cam_background=0.3), 64), INFO)(one))


def test_confident_labels_with_and_without_the_crf() -> None:
    one = with_maps(blobs(), [0, 2])
    with_crf = dataclasses.replace(INFO, crf=PRESETS["irn"])
    plain = LabelWorker(IrnRules(IrnConfig(label_crf=False), 64), with_crf)
    assert plain.crf is None
    refined = LabelWorker(IrnRules(IrnConfig(crf_gt_prob=0.6, crf_rgb_std=7.0), 64), with_crf)
    assert refined.crf == dataclasses.replace(PRESETS["irn"], gt_prob=0.6, bi_rgb_std=7.0)
    without, after = plain(one), refined(one)
    assert set(np.unique(without)) <= {0, 1, 3, 255}
    assert without[20, 24] == after[20, 24] == 1
    # The CRF follows the square of the image, rows 10 to 29, where the maps end a row of cells late.
    assert (after != without).any()
    assert np.array_equal(MaskWorker(IrnRules(IrnConfig(refine="crf", crf_gt_prob=0.6, crf_rgb_std=7.0), 64),
                                     with_crf)(one), after)  # fmt: skip


@pytest.mark.parametrize("rules", [IrnRules(IrnConfig(rw_steps=1), 64), SipeRules(SipeConfig(rw_steps=1), 64)])
def test_walked_masks_are_those_of_walk_and_rule(rules) -> None:
    torch.manual_seed(0)
    boundary = BoundaryTrainer(rules.config, BUILD).eval()
    own = isinstance(rules, SipeRules)
    maps = [np.concatenate([1 - m.max(0, keepdims=True) / 3, m]) if own else m for m in blobs()]
    one = with_maps(maps, [BACKGROUND, 0, 2] if own else [0, 2])
    found = MaskWorker(rules, dataclasses.replace(INFO, networks={"affinity": boundary}))(one)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in boundary.normalisation())
    pixels = (torch.from_numpy(one.image_HW3.copy()).permute(2, 0, 1) / 255 - mean) / std
    edge = boundary.boundaries(pixels[None])[0]
    of, labels_n = maps_of(one, "cpu")
    assert np.array_equal(found, rules.mask(rules.walk(of, edge, (50, 70)), labels_n, (50, 70)).numpy())
    assert edge.shape == (13, 18)
    assert len(np.unique(found)) > 1
    # In a batch, beside the image turned (another size), mirrored, and without classes, it has the same mask.
    worker = MaskWorker(rules, dataclasses.replace(INFO, networks={"affinity": boundary}))
    turned = dataclasses.replace(one, image_HW3=one.image_HW3.transpose(1, 0, 2).copy())
    mirrored = dataclasses.replace(one, image_HW3=one.image_HW3[:, ::-1].copy())
    bare = with_maps([m[:1] if own else m[:0] for m in maps], [BACKGROUND] if own else [])
    together = worker.many([turned, one, mirrored, bare])
    assert np.array_equal(together[1], found)
    assert np.array_equal(together[0], worker(turned))
    assert np.array_equal(together[2], worker(mirrored))
    assert not together[3].any()


def test_maps_over_their_maximum_are_what_files_are_fused_to() -> None:
    """The rules read a file as the harness does (irn.md 2.2)."""
    written = with_maps(blobs(), [0, 2]).inputs["cams"]
    ours = SipeRules(SipeConfig(), 64).full([torch.from_numpy(m) for m in written.scales["cam"]], (64, 80))
    assert torch.allclose(fuse(written, "cam", (64, 80)), ours, atol=1e-6)


@pytest.mark.slow
def test_processes_write_the_same_bytes_in_the_same_order() -> None:
    """Two spawned processes against this one: confident labels with their CRF, one image after another."""
    config = IrnConfig(refine="crf")
    info = dataclasses.replace(INFO, crf=PRESETS["irn"])
    images = [dataclasses.replace(with_maps(blobs(), [0, 2]), image_id=str(n)) for n in range(11)]
    images[3] = dataclasses.replace(with_maps(blobs(), [1, 2]), image_id="3")
    found = list(fanned_out("methods.irn.stages:labels", config, info, images, 2, bf16=False))
    worker = LabelWorker(IrnRules(config, 64), info)
    expected = written_by(worker, images, "cpu", bf16=False)
    assert found == [(one.image_id, *file) for one, file in zip(images, expected, strict=True)]
    assert len({content for _, _, content in found}) == 2


@pytest.mark.slow
def test_what_a_worker_raises_in_its_process_arrives() -> None:
    broken = dataclasses.replace(image(), inputs={})
    with pytest.raises(KeyError, match="cams"):
        list(fanned_out("methods.irn.stages:labels", IrnConfig(), INFO, [broken], 1, bf16=False))
