"""Fits the statistics of transform-coded latents that ship with the package (spec/latents.md, section 6).

    python benchmarks/latent_statistics.py --data DATA --vae DATA/taesd3 [DATA/taesd] [--cache FOLDER]

DATA holds tiny_imagenet_no_nette_64_train.parquet; the folders are madebyollin/taesd3 and madebyollin/taesd in the form
of diffusers' AutoencoderTiny. Of each autoencoder latents of 32 px and of 64 px images are encoded (kept in the
cache folder, since that takes longest), and

1. the sensitivity of the decoded image to its latents is measured: the mean of J^T J, J being the decoder's Jacobian
   matrix, by random projections of pixels, at latents with noise; of it the blocks of the DCT's frequencies are kept;
2. each frequency gets the principal axes of its channels in that metric, rounded;
3. rotations of pairs of coefficients, quantized, take away the strongest correlations that are left (Jacobi 1846);
4. the tables of symbols are fitted by coding these latents at several steps, again and again.

Writes d3codec/conditioning/latents.stats and the same bytes to spec/data/latents.stats. With --compare nothing is
fitted, but latents of 32 px images of imagenette_64_train are coded and error and PSNR printed, and those of a plain
coder at 1, 1.15 and 1.3 times the bytes: principal axes of the channels times DCT, one uniform scalar quantizer with
rate-distortion choice and centroids, static tables by scale, fitted at every step on the same latents; its bytes are
ideal code lengths.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from d3codec.conditioning import transform
from d3codec.conditioning import transform_statistics as statistics
from d3codec.conditioning import transform_tables as tables
from d3codec.conditioning.transform_analysis import analyse
from d3codec.conditioning.transform_basis import Basis, pairs, sines
from d3codec.conditioning.transform_search import quantize
from d3codec.conditioning.transform_statistics import Fitted
from d3codec.conditioning.transform_tables import Symbols

TRAIN = "tiny_imagenet_no_nette_64_train.parquet"
ROOT = Path(__file__).resolve().parent.parent
COPIES = (ROOT / "d3codec" / "conditioning" / statistics.SHIPPED, ROOT / "spec" / "data" / statistics.SHIPPED)
NUMBERS = {"taesd3": statistics.TAESD3, "taesd": statistics.TAESD}
COUNTS = {"taesd3": {32: 10_000, 64: 1_000}, "taesd": {32: 3_000}}  # images that are encoded, by their side
PROBES = 600
NOISE = 0.3  # of latents where the sensitivity is measured, in standard deviations of their channel
SMALLEST_SINE = 2.0**-8
LIMIT = 40  # amount of the largest entry of a matrix, at most
PASSES = 2
LEAST_GAIN = 0.001  # bits an image that a rotation must save to be stated, and
SIGNIFICANT = 7.5  # the same times the number of images: what chance seldom makes
TURNED = 256  # components that rotations reach: those of the lowest frequencies
PRIOR = 100.0  # counts that the normal distribution gets in tables
ROUNDS = 5
SAMPLE = 500  # latents of each kind that tables are fitted by


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vae", type=Path, nargs="+", required=True, help="folders named taesd3 and taesd")
    parser.add_argument("--cache", type=Path, default=Path("latent-cache"))
    parser.add_argument("--compare", type=float, nargs="*", metavar="BYTES", help="bytes an image to compare at")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.compare is not None:
        compare(options, options.vae[0], options.compare or [20, 40, 60])
        return
    entries, coefficients = {}, []
    for folder in options.vae:
        for side, count in COUNTS[folder.name].items():
            latents, metric = measured(options, folder, side, count)
            fitted = fit(latents, metric)
            entries[NUMBERS[folder.name], fitted.shape] = fitted
            basis = fitted.basis()
            coefficients.append((analyse(latents[:SAMPLE], basis), basis.scales))
            print(f"{folder.name}, {side} px: {len(fitted.pack()):,} bytes", flush=True)
    data = statistics.pack(fit_symbols(coefficients), entries)
    for path in COPIES:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    print(f"{len(data):,} bytes")


# ------------------------------------------------------------------------------------------------- measurements


def measured(options: argparse.Namespace, folder: Path, side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents, float64 [N, C, h, w], and of the mean of J^T J the blocks of frequencies, float64 [h w, C, C]."""
    path = options.cache / f"{folder.name}-{side}.npz"
    if not path.exists():
        net = autoencoder(folder)
        latents = encoded(net, photographs(options.data / TRAIN, side, count))
        metric = sensitivity(net, latents)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, latents=latents.astype(np.float16), metric=metric)
    with np.load(path) as stored:
        return stored["latents"].astype(np.float64), stored["metric"]


