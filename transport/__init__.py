"""Bytes under topics, between one client and one broker; knows nothing of models."""
