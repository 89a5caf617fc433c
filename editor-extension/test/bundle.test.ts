import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

import { install, writeLauncher } from "../src/bundle";
import { build, isThere, pieces } from "../src/handIn";
import { temporary } from "./temporary";

function carried(text: string): string {
  const source = temporary();
  fs.mkdirSync(path.join(source, "sandbox_rpc", "cli"), { recursive: true });
  fs.writeFileSync(path.join(source, "sandbox_rpc", "__init__.py"), "");
  fs.writeFileSync(path.join(source, "sandbox_rpc", "cli", "__init__.py"), "");
  fs.writeFileSync(path.join(source, "sandbox_rpc", "cli", "main.py"), text);
  fs.writeFileSync(path.join(source, "BUNDLE"), text);
  return source;
}

test("an extension without a bundle has none", async () => {
  expect(await install(temporary(), temporary())).toBeUndefined();
});

test("copies stay when the extension's folder goes, and the launcher starts the newest", async () => {
  const storage = path.join(temporary(), "it's here");
  const first = carried("import sys; print('one', sys.argv[1:])");
  const one = await install(first, storage);
  if (!one) throw new Error("no bundle");
  await writeLauncher(one, "/usr/bin/python3");
  fs.rmSync(first, { recursive: true });
  const run = () => execFileSync(one.launcher, ["a b", "c"]).toString();
  expect(run()).toBe("one ['a b', 'c']\n");
  const two = await install(carried("import os; print(os.environ['SANDBOX_PROGRAM'])"), storage);
  if (!two) throw new Error("no bundle");
  expect(two.launcher).toBe(one.launcher);
  expect(two.libs).not.toBe(one.libs);
  await writeLauncher(two, "/usr/bin/python3");
  expect(run()).toBe(`${one.launcher}\n`);
  expect(fs.existsSync(one.libs)).toBe(true);
  for (let number = 0; number < 6; number++) await install(carried(`print(${number})`), storage);
  expect(fs.readdirSync(path.join(storage, "server")).length).toBe(4);
});

test("several windows install at once", async () => {
  const storage = temporary();
  const source = carried("print('x')");
  const found = await Promise.all([1, 2, 3, 4].map(() => install(source, storage)));
  expect(new Set(found.map((one) => one?.libs)).size).toBe(1);
  expect(fs.readdirSync(path.join(storage, "server")).length).toBe(1);
});

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

function app(product: object): string {
  const folder = temporary();
  fs.writeFileSync(path.join(folder, "product.json"), JSON.stringify(product));
  return folder;
}

test("which server a window wants", () => {
  const wants = build(app({ commit: COMMIT, serverDataFolderName: ".vscode-server" }));
  expect(wants).toEqual({ commit: COMMIT, dataFolder: ".vscode-server" });
  expect(build(app({ commit: COMMIT, serverDataFolderName: "../x" }))).toBeUndefined();
  expect(build(app({ commit: "x; rm", serverDataFolderName: ".x" }))).toBeUndefined();
  expect(build("/no/such/folder")).toBeUndefined();
});

test("what this host has of it", () => {
  const wants = { commit: COMMIT, dataFolder: ".vscode-server" };
  const home = temporary();
  const make = (...parts: string[]) => {
    const file = path.join(home, ".vscode-server", ...parts);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, "");
  };
  expect(pieces(wants, "/none", "/node", home)).toEqual([]);
  make("bin", COMMIT, "node");
  const [older] = pieces(wants, "/none", "/node", home);
  expect(older?.target).toBe(`bin/${COMMIT}`);
  make("cli", "servers", `Stable-${COMMIT}`, "server", "node");
  make(`code-${COMMIT}`);
  const modern = pieces(wants, "/none", "/node", home).map((one) => one.target);
  expect(modern).toEqual([`cli/servers/Stable-${COMMIT}`, `code-${COMMIT}`]);
  expect(older && isThere(home, wants, older)).toBe(true);
  expect(older && isThere(temporary(), wants, older)).toBe(false);
});

test("an editor that is such a server itself", () => {
  const root = app({});
  fs.mkdirSync(path.join(root, "out"));
  fs.writeFileSync(path.join(root, "out", "server-main.js"), "");
  const wants = { commit: COMMIT, dataFolder: ".x" };
  expect(pieces(wants, root, "/bin/node", temporary())).toEqual([
    { source: root, target: `bin/${COMMIT}` },
    { source: "/bin/node", target: `bin/${COMMIT}/node` },
  ]);
});
