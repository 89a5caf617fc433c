import { afterEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";

import { changesOf, report, warning, warnOf } from "../src/commands/changes";
import type { Context } from "../src/context";
import type { Change, Changes } from "../src/protocol";

const { window } = vscode as unknown as { window: Record<string, ReturnType<typeof vi.fn>> };
afterEach(() => {
  vi.resetAllMocks();
});

function found(...changes: Partial<Change>[]): Changes {
  const whole = changes.map((one) => ({ path: "x", why: "make runs it", byItself: false, ...one }));
  return { name: "sandbox-w", workspace: "/w", changes: whole };
}

test("what runs by itself and what leads out is warned of, the rest is not", () => {
  expect(warning(found())).toBeUndefined();
  expect(warning(found({ path: "Makefile" }))).toBeUndefined();
  const paths = ["a", "a", "b", "c", "d"].map((path) => ({ path, byItself: true }));
  expect(warning(found(...paths))).toContain("themselves: a, b, c and 1 more.");
  expect(warning(found({ link: true }))).toContain("1 link out of the folder");
});

test("a name cannot forge a line of the report", () => {
  const lines = report(found({ path: "a\n! b", byItself: true })).split("\n");
  expect(lines[2]).toBe('! "a\\n! b": make runs it');
  expect(report({ ...found(), complete: false })).toContain("too large");
});

test("a warning says nothing where nothing is known, and is no link", async () => {
  const log = { warn: vi.fn() };
  const insist = vi.fn().mockRejectedValue(new Error("gone"));
  const context = { server: { insist }, log } as unknown as Context;
  await warnOf(await changesOf(context, "sandbox-w"));
  expect(log.warn).toHaveBeenCalledOnce();
  expect(window.showWarningMessage).not.toHaveBeenCalled();
  insist.mockResolvedValue(found({ path: "[x](command:y)", byItself: true }));
  await warnOf(await changesOf(context, "sandbox-w"));
  expect(window.showWarningMessage?.mock.calls[0]?.[0]).toContain("[x] (command:y)");
});
