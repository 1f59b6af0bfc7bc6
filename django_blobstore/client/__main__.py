"""What the ``blobstore`` command runs: it says what to install if that is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("click", "httpx2", "rich")


def main() -> None:
    """Run the command line, which needs the extra ``client``."""
    if not all(map(find_spec, _NEEDED)):
        sys.exit("blobstore: install what this command needs: pip install 'django-blobstore[client]'")
    from django_blobstore.client.cli import blobstore  # only there with what it needs

    blobstore(prog_name="blobstore")


if __name__ == "__main__":
    main()
