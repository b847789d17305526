"""Convert the URI of a document to a local path.

pygls also has such a function, but it returns wrong paths for names that are not UTF-8, and raises errors for some
URIs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

_DRIVE = re.compile(r"/[A-Za-z]:(?=/|$)")


def local_path(uri: str) -> Path | None:
    """Return the path of a `file` URI. Return None for other schemes and for impossible file names."""
    return path_in(uri) if uri[:5].lower() == "file:" else None


def path_in(uri: str) -> Path | None:
    """Return the path in a URI of any scheme, or None if the URI has no absolute path.

    The URI of a notebook's cell has the path of the notebook, and the URI of an older version of a file has the path of
    the file.
    """
    try:
        parts = urlsplit(uri)
        if not parts.path.startswith("/"):
            return None
        name = os.fsdecode(unquote_to_bytes(parts.path))
        host = os.fsdecode(unquote_to_bytes(parts.netloc)) if parts.scheme == "file" else ""
        if host and host != "localhost":
            name = f"//{host}{name}"
        elif _DRIVE.match(name):
            name = name[1].lower() + name[2:]
        os.fsencode(name)
    except ValueError:  # an invalid host, or half a surrogate pair
        return None
    return None if "\0" in name else Path(name)
