"""Stages of `train_generator.py`: config, captions, pool, autoencoder, words, material, diffusion, publish."""
