"""A convolution's forward and backward with the persons of a batch shared out over threads.

Paddle's CPU convolution takes one image after the other, rearranges it on one core and gives all
cores only the product. Here each thread takes its own images from beginning to end, which is half
as fast again on two cores (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer, PyLayerContext
from paddle.base import core

Work = Callable[..., Tensor]


def over_persons(work: Work, x: Tensor, *weights: Tensor) -> Tensor:
    """work(x, *weights), where `work` treats every item of axis 0 of x by itself.

    Threads are used where gradients are wanted, on a CPU, with as many threads as Paddle was given
    (FLAGS_paddle_num_threads); otherwise this is the plain call. Gradients can be taken once.
    """
    if not paddle.in_dynamic_mode() or not paddle.is_grad_enabled() or x.stop_gradient:
        return work(x, *weights)
    count = min(_num_threads(), x.shape[0])
    if count < 2 or not x.place.is_cpu_place():
        return work(x, *weights)
    return _OverPersons.apply(work, count, x, *weights)


class _OverPersons(PyLayer):
    @staticmethod
    def forward(ctx: PyLayerContext, work: Work, count: int, x: Tensor, *weights: Tensor) -> Tensor:
        p = x.shape[0]
        ctx.bounds = [(p * n // count, p * (n + 1) // count) for n in range(count)]

        def one_share(given: tuple[tuple[int, int], list[Tensor]]) -> tuple[list[Tensor], Tensor]:
            (first, last), (own_x, *own_weights) = given
            leaves = [_leaf(own_x[first:last]), *own_weights]
            with paddle.enable_grad():
                return leaves, work(*leaves)

        # Each thread gets tensors of its own here: Paddle writes to the gradient's bookkeeping of
        # a tensor that it slices, and two threads at that at once corrupt the heap.
        handles = [[x.detach(), *map(_leaf, weights)] for _ in ctx.bounds]
        ctx.shares = _in_threads(one_share, list(zip(ctx.bounds, handles)))
        return paddle.concat([y.detach() for _, y in ctx.shares], axis=0)

    @staticmethod
    def backward(ctx: PyLayerContext, grad: Tensor) -> tuple[Tensor, ...]:
        def one_share(
            given: tuple[tuple[list[Tensor], Tensor], tuple[int, int], Tensor],
        ) -> list[Tensor]:
            (leaves, y), (first, last), own_grad = given
            paddle.autograd.backward([y], [own_grad[first:last]])
            return [leaf.grad for leaf in leaves]

        handles = [grad.detach() for _ in ctx.bounds]
        grads = _in_threads(one_share, list(zip(ctx.shares, ctx.bounds, handles)))
        ctx.shares = None
        of_x, *of_weights = zip(*grads)
        return paddle.concat(of_x, axis=0), *(paddle.add_n(list(parts)) for parts in of_weights)


def _leaf(tensor: Tensor) -> Tensor:
    """The same numbers at the beginning of a graph of their own."""
    leaf = tensor.detach()
    leaf.stop_gradient = False
    return leaf


def _in_threads(work: Callable, shares: list) -> list:
    """work(share) of all, each on one core."""
    core.set_num_threads(1)
    try:
        return list(_pool().map(work, shares))
    finally:
        core.set_num_threads(_num_threads())


@cache
def _num_threads() -> int:
    return paddle.get_flags("FLAGS_paddle_num_threads")["FLAGS_paddle_num_threads"]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_num_threads(), thread_name_prefix="persons")
