"""The numbered requirements of the specification: their numbers, where they stand, and that tests name them all."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from format.craft import Pieces, coded_draft, streams, write_d3m

from d3codec import corrections, noise
from d3codec.conditioning import candidates, coded, quantized
from d3codec.decoder.output import window_resize
from d3codec.decoder.verify import verify
from d3codec.errors import SectionError
from d3codec.format.file import ClassRecord, D3MFile, pack_classes
from d3codec.labels import quantized as int8
from d3codec.labels import topk

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
PAGES = ["d3m-1.0", "entropy", "labels", "latents", "generators"]
TEXT = {page: (SPEC / f"{page}.md").read_text("utf-8") for page in PAGES}
MAIN = TEXT["d3m-1.0"]
STATED = r"\*\*(D3M-\d{3})\*\*"
HERE = Path(__file__)


def pieces(text: str) -> list[str]:
    """Paragraphs, items of lists and rows of tables, without what is only quoted."""
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return [piece for piece in re.split(r"\n\s*\n|\n(?= *(?:- |\d+\. |\|))", text) if piece.strip()]


def chapters(text: str) -> list[tuple[str, str]]:
    """Titles and texts of all chapters and sections."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_numbers_are_unique_and_without_holes() -> None:
    numbers = [number for page in PAGES for number in re.findall(STATED, TEXT[page])]
    assert sorted(numbers) == [f"D3M-{place:03}" for place in range(1, len(numbers) + 1)]


def test_numbers_that_are_referred_to_are_stated() -> None:
    stated = {number for page in PAGES for number in re.findall(STATED, TEXT[page])}
    for page in PAGES:
        assert set(re.findall(r"D3M-\d{3}", TEXT[page])) <= stated


@pytest.mark.parametrize("page", PAGES)
def test_what_is_required_has_a_number(page: str) -> None:
    """Wherever a key word of obligation stands, a number does; informative chapters have neither."""
    for title, text in chapters(TEXT[page]):
        for piece in pieces(text):
            required = re.search(r"\bMUST\b", piece) is not None
            if "informative" in title:
                assert not required, (title, piece)
                assert not re.search(STATED, piece), (title, piece)
            elif required and "BCP 14" not in piece:
                assert re.search(STATED, piece), (title, piece)


def test_every_requirement_is_named_by_a_test() -> None:
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != HERE] + list((SPEC / "vectors").rglob("*.json"))
    named = {number for path in tests for number in re.findall(r"D3M-\d{3}", path.read_text("utf-8"))}
    named |= set(re.findall(r"D3M-\d{3}", HERE.read_text("utf-8")))
    stated = {number for page in PAGES for number in re.findall(STATED, TEXT[page])}
    assert stated <= named, sorted(stated - named)
    assert named <= stated, sorted(named - stated)


def test_lines_have_at_most_120_columns() -> None:
    for page in PAGES:
        assert [line for line in TEXT[page].splitlines() if len(line) > 120 and not line.startswith("|")] == []


# --------------------------------------------------------------------------------------- vectors of appendix B


