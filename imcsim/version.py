"""The version, written once: in pyproject.toml."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("imcsim")
except PackageNotFoundError:  # read from a folder that nobody installed
    __version__ = "0+unknown"
