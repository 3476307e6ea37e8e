"""What to say of a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Iterable[str], owner: str = "") -> str:
    """`OWNER has no KIND 'NAME'; did you mean …?`, or else what there is."""
    listed = list(known)
    close = get_close_matches(name, listed, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there is {listing(listed)}"
    return f"{f'{owner} has' if owner else 'there is'} no {kind} {name!r}; {hint}"


def listing(names: list[str], most: int = 12) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
