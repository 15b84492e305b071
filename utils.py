"""Process set-up: CPU, device, seed, logging. Imports Paddle inside the functions that need it."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

from errors import UserError, printable
from safe_io import read_text

MOST_THREADS, MOST_COUNT = 1024, 10**6  # of options: more is a typing error
_LOG_FORMAT = "[ %(asctime)s ] %(message)s"
# glibc's numbers of mallopt parameters
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MALLOC_SETTINGS = (
    *("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "MALLOC_ARENA_MAX"),
    "GLIBC_TUNABLES",
)


def prepare_process(cpu_setup: bool = True) -> None:
    """`prepare_environment`, then import Paddle."""
    prepare_environment(cpu_setup)
    import_paddle_quietly()


def prepare_environment(cpu_setup: bool = True) -> None:
    """Settings that take effect only before Paddle is imported: .pdmodel, not .json, as the format
    of static graphs, and with cpu_setup all cores, MKL's fast path on AMD, and freed memory that is
    kept, because page faults on new memory take longer than the arithmetic (docs/performance.md).
    Never overrides environment variables of the user."""
    os.environ.setdefault("FLAGS_enable_pir_api", "0")
    os.environ.setdefault("GLOG_minloglevel", "2")
    if not cpu_setup:
        return
    if "OMP_NUM_THREADS" not in os.environ and "FLAGS_paddle_num_threads" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = os.environ["FLAGS_paddle_num_threads"] = str(num_cores())
    # Time in ms that MKL's threads spin after a product; model/threads.py needs the cores.
    os.environ.setdefault("KMP_BLOCKTIME", "1")
    if _is_amd():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    if sys.platform == "linux" and not any(name in os.environ for name in _MALLOC_SETTINGS):
        _keep_freed_memory()


def import_paddle_quietly() -> None:
    """Import Paddle without its messages on a missing ccache and on the number of threads."""
    with (
        _later_interrupts(),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        importlib.import_module("paddle")
    # A warning of every BatchNorm in training mode, about what every framework does.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean")


@contextlib.contextmanager
def _later_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: Paddle's import would fail with an error of its
    own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt


def num_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in read_text("/proc/cpuinfo")
    except UserError:
        return False


def _keep_freed_memory() -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 256 * 2**20)
    mallopt(_M_ARENA_MAX, 1)  # memory that one thread frees serves all threads


def num_gpus() -> int:
    """The number of GPUs that Paddle finds."""
    import paddle

    return paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0


def set_device(gpus: tuple[int, ...]) -> None:
    """Select the first GPU of a list, or the CPU for an empty one. Raises UserError where Paddle
    has no such GPU."""
    import paddle

    count = num_gpus()
    if gpus and gpus[0] >= count:
        raise UserError(
            f"GPU {gpus[0]} is requested, but Paddle {paddle.version.full_version} finds {count} "
            "GPUs; leave out -g for the CPU, or install paddlepaddle-gpu"
        )
    paddle.device.set_device(f"gpu:{gpus[0]}" if gpus else "cpu")


def set_seed(seed: int, epoch: int = 0, rank: int = 0) -> None:
    """Seed weights and dropout. Called again for every epoch, so that a resumed run draws the same
    numbers as an uninterrupted one. rank: of this process; dropout differs between processes."""
    import paddle

    paddle.seed((seed * 1_000_003 + epoch + rank * 15_485_863) % 2**31)


class _LineFormatter(logging.Formatter):
    """Every message is one line, whatever names it quotes."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the base class
        return printable(super().formatMessage(record))


class _Strict(logging.Handler):
    """A handler with which a full disk or a closed pipe ends the command."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the base class
        if not isinstance(sys.exc_info()[1], OSError):
            return super().handleError(record)
        raise


class _Console(_Strict, logging.StreamHandler):
    pass


class _LogFile(_Strict, logging.FileHandler):
    pass


def setup_logging(level: int = logging.INFO) -> None:
    """Log lines '[ time ] text' to the console, and buffer them for `log_to_file`."""
    console = _Console(sys.stdout)
    memory = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL, flushOnClose=False)
    console.setFormatter(_LineFormatter(_LOG_FORMAT))
    logging.basicConfig(level=level, handlers=[console, memory], force=True)


def log_to_file(path: Path) -> None:
    """Append all log lines since `setup_logging` to a file, and all that follow."""
    try:
        file = _LogFile(path, mode="a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    file.setFormatter(_LineFormatter(_LOG_FORMAT))
    root = logging.getLogger()
    for memory in [h for h in root.handlers if isinstance(h, MemoryHandler)]:
        memory.setTarget(file)
        memory.flush()
        root.removeHandler(memory)
    root.addHandler(file)


def new_parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line that is described by its module's docstring, with the line breaks kept."""
    kept = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=kept)


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raises UserError where an option of these names is not 1 or more, or is beyond all use."""
    for name in names:
        most = MOST_THREADS if name in ("cpu_threads", "workers") else MOST_COUNT
        if not 1 <= getattr(args, name) <= most:
            raise UserError(f"--{name} is {getattr(args, name)}; allowed: 1 to {most}")


def format_duration(seconds: float) -> str:
    """3725 -> '00d-01h-02m-05s'."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours // 24:02d}d-{hours % 24:02d}h-{minute:02d}m-{second:02d}s"
