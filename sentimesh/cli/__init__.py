"""The ``sentimesh`` command."""

from sentimesh.cli.app import main

__all__ = ["main"]
