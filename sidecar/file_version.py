"""Tells one version of a file from another, for files that are watched.

A file that is swapped as a whole, as Kubernetes does it, is another version as well.
"""

from __future__ import annotations

import os

Version = tuple[int, ...]


def file_version(path: str) -> Version:
    """What changes with the file at this path; if there is none, the reason."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
