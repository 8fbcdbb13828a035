"""Strong lottery tickets, constructed."""
