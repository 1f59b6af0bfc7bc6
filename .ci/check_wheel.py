"""Check that a wheel holds the whole package and nothing else: `check_wheel.py WHEEL`."""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGE = Path("django_blobstore")


def main(wheel: str) -> int:
    """Print what is too much or missing in `wheel`, and return how many names that is."""
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {path.as_posix() for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    for name in sorted(names - source):
        print(f"not part of the package: {name}")
    for name in sorted(source - names):
        print(f"missing in the wheel: {name}")
    return len(names ^ source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
