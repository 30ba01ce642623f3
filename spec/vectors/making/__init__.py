"""Makes the files of the conformance corpus; `make_vectors.py` beside this folder runs it."""
