"""Masks as few bytes: the entropy coder of ticket files (docs/ticket_format.md)."""

from slth.coding.mask import decode, encode

__all__ = ["decode", "encode"]
