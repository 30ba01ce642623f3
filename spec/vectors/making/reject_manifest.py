"""Files that every reader refuses, for their manifest: canonical msgpack that does not follow the schema."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.limits import CORRECTIONS, FREE_BYTES, WHOLE_BYTES
from d3codec.format.manifest import AdaptiveLabels, TopkLabels
from making.accept_methods import GDD, LD3M, MIXTURE, RDED, decoded
from making.accept_parts import labelled
from making.changes import Change, changed, content, in_group, said, without
from making.records import MILLION, Vector
from making.reject_container import NOTED, SMALL
from making.streams import adaptive_labels, words16

LATENTS = decoded("transform-taesd.bin", (4, 4, 4), 2, 2)
TOP = labelled(TopkLabels(k=1, width=3), b"".join(words16(0, 0) for _ in range(3)), 3)
ADAPTIVE = labelled(AdaptiveLabels(width=3), adaptive_labels("three", [0, 1, 2], 3, 99), 3)


def vectors_of_schema() -> Iterator[Vector]:
    """Faults of every record."""
    for topics, sound, faults in (
        ("records", SMALL, _RECORDS),
        ("content", SMALL, _CONTENT),
        ("profile", SMALL, _PROFILES),
        ("group", SMALL, _GROUPS),
        ("images", SMALL, _IMAGES),
        ("conditioning", SMALL, _CONDITIONING),
        ("conditioning", LD3M, _VECTORS),
        ("second", GDD, _SECOND),
        ("recipe", SMALL, _RECIPES),
        ("latents", LD3M, _REINJECT),
        ("recipe", LATENTS, _DECODE),
        ("recipe", RDED, _SHEETS),
        ("labels", SMALL, _LABELS),
        ("labels labels-t", TOP, _TOP),
        ("labels labels-a", ADAPTIVE, _ADAPTIVE),
        ("about", SMALL, _ABOUT),
        ("ancillary", NOTED, _ANCILLARY),
        ("about", MIXTURE, _WEIGHTS),
    ):
        for name, (change, reason) in faults.items():
            file = changed(sound, change)
            yield Vector(f"manifest-{name}", reason, _topics(name, topics), file, "E_MANIFEST")


_SPECIAL = {  # topics, and how the names of faults begin that show them, where the topic of their table says less
    "content text": "authority",
    "groups": "groups",
    "digests": "digest",
    "lengths": "length names-8 profile-no-length corrections-8",
    "profile-about": "profile-fingerprint",
    "generator": "generator decode-generator",
    "count-of-images": "images copies-odd",
    "candidates": "candidates",
    "window": "window",
    "decode": "conditioning-none decode-candidates decode-conditioning",
    "negative": "negative vectors-negative",
    "padding": "padding template-long",
    "row-8-mib": "vectors-row latents-8 coded-2",
    "steps": "steps",
    "timesteps": "offset spacing",
    "betas": "betas",
    "start": "start",
    "reinject": "reinject",
    "sheet-limits": "sheet-side sheet-pixels",
    "lossy": "sheet-lossy",
    "stored": "sheet-generator sheet-cast sheet-outside",
    "labels-2-26": "labels-2-26",
    "labels-columns": "labels-width labels-columns",
    "weights": "weight about-weights",
    "about text": "about-control about-nul about-c1 ancillary-nul",
}


def _topics(name: str, otherwise: str) -> str:
    return next((topics for topics, begins in _SPECIAL.items() if name.startswith(tuple(begins.split()))), otherwise)


Faults = dict[str, tuple[Change, str]]

_RECORDS: Faults = {
    "key-missing": (without("c", "g", 0, "o"), "a group without outside bytes: nothing has a default"),
    "key-unknown": (in_group(z=0), "a group with a key that nobody knows"),
    "key-of-another-kind": (in_group("r", q="table"), "a recipe with a key of another sampler"),
    "key-beside": (lambda manifest: manifest.update(b={}), "a third map beside content and about"),
    "content-missing": (lambda manifest: (manifest.update(a={}), manifest.pop("c")), "no content"),
    "bool": (in_group("i", n=True), "a bool where an integer stands"),
    "integer-for-bool": (in_group("c", e=0), "an integer where a bool stands"),
    "float": (in_group("r", g=2e6), "a float where an integer stands"),
    "str-for-bin": (content(h="0" * 32), "a str where a bin stands"),
    "map-for-array": (in_group("i", g={}), "a map where an array stands"),
}
_CONTENT: Faults = {
    "classes-0": (content(c={"a": "none", "n": 0}), "no classes"),
    "classes-2-20": (content(c={"a": "none", "n": (1 << 20) + 1}), "1,048,577 classes"),
    "authority-empty": (content(c={"a": "", "n": 3}), "an authority of no bytes"),
    "authority-65": (content(c={"a": "é" * 32 + "e", "n": 3}), "an authority of 65 bytes in 33 characters"),
    "authority-nul": (content(c={"a": "no\0ne", "n": 3}), "a NUL in the authority"),
    "groups-0": (content(g=[]), "no groups"),
    "groups-17": (lambda manifest: manifest["c"].update(g=manifest["c"]["g"] * 17), "17 groups"),
    "digest-31": (content(h=bytes(31)), "a digest of 31 bytes"),
    "digest-list": (content(h=[bytes(32)] * 3), "a digest a part in a small file"),
    "digest-one": (lambda manifest: content(s=[70_000])(manifest), "one digest for 70,000 bytes"),
    "digest-two": (content(s=[70_000], h=[bytes(32)] * 2), "two digests for three parts"),
    "lengths-none": (content(s=[]), "no length for the names of classes"),
    "lengths-two": (content(s=[20, 36]), "a length for labels of fixed rows"),
    "length-negative": (content(s=[-1]), "a negative length"),
    "names-8-mib": (content(s=[WHOLE_BYTES + 1], h=[bytes(32)] * 11), "names of classes of more than 8 MiB"),
}
_PROFILES: Faults = {
    "profile-unknown": (content(p={"k": "fast"}), "a profile that nobody knows"),
    "profile-no-digest": (content(p={"k": "exact", "f": 0}), "exact without a pixel digest"),
    "profile-fixed-no-digest": (content(p={"k": "exact-fixed"}), "exact-fixed without a pixel digest"),
    "profile-digest-31": (content(p={"k": "exact", "d": bytes(31), "f": 0}), "a pixel digest of 31 bytes"),
    "profile-digest-nil": (content(p={"k": "exact-fixed", "d": None}), "a pixel digest of nil"),
    "profile-reproducible-digest": (
        content(p={"k": "reproducible", "d": bytes(32)}),
        "reproducible with a digest in content",
    ),
    "profile-corrections": (
        content(p={"k": "exact", "d": bytes(32), "f": CORRECTIONS + 1}, s=[20, 9]),
        "4,194,305 corrections",
    ),
    "profile-no-length": (content(p={"k": "exact", "d": bytes(32), "f": 1}), "corrections without a length"),
    "profile-fingerprint": (
        lambda manifest: (
            content(p={"k": "exact", "d": bytes(32), "f": 0})(manifest),
            said(f="here", p=bytes(32))(manifest),
        ),
        "exact with fingerprint and pixel digest in about",
    ),
    "corrections-8-mib": (
        content(p={"k": "exact", "d": bytes(32), "f": 9}, s=[20, WHOLE_BYTES + 1], h=[bytes(32)] * 12),
        "corrections of more than 8 MiB",
    ),
}
_GROUPS: Faults = {
    "cast-f32": (in_group(d="f32"), "a cast that nobody knows"),
    "generator-nil": (in_group(g=None), "no generator, though a sampler needs one"),
    "generator-20": (in_group(g=bytes(20)), "a generator id of 20 bytes"),
    "noise-key-negative": (in_group(k=-1), "a negative noise key"),
    "outside-bytes": (in_group(o=(1 << 40) + 1), "more than 2^40 bytes outside"),
}
_IMAGES: Faults = {
    "images-0": (in_group("i", n=0), "no images"),
    "images-2-20": (in_group("i", n=(1 << 20) + 1), "1,048,577 images a class"),
    "size-4097": (in_group("i", s=[64, 4_097]), "an image of 4,097 pixels"),
    "size-three": (in_group("i", s=[64, 64, 3]), "a size of three numbers"),
    "grid-0": (in_group("i", g=[0, 1]), "a grid without rows"),
    "grid-odd": (in_group("i", g=[1, 3]), "a size that is no multiple of the grid"),
    "copies-0": (in_group("i", a={"k": "gdd", "c": 0}), "an augmentation of no copies"),
    "copies-256": (in_group("i", a={"k": "gdd", "c": 256}, n=257), "256 copies"),
    "copies-odd": (in_group("i", a={"k": "gdd", "c": 2}), "four images, which cannot be sources with two copies each"),
    "augmentation-unknown": (in_group("i", a={"k": "fkd", "c": 1}), "an augmentation that nobody knows"),
    "candidates-0": (in_group("i", c=0), "candidates of no bits"),
    "candidates-17": (in_group("i", c=17), "candidates of 17 bits"),
    "candidates-2-32": (in_group("i", c=16, n=65_537), "more candidates than 2^32"),
    "window-outside": (in_group("i", w=[[64, 64], [1, 0, 64, 64]]), "a window that reaches beyond the image"),
    "window-empty": (in_group("i", w=[[64, 64], [64, 0, 0, 64]]), "a window without rows"),
}
_CONDITIONING: Faults = {
    "conditioning-unknown": (in_group("c", k="prompt"), "a kind of conditioning that nobody knows"),
    "conditioning-bin": (in_group("c", k=b"delta"), "a kind that is a bin"),
    "conditioning-none": (
        lambda manifest: (in_group(c={"k": "none"})(manifest), in_group("r", g=MILLION)(manifest)),
        "no conditioning, with a sampler",
    ),
    "bits-0": (in_group("c", b=0), "values of 0 bits"),
    "bits-9": (in_group("c", b=9), "values of 9 bits"),
    "width-8193": (in_group("c", w=8_193), "embeddings of 8,193 values"),
    "token-id": (in_group("c", a=1 << 31), "a token id of 2^31"),
    "template-empty": (in_group("c", i=[]), "a template of no ids"),
    "template-long": (in_group("c", p=[0, 5]), "a template that is longer than the padded length"),
    "template-1025": (in_group("c", i=[7] * 1_025), "a template of 1,025 ids"),
    "padding-1025": (in_group("c", p=[0, 1_025]), "a padded length of 1,025"),
    "slots-none": (in_group("c", s=[]), "no slots"),
    "slots-order": (in_group("c", s=[2, 1]), "slots that do not ascend"),
    "slots-twice": (in_group("c", s=[2, 2]), "a slot twice"),
    "slots-outside": (in_group("c", s=[6]), "a slot behind the template"),
    "negative-nil": (in_group("c", n=None), "no negative, with guidance 2"),
    "negative-row": (in_group("c", n="row"), "a negative of another kind of conditioning"),
    "negative-long": (in_group("c", n=[5] * 78), "a negative that is longer than the padded length"),
    "rows-unknown": (in_group("c", r="column"), "rows that nobody knows"),
}
_VECTORS: Faults = {
    "vectors-negative-ids": (in_group("c", n=[1, 2]), "a negative of token ids for vectors"),
    "vectors-slots-list": (in_group("c", s=[1, 2]), "a list of slots for vectors"),
    "vectors-row-8-mib": (in_group("c", s=1_024, w=8_192, b=8), "a row that no part can hold, 2 bytes too long"),
}
_SECOND: Faults = {
    "second-width": (
        in_group("c", x={"p": 0, "t": [0] * 6, "w": 8}),
        "a width of the second encoder where rows are ids",
    ),
    "second-five": (in_group("c", x={"p": 0, "t": [0] * 5, "w": 0}), "five time ids"),
    "second-time-id": (in_group("c", x={"p": 0, "t": [65_536] * 6, "w": 0}), "a time id of 65,536"),
}
_RECIPES: Faults = {
    "sampler-unknown": (in_group("r", s="heun"), "a sampler that nobody knows"),
    "steps-0": (in_group("r", n=0), "no steps"),
    "steps-more": (in_group("r", n=11, b=["linear", 1, 2, 10], t=["trailing", 0]), "more steps than training steps"),
    "steps-1001": (in_group("r", n=1_001, b=["linear", 1, 2, 10_000], t=["trailing", 0]), "1,001 steps"),
    "eta": (in_group("r", e=MILLION + 1), "an eta above 1"),
    "guidance-negative": (in_group("r", g=-1), "a negative guidance scale"),
    "guidance": (in_group("r", g=1_000 * MILLION + 1), "a guidance scale above 1,000"),
    "prediction": (in_group("r", p="x0"), "a prediction that nobody knows"),
    "spacing": (in_group("r", t=["karras", 0]), "a spacing that nobody knows"),
    "offset": (in_group("r", t=["trailing", 1]), "an offset without leading timesteps"),
    "offset-beyond": (in_group("r", t=["leading", 100]), "an offset that moves the first timestep to 1,000"),
    "betas-rule": (in_group("r", b=["cosine", 1, 2, 1_000]), "a rule of betas that nobody knows"),
    "betas-one": (in_group("r", b=["linear", 1, MILLION, 1_000]), "a beta of 1"),
    "betas-nothing-left": (in_group("r", b=["linear", 500_000, 500_000, 65]), "betas with a last alpha-bar of 2^-65"),
    "betas-10001": (in_group("r", b=["linear", 1, 2, 10_001]), "10,001 training steps"),
    "start-without": (in_group("r", z=[1, 0, None]), "a factor of stored latents, and none stored"),
    "start-unused": (in_group("r", z=[0, MILLION, [8, 0, 4, 2, 2]]), "stored latents with a factor of 0"),
    "start-above-1": (in_group("r", z=[0, MILLION + 1, None]), "a factor of noise above 1"),
}
_REINJECT: Faults = {
    "reinject-nothing": (in_group("r", z=[0, MILLION, None]), "re-injection without stored latents"),
    "reinject-one-step": (in_group("r", n=1), "re-injection in one step"),
    "latents-coding-3": (in_group("r", z=[0, MILLION, [8, 3, 4, 2, 2]]), "a coding of latents that nobody knows"),
    "latents-65-channels": (in_group("r", z=[0, MILLION, [8, 0, 65, 2, 2]]), "latents of 65 channels"),
    "latents-bits-0": (in_group("r", z=[0, MILLION, [0, 0, 4, 2, 2]]), "latents in blocks of no bits"),
    "latents-8-mib": (in_group("r", z=[0, MILLION, [8, 0, 46, 267, 684]]), "a latent that no part can hold"),
    "latents-8-mib-coded": (
        in_group("r", z=[0, MILLION, [8, 1, 46, 267, 684]]),
        "a coded latent whose block no part could hold",
    ),
    "coded-2-32": (
        lambda manifest: (
            in_group("r", z=[0, MILLION, [8, 1, 64, 32, 32]])(manifest),
            in_group("i", n=1 << 17)(manifest),
            content(s=[11, 9])(manifest),
        ),
        "a coded section of 2^34 values",
    ),
}
_DECODE: Faults = {
    "decode-start": (in_group("r", z=[MILLION, 0, [0, 2, 4, 4, 4]]), "a start where latents are decoded as they are"),
    "decode-candidates": (in_group("i", c=1), "candidates of images without noise"),
    "decode-generator": (in_group(g=None), "latents without the generator that decodes them"),
    "decode-conditioning": (
        in_group(c={"k": "class-id", "n": None, "r": "class"}),
        "class ids for latents that are decoded as they are",
    ),
    "transform-bits": (in_group("r", z=[3, 2, 4, 4, 4]), "bits of transform-coded latents"),
    "transform-65": (in_group("r", z=[0, 2, 4, 65, 4]), "transform-coded latents of 65 rows"),
}
_SHEETS: Faults = {
    "sheet-jpeg": (in_group("r", f="jpeg"), "sheets in a format that nobody knows"),
    "sheet-lossy-exact": (in_group("r", f="avif"), "sheets in AVIF under exact"),
    "sheet-columns": (in_group("r", c=5), "more columns than images of a sheet"),
    "sheet-side": (in_group("r", n=4_096, c=2_048), "a sheet of 16,384 pixels"),
    "sheet-pixels": (in_group("r", n=1 << 20, c=1_025), "a sheet of more than 2^26 pixels"),
    "sheet-generator": (in_group(g=bytes(32)), "a generator of stored images"),
    "sheet-cast": (in_group(d="f16"), "a cast of stored images"),
    "sheet-outside": (in_group(o=1), "bytes outside of stored images"),
}
_LABELS: Faults = {
    "labels-unknown": (in_group("l", k="k"), "a kind of labels that nobody knows"),
    "labels-width-more": (in_group("l", w=4), "four columns for three classes, and none says which is whose"),
    "labels-width-less": (in_group("l", w=2, m="col"), "two columns for three classes"),
    "labels-columns": (in_group("l", m="map"), "columns that nobody knows"),
    "labels-step-0": (in_group("l", s=0), "a step of 0"),
    "labels-step": (in_group("l", s=65_536), "a step of 256 nat"),
    "labels-hard-width": (in_group(l={"k": "h", "w": 3}), "a width of hard labels"),
    "labels-2-26": (
        lambda manifest: (
            in_group(l={"k": "r", "m": None, "w": 3})(manifest),
            in_group("i", n=1 << 20, g=[8, 8])(manifest),
            content(s=[20, 9])(manifest),
        ),
        "three times 2^26 ranked labels",
    ),
}
_TOP: Faults = {
    "top-0": (in_group("l", n=0), "no logits kept"),
    "top-4-of-3": (in_group("l", n=4), "four logits kept of three"),
    "top-1025": (in_group("l", n=1_025, w=2_000, m="col"), "1,025 logits kept"),
}
_ADAPTIVE: Faults = {"adaptive-65": (in_group("l", w=65, m="col"), "adaptive labels of 65 columns")}
_ABOUT: Faults = {
    "about-nil": (lambda manifest: manifest.update(a=None), "an about of nil, which must be absent"),
    "about-key-nil": (said(l=None), "a licence of nil, which must be absent"),
    "about-unknown": (said(z="z"), "a key of about that nobody knows"),
    "about-empty-text": (said(l=""), "a licence of no bytes"),
    "about-4097": (said(b="b" * 4_097), "a citation of 4,097 bytes"),
    "about-control": (said(s="a\tb"), "a tab in a source"),
    "about-nul": (said(m="d3m\0"), "a NUL in the name of a method"),
    "about-c1": (said(t="\x9b31m"), "a control character above U+007F in a teacher"),
    "about-claims-257": (said(c={f"{number}": "?" for number in range(257)}), "257 claims"),
    "about-claim-number": (said(c={"S0": 90}), "a claim that is a number"),
    "about-fingerprint-alone": (said(f="here"), "a fingerprint without pixel digest"),
    "about-pixels-alone": (said(p=bytes(32)), "a pixel digest without fingerprint"),
    "about-weights-two": (said(w=[1, 1]), "two weights for one group"),
    "about-digest-alone": (said(h=bytes(32)), "a digest of ancillary sections, and none there"),
}
_ANCILLARY: Faults = {
    "ancillary-name": (said(x=[["leaf", 5], ["x-thumb", 5]]), "an ancillary section whose name does not begin with x-"),
    "ancillary-twice": (said(x=[["x-note", 5], ["x-note", 5]]), "two ancillary sections of one name"),
    "ancillary-65": (said(x=[["x-" + "n" * 63, 5], ["x-thumb", 5]]), "a name of 65 bytes"),
    "ancillary-nul": (said(x=[["x-no\0te", 5], ["x-thumb", 5]]), "a NUL in a name"),
    "ancillary-none": (said(x=[]), "an empty list of ancillary sections"),
    "ancillary-no-length": (said(x=[["x-note"], ["x-thumb", 5]]), "an ancillary section without a length"),
    "ancillary-8-mib": (said(x=[["x-note", WHOLE_BYTES + 1], ["x-thumb", 5]]), "an ancillary part of more than 8 MiB"),
    "ancillary-no-digest": (without("a", "h"), "ancillary sections without a digest"),
}
_WEIGHTS: Faults = {
    "weight-0": (said(w=[1, 0, 1]), "a weight of 0"),
    "weight-256": (said(w=[1, 256, 1]), "a weight of 256"),
    "length-2-36": (
        lambda manifest: manifest["c"]["s"].__setitem__(1, FREE_BYTES + 1),
        "a section of more than 2^36 bytes",
    ),
}
