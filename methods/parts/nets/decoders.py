"""A9: the LargeFOV decoder."""

from __future__ import annotations

from torch import Tensor, nn

VERSION = 1


class LargeFOV(nn.Module):
    """Two dilated 3x3 convolutions and a 1x1 classifier, no bias or norm: (B,D,h,w) -> logits (B,K,h,w) (A9).

    `kaiming` starts every convolution Kaiming-normal by fan-out (FSR); else PyTorch's start stays (ToCo).
    """

    def __init__(self, in_dim: int, num_labels: int, width: int = 512, kaiming: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_dim, width, 3, padding=5, dilation=5, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=5, dilation=5, bias=False)
        self.classify = nn.Conv2d(width, num_labels, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        if kaiming:
            for conv in (self.first, self.second, self.classify):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, tokens_BDhw: Tensor) -> Tensor:
        hidden = self.act(self.first(tokens_BDhw))
        return self.classify(self.act(self.second(hidden)))
