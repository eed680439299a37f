"""Foreign text on a terminal: what a site, a file or a sender has written, and we only repeat."""

from __future__ import annotations

from rich.markup import escape

from ..domain.characters import visible


def literal(text: str) -> str:
    """As it is read: neither rich's markup nor the terminal's own is obeyed."""
    return escape(visible(text))
