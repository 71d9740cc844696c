"""Diffusion in latent space: schedule, Gaussian reference prior, samplers, guidance."""
