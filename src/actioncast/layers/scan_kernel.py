"""The selective scan as a small C program, compiled when first needed and kept for the next time.

Needs a C compiler (`cc`, `gcc` or `clang`, or what `$CC` names), about a second, once a machine.
Where there is none, `kernel()` is None and says so once; `ssm.py` then scans in PyTorch, with the
same numbers. `ACTIONCAST_COMPILER=none` asks for that.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from actioncast.files import replace_file

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("selective_scan.c")
COMPILER_VARIABLE = "ACTIONCAST_COMPILER"
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=gnu11", "-shared", "-fPIC")
SMALL = 1 << 18
"""Entries of all states of all steps below which a second thread costs more than it brings."""


class _Shape(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in (
            *("batch", "steps", "states", "width", "begin", "end"),
            *("bc_width", "bc_begin", "zero_order_hold"),
        )
    )


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan gives, and what its gradient needs."""

    y: Float[Tensor, "batch time channel"]
    last: Float[Tensor, "batch channel state"]
    borders: Float[Tensor, "..."] | None
    """The state before each chunk of steps; absent where no gradient is wanted."""


@dataclass(frozen=True, slots=True)
class ScanGradients:
    """Gradients of everything that a scan reads."""

    u: Float[Tensor, "batch time channel"]
    delta: Float[Tensor, "batch time channel"]
    a: Float[Tensor, "channel state"]
    b: Float[Tensor, "batch time group state"]
    c: Float[Tensor, "batch time group state"]
    first: Float[Tensor, "batch channel state"] | None


