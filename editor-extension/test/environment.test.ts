import * as fs from "node:fs";
import * as path from "node:path";
import { beforeEach, expect, test } from "vitest";

import { environmentPython, makeEnvironment } from "../src/environment";
import { temporary } from "./temporary";

const quiet = () => undefined;
const never = new AbortController().signal;
let storage: string;
let python: string;

/** An interpreter that makes environments of nothing, and does with pip what the test wants. */
function pretend(pip: string): void {
  const inner = `#!/bin/sh\n${pip}\n`;
  fs.writeFileSync(`${python}.inner`, inner, { mode: 0o755 });
  const text = `#!/bin/sh\nmkdir -p "$3/bin" && cp "$0.inner" "$3/bin/python3"\n`;
  fs.writeFileSync(python, text, { mode: 0o755 });
}

const make = (signal = never) => makeEnvironment(storage, python, "", quiet, signal);

beforeEach(() => {
  const folder = temporary();
  storage = path.join(folder, "storage");
  python = path.join(folder, "python3");
});

test("one that is made is found, and only for the interpreter it was made for", async () => {
  pretend("exit 0");
  const inside = await make();
  expect(await environmentPython(storage, "")).toBe(inside);
  expect(await environmentPython(storage, "/other/python3")).toBeUndefined();
  expect(fs.readdirSync(storage)).toEqual(["environment"]);
});

test("where the next one fails the one of before stays", async () => {
  pretend("exit 0");
  const inside = await make();
  const before = fs.readFileSync(inside, "utf8");
  pretend("echo no network >&2; exit 1");
  for (let attempt = 0; attempt < 2; attempt++) {
    await expect(make()).rejects.toThrow("no network");
    expect(await environmentPython(storage, "")).toBe(inside);
  }
  expect(fs.readFileSync(inside, "utf8")).toBe(before);
  expect(fs.readdirSync(storage)).toEqual(["environment"]);
});

test("where it is cancelled too", async () => {
  pretend("exit 0");
  const inside = await make();
  pretend(`touch "${storage}/begun"; exec sleep 60`);
  const abort = new AbortController();
  const failed = expect(make(abort.signal)).rejects.toThrow();
  while (!fs.existsSync(path.join(storage, "begun"))) await new Promise((r) => setTimeout(r, 10));
  expect(await environmentPython(storage, "")).toBeUndefined();
  abort.abort();
  await failed;
  expect(await environmentPython(storage, "")).toBe(inside);
});

test("after an editor that was killed in the middle, a failure still brings the old one back", async () => {
  pretend("exit 0");
  const inside = await make();
  fs.renameSync(path.join(storage, "environment"), path.join(storage, "environment.before"));
  fs.mkdirSync(path.join(storage, "environment"));
  pretend("exit 1");
  await expect(make()).rejects.toThrow();
  expect(await environmentPython(storage, "")).toBe(inside);
});
