"""What can be proved of a ticket: bounds of its error over boxes, balls and data."""

from slth.certificate.domain import Domain, ball, box, examples
from slth.certificate.prove import Certificate, LayerBound, certify
from slth.certificate.theorem import Budget, Theorem, theorem

__all__ = [
    "Budget",
    "Certificate",
    "Domain",
    "LayerBound",
    "Theorem",
    "ball",
    "box",
    "certify",
    "examples",
    "theorem",
]
