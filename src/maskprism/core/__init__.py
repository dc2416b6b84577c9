"""Predictions: frames, masks, decomposition and their file format."""
