"""A folder -> a loaded generator of the family that its parts show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from d3codec.generators.files import family_of, require_torch

if TYPE_CHECKING:
    import torch

    from d3codec.generators.latent import LatentGenerator


def load_generator(
    folder: str | Path, *, cast: str, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> LatentGenerator:
    """Load the generator of a folder in the layout of diffusers' `save_pretrained`.

    Arguments:
        cast: 'f16' (weights are rounded to float16 before anything else) or 'stored'.
        dtype: of the computation, float32 unless given; the cast weights, with the low-rank update of the folder if
            there is one, are converted to it.

    Raises:
        GeneratorError: files that are missing, damaged or of another architecture.
        MissingGeneratorError: a folder without the parts of a family.
        MissingExtraError: a package of the extra `decode` is not installed.
    """
    dtype = dtype or require_torch().float32
    return _family(family_of(Path(folder))).load(folder, cast=cast, dtype=dtype, device=device)


def _family(name: str) -> type[LatentGenerator]:
    """The class of a family, imported alone: a decode needs one, and every import costs time."""
    if name == "stable-diffusion":
        from d3codec.generators.stable_diffusion import StableDiffusion

        return StableDiffusion
    if name == "stable-diffusion-xl":
        from d3codec.generators.stable_diffusion_xl import StableDiffusionXL

        return StableDiffusionXL
    if name == "dit":
        from d3codec.generators.dit import DiT

        return DiT
    if name == "autoencoder":
        from d3codec.generators.autoencoder_alone import AutoencoderAlone

        return AutoencoderAlone
    from d3codec.generators.latent_diffusion import LatentDiffusion

    return LatentDiffusion
