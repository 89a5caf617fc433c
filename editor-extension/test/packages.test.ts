import * as fs from "node:fs";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";

import { installPackages } from "../src/commands/packages";
import type { Context } from "../src/context";
import { environmentPython } from "../src/environment";
import { temporary } from "./temporary";

const { workspace, window } = vscode as unknown as {
  workspace: { getConfiguration: () => unknown };
  window: Record<string, ReturnType<typeof vi.fn>>;
};
const configuration = workspace.getConfiguration;
const restart = vi.fn(async () => undefined);
let bin: string;
let context: Context;

beforeEach(() => {
  bin = temporary();
  vi.stubEnv("PATH", `${bin}:/usr/bin:/bin`);
  vi.stubEnv("HOME", bin);
  const log = { error: () => undefined, debug: () => undefined };
  context = { storage: path.join(bin, "storage"), server: { restart }, log } as never;
  window.withProgress?.mockImplementation((_: unknown, work: (...all: unknown[]) => unknown) =>
    work({ report: () => undefined }, { onCancellationRequested: () => undefined }),
  );
});
afterEach(() => {
  workspace.getConfiguration = configuration;
  vi.unstubAllEnvs();
  vi.resetAllMocks();
});

/** A Python that says its version, and makes environments of nothing. */
function python(name: string, version: string): string {
  const file = path.join(bin, name);
  const text = [
    "#!/bin/sh",
    `if [ "$1" = -I ]; then echo ${version}; echo "$0"; exit; fi`,
    `if [ "$2" = venv ]; then mkdir -p "$3/bin"; printf '#!/bin/sh\\n# ${name}\\n' >"$3/bin/python3"; chmod 755 "$3/bin/python3"; fi`,
    "",
  ].join("\n");
  fs.writeFileSync(file, text, { mode: 0o755 });
  return file;
}

const choose = (interpreter: string) => {
  const get = (key: string, other: unknown) => (key === "server.interpreter" ? interpreter : other);
  workspace.getConfiguration = () => ({ get });
};

async function made(chosen = ""): Promise<string> {
  await installPackages(context);
  expect(window.showErrorMessage).not.toHaveBeenCalled();
  const found = await environmentPython(context.storage, chosen);
  return fs.readFileSync(found ?? "", "utf8");
}

test("packages are for the Python that the service runs on: the first that is new enough", async () => {
  python("python3", "3.9");
  python("python3.12", "3.12");
  expect(await made()).toContain("python3.12");
  expect(restart).toHaveBeenCalled();
});

test("or the one that the user has chosen, by a name or from the home folder", async () => {
  python("python3", "3.13");
  for (const chosen of ["my-python", "~/my-python"]) {
    python("my-python", "3.11");
    choose(chosen);
    expect(await made(chosen)).toContain("my-python");
  }
});

test("one that is too old is named in the error", async () => {
  choose(python("old-python", "3.9"));
  await installPackages(context);
  expect(window.showErrorMessage?.mock.calls[0]?.[0]).toContain("old-python");
  expect(restart).not.toHaveBeenCalled();
});
