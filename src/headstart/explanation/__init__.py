"""Where in the brain an answer comes from: maps on the template's grid and on the scan's own"""

from headstart.explanation.maps import METHODS, explain
from headstart.explanation.native import to_native

__all__ = ["METHODS", "explain", "to_native"]
