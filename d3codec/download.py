"""A URL -> the bytes behind it, through fsspec, whole and bounded."""

from __future__ import annotations

from d3codec.errors import HeadError, MissingError, MissingExtraError, MissingFileError, UsageError

MOST_BYTES = 2**30
CHUNK_BYTES = 2**20


def is_url(source: str) -> bool:
    return "://" in source


def download(url: str) -> bytes:
    """All bytes behind a URL, at most MOST_BYTES of them.

    Raises:
        MissingExtraError: the package that speaks the protocol is not installed (`remote` for http and https,
            `hub` for hf).
        MissingFileError: nothing there.
        MissingError: no network, no access.
        UsageError: no such protocol.
        HeadError: more than MOST_BYTES (E_BUDGET).
    """
    import fsspec

    data = bytearray()
    try:
        # block_size 0 streams: a server that tells no size, or knows no ranges, is as good as any other
        with fsspec.open(url, "rb", **({"block_size": 0} if url.startswith("http") else {})) as stream:
            while len(data) <= MOST_BYTES and (chunk := stream.read(CHUNK_BYTES)):
                data += chunk
    except ImportError as error:  # fsspec names a package; the extra that brings it is ours to know
        raise MissingExtraError("hub" if url.startswith("hf:") else "remote") from error
    except FileNotFoundError as error:
        raise MissingFileError("nothing at this address", file=url, hint="check the address") from error
    except Exception as error:  # every protocol has errors of its own
        if isinstance(error, ValueError) and "rotocol" in str(error):
            raise UsageError(str(error), file=url, expected="a path, or an address like https://...") from error
        raise MissingError(f"cannot be downloaded: {type(error).__name__}: {error}", file=url,
                           hint="check the address and the network") from error
    if len(data) > MOST_BYTES:
        raise HeadError("E_BUDGET", "download stopped", file=url, expected=f"at most {MOST_BYTES} bytes")
    return bytes(data)
