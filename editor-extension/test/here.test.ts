import { afterEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";

import { authorityOf } from "../src/authority";
import { here, shown } from "../src/here";
import { Layout } from "../src/place";
import { userSettings } from "../src/settings";
import { remember } from "./state";
import { temporary } from "./temporary";

const workspace = vscode.workspace as unknown as {
  workspaceFolders: unknown[] | undefined;
  getConfiguration: () => unknown;
};
const platform = process.platform;
const configuration = workspace.getConfiguration;

afterEach(() => {
  workspace.workspaceFolders = undefined;
  workspace.getConfiguration = configuration;
  Object.defineProperty(process, "platform", { value: platform });
  vi.unstubAllEnvs();
});

const local = (path: string) => ({ uri: { scheme: "file", fsPath: path, authority: "" } });
const remote = (authority: string) => ({ uri: { scheme: "vscode-remote", authority, path: "/w" } });

function open(...folders: unknown[]): Layout {
  vi.stubEnv("SANDBOX_CONTAINER", "");
  workspace.workspaceFolders = folders;
  const layout = new Layout(temporary());
  remember(layout, "sandbox-My_app", "/w");
  return layout;
}

test("folders of this host", () => {
  const place = here(open(local("/no/such/one"), local("/usr/../etc")));
  expect(place).toEqual({ kind: "folders", folders: ["/no/such/one", "/etc"] });
  expect(shown(place)).toEqual({ workspace: "/no/such/one" });
  expect(shown(here(open()))).toBeUndefined();
});

test("the remote window of a sandbox of ours shows that sandbox", () => {
  for (const authority of ["ssh-remote+sandbox-My_app", authorityOf("sandbox-My_app")]) {
    const place = here(open(remote(authority)));
    expect(place).toEqual({ kind: "inside", name: "sandbox-My_app" });
    expect(shown(place)).toEqual({ name: "sandbox-My_app" });
  }
});

test("a folder of another machine is none that can be shared, and the sentence says what can", () => {
  for (const authority of ["ssh-remote+work", "wsl+Debian", "dev-container+abc"]) {
    const place = here(open(remote(authority)));
    expect(place).toMatchObject({ kind: "elsewhere" });
    expect(place.kind === "elsewhere" && place.reason).toContain("remote.extensionKind");
    expect(shown(place)).toBeUndefined();
  }
});

test("an editor on another system, and one in a sandbox", () => {
  const layout = open(local("/etc"));
  for (const [system, word] of [
    ["darwin", "macOS"],
    ["win32", "Windows"],
  ]) {
    Object.defineProperty(process, "platform", { value: system });
    const place = here(layout);
    expect(place.kind === "elsewhere" && place.reason).toContain(word);
  }
  Object.defineProperty(process, "platform", { value: "linux" });
  vi.stubEnv("SANDBOX_CONTAINER", "sandbox-x");
  const place = here(layout);
  expect(place.kind === "elsewhere" && place.reason).toContain("in a sandbox already");
});

test("the user's settings are what the user has set, and nothing that a folder or a guest has", () => {
  const values: Record<string, object> = {
    memory: { globalValue: 1024, workspaceValue: 8192, defaultValue: 2048 },
    network: { workspaceValue: "open", workspaceFolderValue: "open", defaultValue: "open" },
    "workspace.read_only": { globalValue: true },
    persist: { globalValue: "" },
  };
  workspace.getConfiguration = () => ({ inspect: (key: string) => values[key] });
  expect(userSettings()).toEqual({ memory: 1024, "workspace.read_only": true, persist: "" });
});
