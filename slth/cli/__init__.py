"""The console command ``slth``: what a file holds, and tickets that anybody can build again."""

from slth.cli.commands import main

__all__ = ["main"]
