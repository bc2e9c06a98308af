"""Generative adversarial nets, and what their discriminators learn and forget."""
