"""The container: bytes <-> records, as spec/d3m-0.4.md says. No numpy, no torch, no meaning of labels."""
