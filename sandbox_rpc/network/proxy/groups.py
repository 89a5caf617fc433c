"""The lists that an allowlist can name: what developers need, none of it a package registry.

Package registries are in `@registries`, which the supervisor fills from the configuration of this
host's own tools at each start. An allowed host is also a way out: who may push to a git host may
push anything anywhere on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sandbox_rpc.network.proxy.rules import Rule, parse_rule

REGISTRIES = "@registries"
"""What this host's apt, pip, npm, cargo and go are configured with."""
GROUPS: Mapping[str, tuple[str, str]] = {
    "@git": (
        "git hosts",
        """
        github.com api.github.com codeload.github.com uploads.github.com gist.github.com
        github-cloud.s3.amazonaws.com *.githubusercontent.com *.githubassets.com
        gitlab.com *.gitlab.com *.gitlab-static.net
        bitbucket.org api.bitbucket.org *.bitbucket.org
        codeberg.org git.sr.ht .dev.azure.com vs-ssh.visualstudio.com
        git.kernel.org git.savannah.gnu.org salsa.debian.org
        """,
    ),
    "@containers": (
        "container registries",
        r"""
        ^((registry-1|auth|index|hub)\.)?docker\.(io|com)$
        production.cloudflare.docker.com docker-images-prod.r2.cloudflarestorage.com
        ^ghcr\.io$ .quay.io registry.gitlab.com
        mcr.microsoft.com *.data.mcr.microsoft.com *.cdn.mscr.io
        gcr.io *.gcr.io *.pkg.dev public.ecr.aws
        registry.access.redhat.com registry.redhat.io registry.k8s.io
        """,
    ),
    "@editors": (
        "editors, their servers and extensions",
        """
        code.visualstudio.com update.code.visualstudio.com marketplace.visualstudio.com
        vscode.download.prss.microsoft.com az764295.vo.msecnd.net
        *.gallery.vsassets.io *.gallerycdn.vsassets.io *.vscode-unpkg.net *.vscode-cdn.net
        vscode-sync.trafficmanager.net default.exp-tas.com
        open-vsx.org openvsx.eclipsecontent.org openvsxorg.blob.core.windows.net
        download.jetbrains.com download-cdn.jetbrains.com plugins.jetbrains.com
        downloads.marketplace.jetbrains.com cache-redirector.jetbrains.com
        data.services.jetbrains.com code-with-me.jetbrains.com
        cursor.com downloads.cursor.com .cursor.sh cursor.blob.core.windows.net
        windsurf-stable.codeiumdata.com server.codeium.com
        zed.dev api.zed.dev cloud.zed.dev
        api.githubcopilot.com *.githubcopilot.com copilot-proxy.githubusercontent.com
        """,
    ),
    "@models": (
        "model providers",
        r"""
        api.anthropic.com console.anthropic.com claude.ai api.claude.ai statsig.anthropic.com
        platform.claude.com
        api.openai.com auth.openai.com chatgpt.com
        generativelanguage.googleapis.com aiplatform.googleapis.com *.aiplatform.googleapis.com
        oauth2.googleapis.com cloudcode-pa.googleapis.com
        api.mistral.ai codestral.mistral.ai api.cohere.com api.deepseek.com api.x.ai
        api.groq.com api.together.xyz api.fireworks.ai openrouter.ai
        *.openai.azure.com ^bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com$
        """,
    ),
}
"""By the word that a line has: what it is, and its lines."""
ORDER = (*GROUPS, REGISTRIES)


def parsed() -> dict[str, list[Rule]]:
    """The rules of each list, but those that this host brings along."""
    return {name: [parse_rule(one) for one in text.split()] for name, (_, text) in GROUPS.items()}
