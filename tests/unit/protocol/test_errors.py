"""The error table: one code, one kind, one block, both ways over the wire."""

from __future__ import annotations

import pytest

from sandbox_rpc.protocol import errors
from sandbox_rpc.protocol.errors import ERRORS, SandboxError

BLOCKS = {
    errors.HostError: 10,
    errors.VmError: 11,
    errors.ImageError: 12,
    errors.GuestError: 13,
    errors.ConsoleError: 14,
    errors.NetworkError: 15,
}
FIXED = {
    "kvmUnavailable": 1001, "qemuMissing": 1002, "toolMissing": 1003, "diskFull": 1004,
    "permissionDenied": 1005, "stateNewer": 1006, "protocolMismatch": 1007,
    "sandboxNotFound": 1101, "workspaceRefused": 1102, "sandboxNotRunning": 1103,
    "qemuFailed": 1104, "startTimeout": 1105, "stopTimeout": 1106, "sandboxBusy": 1107,
    "settingInvalid": 1108, "settingUntrusted": 1109, "imageNotFound": 1201,
    "downloadFailed": 1202, "digestMismatch": 1203, "imageInvalid": 1204, "imageInUse": 1205,
    "buildFailed": 1206, "templateInvalid": 1207, "sshUnreachable": 1301, "execFailed": 1302,
    "consoleGone": 1401, "portTaken": 1501, "forwardNotFound": 1502, "ruleInvalid": 1503,
    "networkFailed": 1504,
}  # fmt: skip
"""Published codes; a change here breaks every client."""


def leaves(root: type[SandboxError]) -> list[type[SandboxError]]:
    found = [leaf for child in root.__subclasses__() for leaf in leaves(child)]
    return found or [root]


def test_codes_are_unique_and_in_their_block() -> None:
    """No two errors share a code, and the block is the exit status."""
    every = leaves(SandboxError)
    assert len({error.code for error in every}) == len(every)
    for family, block in BLOCKS.items():
        for error in leaves(family):
            assert error.code // 100 == block, error
            assert error("m").exit_status == block


def test_published_codes_stay() -> None:
    """A code is never reused, a kind never renamed."""
    found = {errors.kind_of(error): code for code, error in ERRORS.items()}
    assert FIXED.items() <= found.items()


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_there_and_back(code: int) -> None:
    """What is raised in a supervisor is raised again in the client."""
    error = ERRORS[code]("It broke.", hint="Mend it.", path="/x")
    again = errors.from_wire(error.to_wire())
    assert type(again) is type(error)
    assert (again.message, again.hint, again.details) == ("It broke.", "Mend it.", {"path": "/x"})


def test_unknown_codes_keep_their_words() -> None:
    """A newer peer's error still says what happened, and keeps its block."""
    again = errors.from_wire({"code": 1999, "message": "New.", "data": {"hint": "Do."}})
    assert (again.message, again.hint, again.exit_status) == ("New.", "Do.", 19)
