"""Gradients of two workers: summed, zero where one worker has none, none where no worker has one."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from harness.engine.parallel import reduce_gradients
from harness.engine.session import LocalSession


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.one, self.none = (nn.Parameter(torch.zeros(3)) for _ in range(3))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net, found = Net(), []
    for late in (False, True):
        net.both.grad = torch.full((3,), 1.0 + rank)
        net.one.grad = torch.full((3,), 5.0) if rank else None
        # From here on another term has started, on one worker only.
        net.none.grad = torch.full((3,), 7.0) if late and not rank else None
        reduce_gradients(net, LocalSession(rank=rank, world_size=2))
        found.append({name: None if p.grad is None else p.grad.tolist() for name, p in net.named_parameters()})
    torch.save(found, f"{folder}/{rank}")
    dist.destroy_process_group()


def test_gradients_of_two_workers(tmp_path):
    mp.start_processes(worker, (str(tmp_path),), nprocs=2, start_method="fork")
    expected = {"both": [3.0] * 3, "one": [5.0] * 3, "none": None, "frozen": None}
    for rank in range(2):
        assert torch.load(tmp_path / str(rank)) == [expected, {**expected, "none": [7.0] * 3}]
