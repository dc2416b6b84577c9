"""The command line, as `python -m maskprism`."""

from maskprism.cli import main

main()
