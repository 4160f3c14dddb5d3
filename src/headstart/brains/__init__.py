"""Scans and their preparation: from BIDS folders to a store, and splits that cannot leak."""
