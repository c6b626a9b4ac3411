"""One JSON file that survives kill -9: written aside and renamed, so a reader finds the old one or the new one, whole.

The one before is kept beside it. A file that cannot be read (cut in half, edited by hand) is set aside under another
name and the one before is used. Nothing is flushed to the disk itself: a power failure may cost the last seconds.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class StateFile:
    """`save` what must be kept, `load` it after a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = path.with_suffix(".before.json")
        self._saved = ""
        self._last: object = None  # what was saved: a part that remakes its state seldom returns it again and again

    def save(self, state: object) -> None:
        """Keep `state`, in JSON's types; the same object again costs nothing at all. Raises: OSError."""
        if state is self._last:
            return
        text = json.dumps(state, allow_nan=False)
        if text == self._saved:
            self._last = state
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".new")
        aside.write_text(text, encoding="utf-8")
        if self._path.exists():
            os.replace(self._path, self._before)
        os.replace(aside, self._path)
        self._saved, self._last = text, state

    def load(self) -> object:
        """Return what was saved last; None if there is nothing, or nothing that can be read."""
        for path in (self._path, self._before):
            try:
                return json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                self.set_aside(path, error)
        return None

    def set_aside(self, path: Path | None, error: Exception) -> None:
        """Move a file that is no use out of the way, and say so; None: the one that was saved last."""
        path = path or self._path
        damaged = path.with_suffix(".damaged")
        try:
            os.replace(path, damaged)
        except OSError:
            damaged = path
        log.error("the state in %s cannot be read (%s); it is kept as %s and not used", path.name, error, damaged.name)
