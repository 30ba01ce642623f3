"""Parts of `photographs.py`: data, image codecs and their fill, the rows and how they are chosen, pictures."""
