"""Conditioning and noise -> pixels: the networks of a generator, and the identity that a file names them
by."""