def autoencoder(folder: Path) -> torch.nn.Module:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32).eval().requires_grad_(False)


def photographs(path: Path, side: int, count: int) -> np.ndarray:
    """Images, float32 [count, 3, side, side] in -1 to 1, a random choice, box-downsampled."""
    blobs = pq.read_table(path)["image"].combine_chunks().field("bytes").to_pylist()
    chosen = np.random.default_rng(0).permutation(len(blobs))[:count]
    levels = np.stack([np.asarray(Image.open(io.BytesIO(blobs[i])).convert("RGB")) for i in chosen])
    factor = levels.shape[1] // side
    small = levels.reshape(-1, side, factor, side, factor, 3).astype(np.float32).mean((2, 4))
    return np.ascontiguousarray(small.transpose(0, 3, 1, 2)) / 127.5 - 1


def encoded(net: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([net.encode(part).latents for part in torch.from_numpy(images).split(25)]).numpy()


def sensitivity(net: torch.nn.Module, latents: np.ndarray) -> np.ndarray:
    """Blocks [h w, C, C] of the mean of J^T J, pixels counted in levels of 0 to 255."""
    random = torch.Generator().manual_seed(0)
    channels, height, width = latents.shape[1:]
    spread = torch.from_numpy(latents.std(axis=(0, 2, 3)))[:, None, None]
    total = np.zeros((height * width, channels, channels))
    for part in torch.from_numpy(latents[:PROBES]).split(25):
        noisy = (part + NOISE * spread * torch.randn(part.shape, generator=random)).requires_grad_(True)
        image = net.decode(noisy).sample.clamp(-1, 1) * 127.5
        signs = torch.randint(0, 2, image.shape, generator=random) * 2.0 - 1
        (gradient,) = torch.autograd.grad((image * signs).sum(), noisy)
        spectrum = analyse(gradient.numpy().astype(np.float64), plain((channels, height, width)))
        by_frequency = spectrum.reshape(len(part), height * width, channels)
        total += np.einsum("nfa,nfb->fab", by_frequency, by_frequency)
    return total / min(PROBES, len(latents))


def plain(shape: tuple[int, int, int]) -> Basis:
    """The DCT alone."""
    return Basis(shape, np.zeros(int(np.prod(shape)), np.int64), np.zeros((shape[0], 1, 1)))


# --------------------------------------------------------------------------------------------------------- basis


def fit(latents: np.ndarray, metric: np.ndarray) -> Fitted:
    shape = latents.shape[1:]
    channels, size = shape[0], int(np.prod(shape))
    mean = np.clip(np.rint(latents.mean(axis=0) / statistics.MEAN_UNIT), -127, 127).astype(np.int64)
    spectrum = analyse(latents - mean * statistics.MEAN_UNIT, plain(shape)).reshape(len(latents), -1, channels)
    rows = np.empty(metric.shape)
    for f, block in enumerate(metric):
        root = np.linalg.cholesky(block)
        weighted = spectrum[:, f] @ root
        axes = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1]
        rows[f] = np.linalg.inv(root @ axes)
    exponent = int(np.floor(np.log2(LIMIT / np.abs(rows).max())))
    matrices = np.rint(rows * 2.0**exponent).astype(np.int64)
    unturned = np.zeros((0, 0, 0), np.int64)
    fitted = Fitted(shape, 0, np.zeros(size, np.int64), mean, matrices, exponent, unturned)
    values = analyse(latents, fitted.basis())
    turned = min(size, TURNED)
    covariance = values[:, :turned].T @ values[:, :turned] / len(values)
    least = max(LEAST_GAIN, SIGNIFICANT / len(latents))
    levels = np.stack([turn(covariance, channels, least) for _ in range(PASSES)])
    fitted = Fitted(shape, 0, fitted.scales, mean, matrices, exponent, levels)
    deviations = np.sqrt(np.mean(analyse(latents, fitted.basis()) ** 2, axis=0))
    scales = 32 * np.log2(deviations)
    octave = int(np.ceil(scales.max() / 32)) - 8
    scales = np.clip(np.rint(scales - 32 * octave), 0, 255).astype(np.int64)
    return Fitted(shape, octave, scales, mean, matrices, exponent, levels)


