"""The container: bytes <-> records, as spec/d3m-1.0.md says. No numpy, no torch, no meaning of labels."""
