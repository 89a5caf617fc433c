"""Sizes as people write them."""

from __future__ import annotations

import pytest

from sandbox_rpc.config import size


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("2048", 2048),
        ("2048M", 2048),
        ("2G", 2048),
        ("2g", 2048),
        ("2 GiB", 2048),
        ("1.5G", 1536),
        ("0.5GiB", 512),
        ("1T", 1024 * 1024),
        (" 512mib ", 512),
        ("1.7G", 1740),
        ("0.001G", 1),
        ("0", 0),
    ],
)
def test_a_size_is_read_in_mib(text: str, mib: int) -> None:
    assert size.parse(text) == mib


@pytest.mark.parametrize(
    "text",
    [
        *["", "G", "2GB", "2MB", "2K", "-2G", "+2G", "1e3", "inf", "nan", "1,5G", ".5G", "2.G"],
        *["2G2", "2\nG", "0x10", "２", "2Gıb", "9" * 13, "1." + "0" * 7, "9" * 100_000],
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_other_texts_are_not_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size.parse(text)


@pytest.mark.parametrize(
    ("mib", "text"), [(0, "0M"), (1, "1M"), (1536, "1536M"), (2048, "2G"), (1 << 24, "16T")]
)
def test_a_size_is_shown_so_that_it_reads_back(mib: int, text: str) -> None:
    assert size.show(mib) == text
    assert size.parse(text) == mib
