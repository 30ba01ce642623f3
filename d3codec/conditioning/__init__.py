"""Conditioning: what a row gives to the generator, to bytes and back, one file a kind."""
