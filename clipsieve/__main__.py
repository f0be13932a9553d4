"""`python -m clipsieve` is the command line."""

from clipsieve.cli import main

main()
