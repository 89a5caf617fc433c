"""The tests; a package, so that the helpers of `tests/vm` can be imported by name."""
