"""Where weights come from: a catalogue of published and shipped starts, fetched, checked, adapted and receipted."""

from headstart.upstreams.base import Upstream
from headstart.upstreams.catalogue import catalogue, find
from headstart.upstreams.fetch import default_start, forget, locate
from headstart.upstreams.ledger import Overlap, overlaps
from headstart.upstreams.load import domain_of, domain_of_recipe, identity, licence_of, load_into, readout_of, seen_by
from headstart.upstreams.recipes import RECIPES

__all__ = [
    "RECIPES",
    "Overlap",
    "Upstream",
    "catalogue",
    "default_start",
    "domain_of",
    "domain_of_recipe",
    "find",
    "forget",
    "identity",
    "licence_of",
    "load_into",
    "locate",
    "overlaps",
    "readout_of",
    "seen_by",
]
