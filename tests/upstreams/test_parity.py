"""Whatever the catalogue says of parity with a publisher's package is proven by a test."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from parity import PROVEN

from headstart.upstreams import RECIPES, catalogue


def test_every_claim_in_the_catalogue_is_proven() -> None:
    for proofs in ("test_transformer_parity", "test_convnet_parity"):
        import_module(proofs)  # where reading a test notes what it proves, whichever tests are run
    assert {recipe.name for recipe in RECIPES.values() if recipe.reference} == PROVEN
    used = {upstream.recipe.name for upstream in catalogue() if upstream.recipe and upstream.verified}
    assert used <= PROVEN
