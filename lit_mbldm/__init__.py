"""Diffusion on model-based latents: a classical codec, and a diffusion model of its codes."""
