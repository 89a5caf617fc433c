import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

import { type Choice, find, NoServer, newEnough, onPath, probe } from "../src/interpreter";
import { temporary } from "./temporary";

const NOTHING: Choice = {
  command: [],
  interpreter: "",
  bundled: undefined,
  environment: undefined,
  launcher: "/s/sandbox",
};

function executable(folder: string, name: string, text = "#!/bin/sh\n"): string {
  const file = path.join(folder, name);
  fs.writeFileSync(file, text, { mode: 0o755 });
  return file;
}

test("versions", () => {
  expect(["3.11", "3.14", "4.0"].every(newEnough)).toBe(true);
  expect(["3.10", "2.7", "3.9", ""].some(newEnough)).toBe(false);
});

test("the user's own command is taken as it is", async () => {
  const program = await find({ ...NOTHING, command: ["/x", "--stdio"], bundled: "/b" }, {});
  expect(program).toMatchObject({ command: "/x", args: ["--stdio"], env: {} });
});

test("the bundled server on the first Python that is new enough", async () => {
  const bin = temporary();
  const old = executable(bin, "python3");
  const fit = executable(bin, "python3.12");
  const asked: string[] = [];
  const ask = async (file: string) => {
    asked.push(file);
    return file === fit ? "/real/python" : undefined;
  };
  const program = await find({ ...NOTHING, bundled: "/b" }, { PATH: bin }, ask);
  expect(program).toMatchObject({
    command: "/real/python",
    args: ["-P", "-m", "sandbox_rpc", "--stdio"],
    env: { PYTHONPATH: "/b", SANDBOX_PROGRAM: "/s/sandbox" },
  });
  expect(asked).toEqual([old, fit]);
});

test("the interpreter that the user names, or an error that names it", async () => {
  const choice = { ...NOTHING, bundled: "/b", interpreter: "/opt/python" };
  const program = await find(choice, {}, async (file) => `${file}-real`);
  expect(program.command).toBe("/opt/python-real");
  await expect(find(choice, {}, async () => undefined)).rejects.toThrow("/opt/python");
});

test("the private environment, made of the user's interpreter, goes before all others", async () => {
  const choice = { ...NOTHING, bundled: "/b", environment: "/e/bin/python3", interpreter: "/i" };
  const program = await find(choice, { PATH: "/usr/bin" }, async (file) => file);
  expect(program.command).toBe("/e/bin/python3");
});

test("without a Python what is on PATH serves, and without that there is an error", async () => {
  const bin = temporary();
  const choice = { ...NOTHING, bundled: "/b" };
  const none = async () => undefined;
  await expect(find(choice, { PATH: bin }, none)).rejects.toBeInstanceOf(NoServer);
  const file = executable(bin, "sandbox-rpc");
  expect(await find(choice, { PATH: bin }, none)).toMatchObject({ command: file });
});

test("PATH is never relative to the open folder", () => {
  const bin = temporary();
  const file = executable(bin, "tool");
  expect(onPath("tool", { PATH: `:.:relative:${bin}` })).toBe(file);
  expect(onPath("tool", { PATH: ".:relative" })).toBeUndefined();
  fs.chmodSync(file, 0o644);
  expect(onPath("tool", { PATH: bin })).toBeUndefined();
});

test("a real interpreter answers, and what is none does not", async () => {
  expect(await probe("/usr/bin/python3")).toMatch(/python3/);
  expect(await probe("/usr/bin/false")).toBeUndefined();
  expect(await probe("/no/such/python")).toBeUndefined();
  const liar = executable(temporary(), "python3", "#!/bin/sh\necho 3.9\necho /usr/bin/python3.9\n");
  expect(await probe(liar)).toBeUndefined();
});
