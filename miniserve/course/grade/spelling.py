"""Names that others chose, made safe to show: in a terminal, on a page, and beside a name that looks the same."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable

# Letters of other alphabets that look like Latin ones; Unicode's own folding (NFKC) leaves them apart.
_LOOKS_LIKE = str.maketrans("авеіјкмнорсѕтухԁԛԝӏαβεικνορτυχı", "abeijkmhopcstyxdqwlabeikvoptuxi")
_INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")  # controls, marks of direction, spaces without width, halves


def readable(name: str | os.PathLike[str]) -> str:
    """Return a file's name as text. Zip programs on Windows write names that are no UTF-8; nearly all are cp1252."""
    raw = os.fsencode(name)
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def printable(text: str) -> str:
    """Return a text on one line, with everything in it that is invisible or moves other characters as an escape."""
    return "".join(_escaped(character) if _hides(character) else character for character in text)


def _hides(character: str) -> bool:
    category = unicodedata.category(character)
    return category in _INVISIBLE or (category == "Zs" and character != " ") or (category == "Mn" and _free(character))


def _free(character: str) -> bool:
    """Return whether a mark takes no part in any letter: a selector of variants, or a joiner."""
    return unicodedata.combining(character) == 0 and unicodedata.name(character, "").startswith(
        ("VARIATION SELECTOR", "COMBINING GRAPHEME JOINER", "MONGOLIAN FREE VARIATION")
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def file_stem(learner: str) -> str:
    """Return a short file name for a learner, without an ending; two learners never share one."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", learner)[:80]
    digest = hashlib.sha256(learner.encode("utf-8", "surrogatepass")).hexdigest()
    return plain if plain == learner else f"{plain}-{digest[:8]}"


def alike(names: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each name that others look like, those others."""
    looks: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        looks.setdefault(_look(name), []).append(name)
    return {
        name: [other for other in group if other != name] for group in looks.values() for name in group if group[1:]
    }


def _look(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold().translate(_LOOKS_LIKE)
    return "".join(character for character in folded if not _hides(character) and not character.isspace())
