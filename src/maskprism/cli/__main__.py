"""python -m maskprism.cli."""

from maskprism.cli import main

main()
