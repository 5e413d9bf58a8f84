"""The poller's C text on a system without epoll: it compiles, and says that there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[3] / "sidecar/proxy/io/poller.pxd"
COMPILER = shutil.which("cc")

# Uses all that the reactor uses: 0 when there is no poller, and no event is told of.
PROGRAM = """
int main(void) {
    static poller_event events[1];
    int found = poller_wait(-1, events, 1);
    int p = poller_open();
    int told = poller_readable(events[0]) || poller_writable(events[0])
        || poller_hung_up(events[0]) || poller_who(events[0]) != 0;
    int set = poller_set(p, 0, 0, 1, 0, events);
    poller_close(p);
    return !(p == -1 && set == -1 && found == 0 && !told);
}
"""


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_without_epoll(tmp_path: Path) -> None:
    """`poller_open` gives -1, by which the reactor knows that the loop must watch the sockets."""
    match = re.search(r'cdef extern from \* nogil:\n    """(.*?)"""', HEADER.read_text(), re.DOTALL)
    assert match is not None
    source, binary = tmp_path / "poller.c", tmp_path / "poller"
    source.write_text(match[1] + PROGRAM)
    command = [str(COMPILER), "-U__linux__", "-Wall", "-Werror", "-o", str(binary), str(source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert subprocess.run([binary], check=False).returncode == 0
