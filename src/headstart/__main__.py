"""``python -m headstart``: the command line, where the environment's scripts are not on the path."""

from headstart.cli import main

main()
