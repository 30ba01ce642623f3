"""Images -> file: one stage a module (select, collage, invert, relabel, pack); nothing here is needed to
decode.
"""
