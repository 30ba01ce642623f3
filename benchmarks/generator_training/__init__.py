"""Stages of `train_generator.py`: config, captions, pool, autoencoder, diffusion, checkpoint, publish."""
