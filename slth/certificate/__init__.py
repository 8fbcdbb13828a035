"""What can be proved of a ticket: bounds of its error over boxes, balls and data."""

from slth.certificate.domain import Domain, ball, box, examples
from slth.certificate.network import Certificate, LayerBound, certify

__all__ = ["Certificate", "Domain", "LayerBound", "ball", "box", "certify", "examples"]
