"""Names of files as text that can be printed, compared and stored."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable

# Control characters, halves of a surrogate pair, line and paragraph separators.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def printable(name: str | os.PathLike) -> str:
    """A file's name or path in one line of valid text: bytes that are no UTF-8 and what would
    break a line are written as escapes."""
    return "".join(
        _escape(c) if unicodedata.category(c) in UNPRINTABLE else c for c in os.fspath(name)
    )


def _escape(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode()


def same_form(name: str) -> str:
    """`name` with accents joined to their letters (Unicode's NFC): macOS takes them apart."""
    return unicodedata.normalize("NFC", name)


def meant(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """ "did you mean NAME?" of the known name that is nearest; "" where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""


def natural(name: str) -> list:
    """Sort key by which run 10 comes after run 9."""
    return [(int(x), "") if x.isdecimal() else (0, x) for x in re.split(r"(\d+)", name)]
