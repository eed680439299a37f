"""`db restored`: a catalog that goes on from a backup.

Its runs count on from where they stood then. Under their old names they would repeat message ids that consumers have seen,
for other events, and those would be dropped as repeated.
"""

from __future__ import annotations

import secrets

from ..catalog import content
from ..catalog.engine import Catalog
from ..domain.errors import CatalogError, ContentError
from ..settings import Settings
from ..sync.trash import RootMarker


def begin_anew(settings: Settings, catalog: Catalog) -> str:
    """Give the catalog a new identity, and CONTENT_ROOT the marker of that name. Returns the identity.

    Raises `CatalogError` while workers run, `ContentError` when CONTENT_ROOT is not the folder of this catalog.
    """
    if names := content.running_workers(catalog):
        raise CatalogError(
            f"workers of this catalog run, or ran within the minute before its backup: {', '.join(names)};"
            " end them, and try again in a minute"
        )
    identity = secrets.token_hex(4)
    if content.is_marked(catalog):
        marker = RootMarker(settings.content_root, catalog.identity)
        if not marker.is_there():
            raise ContentError(marker.missing)
        RootMarker(settings.content_root, identity).write()
    content.rename(catalog, identity)
    return identity
