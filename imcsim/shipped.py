"""Where the files that come with imcsim lie: beside the package in an installed wheel, above it in a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def shipped_folder(name: str) -> Path:
    """Return the folder *name* (``arch`` or ``workloads``) that comes with imcsim."""
    installed = PACKAGE / "_shipped" / name
    return installed if installed.is_dir() else PACKAGE.parent / name
