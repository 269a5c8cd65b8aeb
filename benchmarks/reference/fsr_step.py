"""One training step of FSR with the structure of the released code, restated from fsr.md sections 2 and 7.

What it does that a step need not do is the card's: three multi-scale CAM passes of which one is only logged, attention
matrices written out, the projector on every token of every pass, pseudo labels image by image with two PAR calls each,
the teacher's whole forward, CAMs while masks are random, loops over parameters. The dense energy is the operator of
`methods.parts.ops.energy` on both sides: the published one is a C++ library.

Axes: B images, C classes, K labels or prototypes, H W pixels, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference.par import par
from methods.fsr.method import Fsr
from methods.fsr.model import FsrNet
from methods.parts.nets.backbones import TimmViT
from methods.parts.nets.token_linear import TokenLinear
from methods.parts.ops.energy import dense_energy_loss
from methods.parts.ops.pixels import denormalise

IGNORE = 255


def attention(block: Any, x_BND: Tensor) -> Tensor:
    """A ViT block's self-attention with its matrix written out."""
    inner = block.attn
    b, n, d = x_BND.shape
    qkv = inner.qkv(block.norm1(x_BND)).reshape(b, n, 3, inner.num_heads, d // inner.num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    matrix = ((q @ k.transpose(-2, -1)) * inner.scale).softmax(dim=-1)
    return inner.proj((matrix @ v).transpose(1, 2).reshape(b, n, d))


@dataclass(frozen=True)
class Forward:
    """What a pass makes: projections of class token and patches, normalised patches, tapped ones."""

    hw: tuple[int, int]
    projected_BNK: Tensor
    patches_BND: Tensor
    aux_BND: Tensor


def _with_plain_linears(net: FsrNet) -> FsrNet:
    """A copy of the network whose linear layers are PyTorch's, as everywhere in published code."""
    copied = copy.deepcopy(net)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TokenLinear):
                plain = nn.Linear(child.in_features, child.out_features, device="meta")
                plain.weight, plain.bias = child.weight, child.bias
                setattr(parent, name, plain)
    return copied