class ScanKernel:
    """The compiled functions on float32 CPU tensors, all of them contiguous."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._scan = library.actioncast_scan
        self._gradient = library.actioncast_scan_gradient
        self.chunk = int(library.actioncast_chunk())
        self.lanes = int(library.actioncast_width())

    def takes(self, channels: int, groups: int) -> bool:
        """Whether no block of saved states belongs to two groups."""
        return groups == 1 or channels // groups % self.lanes == 0

    def scan(
        self,
        u: Float[Tensor, "batch time channel"],
        delta: Float[Tensor, "batch time channel"],
        a: Float[Tensor, "channel state"],
        b: Float[Tensor, "batch time group state"],
        c: Float[Tensor, "batch time group state"],
        first: Float[Tensor, "batch channel state"] | None,
        *,
        zero_order_hold: bool,
        keep_borders: bool,
    ) -> Scanned:
        """Scan; `first` is the state before the first step, absent: zeros."""
        batch, steps, width = u.shape
        states = a.shape[1]
        y, last = torch.empty_like(u), u.new_empty(batch, width, states)
        borders = None
        if keep_borders:
            chunks, blocks = -(-steps // self.chunk), -(-width // self.lanes)
            borders = u.new_empty(batch, chunks, blocks, states, self.lanes)

        def run(shape: _Shape, _: int) -> int:
            return int(
                self._scan(
                    ctypes.byref(shape),
                    *map(_address, (u, delta, a, b, c, first, y, last, borders)),
                )
            )

        _run(run, _calls(u, b, zero_order_hold))
        return Scanned(y, last, borders)

    def gradient(
        self,
        u: Float[Tensor, "batch time channel"],
        delta: Float[Tensor, "batch time channel"],
        a: Float[Tensor, "channel state"],
        b: Float[Tensor, "batch time group state"],
        c: Float[Tensor, "batch time group state"],
        borders: Float[Tensor, "..."],
        grad_y: Float[Tensor, "batch time channel"],
        grad_last: Float[Tensor, "batch channel state"] | None,
        *,
        zero_order_hold: bool,
        of_first: bool,
    ) -> ScanGradients:
        """Gradients, given those of `y` and of the last state."""
        du, ddelta, da = torch.empty_like(u), torch.empty_like(u), torch.zeros_like(a)
        dfirst = u.new_empty(u.shape[0], u.shape[2], a.shape[1]) if of_first else None
        # Every call sums over its own channels.
        calls = _calls(u, b, zero_order_hold)
        db, dc = u.new_zeros(len(calls), *b.shape), u.new_zeros(len(calls), *c.shape)

        def run(shape: _Shape, call: int) -> int:
            given = (u, delta, a, b, c, borders, grad_y, grad_last, du, ddelta, da)
            made = (db[call], dc[call], dfirst)
            return int(self._gradient(ctypes.byref(shape), *map(_address, (*given, *made))))

        _run(run, calls)
        return ScanGradients(du, ddelta, da, db.sum(0), dc.sum(0), dfirst)


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous(), "the kernel reads contiguous tensors"
    assert tensor.dtype == torch.float32, "the kernel reads float32"
    return ctypes.c_void_p(tensor.data_ptr())


def _calls(
    u: Float[Tensor, "batch time channel"],
    b: Float[Tensor, "batch time group state"],
    zero_order_hold: bool,
) -> list[_Shape]:
    """One call for each range of channels: those of every group, shared out among threads."""
    batch, steps, width = u.shape
    groups, states = b.shape[2:]
    own = width // groups
    threads = torch.get_num_threads() if u.numel() * states >= SMALL else 1
    parts = max(1, min(-(-threads // groups), own // 16))
    # Whole blocks of lanes, so that no block of saved states has two writers.
    size = -(-own // parts // 16) * 16
    return [
        _Shape(
            batch,
            steps,
            states,
            width,
            group * own + start,
            group * own + min(start + size, own),
            groups * states,
            group * states,
            int(zero_order_hold),
        )
        for group in range(groups)
        for start in range(0, own, size)
    ]


def _run(run: Callable[[_Shape, int], int], calls: list[_Shape]) -> None:
    """Make all calls, large ones side by side; each is given its number."""
    shape, numbers = calls[0], range(len(calls))
    large = shape.batch * shape.steps * shape.width * shape.states >= SMALL
    if large and len(calls) > 1:
        failed = list(_pool(torch.get_num_threads()).map(run, calls, numbers))
    else:
        failed = list(map(run, calls, numbers))
    if any(failed):
        raise MemoryError("the selective scan found no memory for its state.")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "selective-scan")


@cache
def kernel() -> ScanKernel | None:
    """The compiled kernel; None, with one warning, where it cannot be made."""
    compiler = os.environ.get(COMPILER_VARIABLE, "")
    if compiler == "none":
        return None
    command = _compiler(compiler)
    if not command:
        logger.warning(
            "no C compiler was found, so selective scans run in PyTorch: the same numbers, several "
            "times slower. Install gcc or clang, or name one in %s.",
            COMPILER_VARIABLE,
        )
        return None
    try:
        return ScanKernel(ctypes.CDLL(str(_compiled(command))))
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        logger.warning(
            "%s could not compile the selective scan (%s), so it runs in PyTorch: the same "
            "numbers, several times slower.",
            command[0],
            " ".join(str(said).split())[:300],
        )
        return None


def _compiler(named: str) -> list[str]:
    """The command of the compiler that is there, as words; empty where there is none."""
    for candidate in [named] if named else [os.environ.get("CC", ""), "cc", "gcc", "clang"]:
        words = shlex.split(candidate)
        if words and shutil.which(words[0]):
            return words
    return []


def _compiled(command: list[str]) -> Path:
    """The library, compiled unless it is in the cache.

    Its name tells source, compiler, flags and processor, since it runs on no lesser one. A file
    that is not as it was written, as a crash may leave it, is made anew: loading it could end the
    process.
    """
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(repr((command, FLAGS, platform.machine(), _processor())).encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = root / "actioncast" / f"selective_scan-{digest.hexdigest()[:16]}.so"
    if _is_whole(kept):
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=kept.parent)
    except OSError:
        # A home that cannot be written: this process alone has it.
        folder = tempfile.mkdtemp()
        kept = Path(folder) / "selective_scan.so"
    made = Path(folder) / "made.so"
    try:
        subprocess.run(
            [*command, *FLAGS, str(SOURCE), "-o", str(made)],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        content = made.read_bytes()
    finally:
        made.unlink(missing_ok=True)
        if Path(folder) != kept.parent:
            shutil.rmtree(folder, ignore_errors=True)
    # Whole or not at all, whoever compiles at the same time.
    replace_file(kept, content + _seal(content))
    return kept


SEAL = b"actioncast:"
"""Between a library and its digest."""


def _seal(content: bytes) -> bytes:
    """What stands after a library: loaders read no further than its sections."""
    return SEAL + hashlib.sha256(content).hexdigest().encode()


def _is_whole(path: Path) -> bool:
    """Whether a library is there and is what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    library, mark, _ = content.rpartition(SEAL)
    return bool(mark) and content == library + _seal(library)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
