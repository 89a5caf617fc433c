"""Lets code-server's page open `ssh-remote+` windows, in memory; nothing on disk changes.

Every edit must fit exactly once, so that another version of the editor fails loudly. What it does
not touch is all that is tested: the extension, its command and URI, the window and the server in
the guest.
"""

from __future__ import annotations

import re
from contextlib import suppress

from playwright.sync_api import BrowserContext, Error, Route

AUTHORITY = (
    r"((decodeURIComponent(location.search).match(/vscode-remote:\/\/(ssh-remote\+[^/&]+)/)||[])[1]"
    "||location.host)"
)
DEFAULTS = (
    '{"terminal.integrated.gpuAcceleration":"off","workbench.startupEditor":"none",'
    '"chat.disableAIFeatures":true,"workbench.secondarySideBar.defaultVisibility":"hidden",'
    '"security.workspace.trust.enabled":false,"telemetry.telemetryLevel":"off"}'
)


def edited(script: str, helper: int) -> str:
    """The workbench, with a resolver for SSH."""

    def replaced(text: str, old: str, new: str) -> str:
        assert text.count(old) == 1, f"the edit does not fit: {old}"
        return text.replace(old, new)

    extension = f'[{{scheme:"http",authority:"127.0.0.1:{helper}",path:"/ext"}}]'
    script = replaced(
        script,
        "remoteAuthority:location.host}",
        f"remoteAuthority:{AUTHORITY},additionalBuiltinExtensions:{extension},"
        f"configurationDefaults:{DEFAULTS}}}",
    )
    script = replaced(
        script,
        "encodeWorkspacePath(o){return this.config.remoteAuthority&&o.scheme===",
        "encodeWorkspacePath(o){return this.config.remoteAuthority&&"
        "o.authority===this.config.remoteAuthority&&o.scheme===",
    )
    # Where the user's settings lie: else on the other side, which is still to be reached.
    home = re.search(
        r"get userRoamingDataHome\(\)\{return (\w+)\((\w+)\.file\(this\.userDataPath\)"
        r"\.with\(\{scheme:(\w+)\.vscodeRemote\}\)",
        script,
    )
    assert home, "the edit does not fit: userRoamingDataHome"
    made, uri, schemes = home.groups()
    return replaced(
        script,
        home[0],
        f"get userRoamingDataHome(){{return {made}({uri}.file(this.userDataPath).with("
        f"{{scheme:this.expectsResolverExtension?{schemes}.vscodeUserData:{schemes}.vscodeRemote}})",
    )


def install(context: BrowserContext, helper: int) -> None:
    """Edit what this browser loads."""

    def workbench(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=edited(answer.text(), helper))

    def resource(route: Route) -> None:
        # The machine behind a window may end while the window still asks for an icon.
        try:
            answer = route.fetch()
            headers = {**answer.headers, "access-control-allow-origin": "*"}
            route.fulfill(response=answer, headers=headers)
        except Error:
            with suppress(Error):
                route.abort()

    context.route(re.compile(r"/out/vs/code/browser/workbench/workbench\.js$"), workbench)
    context.route(re.compile(r"/vscode-remote-resource\?"), resource)