class Released:
    """A network and its teacher, copied from `method`, with the released step; no stochastic depth."""

    def __init__(self, method: Fsr) -> None:
        self.method = method  # only its sizes, knobs and schedules are read
        self.student: FsrNet = _with_plain_linears(method.net).train()
        self.teacher: FsrNet = _with_plain_linears(method.net).train().requires_grad_(False)
        self.centre_class_K = torch.zeros(method.config.projector_out)
        self.centre_patch_K = torch.zeros(method.config.projector_out)
        mine = dict(zip((id(p) for p in method.net.parameters()), self.student.parameters(), strict=True))
        groups = [
            {**{k: v for k, v in group.items() if k in ("lr", "weight_decay")}, "params": [mine[id(p)] for p in ps]}
            for group in method.optimizers()[0].optimizer.param_groups
            if (ps := group["params"])
        ]
        self.optimizer = torch.optim.AdamW(groups, foreach=False, fused=False)

    def forward(self, net: FsrNet, images_B3HW: Tensor, masked_BN: Tensor | None = None) -> Forward:
        """Everything the network can say of its images, needed or not."""
        encoder = cast(TimmViT, net.encoder)
        x_BND, hw = encoder.embed(images_B3HW)
        if masked_BN is not None:
            x_BND = torch.where(masked_BN[..., None], net.mask_token, x_BND)
        x_BND = x_BND + encoder.position(*hw)
        aux_BND = x_BND
        for i, block in enumerate(cast("list[Any]", encoder.blocks)):
            x_BND = x_BND + attention(block, x_BND)
            x_BND = x_BND + block.mlp(block.norm2(x_BND))
            if i + 1 == net.aux_block:
                aux_BND = x_BND
        z_BND = encoder.norm(torch.cat([net.aggregation(x_BND)[:, None], x_BND], dim=1))
        return Forward(hw, net.projector(z_BND), z_BND[:, 1:], aux_BND)

    def class_maps(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Raw top and auxiliary class maps (B,C,h,w), after the whole forward and its projector."""
        found = self.forward(self.student, images_B3HW)
        top, aux = (x.transpose(1, 2).unflatten(2, found.hw) for x in (found.patches_BND, found.aux_BND))
        return self.student.top(top), self.student.classifier_aux(aux)

    @torch.no_grad()
    def multi_scale_cam(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Top and auxiliary CAM (B,C,H,W) of all classes, each scale with its mirror (A3)."""
        size = images_B3HW.shape[-2:]
        sums: list[Tensor | float] = [0.0, 0.0]
        for scale in self.method.config.cam_scales:
            shape = (int(scale * size[0]), int(scale * size[1]))
            scaled = F.interpolate(images_B3HW, size=shape, mode="bilinear", align_corners=False)
            for i, maps in enumerate(self.class_maps(torch.cat([scaled, scaled.flip(-1)]))):
                full = F.interpolate(maps.relu(), size=size, mode="bilinear", align_corners=False)
                plain, mirrored = full.chunk(2)
                sums[i] = sums[i] + torch.maximum(plain, mirrored.flip(-1)).relu()
        cams = []
        for total in sums:
            assert isinstance(total, Tensor)
            low = total - total.amin((-2, -1), keepdim=True)
            cams.append(low / (low.amax((-2, -1), keepdim=True) + 1e-5))
        return cams[0], cams[1]

    @torch.no_grad()
    def pseudo_label(self, images_B3HW: Tensor, cam_BCHW: Tensor, tags_BC: Tensor) -> Tensor:
        """Labels (B,H,W), one image and one background score at a time (A5)."""
        config, size = self.method.config, images_B3HW.shape[-2:]
        pixels = denormalise(images_B3HW, *self.method.normalisation()) / 255.0
        half = (size[0] // 2, size[1] // 2)
        small = F.interpolate(pixels, size=half, mode="bilinear", align_corners=False)
        labels = []
        for i, cam_CHW in enumerate(cam_BCHW):
            present = tags_BC[i].nonzero()[:, 0]
            ids = F.pad(present + 1, (1, 0))
            found = []
            for score in (config.pseudo_high, config.pseudo_low):
                background = torch.full((1, *size), score)
                maps = torch.cat([background, cam_CHW])[ids][None]
                maps = F.interpolate(maps, size=half, mode="bilinear", align_corners=False).softmax(dim=1)
                refined = par(small[i : i + 1], maps, config.par_iterations)
                full = F.interpolate(refined, size=size, mode="bilinear", align_corners=False)
                found.append(ids[full[0].argmax(dim=0)])
            high, low = found
            label = high.clone()
            label[high == 0] = IGNORE
            label[(high + low) == 0] = 0
            labels.append(label)
        return torch.stack(labels)

    def token_contrast(self, tokens_BND: Tensor, aux_BCHW: Tensor, tags_BC: Tensor, hw: tuple[int, int]) -> Tensor:
        """L_ptc with an integer matrix of all pairs (A6)."""
        config = self.method.config
        small = F.interpolate(aux_BCHW * tags_BC[:, :, None, None], size=hw, mode="bilinear", align_corners=False)
        value, best = small.max(dim=1)
        label = best + 1
        label[value <= config.pseudo_high] = IGNORE
        label[value <= config.pseudo_low] = 0
        pairs = []
        for flat in label.flatten(1):
            rows = flat[None].repeat(len(flat), 1)
            pair = (rows == rows.t()).long()
            pair[rows == IGNORE] = IGNORE
            pair[rows.t() == IGNORE] = IGNORE
            pair[range(len(flat)), range(len(flat))] = IGNORE
            pairs.append(pair)
        relation = torch.stack(pairs)
        unit = F.normalize(tokens_BND, dim=-1, eps=1e-8)
        cosine = (unit @ unit.transpose(1, 2)).abs()
        same, other = (relation == 1).float(), (relation == 0).float()
        pull = 1 - (same * cosine).sum() / (same.sum() + 1)
        return 0.5 * pull + 0.5 * (other * cosine).sum() / (other.sum() + 1)

    def mask(self, aux_BCHW: Tensor, tags_BC: Tensor, noise_Bcc: Tensor, uncertain: bool) -> Tensor:
        """Masked tokens (B,N): random or uncertain cells first (2.3); the number of cells divides the grid."""
        config, cells = self.method.config, noise_Bcc.shape[-1]
        v_BHW = (aux_BCHW * tags_BC[:, :, None, None]).amax(dim=1)
        grid = v_BHW.shape[-1] // self.student.encoder.stride
        score = noise_Bcc.flatten(1).double()
        if uncertain:
            corner = F.interpolate(v_BHW[:, None], size=(cells, cells), mode="nearest").flatten(1)
            score = score + ((corner > config.mask_low) & (corner < config.mask_high))
        rank = score.argsort(dim=1, descending=True).argsort(dim=1)
        chosen = (rank < math.ceil(cells * cells * config.mask_ratio)).view(-1, cells, cells)
        block = grid // cells
        return chosen.repeat_interleave(block, 1).repeat_interleave(block, 2).flatten(1)

    def step(
        self, views: Mapping[str, Tensor], tags_BC: Tensor, noise_Bcc: Tensor, it: int, total: int
    ) -> dict[str, float]:
        """One step: every term, backward, AdamW, teacher, centres. Returns the weighted terms that were added."""
        config, (view1, view2) = self.method.config, (views["view1"], views["view2"])
        top1_BCHW, aux1_BCHW = self.multi_scale_cam(view1)
        _, aux2_BCHW = self.multi_scale_cam(view2)
        logged_BCHW, _ = self.multi_scale_cam(view2)
        self.pseudo_label(view2, logged_BCHW, tags_BC)
        masked_BN = self.mask(aux2_BCHW, tags_BC, noise_Bcc, it / total >= config.random_phase)

        both = torch.cat([view1, view2])
        nothing = torch.zeros_like(masked_BN)
        net, student = self.student, self.forward(self.student, both, torch.cat([nothing, masked_BN]))
        s_BNK, patches = student.projected_BNK, student.patches_BND
        top_BC = net.top(patches.amax(dim=1)[..., None, None]).flatten(1)
        aux_BC = net.classifier_aux(student.aux_BND.amax(dim=1)[..., None, None]).flatten(1)
        logits = net.segment(patches, student.hw, None)
        with torch.no_grad():
            seen = self.forward(self.teacher, both)
            self.teacher.segment(seen.patches_BND, seen.hw, None)
            t_BNK = seen.projected_BNK
        half = len(view1)
        label_BHW = self.pseudo_label(view1, top1_BCHW, tags_BC)

        terms = {"cls": _soft_margin(top_BC[:half], tags_BC) + _soft_margin(aux_BC[:half], tags_BC)}
        steps = int(total * config.tau_rise)
        rise = config.tau_teacher_start + (config.tau_teacher - config.tau_teacher_start) * it / max(1, steps - 1)
        tau_t = config.tau_teacher if it >= steps else rise
        target = ((t_BNK[:half, 0] - self.centre_class_K) / tau_t).softmax(dim=-1)
        terms["class"] = -(target * (s_BNK[half:, 0] / config.tau_student).log_softmax(dim=-1)).sum(dim=-1).mean()
        target = ((t_BNK[half:, 1:] - self.centre_patch_K) / tau_t).softmax(dim=-1)
        cross = -(target * (s_BNK[half:, 1:] / config.tau_student).log_softmax(dim=-1)).sum(dim=-1)
        terms["patch"] = ((cross * masked_BN).sum(dim=1) / masked_BN.sum(dim=1).clamp(min=1)).mean()
        terms["ptc"] = self.token_contrast(patches[:half], aux1_BCHW, tags_BC, student.hw)
        terms["seg"] = self.segmentation(logits[:half], label_BHW)
        pixels = denormalise(view1, *self.method.normalisation())
        terms["reg"] = dense_energy_loss(logits[:half], pixels, label_BHW)
        on = it / total >= config.seg_start
        weights = {k: getattr(config, f"w_{k}") * float(on or k not in ("seg", "reg")) for k in terms}
        loss = torch.stack([weights[k] * v for k, v in terms.items()]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.update(t_BNK, half, it, total)
        return {k: weights[k] * float(v.detach()) for k, v in terms.items() if weights[k]}

    def segmentation(self, logits_BKhw: Tensor, label_BHW: Tensor) -> Tensor:
        """L_seg as two cross-entropies (A7); an empty set counts 0."""
        logits = F.interpolate(logits_BKhw, size=label_BHW.shape[-2:], mode="bilinear", align_corners=False)
        background, classes = label_BHW.clone(), label_BHW.clone()
        background[label_BHW != 0] = IGNORE
        classes[label_BHW == 0] = IGNORE
        losses = [F.cross_entropy(logits, part, ignore_index=IGNORE) for part in (background, classes)]
        return 0.5 * torch.stack(losses).nan_to_num(0.0).sum()

    @torch.no_grad()
    def update(self, t_BNK: Tensor, half: int, it: int, total: int) -> None:
        """Teacher and centres, parameter by parameter (2.5, 2.6)."""
        config = self.method.config
        m = 1.0 - 0.5 * (1.0 - config.teacher_momentum) * (1.0 + math.cos(math.pi * it / total))
        for theirs, ours in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            theirs.data.mul_(m).add_(ours.detach().data, alpha=1.0 - m)
        keep = config.centre_momentum
        self.centre_class_K = self.centre_class_K * keep + t_BNK[:half, 0].mean(dim=0) * (1 - keep)
        self.centre_patch_K = self.centre_patch_K * keep + t_BNK[half:, 1:].mean(dim=(0, 1)) * (1 - keep)


def _soft_margin(logits_BC: Tensor, tags_BC: Tensor) -> Tensor:
    return F.multilabel_soft_margin_loss(logits_BC, tags_BC)
