"""Erasure from text-to-image diffusion models: prompts, latents, batches and losses."""
