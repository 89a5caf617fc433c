"""Which mirror a host's own apt describes."""

from __future__ import annotations

from sandbox_rpc.images.mirror import Mirror, parse


def target(uri: str, *, origin: str = "Debian", label: str = "Debian", **more: str) -> str:
    fields = {
        "MetaKey": "main/binary-amd64/Packages",
        "URI": f"{uri}dists/x/main/binary-amd64/Packages",
        "Codename": "bookworm",
        "Label": label,
        "Origin": origin,
        "Repo-URI": uri,
        "Component": "main",
        "Created-By": "Packages",
        **more,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


MAIN = "http://mirror.example.org/debian/"
SECURITY = "https://mirror.example.org/debian-security/"


def test_main_and_security() -> None:
    text = "\n".join(
        [target(MAIN), target(MAIN, Codename="bookworm-updates"),
         target(SECURITY, label="Debian-Security")]
    )  # fmt: skip
    assert parse(text) == Mirror(MAIN, SECURITY, [])
    mirror = parse(text)
    assert mirror is not None
    assert mirror.sources("trixie") == [
        f"deb {MAIN} trixie main",
        f"deb {MAIN} trixie-updates main",
        f"deb {SECURITY} trixie-security main",
    ]


def test_others_are_never_taken_for_debian() -> None:
    text = "\n".join(
        [
            target("http://vendor.example.org/apt/", origin="Vendor", label="Vendor"),
            target("http://ubuntu.example.org/", origin="Ubuntu", label="Ubuntu"),
            target("http://derived.example.org/", origin="Derived"),
            target("http://bpo.example.org/", label="Debian Backports"),
        ]
    )
    assert parse(text) is None


def test_the_label_decides_and_not_the_order() -> None:
    text = "\n".join([target(SECURITY, label="Debian-Security"), target(MAIN)])
    assert parse(text) == Mirror(MAIN, SECURITY, [])


def test_without_security() -> None:
    mirror = parse(target(MAIN))
    assert mirror is not None
    assert len(mirror.sources("trixie")) == 2


def test_indexes_that_are_not_packages_and_other_components_do_not_count() -> None:
    translations = target("http://a.example.org/", **{"Created-By": "Translations"})
    contrib = target("http://b.example.org/", Component="contrib")
    cdrom = target("cdrom://Debian/")
    assert parse("\n".join([translations, contrib, cdrom])) is None


def test_nothing_and_nonsense() -> None:
    assert parse("") is None
    assert parse("E: no such option\n\n\n:::\n") is None


def test_options_that_fetching_needs_are_taken_over_and_no_others() -> None:
    configuration = "\n".join(
        [
            'APT::Architecture "amd64";',
            'Acquire::http::Proxy "http://proxy.example.org:3128";',
            'Acquire::https::mirror.example.org::CaInfo "/etc/ssl/company.pem";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::http::Proxy-Auto-Detect "/usr/bin/something";',
            'Acquire::https "";',
            'DPkg::Post-Invoke:: "rm -rf /";',
            'Acquire::http::Proxy "";',
        ]
    )
    mirror = parse(target(MAIN), configuration)
    assert mirror is not None
    assert mirror.apt_options == [
        'Acquire::http::Proxy "http://proxy.example.org:3128";',
        'Acquire::https::mirror.example.org::CaInfo "/etc/ssl/company.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]
