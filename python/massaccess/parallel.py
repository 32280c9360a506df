"""Compiled kernels on several cores: frames are shared out to threads, the kernel releases the interpreter lock.

Numba's own parallel loops may not be entered from two threads at once on every platform; a flowgraph does just that.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def over_frames(kernel: Callable[..., None], frames: int, *args: object) -> None:
    """Calls ``kernel(first, last, *args)`` for ranges that cover ``frames``, on as many threads as torch uses."""
    workers = min(torch.get_num_threads(), frames)
    if workers <= 1:
        kernel(0, frames, *args)
        return
    edges = [frames * part // workers for part in range(workers + 1)]
    jobs = [_pool().submit(kernel, edges[part], edges[part + 1], *args) for part in range(1, workers)]
    kernel(0, edges[1], *args)
    for job in jobs:
        job.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="massaccess-kernel")
