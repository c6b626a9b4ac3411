"""Removes what an untrusted process left, such as folders nested without end, or names that are no text."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def remove(folder: Path) -> bool:
    """Remove a folder and everything in it, following no link. Return whether it is gone; what can't be removed stays.

    Every inner folder is first moved to the top. So nothing here recurses, and no path gets too long for the system,
    however deep they were nested.
    """
    top, tag, count = os.fsencode(folder), secrets.token_hex(8).encode(), 0
    if os.path.islink(top):
        os.unlink(top)
    folders = [top] if os.path.isdir(top) else []
    for at in folders:  # grows while we go
        with suppress(OSError):
            os.chmod(at, 0o700)
        with suppress(OSError), os.scandir(at) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)  # without this right it can't be moved
                        count += 1
                        folders.append(os.path.join(top, b"%s-%d" % (tag, count)) if at != top else entry.path)
                        if at != top:
                            os.rename(entry.path, folders[-1])
                    else:
                        os.unlink(entry.path)
    for at in reversed(folders):
        with suppress(OSError):
            os.rmdir(at)
    return not os.path.lexists(folder)
