import * as fs from "node:fs";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";

import type { Context } from "../src/context";
import { Layout } from "../src/place";
import type { Sandbox } from "../src/protocol";
import { openTerminal, openWindow } from "../src/remote";
import { temporary } from "./temporary";

const { workspace, window, commands, extensions, env } = vscode as unknown as {
  workspace: { getConfiguration: () => unknown };
  window: Record<string, ReturnType<typeof vi.fn>>;
  commands: { executeCommand: ReturnType<typeof vi.fn> };
  extensions: { getExtension: ReturnType<typeof vi.fn> };
  env: { appRoot: string };
};
const configuration = workspace.getConfiguration;
const token = {} as vscode.CancellationToken;
const COMMIT = "0123456789abcdef0123456789abcdef01234567";

let settings: Record<string, unknown>;
let update: ReturnType<typeof vi.fn>;
let warned: string[];
let sandbox: Sandbox;
let context: Context;

beforeEach(() => {
  const folder = temporary();
  const layout = new Layout(path.join(folder, "cache"));
  fs.mkdirSync(layout.base);
  const alias = "sandbox-App";
  fs.writeFileSync(layout.sshConfig, `Host ${alias}\n    HostKeyAlias ${alias}\n`);
  const ssh = { alias, configFile: layout.sshConfig, host: "127.0.0.1", port: 1, user: "dev" };
  sandbox = { name: alias, workspace: "/w", state: "running", persist: [".x"], ssh } as never;
  warned = [];
  const log = { info: () => undefined, warn: (text: string) => warned.push(text) };
  const request = vi.fn(async () => ({}));
  context = { layout, log, storage: path.join(folder, "storage"), server: { request } } as never;
  settings = { configFile: path.join(folder, "config") };
  update = vi.fn(async (key: string, value: unknown) => {
    settings[key] = value;
  });
  const get = (key: string, otherwise: unknown) => settings[key] ?? otherwise;
  workspace.getConfiguration = () => ({ get, update });
  env.appRoot = folder;
  const product = { commit: COMMIT, serverDataFolderName: ".x" };
  fs.writeFileSync(path.join(folder, "product.json"), JSON.stringify(product));
  extensions.getExtension.mockImplementation((id: string) =>
    id === "ms-vscode-remote.remote-ssh" ? {} : undefined,
  );
  window.createTerminal?.mockReturnValue({ show: () => undefined });
});

afterEach(() => {
  workspace.getConfiguration = configuration;
  env.appRoot = "";
  vi.resetAllMocks();
});

const open = () => openWindow(context, sandbox, () => undefined, token);
const opened = () =>
  commands.executeCommand.mock.calls.some(([name]) => name === "vscode.openFolder");

test("a terminal is one of this host, also in a remote window", () => {
  openTerminal(context, sandbox);
  const [options] = window.createTerminal?.mock.calls[0] ?? [];
  expect(options.cwd).toMatchObject({ scheme: "file", fsPath: context.layout.base });
});

test("settings that cannot be written do not keep the window shut", async () => {
  settings["ssh.include"] = "always";
  update.mockRejectedValue(new Error("Unable to write into user settings."));
  fs.writeFileSync(context.storage, "a file where a folder is wanted");
  await open();
  expect(opened()).toBe(true);
  expect(warned.join("\n")).toContain("Unable to write");
  expect(warned.join("\n")).toContain("machine-settings.json");
});

test("a no is a setting that can be taken back, and is given as the reason from then on", async () => {
  window.showWarningMessage?.mockResolvedValueOnce("Not Now, Not Ever");
  await open();
  expect(update.mock.calls).toEqual([["ssh.include", "never", vscode.ConfigurationTarget.Global]]);
  await open();
  expect(window.showWarningMessage?.mock.calls.length).toBe(1);
  expect(window.showInformationMessage?.mock.calls.length).toBe(2);
  expect(window.showInformationMessage?.mock.calls[1]?.[0]).toContain("kvmSandbox.ssh.include");
  expect(window.createTerminal?.mock.calls.length).toBe(2);
  expect(opened()).toBe(false);
  settings["ssh.include"] = "always";
  await open();
  expect(opened()).toBe(true);
});

test("a question that is put aside changes nothing", async () => {
  await open();
  expect(update).not.toHaveBeenCalled();
  expect(window.showInformationMessage).not.toHaveBeenCalled();
  expect(window.createTerminal?.mock.calls.length).toBe(1);
});
