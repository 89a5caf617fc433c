"""Which other proxy a host goes through: by its environment, or as a setting says."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from sandbox_rpc.config.values import Settings
from sandbox_rpc.network.proxy.settings import Upstream
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.supervisor.upstream import find


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p.example:8080"}, Upstream("p.example", 8080)),
        ({"http_proxy": "p.example"}, Upstream("p.example", 3128)),
        ({"https_proxy": "http://a.example:1", "HTTP_PROXY": "http://b.example:2"},
         Upstream("a.example", 1)),
        ({"HTTPS_PROXY": "http://u%40x:p%3Aw@[::1]:8080/", "NO_PROXY": "a.example, .b.example,"},
         Upstream("::1", 8080, basic("u@x:p:w"), ("a.example", ".b.example"))),
        ({"HTTPS_PROXY": " "}, None),
    ],
)  # fmt: skip
def test_the_environment(environment: dict[str, str], wanted: Upstream | None) -> None:
    assert find(Settings(), environment) == (wanted, [])
    assert find(Settings(proxy_upstream="none"), environment) == (None, [])


@pytest.mark.parametrize(
    "value", ["socks5://u:s3cret@h:1", "https://h:1", "http://u:s3cret@/x", "http://127.1"]
)
def test_what_cannot_be_used_is_told_without_its_password(value: str) -> None:
    found, (warning,) = find(Settings(), {"HTTPS_PROXY": value})
    assert found is None
    assert "HTTPS_PROXY" in warning
    assert "s3cret" not in warning


def test_a_setting_and_its_file(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text("user:pass word\n")
    file.chmod(0o600)
    settings = Settings(proxy_upstream="http://p.example:3128", proxy_upstream_auth=str(file))
    (found, _) = find(settings, {"HTTPS_PROXY": "http://other.example", "no_proxy": "x.example"})
    assert found == Upstream("p.example", 3128, basic("user:pass word"), ("x.example",))
    assert "pass" not in repr(found)
    for mode, text, words in (
        (0o644, "u:p", "read by others"), (0o600, "nothing", "one line"),
        (0o600, "a:b\nc:d", "one line"), (0o600, "a:b\0", "one line"),
    ):  # fmt: skip
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(SettingInvalid, match=words) as caught:
            find(settings, {})
        assert caught.value.details["setting"] == "proxy.upstream_auth"
    file.unlink()
    with pytest.raises(SettingInvalid, match="cannot be read"):
        find(settings, {})
    with pytest.raises(SettingInvalid, match="no address"):
        find(Settings(proxy_upstream="http://127.1"), {})
