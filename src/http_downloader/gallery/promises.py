"""What listings promise of a file, for the sites of which it is known to be true of the file that is downloaded.

A field that is called `md5` says little: with some sites it is the hash of a larger original, of a name, or of what the
file was before it was converted. So only these count, each read in the extractor's source and compared with its sites'
documentation; and only for the URL beside which they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from gallery_dl.extractor.common import Extractor

from ..domain.bodies import Promise

Fields = tuple[object, object, object]
"""URL, size and MD5 of the original file."""


def _booru(post: dict[str, Any]) -> Fields:
    """Samples and converted ugoira have other URLs (`large_file_url`, `jpeg_url`)."""
    return post.get("file_url"), post.get("file_size"), post.get("md5")


def _e621(post: dict[str, Any]) -> Fields:
    file = post.get("file")
    return (file.get("url"), file.get("size"), file.get("md5")) if isinstance(file, dict) else (None, None, None)


PROMISES: dict[str, Callable[[dict[str, Any]], Fields]] = {
    "Danbooru": _booru,
    "moebooru": _booru,
    "E621": _e621,
}
"""By gallery-dl's base category. Sources: gallery_dl/extractor/danbooru.py, moebooru.py, e621.py."""

NOTHING = Promise()


def promise_of(extractor: Extractor, url: str, kwdict: dict[str, Any]) -> Promise:
    """What the listing promises of the file at `url`. The option `promises: false` of a site is for one that lies."""
    fields = PROMISES.get(getattr(extractor, "basecategory", ""))
    if fields is None or extractor.config("promises") is False:
        return NOTHING
    listed_at, size, md5 = fields(kwdict)
    # Both, or neither: of files that were deleted or replaced some sites keep the one without the other.
    if not isinstance(listed_at, str) or not isinstance(size, int) or not isinstance(md5, str):
        return NOTHING
    if size <= 0 or len(md5) != 32 or urljoin(f"{extractor.root}/", listed_at) != url:
        return NOTHING
    return Promise(size=size, hashes={"md5": md5})
