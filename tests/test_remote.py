"""Files behind URLs, from a real server: what is fetched, in how many requests, and what servers do wrong."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from cli.commands import answer, bare_file, call
from format.craft import SCHEDULE, Pieces, delta, digits_draft, filled, group, rich_draft, sheets, write_d3m
from fsspec.implementations.memory import MemoryFileSystem
from range_server import Handler, etag, served
from tiny_pipeline import make_file, make_pipeline

import d3codec
from d3codec import images, remote
from d3codec.dataset import open_file
from d3codec.decoder.decode import decoded_units
from d3codec.decoder.plan import Plan
from d3codec.decoder.processes import usable_cores
from d3codec.decoder.renderers import expect_units
from d3codec.errors import (
    ChangedFileError,
    FormatError,
    HeadError,
    MissingError,
    MissingFileError,
    RemoteError,
    SectionError,
    UsageError,
)
from d3codec.format.file import ContentDraft, D3MFile
from d3codec.format.manifest import (
    About,
    Classes,
    Images,
    NoConditioning,
    QuantizedLabels,
    ReinjectRecipe,
    Start,
    StoredLatents,
)
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.remote import FIRST_BYTES, GAP_BYTES, RemoteFile


@pytest.fixture
def server():
    with served() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.01)


def names(count):
    return pack_classes([ClassRecord("", f"thing {number}") for number in range(count)])


@pytest.fixture(scope="module")
def sheets_file():
    """3.7 MB of stored images and 1.4 MB of labels: 300 classes, 4 images of 32 x 32 pixels each, 2 x 2 patches."""
    classes, rng = 300, np.random.default_rng(1)
    record = group(
        conditioning=NoConditioning(),
        cast="stored",
        generator=None,
        images=Images(grid=(2, 2), count=4, size=(32, 32)),
        labels=QuantizedLabels(step=8, width=classes),
        recipe=sheets(per_sheet=64, columns=8),
    )
    pictures = rng.integers(0, 256, (classes * 4, 32, 32, 3), np.uint8)  # noise, which nothing compresses
    files = [images.encode_sheet(pictures[first : first + 64], 8, "png") for first in range(0, len(pictures), 64)]
    labels = rng.integers(-128, 128, (classes * 16, classes), np.int8).tobytes()
    sections = {("cls", None): names(classes), ("img", 0): images.join_sheets(files), ("lab", 0): labels}
    return write_d3m(ContentDraft(Classes(authority="none", count=classes), (record,)), sections)


@pytest.fixture(scope="module")
def latents_file():
    """0.3 MB of learned rows, 2.6 MB of latents and 2.6 MB of labels whose columns are listed."""
    classes = 400
    stored = StoredLatents(bits=8, shape=(4, 10, 10))
    record = group(
        conditioning=delta(bits=8, width=768),
        images=Images(grid=(1, 1), count=16, size=(64, 64), candidates=3),
        labels=QuantizedLabels(step=8, width=classes, columns="col"),
        recipe=ReinjectRecipe(**SCHEDULE, final_alpha="one", start=Start(a=200_000, b=900_000, stored=stored)),
    )
    draft = ContentDraft(Classes(authority="none", count=classes), (record,))
    return write_d3m(draft, filled(draft))


@pytest.fixture(scope="module")
def small_file():
    draft = digits_draft()
    return write_d3m(draft, filled(draft))


@pytest.fixture(scope="module")
def middle_file():
    """A few parts beyond the first request, each with a digest of its own."""
    draft = rich_draft()
    return write_d3m(draft, filled(draft))


def offset_of(data, section):
    """Where a section begins in the file."""
    return next(part.offset for part in D3MFile.open(data).parts if part.section == section)


# -------------------------------------------------------------------------------------------- what is fetched


def test_a_small_file_takes_one_request(server, small_file):
    url = server.put(small_file)
    dataset = d3codec.load(url)
    assert dataset.file.fetched == (1, len(small_file))
    assert dataset.path == dataset.file.path == url
    here = D3MFile.open(small_file)
    assert here.fetched is None
    assert dataset.content_id == here.content_id
    assert [info.name for info in dataset.classes] == [record.name for record in here.class_records()]
    dataset.file.verify()
    np.testing.assert_array_equal(dataset.labels.logits()[0, 0], dataset.subset(ipc=1).labels.logits()[0, 0])
    assert dataset.file.data == small_file
    assert dataset.file.fetched == (1, len(small_file))
    assert [item.method for item in server.requests] == ["GET"]
    assert server.asked(url) == [(0, FIRST_BYTES)]


def test_the_head_takes_one_request_and_a_class_two(server, sheets_file):
    """Labels of a class lie in one part of 1 MiB or two; its images in the part with their table and another."""
    url, local = server.put(sheets_file), D3MFile.open(sheets_file)
    dataset = d3codec.load(url)
    assert dataset.file.fetched == (1, FIRST_BYTES)
    one = dataset.subset(classes="thing 150")
    assert dataset.file.fetched == (1, FIRST_BYTES)
    logits = one.labels.logits()
    assert dataset.file.fetched[0] == 2
    assert dataset.file.fetched[1] < FIRST_BYTES + 1.1 * 2**20 < len(sheets_file) / 4
    rows = local.section("lab", 0)[150 * 16 * 300 :][: 16 * 300]
    np.testing.assert_array_equal(logits.ravel() * 256 / 8, np.frombuffer(rows, np.int8))
    assert [item.method for item in server.requests] == ["GET"] * 2

    again = d3codec.load(url).subset(classes="thing 150")
    assert again.images().shape == (4, 32, 32, 3)
    requests, received = again.file.fetched
    assert requests <= 3
    assert received < len(sheets_file) / 2


def test_neighbouring_parts_take_one_request(server, sheets_file):
    url = server.put(sheets_file)
    dataset = d3codec.load(url)
    dataset.subset(classes=[2**20 // (16 * 300)]).labels.logits()  # the class in which the first part ends
    assert server.asked(url)[1:] == [(offset_of(sheets_file, "lab"), len(sheets_file))]
    again = d3codec.load(url)
    again.subset(classes=[0]).labels.logits()
    again.labels.logits()  # of which the first part is here
    *_, first, second = server.asked(url)
    assert first == (offset_of(sheets_file, "lab"), second[0])
    assert second[1] == len(sheets_file)
    assert dataset.file.fetched[1] == again.file.fetched[1]


def test_what_a_generated_class_needs_takes_two_requests(server, latents_file):
    """Learned rows, candidates and the latents of the class together; columns and labels together."""
    url = server.put(latents_file)
    dataset = d3codec.load(url)
    file, local = dataset.file, D3MFile.open(latents_file)
    units = Plan.of(file.content, [20]).units
    expect_units(file, units, "reproducible")
    assert file.fetched == (1, FIRST_BYTES)  # nothing before it is used
    size = file.content.groups[0].recipe.start.stored.row_bytes
    assert file.section("emb", 0) == local.section("emb", 0)
    assert file.section("cnd", 0) == local.section("cnd", 0)
    for unit in units:
        span = (8 * unit.number * size, 8 * (unit.number + 1) * size)
        assert file.section_range("lat", 0, *span) == local.section_range("lat", 0, *span)
    assert file.fetched[0] == 2
    dataset.subset(classes=[20]).labels.logits()
    assert file.fetched[0] == 3
    assert file.fetched[1] < len(latents_file) / 2


def test_what_was_fetched_is_not_fetched_again(server, sheets_file):
    url = server.put(sheets_file)
    file = open_file(url)
    assert file.data is None
    file.verify()
    requests, received = file.fetched
    assert (requests, received) == (2, len(sheets_file))
    file.verify()
    assert file.read_all() == file.data == sheets_file
    assert file.fetched == (2, len(sheets_file))
    spans = server.asked(url)
    assert spans == [(0, FIRST_BYTES), (FIRST_BYTES, len(sheets_file))]


def test_no_request_is_larger_than_need_be(server, sheets_file, monkeypatch):
    monkeypatch.setattr(remote, "REQUEST_BYTES", 1 << 20)
    url = server.put(sheets_file)
    file = open_file(url)
    file.verify()
    assert file.fetched[1] == len(sheets_file)
    assert all(stop - start <= 2**20 for start, stop in server.asked(url))


def test_gaps_are_fetched_only_where_they_are_small(server):
    data = np.random.default_rng(0).bytes(4 * GAP_BYTES)
    for gap, requests in ((GAP_BYTES, 2), (GAP_BYTES + 1, 3)):
        file = RemoteFile(server.put(data))
        first, second = FIRST_BYTES + 100, FIRST_BYTES + 200 + gap
        file.expect([(second, 100), (first, 100)])
        assert file.read(second, 100) == data[second : second + 100]  # also from the back
        assert file.read(first, 100) == data[first : first + 100]
        assert file.fetched[0] == requests
    assert file.fetched[1] == FIRST_BYTES + 200


def test_a_long_head_takes_a_second_request(server):
    draft = digits_draft()
    about = About(claims={f"{number:03}": "é" * 2_000 for number in range(100)})
    data = write_d3m(draft, filled(draft), about)
    url = server.put(data)
    file = open_file(url)
    assert file.head_bytes > 2 * FIRST_BYTES
    assert file.about == about
    assert server.asked(url) == [(0, FIRST_BYTES), (FIRST_BYTES, file.head_bytes)]
    assert file.fetched == (2, file.head_bytes)
    file.section("cls")  # one digest is of all sections
    assert file.fetched == (3, len(data))


def test_threads_fetch_nothing_twice(server, sheets_file):
    file = open_file(server.put(sheets_file))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: file.section("lab", 0), range(8)))
    assert found == [D3MFile.open(sheets_file).section("lab", 0)] * 8
    assert file.fetched[0] == 2


def test_an_opened_url_travels_between_processes(server, middle_file):
    file = open_file(server.put(middle_file))
    copy = pickle.loads(pickle.dumps(file))
    assert copy.section("cls") == file.section("cls")
    copy.verify()
    assert copy.fetched[0] > file.fetched[0] == 1


# ---------------------------------------------------------------------------------------------- other servers


def whole(handler: Handler, data, _span, _before):
    handler.say(200, data)


def whole_of_unknown_length(handler: Handler, data, _span, _before):
    handler.say(
        200, b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data), {"Content-Length": "", "Transfer-Encoding": "chunked"}
    )


def whole_compressed(handler: Handler, data, _span, _before):
    handler.say(200, gzip.compress(data), {"Content-Encoding": "gzip"})


@pytest.mark.parametrize("trick", [whole, whole_of_unknown_length, whole_compressed])
def test_a_server_without_ranges(server, middle_file, trick):
    file = open_file(server.put(middle_file, trick))
    file.verify()
    assert file.fetched == (1, len(middle_file))
    assert file.data == middle_file


def test_a_server_that_would_compress(server, middle_file):
    def eager(handler: Handler, data, span, before):
        if handler.headers["Accept-Encoding"] == "identity":
            handler.part(data, span)
        else:
            whole_compressed(handler, data, span, before)

    file = open_file(server.put(middle_file, eager))
    file.verify()
    assert file.fetched == (2, len(middle_file))


def test_a_server_that_forgets_ranges_later(server, middle_file):
    def forgetful(handler: Handler, data, span, before):
        handler.say(200, data, {"ETag": etag(data)}) if before else handler.part(data, span)

    file = open_file(server.put(middle_file, forgetful))
    file.verify()
    assert file.fetched == (2, FIRST_BYTES + len(middle_file))


def test_redirects_are_followed_and_counted(server, middle_file):
    url = server.put(middle_file)
    there = server.put(b"", lambda handler, *_: handler.say(302, b"", {"Location": url}))
    file = open_file(there)
    assert file.path == there
    assert file.fetched == (2, FIRST_BYTES)
    file.verify()
    assert file.fetched == (4, len(middle_file))
    loop = server.put(b"", lambda handler, *_: handler.say(302, b"", {"Location": handler.path}))
    with pytest.raises(RemoteError, match="TooManyRedirects"):
        open_file(loop)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server, middle_file, status):
    def busy(handler: Handler, data, span, before):
        handler.say(status, b"later") if before % 2 == 0 else handler.part(data, span)

    file = open_file(server.put(middle_file, busy))
    file.verify()
    assert file.fetched == (4, len(middle_file))
    with pytest.raises(RemoteError, match=rf"the server answers {status} .*3 times"):
        open_file(server.put(middle_file, lambda handler, *_: handler.say(status)))


# ---------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("length", [None, ""])
def test_a_connection_that_is_cut_off_is_continued(server, middle_file, length):
    """Where it ended, whether the length of the answer was stated or not."""

    def cut(handler: Handler, data, span, before):
        start, stop = span[0], min(span[1], len(data))
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "ETag": etag(data)}
        headers |= {} if length is None else {"Content-Length": ""}
        handler.say(206, data[start:stop], headers, sent=None if before % 2 else (stop - start) // 2)
        handler.close_connection = True

    url = server.put(middle_file, cut)
    file = open_file(url)
    assert file.fetched == (2, FIRST_BYTES)
    assert server.asked(url) == [(0, FIRST_BYTES), (FIRST_BYTES // 2, FIRST_BYTES)]
    file.verify()
    assert file.read_all() == middle_file
    assert file.fetched == (4, len(middle_file))


def test_a_connection_that_is_always_cut_off(server, middle_file):
    def cut(handler: Handler, data, span, before):
        if before:
            handler.say(206, data[slice(*span)], {"Content-Range": f"bytes {span[0]}-{len(data) - 1}/{len(data)}"}, 10)
        else:
            handler.part(data, span)

    url = server.put(middle_file, cut)
    file = open_file(url)
    with pytest.raises(RemoteError, match=r"cut off .*, 3 times \(found 30 bytes from byte 65536, expected") as caught:
        file.verify()
    assert caught.value.file == url
    assert caught.value.exit_code == 4
    assert file.fetched == (4, FIRST_BYTES + 30)


def test_a_whole_file_that_is_cut_off_is_begun_anew(server, middle_file):
    def cut(handler: Handler, data, _span, before):
        handler.say(200, data, sent=None if before else 1000)

    file = open_file(server.put(middle_file, cut))
    assert file.data == middle_file
    assert file.fetched[0] == 2


def test_a_server_that_hangs_up(server, middle_file):
    def hang_up(handler: Handler, *_):
        handler.close_connection = True

    with pytest.raises(RemoteError, match="cut off"):
        open_file(server.put(middle_file, hang_up))


def test_a_server_that_says_nothing(server, middle_file, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.2)

    def silent(handler: Handler, data, span, before):
        handler.ranges.closing.wait(10)

    def stalling(handler: Handler, data, span, before):
        handler.say(206, data[:FIRST_BYTES], {"Content-Range": f"bytes 0-{FIRST_BYTES - 1}/{len(data)}"}, sent=100)
        handler.wfile.flush()
        handler.ranges.closing.wait(10)

    for trick in (silent, stalling):
        began = time.monotonic()
        with pytest.raises(RemoteError, match=r"too slow \(found no byte for 0\.2 s\)\nTry again"):
            open_file(server.put(middle_file, trick))
        assert time.monotonic() - began < 5


def test_a_server_that_trickles(server, middle_file, monkeypatch):
    """A byte now and then would keep us for ever."""
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(remote, "SLOWEST", 1 << 16)

    def trickle(handler: Handler, data, span, before):
        handler.say(206, b"", {"Content-Range": f"bytes 0-{FIRST_BYTES - 1}/{len(data)}", "Content-Length": "65536"})
        for number in range(1000):
            if handler.ranges.closing.wait(0.02):
                break
            try:
                handler.wfile.write(data[number : number + 1])
            except ConnectionError:
                break

    with pytest.raises(RemoteError, match=r"too slow \(found \d+ bytes in 0\.\d s\)"):
        open_file(server.put(middle_file, trickle))


# --------------------------------------------------------------------------------------------- wrong answers


def stating(**headers):
    """A right range with other headers; "" leaves one out."""
    return lambda handler, data, span, before: handler.part(data, span, **headers)


def shifted(handler: Handler, data, span, before):
    handler.part(data, (span[0] + 1, span[1] + 1))


def shorter(handler: Handler, data, span, before):
    handler.part(data, (span[0], span[1] - 1))


def longer(handler: Handler, data, span, before):
    """More than the range, without a stated length."""
    body = data[slice(*span)] + b"x"
    headers = {"Content-Range": f"bytes {span[0]}-{span[1] - 1}/{len(data)}"}
    chunked = {"Content-Length": "", "Transfer-Encoding": "chunked"}
    handler.say(206, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), headers | chunked)


def other_length(handler: Handler, data, span, before):
    body = data[slice(*span)][:-1]
    handler.say(206, body, {"Content-Range": f"bytes {span[0]}-{span[1] - 1}/{len(data)}"})


@pytest.mark.parametrize(
    ("trick", "message"),
    [
        (shifted, r"another range than was asked for \(found bytes 1-65536/\d+, expected bytes=0-65535\)"),
        (shorter, "another range than was asked for"),
        (longer, r"more bytes than the range has \(found at least 6553\d, expected 65536\)"),
        (other_length, r"another length than that of the range \(found 65535 bytes, expected 65536\)"),
        (stating(Content_Range=""), r"not stated \(found no Content-Range, expected bytes=0-65535\)"),
        (stating(Content_Range="bytes 0-65535/*"), "a size that is not stated"),
        (stating(Content_Range="lines 1-2/3"), "not stated"),
        (stating(Content_Encoding="gzip"), "a compressed range"),
        (lambda handler, *_: handler.say(416, b"", {"Content-Range": "bytes */9"}), "a range that the file has"),
        (lambda handler, *_: handler.say(416), r"unexpected status \(found 416, expected 206 or 200\)"),
        (lambda handler, *_: handler.say(204), "unexpected status"),
        (lambda handler, *_: handler.say(400), "unexpected status"),
    ],
)
def test_answers_that_do_not_fit(server, middle_file, trick, message):
    url = server.put(middle_file, trick)
    with pytest.raises(RemoteError, match=message) as caught:
        open_file(url)
    assert type(caught.value) is RemoteError
    assert caught.value.file == url
    assert caught.value.hint is not None
    assert len(server.requests) == 1  # no use to ask again


def test_an_empty_file(server):
    with pytest.raises(HeadError, match=r"0\.d3m: E_SHORT"):
        open_file(server.put(b""))


def test_nothing_there(server, middle_file):
    with pytest.raises(MissingFileError, match=r"none\.d3m"):
        d3codec.load(f"{server.address}/none.d3m")
    with pytest.raises(MissingError, match=r"no access \(found status 403\)"):
        d3codec.load(server.put(middle_file, lambda handler, *_: handler.say(403)))
    with pytest.raises(RemoteError, match=r"cannot be fetched: ClientConnectorError.*\nCheck the address and the net"):
        d3codec.load("http://127.0.0.1:9/tiny.d3m")
    with pytest.raises(RemoteError):
        d3codec.load("http://")
    with pytest.raises(UsageError, match="no-such"):
        d3codec.load("no-such://tiny.d3m")

    def goes(handler: Handler, data, span, before):
        handler.say(404) if before else handler.part(data, span)

    file = open_file(server.put(middle_file, goes))
    with pytest.raises(MissingFileError, match="nothing at this address"):
        file.verify()


def test_another_file_is_told_by_its_bytes(server):
    with pytest.raises(FormatError, match=r"0\.d3m: E_MAGIC"):
        d3codec.load(server.put(b"<html>not found, but politely</html>" * 3))


def test_fetching_is_bounded(server, middle_file):
    size = len(middle_file)
    for trick in (Handler.part, whole, whole_of_unknown_length):
        assert RemoteFile(server.put(middle_file, trick), most_bytes=size).size == size
        url = server.put(middle_file, trick)
        with pytest.raises(HeadError, match=r"E_BUDGET.*not fetched") as caught:
            RemoteFile(url, most_bytes=size - 1)
        assert caught.value.file == url


def test_what_is_too_large_is_not_received(server, monkeypatch):
    """Neither a file that says so, nor one that does not end."""
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    sent = []

    def endless(handler: Handler, data, span, before):
        handler.say(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
        while not handler.ranges.closing.is_set():
            try:
                handler.wfile.write(b"10000\r\n%b\r\n" % bytes(1 << 16))
            except ConnectionError:
                break
            sent.append(1)

    with pytest.raises(HeadError, match=r"E_BUDGET.*found more, expected at most 1000000 bytes"):
        RemoteFile(server.put(b"", endless), most_bytes=1_000_000)
    assert len(sent) < 1000
    stated = server.put(b"", lambda handler, *_: handler.say(200, b"", {"Content-Length": "1000001"}))
    with pytest.raises(HeadError, match=r"E_BUDGET.*found 1000001 bytes"):
        RemoteFile(stated, most_bytes=1_000_000)


# ----------------------------------------------------------------------------------------- files that change


def changing(*versions):
    """The first version at first, then the second; each states what a function of it and its number says."""

    def answer(handler: Handler, data, span, before):
        later = int(before > 0)
        handler.part(data, span, **versions[later])

    return answer


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({"ETag": '"a"'}, {"ETag": '"b"'}, "ETag"),
        ({"ETag": '"a"'}, {"ETag": 'W/"b"'}, "ETag"),
        (
            {"ETag": "", "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            {"ETag": "", "Last_Modified": "Mon, 01 Jan 2024 00:00:01 GMT"},
            "Last-Modified",
        ),
    ],
)
def test_a_file_that_is_replaced_is_noticed(server, middle_file, before, after, field):
    url = server.put(middle_file, changing(before, after))
    file = open_file(url)
    with pytest.raises(ChangedFileError, match="Open it again") as caught:
        file.verify()
    found, expected = (list(version.values())[-1].removeprefix("W/") for version in (after, before))
    error = caught.value
    assert (error.file, error.field, error.found, error.expected) == (url, field, found, expected)
    assert (error.code, error.exit_code) == ("E_CHANGED", 4)
    assert file.fetched == (2, FIRST_BYTES)  # the other file was not even received


@pytest.mark.parametrize("trick", [Handler.part, whole])
def test_a_file_of_another_size_is_noticed(server, middle_file, trick):
    def grown(handler: Handler, data, span, before):
        if before:
            trick(handler, data + b"x", span, before)
        else:
            handler.part(data, span, ETag="")

    with pytest.raises(ChangedFileError, match="size") as caught:
        open_file(server.put(middle_file, grown)).verify()
    assert caught.value.found == caught.value.expected + 1 == len(middle_file) + 1


def test_a_file_that_has_become_shorter_is_noticed(server, middle_file):
    def shrunk(handler: Handler, data, span, before):
        handler.part(data[:FIRST_BYTES] if before else data, span)

    with pytest.raises(ChangedFileError, match="size"):
        open_file(server.put(middle_file, shrunk)).verify()


def test_a_version_that_is_only_written_otherwise_is_the_same(server, middle_file):
    open_file(server.put(middle_file, changing({"ETag": '"a"'}, {"ETag": 'W/"a"'}))).verify()
    open_file(server.put(middle_file, changing({"ETag": '"a"'}, {"ETag": ""}))).verify()


def test_a_replaced_file_without_version_is_damage(server, middle_file):
    """Nothing tells that it is another file, but no byte of it is taken for one of the first."""

    def other(handler: Handler, data, span, before):
        flipped = bytes(byte ^ 1 for byte in data) if before else data
        handler.part(flipped, span, ETag="")

    with pytest.raises(SectionError, match="E_SECTION_CRC"):
        open_file(server.put(middle_file, other)).verify()


def test_damage_is_that_of_a_local_file(server, middle_file):
    """In a range that is read: the same code, and the URL in the message. In another: nothing."""
    here = D3MFile.open(middle_file)
    last = here.parts[-1]
    assert last.offset > FIRST_BYTES
    flipped = bytearray(middle_file)
    flipped[last.offset] ^= 1
    parts = list(Pieces.of(middle_file).parts)
    parts[last.number] = 0, bytes(last.raw_length)  # of another digest
    forged = Pieces.of(middle_file).but(parts=tuple(parts)).build()
    for data in (bytes(flipped), forged, middle_file[:-1], middle_file + b"x"):
        errors = []
        for source in (server.put(data), None):
            with pytest.raises(FormatError) as caught:
                (D3MFile.open(data) if source is None else open_file(source)).verify()
            errors.append((caught.value.code, caught.value.field))
            assert caught.value.file == (source or "<memory>")
        assert errors[0] == errors[1]
    assert open_file(server.put(bytes(flipped))).section("cls") == here.section("cls")


# -------------------------------------------------------------------------------------------------- commands


def test_info_and_verify_say_what_was_fetched(server, sheets_file, tmp_path):
    url = server.put(sheets_file)
    assert answer("info", url)["fetched"] == {"requests": 1, "bytes": FIRST_BYTES}
    assert "65,536 bytes in 1 requests" in call("info", url).stdout
    facts = answer("verify", url)
    assert facts["fetched"] == {"requests": 2, "bytes": len(sheets_file)}
    assert facts["file"] == url
    path = tmp_path / "here.d3m"
    path.write_bytes(sheets_file)
    assert answer("info", path)["fetched"] is None
    assert answer("verify", path)["fetched"] is None
    assert answer("verify", url + "x", code=4)["error"] == "E_MISSING_FILE"


def test_a_shard_of_a_url_holds_the_file(server, sheets_file, tmp_path):
    url = server.put(sheets_file)
    answer("decode", url, "-o", tmp_path / "part", "--shard", "0/75")
    assert (tmp_path / "part" / "dataset.d3m").read_bytes() == sheets_file
    assert len(list((tmp_path / "part").rglob("*.png"))) == 16


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return make_pipeline(tmp_path_factory.mktemp("remote") / "pipeline")


@pytest.mark.skipif(usable_cores() < 2, reason="one core")
@pytest.mark.parametrize("classes", [3, 400])
def test_helper_processes_of_a_decode(server, pipeline, tmp_path, monkeypatch, classes):
    """A small file is handed to them, of a large one each fetches what it needs."""
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    path = make_file(tmp_path / "set.d3m", pipeline, classes=classes, ipc=16, grid=1, pixels=False)
    file = open_file(server.put(path.read_bytes()))
    assert (file.bytes_total > FIRST_BYTES) == (classes == 400)

    def wait(stage, done, total):
        """For a helper, which makes the next units while this process does nothing."""
        deadline = time.monotonic() + 60
        while (stage, done) == ("decode", 8) and len(list(tmp_path.glob("home/decoded/*/*/*.unit"))) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    found = pixels_of(file, pipeline, processes=2, progress=wait)
    assert len(server.requests) == file.fetched[0] + (classes == 400)
    assert file.fetched[0] == 1
    np.testing.assert_array_equal(found, pixels_of(D3MFile.open(path), pipeline, cache=False))


def pixels_of(file, pipeline, **options):
    units = decoded_units(
        file, Plan.of(file.content, [0, 1, 2]), profile="reproducible", device="cpu", generator=pipeline, **options
    )
    return np.concatenate([pixels for _, pixels in units])


# ------------------------------------------------------------------------------------------- other protocols


def test_other_protocols_of_fsspec(tmp_path, middle_file):
    path = tmp_path / "middle.d3m"
    path.write_bytes(middle_file)
    file = open_file(f"file://{path}")
    assert file.content_id == D3MFile.open(path).content_id
    assert file.fetched == (2, FIRST_BYTES)  # and one for the size
    file.verify()
    assert file.fetched == (3, len(middle_file))
    small = bare_file(tmp_path / "small.d3m")
    assert open_file(f"file://{small}").fetched == (1, small.stat().st_size)
    with pytest.raises(MissingFileError):
        d3codec.load(f"file://{path}x")


class Versioned(MemoryFileSystem):
    """A file system whose `cat_file` takes a version before the range, as s3fs's does."""

    protocol = "versioned"

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.rpartition("://")[2].lstrip("/")

    def cat_file(self, path, version_id=None, start=None, end=None, **options):
        assert version_id is None
        return super().cat_file(path, start=start, end=end, **options)


