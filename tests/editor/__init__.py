"""The extension in a real editor in a real browser, on real virtual machines."""
