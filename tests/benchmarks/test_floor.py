"""The floor of a step: which products are written down, and that they are done again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.floor import products_of
from methods.parts.nets.token_linear import TokenLinear


def test_forward_and_backward_products_are_written_down_and_done_again():
    a, b = torch.randn(4, 5, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    image, kernel = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3, requires_grad=True)
    q = torch.randn(1, 2, 7, 4, requires_grad=True)

    def work():
        total = (a @ b).exp().sum() + F.conv2d(image, kernel).sum() + F.scaled_dot_product_attention(q, q, q).sum()
        total.backward()

    products = products_of(work)
    assert "3 mm" in products.summary(), "one forward, two backward"
    assert "1 convolution," in products.summary()
    assert "1 convolution_backward" in products.summary()
    assert "scaled_dot_product_flash_attention_for_cpu_backward" in products.summary()
    again = products_of(products.replay())
    assert (again.flops, again.summary()) == (products.flops, products.summary())
    assert products.flops > 3 * 2 * 4 * 5 * 6


def test_linear_layers_of_encoders_are_written_down():
    """Three products of 4x5 and 5x6, whoever does them."""
    layer = TokenLinear(nn.Linear(5, 6))
    x = torch.randn(2, 2, 5, requires_grad=True)
    products = products_of(lambda: layer(x).sum().backward())
    assert products.flops == 3 * 2 * 4 * 5 * 6
    assert products_of(products.replay()).flops == products.flops
