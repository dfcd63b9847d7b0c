"""Frames and bytes, and nothing else."""
