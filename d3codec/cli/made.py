"""What commands that make a file of other files do in the end."""

from __future__ import annotations

from typing import Any

from d3codec.cli.console import print_hint


def save_made(output: str, data: bytes, quiet: bool) -> dict[str, Any]:
    """Save a new file whole; facts for `--json`. Hints at a missing pixel digest."""
    from d3codec.format.file import D3MFile, save_atomically

    save_atomically(output, data)
    made = D3MFile.open(data)
    stated = made.about.pixels if made.about is not None else None
    pixels: bytes | None = getattr(made.content.profile, "pixels", stated)
    if pixels is None:
        print_hint("The new file states no pixel digest; --decode would decode all images and state one.", quiet)
    return {
        "output": output,
        "bytes": len(data),
        "content_id": made.content_id,
        "classes": made.content.classes.count,
        "groups": len(made.content.groups),
        "images_per_class": sum(group.images.count for group in made.content.groups),
        "profile": made.content.profile.name,
        "pixel_digest": None if pixels is None else pixels.hex(),
    }
