"""`bf16-nograd`: which passes it changes, and where it is refused."""

from __future__ import annotations

import pytest
import torch

from harness.api.precision import lacking, no_gradient, of_run


def product_dtype():
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(
    ("precision", "with_gradient", "without"),
    [("fp32", torch.float32, torch.float32), ("bf16", torch.bfloat16, torch.bfloat16),
     ("bf16-nograd", torch.float32, torch.bfloat16)],
)  # fmt: skip
def test_which_passes_are_in_which_precision(precision, with_gradient, without):
    with of_run(precision, "cpu"):
        assert product_dtype() == with_gradient
        with no_gradient(torch.device("cpu")):
            assert product_dtype() == without
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled()
    with no_gradient(torch.device("cpu")):
        assert product_dtype() == torch.float32, "outside of the run"


def test_a_step_that_fails_leaves_the_precision_behind():
    with pytest.raises(ZeroDivisionError), of_run("bf16-nograd", "cpu"):
        _ = 1 / 0
    with no_gradient(torch.device("cpu")):
        assert product_dtype() == torch.float32


def test_a_cpu_without_bfloat16_is_told_what_it_has(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("flags : fpu avx2 avx512f\n")
    (problem,) = lacking("bf16-nograd", "cpu", info)
    assert "it has avx2, avx512f" in problem.found
    assert problem.fix == "precision=fp32"
    assert lacking("bf16", "cpu", info) == lacking("fp32", "cpu", info) == lacking("auto", "cpu", info) == []
    info.write_text("flags : fpu avx2 avx512f avx512_bf16\n")
    assert lacking("bf16-nograd", "cpu", info) == []
    (problem,) = lacking("bf16-nograd", "cpu", tmp_path / "none")
    assert "nothing that is known" in problem.found


def test_a_gpu_without_bfloat16_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for precision in ("bf16", "bf16-nograd"):
        (problem,) = lacking(precision, "cuda")
        assert "Tesla T4" in problem.found
    assert lacking("fp32", "cuda") == []
