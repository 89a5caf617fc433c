/** The remote window: which extension opens it, whether SSH knows the alias, and the window itself. */
import * as fs from "node:fs/promises";
import * as path from "node:path";
import * as vscode from "vscode";

import { authorityOf } from "./authority";
import type { Context } from "./context";
import { build, isThere, MACHINE_SETTINGS, pieces, SETTINGS_FILE } from "./handIn";
import { GUEST_WORKSPACE } from "./here";
import * as messages from "./messages";
import { PersistPutRequest, type Sandbox, type Ssh } from "./protocol";
import { SECTION, setting } from "./settings";
import * as sshConfig from "./sshConfig";

/** An extension that opens `ssh-remote+` windows. */
interface Provider {
  readonly id: string;
  /** Section of its settings. */
  readonly section: string;
}

const PROVIDERS: readonly Provider[] = [
  { id: "ms-vscode-remote.remote-ssh", section: "remote.SSH" },
  { id: "anysphere.remote-ssh", section: "remote.SSH" },
  { id: "codeium.windsurf-remote-openssh", section: "remote.windsurfSSH" },
  { id: "google.antigravity-remote-openssh", section: "remote.antigravitySSH" },
  { id: "jeanp413.open-remote-ssh", section: "remote.SSH" },
];

/** Of our own settings. */
const INCLUDE = "ssh.include";

type Report = (step: string) => void;

function provider(): Provider | undefined {
  return PROVIDERS.find(({ id }) => vscode.extensions.getExtension(id) !== undefined);
}

/** Which one to offer: Microsoft's runs in Microsoft's builds only. */
function wanted(): string {
  const scheme = vscode.env.uriScheme;
  return scheme === "vscode" || scheme === "vscode-insiders"
    ? "ms-vscode-remote.remote-ssh"
    : "jeanp413.open-remote-ssh";
}

/** Open the sandbox's workspace in a window of its own, or the next best thing. */
export async function openWindow(
  context: Context,
  sandbox: Sandbox,
  report: Report,
  token: vscode.CancellationToken,
): Promise<void> {
  const { ssh, name } = sandbox;
  if (!ssh) return;
  const found = provider();
  if (!found) {
    // Not waited for: nothing is under way while the user reads.
    void withoutProvider(context, sandbox);
    return;
  }
  const file = sshConfig.configPath(
    vscode.workspace.getConfiguration(found.section).get<string>("configFile"),
  );
  report("Looking into the SSH configuration");
  if (!(await sshConfig.knows(file, ssh.alias)) && !(await introduce(context, file, ssh))) {
    openTerminal(context, sandbox);
    return;
  }
  await declareLinux(context, found, ssh.alias);
  await prepare(context, sandbox, report, token);
  report("Opening the window");
  context.log.info(`opening ${name} by ${found.id}`);
  const uri = vscode.Uri.parse(`vscode-remote://${authorityOf(ssh.alias)}${GUEST_WORKSPACE}`);
  await vscode.commands.executeCommand("vscode.openFolder", uri, {
    forceNewWindow: setting("remote.newWindow", true),
  });
}

async function withoutProvider(context: Context, sandbox: Sandbox): Promise<void> {
  const install = "Install Remote-SSH…";
  const terminal = "Open Terminal";
  const chosen = await messages.warn(
    `${sandbox.name} runs, but no extension for windows over SSH is installed in this editor.`,
    install,
    terminal,
  );
  if (chosen === install) {
    await vscode.commands.executeCommand("workbench.extensions.search", `@id:${wanted()}`);
  }
  if (chosen === terminal) openTerminal(context, sandbox);
}

/** Ask once whether our aliases may be included; whether SSH knows them afterwards. */
async function introduce(context: Context, file: string, ssh: Ssh): Promise<boolean> {
  const mode = setting<string>(INCLUDE, "ask");
  if (mode === "never") {
    void sayDeclined(context);
    return false;
  }
  if (mode === "ask") {
    const add = "Add the Line";
    const chosen = await messages.ask(
      `May one line be added at the top of ${file}?`,
      `${sshConfig.includeLine(context.layout.sshConfig)}\n\nIt teaches SSH, and with it remote ` +
        "windows, the names of your sandboxes, each with its pinned key, its own login key, and " +
        "without your SSH agent. Without it a sandbox opens in a terminal instead. The setting " +
        "kvmSandbox.ssh.include remembers a no.",
      add,
      "Not Now, Not Ever",
    );
    if (chosen === undefined) return false;
    if (chosen !== add) {
      const kept = await tried(context, `kvmSandbox.${INCLUDE}`, () =>
        vscode.workspace
          .getConfiguration(SECTION)
          .update(INCLUDE, "never", vscode.ConfigurationTarget.Global),
      );
      if (kept) void sayDeclined(context);
      return false;
    }
  }
  await sshConfig.include(file, context.layout.sshConfig);
  context.log.info(`${file} now includes ${context.layout.sshConfig}`);
  if (await sshConfig.knows(file, ssh.alias)) return true;
  throw new Error(`${file} includes the sandboxes' aliases now, and ssh still does not know them.`);
}

