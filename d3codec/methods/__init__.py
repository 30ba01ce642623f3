"""Distillation methods as compositions of encoder stages; nothing here is needed to decode."""
