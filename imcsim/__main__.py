"""``python -m imcsim`` is the command line."""

from imcsim.cli import main

main()
