import * as fs from "node:fs";
import * as path from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";
import { ResponseError } from "vscode-jsonrpc/node";

import type { Context } from "../src/context";
import * as messages from "../src/messages";
import * as problem from "../src/problem";
import { SandboxErrorCode } from "../src/protocol";
import { until } from "./temporary";

/** What the editor takes for a link. */
const LINK = /\[([^\]]+)\]\(((?:https?:\/\/|command:|file:)[^)\s]+)(?: (["'])(.+?)(\3))?\)/i;
const EVIL = "[Allow](command:workbench.action.terminal.sendSequence?%7B%7D) [x](https://evil)";
const log = { error: vi.fn(), debug: vi.fn(), warn: vi.fn(), info: vi.fn(), show: vi.fn() };

afterEach(() => {
  vi.clearAllMocks();
});

test("what others wrote becomes no link", () => {
  expect(EVIL).toMatch(LINK);
  expect(messages.plain(EVIL)).not.toMatch(LINK);
  void messages.info(EVIL, "Yes");
  void messages.warn(EVIL);
  void messages.error(EVIL);
  void messages.ask(EVIL, "detail", "Yes");
  const { showInformationMessage, showWarningMessage, showErrorMessage } = vscode.window;
  const shown = [showInformationMessage, showWarningMessage, showErrorMessage].flatMap(
    (one) => vi.mocked(one).mock.calls,
  );
  expect(shown.length).toBe(4);
  for (const [text] of shown) expect(text).not.toMatch(LINK);
});

test("nothing goes around it", () => {
  const files = fs.readdirSync("src", { recursive: true, encoding: "utf8" });
  const direct = files.filter(
    (file) =>
      file.endsWith(".ts") &&
      /show(Information|Warning|Error)Message/.test(
        fs.readFileSync(path.join("src", file), "utf8"),
      ),
  );
  expect(direct).toEqual(["messages.ts"]);
});

test("an error that quotes a guest at length still shows what to do", async () => {
  const context = { log } as unknown as Context;
  const error = new ResponseError(1, "x".repeat(5000) + EVIL, { kind: "k", hint: "Do that." });
  await problem.show(context, error, "start");
  const [text] = vi.mocked(vscode.window.showErrorMessage).mock.calls[0] ?? [];
  expect(text).toMatch(/^x+… Do that\.$/);
  expect(log.error.mock.calls[0]?.[0]).toContain("x".repeat(5000));
});

test("a command to install is typed into a terminal of this host, and not run", async () => {
  const terminal = { show: vi.fn(), sendText: vi.fn() };
  vi.mocked(vscode.window.createTerminal).mockReturnValue(terminal as never);
  vi.mocked(vscode.window.showErrorMessage).mockResolvedValueOnce("Install QEMU…" as never);
  const error = new ResponseError(SandboxErrorCode.QemuMissing, "No QEMU.", { kind: "k" });
  await problem.show({ log } as unknown as Context, error, "start");
  await until(() => terminal.sendText.mock.calls.length === 1, "the command");
  expect(terminal.sendText.mock.calls[0]?.[1]).toBe(false);
  const [options] = vi.mocked(vscode.window.createTerminal).mock.calls[0] ?? [];
  expect(options).toMatchObject({ cwd: { scheme: "file" } });
});
