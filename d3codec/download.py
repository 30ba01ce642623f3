"""A URL -> the bytes behind it, through fsspec, whole and bounded."""

from __future__ import annotations

from d3codec.errors import D3MError, HeadError, MissingError, MissingExtraError, MissingFileError, UsageError

MOST_BYTES = 2**30
CHUNK_BYTES = 2**20


def is_url(source: str) -> bool:
    return "://" in source


def download(url: str, *, most_bytes: int = MOST_BYTES) -> bytes:
    """All bytes behind a URL, at most `most_bytes` of them.

    Raises:
        MissingExtraError: the package that speaks the protocol is not installed (`remote` for http and https,
            `hub` for hf).
        MissingFileError: nothing there.
        MissingError: no network, no access.
        UsageError: no such protocol.
        HeadError: more than `most_bytes` (E_BUDGET).
    """
    import fsspec

    data = bytearray()
    try:
        # block_size 0 streams: a server that tells no size, or knows no ranges, is as good as any other
        with fsspec.open(url, "rb", **({"block_size": 0} if url.startswith("http") else {})) as stream:
            while len(data) <= most_bytes and (chunk := stream.read(CHUNK_BYTES)):
                data += chunk
    except ImportError as error:  # fsspec names a package; the extra that brings it is ours to know
        raise MissingExtraError("hub" if url.startswith("hf:") else "remote") from error
    except Exception as error:  # every protocol has errors of its own
        raise _told(error, url) from error
    if len(data) > most_bytes:
        raise HeadError("E_BUDGET", "download stopped", file=url, expected=f"at most {most_bytes} bytes")
    return bytes(data)


def _told(error: Exception, url: str) -> D3MError:
    """fsspec's error in our words. It says "file not found" for every failure and puts the reason beneath."""
    reason = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    if isinstance(reason, FileNotFoundError) or getattr(reason, "status", None) == 404:
        return MissingFileError("nothing at this address", file=url, hint="check the address")
    if isinstance(reason, ValueError) and "rotocol" in str(reason):
        return UsageError(str(reason), file=url, expected="a path or an https:// address")
    return MissingError(
        f"cannot be downloaded: {type(reason).__name__}: {reason}", file=url, hint="check the address and the network"
    )
