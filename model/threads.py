"""Forward and backward pass of a convolution, with the persons of a batch divided among threads.

Paddle's CPU convolution processes one image after the other: it rearranges the image on one core,
and only the matrix product uses all cores. Here each thread processes its own images from start to
end, which is 1.5 times as fast on two cores (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.base import core

Work = Callable[..., Tensor]
Bounds = tuple[int, int]  # first person of a share, and the one after its last


def over_persons(work: Work, x: Tensor, *weights: Tensor) -> Tensor:
    """work(x, *weights), where `work` computes every item of axis 0 of x independently.

    Where gradients are needed on a CPU, it runs in as many threads as Paddle may use
    (FLAGS_paddle_num_threads), and gradients can be computed once; otherwise it is a plain call.
    """
    if not paddle.in_dynamic_mode() or not paddle.is_grad_enabled() or x.stop_gradient:
        return work(x, *weights)
    count = min(_num_threads(), x.shape[0])
    if count < 2 or not x.place.is_cpu_place():
        return work(x, *weights)
    return _OverPersons.apply(work, count, x, *weights)


class _OverPersons(PyLayer):
    # ctx: Any, because Paddle's type of it does not declare `bounds` and `shares`.
    @staticmethod
    def forward(ctx: Any, work: Work, count: int, x: Tensor, *weights: Tensor) -> Tensor:
        p = x.shape[0]
        ctx.bounds = [(p * n // count, p * (n + 1) // count) for n in range(count)]

        def forward_share(bounds: Bounds, own: list[Tensor]) -> tuple[list[Tensor], Tensor]:
            leaves = [_leaf(own[0][slice(*bounds)]), *own[1:]]
            with paddle.enable_grad():
                return leaves, work(*leaves)

        # Every thread needs its own tensor objects: slicing writes to the gradient metadata of the
        # sliced tensor, and concurrent writes corrupt the heap.
        handles = [[x.detach(), *map(_leaf, weights)] for _ in ctx.bounds]
        ctx.shares = _in_threads(forward_share, ctx.bounds, handles)
        return paddle.concat([y.detach() for _, y in ctx.shares], axis=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        def backward_share(
            share: tuple[list[Tensor], Tensor], bounds: Bounds, own_grad: Tensor
        ) -> list[Tensor | None]:
            leaves, y = share
            paddle.autograd.backward([y], [own_grad[slice(*bounds)]])
            return [leaf.grad for leaf in leaves]

        handles = [grad.detach() for _ in ctx.bounds]
        grads = _in_threads(backward_share, ctx.shares, ctx.bounds, handles)
        ctx.shares = None
        of_x, *of_weights = zip(*grads)
        return paddle.concat(of_x, axis=0), *(paddle.add_n(list(parts)) for parts in of_weights)


def _leaf(tensor: Tensor) -> Tensor:
    """A leaf of a new autograd graph that shares the tensor's memory."""
    leaf = tensor.detach()
    leaf.stop_gradient = False
    return leaf


def _in_threads(work: Callable, *arguments: list) -> list:
    """`work` of the arguments of each share, in order. Paddle uses one thread within each."""
    core.set_num_threads(1)
    try:
        return list(_pool().map(work, *arguments))
    finally:
        core.set_num_threads(_num_threads())


@cache
def _num_threads() -> int:
    return int(paddle.get_flags("FLAGS_paddle_num_threads")["FLAGS_paddle_num_threads"])


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_num_threads(), thread_name_prefix="persons")