/** Why there is a terminal and no window, and how to have one after all. */
async function sayDeclined(context: Context): Promise<void> {
  const open = "Open Settings";
  const chosen = await messages.info(
    'Sandboxes open in a terminal and not in a window, since kvmSandbox.ssh.include is "never".',
    open,
  );
  if (chosen !== open) return;
  await tried(context, open, () =>
    vscode.commands.executeCommand("workbench.action.openSettings", `${SECTION}.${INCLUDE}`),
  );
}

/** Do what no window needs; whether it could be done. */
async function tried(
  context: Context,
  what: string,
  act: () => Thenable<unknown>,
): Promise<boolean> {
  try {
    await act();
    return true;
  } catch (error) {
    context.log.warn(`${what}: ${error}`);
    return false;
  }
}

/** Spare the user the question which system the other side runs. */
async function declareLinux(
  context: Context,
  { id, section }: Provider,
  alias: string,
): Promise<void> {
  if (id !== "ms-vscode-remote.remote-ssh" && id !== "anysphere.remote-ssh") return;
  const config = vscode.workspace.getConfiguration(section);
  const known = config.get<Record<string, string>>("remotePlatform", {});
  if (known[alias] === "linux") return;
  const value = { ...known, [alias]: "linux" };
  await tried(context, `${section}.remotePlatform`, () =>
    config.update("remotePlatform", value, vscode.ConfigurationTarget.Global),
  );
}

/** Put into the guest what this host has; a window that must download instead is no failure. */
async function prepare(
  context: Context,
  sandbox: Sandbox,
  report: Report,
  token: vscode.CancellationToken,
): Promise<void> {
  const wants = build(vscode.env.appRoot);
  // What would be gone at the next stop is not worth a copy: the window can download it.
  if (!wants || !(sandbox.persist ?? []).includes(wants.dataFolder)) return;
  const persisted = path.join(context.layout.names, sandbox.name, "persist");
  report("Handing in the editor's server");
  const found = pieces(wants, vscode.env.appRoot, process.execPath);
  const settings = path.join(context.storage, "machine-settings.json");
  const written = await tried(context, settings, async () => {
    await fs.mkdir(context.storage, { recursive: true });
    await fs.writeFile(settings, `${JSON.stringify(MACHINE_SETTINGS, undefined, 2)}\n`);
  });
  if (written) found.unshift({ source: settings, target: SETTINGS_FILE });
  for (const { source, target } of found) {
    if (isThere(persisted, wants, { source, target })) continue;
    context.log.info(`handing in ${source}`);
    try {
      await context.server.request(
        PersistPutRequest,
        { name: sandbox.name, source, target: `${wants.dataFolder}/${target}` },
        { token, progress: ({ message }) => message && report(message) },
      );
    } catch (error) {
      if (token.isCancellationRequested) throw error;
      context.log.warn(`handing in ${source}: ${error}`);
    }
  }
}

/** A shell in the sandbox. */
export function openTerminal(
  context: Context,
  { name, ssh }: Sandbox,
): vscode.Terminal | undefined {
  if (!ssh) return undefined;
  const terminal = vscode.window.createTerminal({
    name,
    shellPath: "ssh",
    shellArgs: [
      "-F",
      ssh.configFile,
      "-t",
      ssh.alias,
      "--",
      `cd ${GUEST_WORKSPACE} && exec "\${SHELL:-/bin/bash}" -l`,
    ],
    iconPath: new vscode.ThemeIcon("vm"),
    // As a `file:` address: else a remote window opens its terminals on the other side.
    cwd: vscode.Uri.file(context.layout.base),
    isTransient: true,
  });
  terminal.show();
  return terminal;
}