def turn(covariance: np.ndarray, channels: int, least: float) -> np.ndarray:
    """Levels of a pass, [P - channels, P / 2]; the covariance is turned in place."""
    size = len(covariance)
    sine, cosine = (row / (1 << 14) for row in sines())
    chosen = np.zeros((size - channels, size // 2), np.int64)
    for r in range(channels, size):
        i, j = pairs(size, r)
        a, b, both = covariance[i, i], covariance[j, j], covariance[i, j]
        angle = np.arctan2(2 * both, a - b) / 2
        wanted = np.sin((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
        level = np.abs(np.abs(wanted)[:, None] - sine).argmin(axis=1)
        s, c = np.sign(wanted) * sine[level], cosine[level]
        after = (c * c * a + s * s * b + 2 * c * s * both) * (s * s * a + c * c * b - 2 * c * s * both)
        level[np.log2(a * b / after) / 2 < least] = 0
        chosen[r - channels] = np.sign(wanted) * level
        s, c = np.sign(wanted) * sine[level], cosine[level]
        for side in (covariance, covariance.T):
            first, second = side[i].copy(), side[j].copy()
            side[i] = c[:, None] * first + s[:, None] * second
            side[j] = c[:, None] * second - s[:, None] * first
    return chosen


# ------------------------------------------------------------------------------------------------------- symbols


def fit_symbols(coefficients: list[tuple[np.ndarray, np.ndarray]]) -> Symbols:
    """Costs and shifts by what the search makes of coefficients [n, K] with their scales, at several steps."""
    symbols = normal_symbols()
    prior = [PRIOR * tables.costs_to_weights(costs) / tables.costs_to_weights(costs).sum() for costs in symbols.costs]
    for _ in range(ROUNDS):
        counts = np.zeros((2 * tables.BUCKETS, 4096))
        sums = np.zeros((2 * tables.BUCKETS, 2))
        numbers = np.zeros((2 * tables.BUCKETS, 2))
        for values, scales in coefficients:
            order = np.argsort(-scales, kind="stable")
            for exponent in range(tables.MIDDLE_STEP + scales.max() - 800, tables.MIDDLE_STEP + scales.max() - 200, 75):
                buckets = tables.buckets(scales[order], exponent)
                coded = buckets >= 0
                amounts = np.abs(values[:, order[coded]]) / tables.deviations(exponent - tables.MIDDLE_STEP)
                found = quantize(amounts, buckets[coded], symbols)
                rows, magnitudes = found.rows, found.magnitudes
                np.add.at(counts, (rows, np.minimum(magnitudes, 4095)), 1)
                some = magnitudes > 0
                at = rows[some], np.minimum(magnitudes[some], 2) - 1
                np.add.at(numbers, at, 1)
                np.add.at(sums, at, amounts[some] - (2 * magnitudes[some] - (rows[some] & 1)))
        costs = []
        for row, before in enumerate(prior):
            table = counts[row, : len(before)] + before * np.where(np.arange(len(before)) > 0, 2, 1)
            each = table / np.where(np.arange(len(table)) > 0, 2, 1)
            costs.append(np.clip(np.rint(-16 * np.log2(each / each.max())), 0, 255).astype(np.int64))
        shifts = np.rint(tables.UNITS_A_STEP * sums / (numbers + PRIOR)).astype(np.int64)
        symbols = Symbols(tuple(costs), np.clip(shifts, -24, 24))
    return symbols


def normal_symbols() -> Symbols:
    """Costs of normal distributions, without shifts."""
    costs = []
    for row in range(2 * tables.BUCKETS):
        deviation = 2.0 ** ((row // 2 + 0.5) / 4 - 1)
        positions = np.maximum(2 * np.arange(3 + int(2 * deviation)) - row % 2, 0)
        costs.append(np.clip(np.rint(16 * np.log2(np.e) * positions**2 / (2 * deviation**2)), 0, 255).astype(np.int64))
    return Symbols(tuple(costs), np.zeros((2 * tables.BUCKETS, 2), np.int64))


# ---------------------------------------------------------------------------------------------------- comparison


class Plain:
    """The plain coder. Its coefficients [N, D] are weighted, so that errors of all count alike."""

    strength = 0.15  # squared steps that a bit is worth
    magnitudes = np.arange(64)

    def __init__(self, latents: np.ndarray, metric: np.ndarray) -> None:
        channels = latents.shape[1]
        self.mean = latents.mean(axis=0)
        flat = (latents - self.mean).transpose(1, 0, 2, 3).reshape(channels, -1)
        self.axes = np.linalg.eigh(flat @ flat.T)[1]
        self.weights = np.sqrt(np.einsum("fab,ac,bc->fc", metric, self.axes, self.axes))
        self.train = self.coefficients(latents[:1000])
        self.deviations = np.sqrt((self.coefficients(latents) ** 2).mean(axis=0))

    def coefficients(self, latents: np.ndarray) -> np.ndarray:
        spectrum = analyse(latents - self.mean, plain(latents.shape[1:])).reshape(len(latents), -1, len(self.axes))
        return (spectrum @ self.axes * self.weights).reshape(len(latents), -1)

    def latents(self, coefficients: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        spectrum = coefficients.reshape(len(coefficients), -1, len(self.axes)) / self.weights @ self.axes.T
        fine = np.rint(spectrum.reshape(len(coefficients), -1) * 2.0**20).astype(np.int64)
        return plain(shape).latents(fine, -20) + self.mean

    def coded(self, latents: np.ndarray, step: float) -> tuple[float, np.ndarray]:
        """Ideal code length in bytes, and the latents that a decoder gets."""
        bucket = np.clip(np.floor(4 * np.log2(self.deviations / step)).astype(int) + 16, 0, 47)
        width = 2.0 ** ((np.arange(48) - 15.5) / 4) / np.sqrt(2)
        shares = np.exp(-np.maximum(self.magnitudes - 0.6, 0) / width[:, None])
        prior = 0.99 * (shares - np.append(shares[:, 1:], np.zeros((48, 1)), axis=1)) + 1e-4
        prior /= prior.sum(axis=1, keepdims=True)
        tables_, centres = prior, np.tile(1.0 * self.magnitudes, (48, 1))
        amounts = np.abs(self.train) / step
        for _ in range(4):
            chosen = self.chosen(amounts, bucket, tables_, centres)
            counts, sums = np.zeros((2, 48, 64))
            np.add.at(counts, (bucket, chosen), 1)
            np.add.at(sums, (bucket, chosen), amounts)
            tables_ = counts + 8 * prior
            tables_ /= tables_.sum(axis=1, keepdims=True)
            centres = np.where(counts > 20, sums / np.maximum(counts, 1), self.magnitudes) * (self.magnitudes > 0)
        values = self.coefficients(latents)
        chosen = self.chosen(np.abs(values) / step, bucket, tables_, centres)
        bits = (chosen > 0).sum() - np.log2(tables_[bucket, chosen]).sum()
        return bits / 8, self.latents(np.sign(values) * centres[bucket, chosen] * step, latents.shape[1:])

    def chosen(self, amounts: np.ndarray, bucket: np.ndarray, shares: np.ndarray, centres: np.ndarray) -> np.ndarray:
        nearest = np.minimum(np.floor(amounts + 0.5), 63).astype(int)
        options = np.stack([nearest, np.maximum(nearest - 1, 0), np.zeros_like(nearest)])
        bits = (options > 0) - np.log2(shares[bucket, options])
        return np.take_along_axis(
            options, ((amounts - centres[bucket, options]) ** 2 + self.strength * bits).argmin(axis=0)[None], axis=0
        )[0]


def compare(options: argparse.Namespace, folder: Path, rates: list[float]) -> None:
    net = autoencoder(folder)
    train, metric = measured(options, folder, 32, COUNTS[folder.name][32])
    images = photographs(options.data / "imagenette_64_train.parquet", 32, 300)
    latents = encoded(net, images).astype(np.float64)
    shape = latents.shape[1:]
    coder = Plain(train, metric)

    def quality(found: np.ndarray) -> str:
        difference = analyse(found - latents, plain(shape)).reshape(len(latents), -1, shape[0])
        error = np.einsum("nfa,fab,nfb->n", difference, metric, difference).mean()
        with torch.no_grad():
            pixels = torch.cat([net.decode(p).sample for p in torch.from_numpy(found.astype(np.float32)).split(25)])
        square = ((pixels.clamp(-1, 1).numpy() - images) ** 2).mean()
        return f"error {error / 1e6:6.3f}e6, PSNR {10 * np.log10(4 / square):6.2f} dB"

    for rate in rates:
        data = transform.encode(latents, round(rate * len(latents)))
        print(f"{len(data) / len(latents):5.1f} bytes: {quality(transform.decode(data, len(latents), shape, 'lat'))}")
        for more in (1.0, 1.15, 1.3):
            low, high = 3.0, 12.0
            for _ in range(10):
                middle = (low + high) / 2
                fits = coder.coded(latents, 2.0**middle)[0] <= more * len(data)
                low, high = (low, middle) if fits else (middle, high)
            size, found = coder.coded(latents, 2.0**high)
            print(f"      plain, {size / len(latents):5.1f} bytes: {quality(found)}", flush=True)


if __name__ == "__main__":
    main()
