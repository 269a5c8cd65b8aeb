"""Workers that ask no network, in processes of their own: one for each CPU of a run."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor

import torch

from harness.api.images import ImageInfo, ImageInput, Worker
from harness.api.spec import MethodConfig, resolve
from harness.datasets.io.image_files import encoded

AHEAD = 4
"""Images of each process that wait for it or to be written: inputs of no more are held at once."""
_worker: Worker | None = None


def fanned_out(
    does: str, config: MethodConfig, info: ImageInfo, images: Iterable[ImageInput], processes: int, *, bf16: bool
) -> Generator[tuple[str, str, bytes]]:
    """Id, suffix and content of each image's file, in order. Raises what a worker raises; what is queued is dropped
    when the caller stops.
    """
    # A forked child would inherit locks of torch's and polars' threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin, (does, config, info))
    waiting: deque[Future[tuple[str, str, bytes]]] = deque()
    try:
        for image in images:
            waiting.append(pool.submit(_made, image, bf16))
            if len(waiting) > AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(does: str, config: MethodConfig, info: ImageInfo) -> None:
    """Ctrl-C ends the parent, which ends its pool."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker = resolve(does)(config, info)


def _made(image: ImageInput, bf16: bool) -> tuple[str, str, bytes]:
    assert _worker is not None
    return (image.image_id, *written_by(_worker, [image], "cpu", bf16=bf16)[0])


def written_by(worker: Worker, images: list[ImageInput], device: str, *, bf16: bool) -> list[tuple[str, bytes]]:
    """Suffix and content of each image's file, made without gradient and in the run's precision; several together where
    the worker takes several (`Worker`)."""
    many = getattr(worker, "many", None)
    with torch.no_grad(), torch.autocast(torch.device(device).type, torch.bfloat16, bf16):
        found = many(images) if many is not None else [worker(one) for one in images]
    return [encoded(one) for one in found]
