import * as fs from "node:fs";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";
import { ResponseError } from "vscode-jsonrpc/node";

import { start } from "../src/commands/open";
import { restart, stop } from "../src/commands/stop";
import { chooseFolder } from "../src/commands/target";
import type { Context } from "../src/context";
import type { Here } from "../src/here";
import { Layout } from "../src/place";
import { remember, write } from "./state";
import { temporary } from "./temporary";

const { window } = vscode as unknown as { window: Record<string, ReturnType<typeof vi.fn>> };
const insist = vi.fn();
let layout: Layout;
let progress: { title: string; cancellable: boolean }[];

beforeEach(() => {
  layout = new Layout(temporary());
  remember(layout, "sandbox-w", "/w");
  progress = [];
  window.withProgress?.mockImplementation(
    (options: never, work: (...all: unknown[]) => unknown) => {
      progress.push(options);
      return work({ report: () => undefined }, {});
    },
  );
});
afterEach(() => {
  vi.resetAllMocks();
});

function parts(here: Here) {
  const context = {
    here,
    layout,
    server: { insist },
    look: () => undefined,
    log: { warn: vi.fn(), error: vi.fn(), debug: vi.fn() },
    get sandbox() {
      return layout.read("sandbox-w");
    },
  } as unknown as Context;
  return { context, status: { failed: vi.fn() }, ports: {} } as never as Parameters<typeof stop>[0];
}

const said = () => window.showInformationMessage?.mock.calls.map(([text]) => text).join("\n");

test("where no sandbox can be, a click on a folder starts none either", async () => {
  const { context } = parts({ kind: "elsewhere", reason: "no" });
  expect(await chooseFolder(context, vscode.Uri.file("/etc"))).toBeUndefined();
  expect(window.showWarningMessage?.mock.calls[0]?.[0]).toBe("no");
});

test("a click in a sandbox's own window means its machine", async () => {
  const { context } = parts({ kind: "inside", name: "sandbox-w" });
  const clicked = vscode.Uri.parse("vscode-remote://ssh-remote+sandbox-w/home/dev/workspace/src");
  expect(await chooseFolder(context, clicked)).toBe("/w");
});

test("a click on a folder of this host means that folder", async () => {
  const { context } = parts({ kind: "folders", folders: ["/w"] });
  expect(await chooseFolder(context, vscode.Uri.file("/etc"))).toBe("/etc");
});

test("the explorer's menu is there on both sides of a remote window", () => {
  const manifest = JSON.parse(fs.readFileSync("package.json", "utf8"));
  const [{ when }] = manifest.contributes.menus["explorer/context"];
  const found = /^explorerResourceIsFolder && resourceScheme =~ \/(.*)\/$/.exec(when)?.[1] ?? "";
  expect(["file", "vscode-remote"].every((scheme) => new RegExp(found).test(scheme))).toBe(true);
  expect(["vscode-userdata", "git"].some((scheme) => new RegExp(found).test(scheme))).toBe(false);
});

test("after a cancel it is said what is left", async () => {
  insist.mockRejectedValue(new ResponseError(-32800, "cancelled"));
  const all = parts({ kind: "folders", folders: ["/w"] });
  await start(all, "/w");
  expect(said()).toContain("nothing is left");
  window.showInformationMessage?.mockClear();
  write(layout, "sandbox-w", { state: "starting", workspace: "/w" });
  await start(all, "/w");
  expect(said()).not.toContain("nothing is left");
  expect(said()).toContain("goes on");
});

test("a stop cannot be cancelled, a start can", async () => {
  write(layout, "sandbox-w", { state: "running", workspace: "/w" });
  window.showWarningMessage?.mockResolvedValueOnce("Stop");
  insist.mockResolvedValue({ name: "sandbox-w", changes: [] });
  const all = parts({ kind: "folders", folders: ["/w"] });
  await stop(all);
  await start(all, "/w");
  expect(progress.map(({ cancellable }) => cancellable)).toEqual([false, true]);
});

test("a start tells the user's settings apart from what is asked for, a restart asks for the same", async () => {
  const overrides = { network: "offline", "workspace.read_only": true, memory: 512, odd: 1 };
  remember(layout, "sandbox-w", "/w", { overrides });
  write(layout, "sandbox-w", { state: "running", workspace: "/w", network: "offline" });
  const { getConfiguration } = vscode.workspace;
  const values: Record<string, unknown> = { memory: 4096, network: "open" };
  const inspect = (key: string) => ({ globalValue: values[key] });
  vscode.workspace.getConfiguration = (() => ({ inspect })) as never;
  try {
    const all = parts({ kind: "folders", folders: ["/w"] });
    insist.mockResolvedValue({ name: "sandbox-w", changes: [] });
    await start(all, "/w", { network: "proxy" });
    window.showWarningMessage?.mockResolvedValueOnce("Restart");
    await restart(all);
  } finally {
    vscode.workspace.getConfiguration = getConfiguration;
  }
  const asked = insist.mock.calls
    .filter(([type]) => type.method === "sandbox/start")
    .map(([, params]) => params);
  const userSettings = values;
  expect(asked).toEqual([
    { userSettings, workspace: "/w", network: "proxy" },
    {
      userSettings,
      workspace: "/w",
      network: "offline",
      workspaceReadOnly: true,
      memoryMib: 512,
      force: true,
    },
  ]);
});
