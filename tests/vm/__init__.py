"""Tests on real virtual machines."""
