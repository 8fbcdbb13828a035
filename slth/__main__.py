"""``python -m slth``, the same as the console command ``slth``."""

from slth.cli.commands import command

if __name__ == "__main__":
    command()
