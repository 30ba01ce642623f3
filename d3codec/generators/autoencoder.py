"""The autoencoder of any family: latents <-> images, as AutoencoderKL or AutoencoderTiny."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from d3codec.errors import GeneratorError
from d3codec.generators.parts import LoadedPart


class Autoencoder:
    """Wraps the part `vae`; images are [batch, 3, height, width], about -1 to 1, latents in the denoiser's scale."""

    def __init__(self, part: LoadedPart, folder: Path) -> None:
        self._network, self._config, self._folder = part.network, part.config, folder
        self._tiny = part.graph == "autoencoder-tiny"
        self.channels: int = part.config["latent_channels"]
        if self._tiny:
            halvings = len(part.config["encoder_block_out_channels"]) - 1
            self._factor = part.config["upsampling_scaling_factor"] ** (len(part.config["num_decoder_blocks"]) - 1)
            if self._factor != 2**halvings:
                raise GeneratorError("encoder and decoder of the autoencoder do not fit together", file=str(folder))
        else:
            self._factor = 2 ** (len(part.config["block_out_channels"]) - 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image; GeneratorError if no latents give that size."""
        if height % self._factor or width % self._factor:
            raise GeneratorError(
                f"the generator makes images of multiples of {self._factor} pixels",
                file=str(self._folder),
                found=f"{height}x{width}",
            )
        return self.channels, height // self._factor, width // self._factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents in the compute dtype."""
        # A product: CUDA computes tensor / number as one, a CPU does not.
        scaled = latents * (1.0 / self._config["scaling_factor"])
        images: Tensor = self._network.decode(scaled, return_dict=False)[0]
        return images

    def encode(self, images: Tensor) -> Tensor:
        """Latents (the mean) of images in the compute dtype."""
        encoded = self._network.encode(images)
        mean: Tensor = encoded.latents if self._tiny else encoded.latent_dist.mean
        scale: float = self._config["scaling_factor"]
        return mean * scale