def appendix(name: str) -> str:
    found = re.search(rf"^### {re.escape(name)} .*?(?=^##)", MAIN, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def test_noise_of_the_appendix() -> None:
    """D3M-105, D3M-106, D3M-107."""
    text = appendix("B.1")
    answers = re.findall(r"^    ((?:[0-9a-f]{8} ){3}[0-9a-f]{8})   (\w{8}) (\w{8})   (.*)$", text, re.MULTILINE)
    assert len(answers) == 3
    for counter, low, high, output in answers:
        words = np.array([int(word, 16) for word in counter.split()], np.uint32)
        found = noise.philox4x32(words, int(high, 16) << 32 | int(low, 16))
        assert [f"{word:08x}" for word in found.tolist()] == output.split()
    assert "    " + " ".join(str(value) for value in noise.normals(0, 0, 0, (8,))) + "\n" in text
    for key in (0, 1):
        data = noise.normals(key, 0, 0, (4, 64, 64)).astype("<f4").tobytes()
        assert hashlib.sha256(data).hexdigest() in text
    assert noise.TABLE_SHA256 in MAIN
    table = noise.normal_table()
    assert (table[::-1] == -table).all()
    assert round(float(table.max()), 4) == 4.3249


def test_sections_of_the_appendix() -> None:
    """D3M-074 (blocks), D3M-086 (choices), D3M-079 to D3M-081 (corrections), D3M-092 and D3M-094 (labels)."""
    text = " ".join(appendix("B.4").split())
    block = np.frombuffer(bytes.fromhex("0038C505"), np.uint8)[None]
    assert "`00 38 C5 05`; its values are 0.75, -1.75, 1.75, -0.75" in text
    assert quantized.decode(block, 4, 3, "emb").tolist() == [[0.75, -1.75, 1.75, -0.75]]
    assert "Choices of 3 bits 5, 0, 7, 2 are `C5 05`" in text
    assert candidates.pack([[5, 0, 7, 2]], 3) == bytes.fromhex("C505")
    assert "`05 09 01 C8 A6 02 00`" in text
    assert corrections.encode([5, 6, 300], [9, 200, 0]) == bytes.fromhex("050901C8A60200")
    assert "`7F 80` and the step 8 is 3.96875, -4.0 nat" in text
    assert int8.decode(b"\x7f\x80", 1, 2, 8).tolist() == [[3.96875, -4.0]]
    assert "`07 00 02 00 00 40 00 3C`" in text
    assert topk.decode(bytes.fromhex("070002000040003C"), 1, 10, 2)[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 2, 0, 0]
    rows = coded.decode(bytes.fromhex("05EC2C00B82E2F7D73FE0F"), 2, 6, "emb").tolist()
    assert rows == [[0.5, -1.0, 0.0, 0.0, -0.5, 0.5], [1.0, 0.5, 0.0, 0.0, -0.5, -0.5]]
    assert coded.decode(bytes.fromhex("0408000038004094FE8D01"), 2, 2, "emb").tolist() == [[0.75, -0.75], [-1.0, 1.0]]
    assert "`05 EC 2C 00 B8 2E 2F 7D 73 FE 0F`" in text
    assert "`04 08 00 00 38 00 40 94 FE 8D 01`" in text
    names = [ClassRecord("n01440764", "tench"), ClassRecord("n01443537", "goldfish")]
    assert pack_classes(names) == b"n01440764\ttench\nn01443537\tgoldfish\n"


@pytest.mark.parametrize(
    ("row", "width", "expected"),
    [([0, 100, 255], 2, [33, 203]), ([0, 100, 255], 6, [0, 0, 100, 100, 255, 255]), ([10, 20], 3, [10, 15, 20])],
)
def test_area_rule_of_the_appendix(row: list[int], width: int, expected: list[int]) -> None:
    """D3M-123."""
    image = np.repeat(np.array(row, np.uint8)[None, None, :, None], 3, axis=3)
    assert window_resize(image, (0, 0, 1, len(row)), (1, width))[0, 0, :, 0].tolist() == expected
    assert ", ".join(map(str, expected)) in appendix("B.5")


# --------------------------------------------------------------------------------------------- what no other shows


def test_levels_of_conformance() -> None:
    """D3M-143: a fault in a coded stream is none of level L0, and one of level L2."""
    draft = coded_draft()
    sections = streams(draft)
    sections["lab", 0] = bytes(len(sections["lab", 0]))
    data = write_d3m(draft, sections)
    file = D3MFile.open(data)
    file.verify()
    with pytest.raises(SectionError) as error:
        verify(file)
    assert error.value.code == "E_SECTION_VALUE"


def test_a_part_is_not_handed_on_before_its_digest() -> None:
    """D3M-141: who wants one class still learns that the bytes are others."""
    draft = coded_draft()
    whole = Pieces.of(write_d3m(draft, streams(draft)))
    changed = bytearray(whole.parts[-1][1])
    changed[-1] ^= 1
    file = D3MFile.open(whole.but(parts=(*whole.parts[:-1], (whole.parts[-1][0], bytes(changed)))).build())
    with pytest.raises(SectionError, match=r"E_SECTION_DIGEST|E_ZSTD_DATA"):
        file.section_range("cls", None, 0, 4)


def test_the_worked_file_is_one_of_ours() -> None:
    """D3M-002, D3M-003 and D3M-009: the head of appendix A by the table of section 1."""
    rows = re.findall(r"^ {4} *(\d+)  ((?:[0-9A-F]{2} )*[0-9A-F]{2})(?:  |$)", MAIN, re.MULTILINE)
    data = b"".join(bytes.fromhex(code) for _, code in rows)
    assert [int(offset) for offset, _ in rows] == [
        sum(len(bytes.fromhex(code)) for _, code in rows[:place]) for place in range(len(rows))
    ]
    magic, major, minor, features, length, parts, reserved, size = struct.unpack_from("<8sHHIIHHQ", data)
    assert (magic, major, minor, features, reserved) == (b"\x89D3M\r\n\x1a\n", 0, 9, 0, 0)
    assert (parts, size) == (3, len(data))
    here = Pieces.of(data)
    assert here.but(version=(0, 9)).build() == data
    assert len(here.parts) == parts
    assert len(data[32 + 8 * parts : 32 + 8 * parts + length]) == length


# ------------------------------------------------------------------------------------------- tools, table of items


@pytest.mark.skipif(shutil.which("file") is None, reason="needs file(1)")
def test_rule_of_file(tmp_path: Path) -> None:
    found = re.search(r"^## 16\. .*?((?:^    [^\n]*\n)+)", MAIN, re.MULTILINE | re.DOTALL)
    assert found is not None
    rule = tmp_path / "d3m.magic"
    rule.write_text(re.sub("^    ", "", found[1], flags=re.MULTILINE))
    path = ROOT / "tests" / "golden" / "dit.d3m"
    major, minor = D3MFile.open(path).version

    def says(*options: str) -> str:
        command = ["file", "--brief", *options, "--magic-file", str(rule), str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert says() == f"D3M distilled dataset, version {major}.{minor}, 3 parts"
    assert says("--mime-type") == "application/vnd.d3m"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_content_id_is_signed_and_verified(tmp_path: Path) -> None:
    name = tmp_path / "data.id"
    name.write_text(D3MFile.open(ROOT / "tests" / "golden" / "dit.d3m").content_id + "\n")
    key = tmp_path / "key"

    def run(*options: str, data: bytes | None = None) -> int:
        return subprocess.run(["ssh-keygen", *options], input=data, capture_output=True).returncode

    assert run("-q", "-t", "ed25519", "-N", "", "-f", str(key)) == 0
    assert "ssh-keygen -Y sign -f ~/.ssh/id_ed25519 -n d3m data.id" in MAIN
    assert run("-Y", "sign", "-f", str(key), "-n", "d3m", str(name)) == 0
    (tmp_path / "allowed").write_text("maker@example.org " + key.with_suffix(".pub").read_text())
    check = ["-Y", "verify", "-f", str(tmp_path / "allowed"), "-I", "maker@example.org", "-n", "d3m"]
    assert run(*check, "-s", f"{name}.sig", data=name.read_bytes()) == 0
    assert run(*check, "-s", f"{name}.sig", data=b"0" * 64 + b"\n") != 0


def test_the_table_of_items_names_tests_that_are_there() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", (SPEC / "README.md").read_text("utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    assert sum(cell.startswith("not done: ") for _, cell in rows) <= 3
    for _, cell in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cell)
        assert named or cell.startswith("not done: ")
        for path, name in named:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), (path, name)
