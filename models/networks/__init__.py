"""Networks on the sphere: autoencoder, denoiser, forecast model."""
