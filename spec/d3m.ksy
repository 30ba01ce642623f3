# The layout of a .d3m file (d3m-1.0.md, section 1) for Kaitai Struct: head, part table, manifest, parts.
# The manifest is canonical msgpack, which serialization/msgpack.ksy of the Kaitai gallery describes. Checksums, the
# cut of sections into parts, and the values in them are beyond this description.
meta:
  id: d3m
  title: Distilled dataset
  file-extension: d3m
  license: CC0-1.0
  ks-version: 0.9
  endian: le
doc: A distilled dataset; see d3m-1.0.md.
doc-ref: d3m-1.0.md, section 1
seq:
  - id: magic
    contents: [0x89, 0x44, 0x33, 0x4d, 0x0d, 0x0a, 0x1a, 0x0a]
  - id: version_major
    type: u2
  - id: version_minor
    type: u2
  - id: required_features
    type: u4
  - id: manifest_length
    type: u4
  - id: num_parts
    type: u2
  - id: reserved
    contents: [0, 0]
  - id: file_length
    type: u8
  - id: part_table
    type: part_entry
    repeat: expr
    repeat-expr: num_parts
  - id: manifest
    size: manifest_length
  - id: head_crc
    type: u4
    doc: CRC-32 of everything before
  - id: parts
    size: part_table[_index].stored_length
    repeat: expr
    repeat-expr: num_parts
types:
  part_entry:
    seq:
      - id: stored_low
        type: u2
      - id: stored_high
        type: u1
      - id: codec
        type: u1
        enum: codec
      - id: crc
        type: u4
        doc: CRC-32 of the stored bytes
    instances:
      stored_length:
        value: stored_low | (stored_high << 16)
enums:
  codec:
    0: raw
    1: zstd