def test_a_file_system_with_arguments_of_its_own(middle_file):
    fsspec.register_implementation("versioned", Versioned, clobber=True)
    MemoryFileSystem().pipe_file("/x.d3m", middle_file)
    try:
        file = open_file("versioned://x.d3m")
        file.verify()
        assert file.fetched == (3, len(middle_file))
        MemoryFileSystem().pipe_file("/x.d3m", b"")
        with pytest.raises(HeadError, match="E_SHORT"):
            open_file("versioned://x.d3m")
    finally:
        MemoryFileSystem().rm("/x.d3m")


def test_a_protocol_that_needs_an_extra(tmp_path):
    for url, extra in (("s3://bucket/x.d3m", "s3"), ("https://example.org/x.d3m", "remote"), ("hf://o/n/x", "hub")):
        code = (
            "import sys\n"
            "for name in ('s3fs', 'aiohttp', 'huggingface_hub'): sys.modules[name] = None\n"
            "import d3codec\n"
            "try: d3codec.load(sys.argv[1])\n"
            "except d3codec.errors.MissingExtraError as error: print(error.extra)"
        )
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True)
        assert done.stdout == f"{extra}\n", done.stderr


def test_the_hugging_face_hub(server, sheets_file, tmp_path):
    """Through its own file system, which asks the hub for the size; exact ranges, no blocks."""
    url = server.put(sheets_file)
    code = (
        "import json, sys, d3codec\n"
        "dataset = d3codec.load(sys.argv[1])\n"
        "dataset.subset(classes=[150]).labels.logits()\n"
        "print(json.dumps([dataset.content_id, dataset.file.fetched]))"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(tmp_path), "HF_TOKEN": ""}
    address = "hf://datasets/one/set" + url.removeprefix(server.address)
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    content_id, (requests, received) = json.loads(done.stdout)
    assert content_id == D3MFile.open(sheets_file).content_id
    spans = [item.range for item in server.requests if item.range]
    assert requests == len(spans) + 1
    assert spans[0] == f"bytes=0-{FIRST_BYTES - 1}"
    assert received < len(sheets_file) / 3
    assert len(spans) == 2


def test_importing_remote_is_light():
    code = "import sys, d3codec.remote; print([name for name in ('fsspec', 'aiohttp', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
