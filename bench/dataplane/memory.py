"""Memory of a process per idle connection, from /proc/PID/smaps_rollup.

The figure is the growth of the process's own memory (PSS; RSS where PSS cannot be read) while
`conns` more connections are opened, each of which has done one GET and is then silent. A first
batch is opened beforehand so that code, pools and arenas are not charged to the connections. The
kernel's socket buffers are not part of it; they are the same for every peer.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench.load.loadgen import hold
from bench.load.shape import Load
from bench.peers.stage import Lane
from tests.harness.process import Process

SETTLE_SECONDS = 1.0
MAX_TURNS = 3


def turns(repeat: int) -> int:
    """Rounds for a memory scenario: memory hardly varies, and each round opens thousands."""
    return min(repeat, MAX_TURNS)


def memory_bytes(pid: int) -> int:
    """PSS of a process in bytes; its RSS if the kernel does not tell the PSS."""
    try:
        text, label = Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss"
    except OSError:
        text, label = Path(f"/proc/{pid}/status").read_text(), "VmRSS"
    found = re.search(rf"^{label}:\s+(\d+) kB", text, re.MULTILINE)
    if not found:
        raise OSError(f"no {label} of process {pid}")
    return int(found[1]) * 1024


def _settled(pid: int) -> int:
    """Memory after the process had time to finish what the new connections started."""
    time.sleep(SETTLE_SECONDS)
    return memory_bytes(pid)


def per_connection(program: Path, lane: Lane, process: Process, load: Load) -> dict[str, float]:
    """KiB of `process` per idle connection (`kib`), and its size before in MiB (`base_mib`)."""
    first = Load(conns=max(50, load.conns // 10), tls=load.tls, keys=load.keys)
    with hold(program, lane.address, first):
        before = _settled(process.pid)
        with hold(program, lane.address, load):
            after = _settled(process.pid)
    return {"kib": (after - before) / load.conns / 1024, "base_mib": before / (1 << 20)}
