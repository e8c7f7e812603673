"""`python -m textdiff`, for torchrun."""

from .commands.cli import main

if __name__ == "__main__":
    main()
