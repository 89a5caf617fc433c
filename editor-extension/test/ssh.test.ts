import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

import { configPath, include, includeLine, knows, withInclude } from "../src/sshConfig";
import { temporary } from "./temporary";

const BLOCK = "Host sandbox-App\n    HostKeyAlias sandbox-App\n    HostName 127.0.0.1\n";

test("which file", () => {
  expect(configPath(undefined, "/h")).toBe("/h/.ssh/config");
  expect(configPath("", "/h")).toBe("/h/.ssh/config");
  expect(configPath("~/mine", "/h")).toBe("/h/mine");
  expect(configPath("/etc/mine", "/h")).toBe("/etc/mine");
});

test("OpenSSH knows the alias after the line was added, whatever stands in the file", async () => {
  const folder = temporary();
  const ours = path.join(folder, "a cache", "ssh_config");
  fs.mkdirSync(path.dirname(ours));
  fs.writeFileSync(ours, BLOCK);
  for (const before of ["", "Host *\n  User me\n", "Host other\n  Port 1\nMatch all\n  Port 2\n"]) {
    const file = path.join(folder, "config");
    fs.writeFileSync(file, before, { mode: 0o640 });
    expect(await knows(file, "sandbox-App")).toBe(false);
    await include(file, ours);
    expect(await knows(file, "sandbox-App")).toBe(true);
    expect(fs.readFileSync(file, "utf8").endsWith(before)).toBe(true);
    expect(fs.statSync(file).mode & 0o777).toBe(0o640);
    fs.rmSync(file);
  }
});

test("a file that is not there is made, private, with its folder", async () => {
  const file = path.join(temporary(), "ssh", "config");
  await include(file, "/c/ssh_config");
  expect(fs.statSync(file).mode & 0o777).toBe(0o600);
  expect(fs.statSync(path.dirname(file)).mode & 0o777).toBe(0o700);
  expect(await knows(file, "sandbox-App")).toBe(false);
});

test("a link stays one", async () => {
  const folder = temporary();
  const real = path.join(folder, "dotfiles");
  const file = path.join(folder, "config");
  fs.writeFileSync(real, "Host x\n");
  fs.symlinkSync(real, file);
  await include(file, "/c/ssh_config");
  expect(fs.readlinkSync(file)).toBe(real);
  expect(fs.readFileSync(real, "utf8")).toContain(includeLine("/c/ssh_config"));
});

test("a link to a file that is not there yet stays one, and the file is made where it leads", async () => {
  const folder = temporary();
  fs.mkdirSync(path.join(folder, "elsewhere", "links"), { recursive: true });
  fs.symlinkSync(path.join(folder, "elsewhere", "links"), path.join(folder, "ssh"));
  const file = path.join(folder, "ssh", "config");
  // Up from where the link is, not from where the path seems to be.
  fs.symlinkSync("../dotfiles/ssh_config", file);
  await include(file, "/c/ssh_config");
  expect(fs.readlinkSync(file)).toBe("../dotfiles/ssh_config");
  const made = path.join(folder, "elsewhere", "dotfiles", "ssh_config");
  expect(fs.readFileSync(made, "utf8")).toContain(includeLine("/c/ssh_config"));
  expect(fs.statSync(made).mode & 0o777).toBe(0o600);
});

test("links in a circle are an error, not an endless search", async () => {
  const folder = temporary();
  const file = path.join(folder, "config");
  fs.symlinkSync("config", file);
  await expect(include(file, "/c/ssh_config")).rejects.toThrow();
});

test("the bytes of the file are kept, and the path of ours is UTF-8, whatever they are", async () => {
  const file = path.join(temporary(), "config");
  const before = Buffer.from("# caf\xe9 \xc3\xa9 \xff\r\nHost x\r\n", "latin1");
  fs.writeFileSync(file, before);
  await include(file, "/é/ssh_config");
  await include(file, "/é/ssh_config");
  const after = fs.readFileSync(file);
  expect(after.subarray(-before.length).equals(before)).toBe(true);
  expect(after.toString("utf8").split(includeLine("/é/ssh_config")).length).toBe(2);
});

test("a line that stands too low is moved, not doubled", () => {
  const line = includeLine("/c");
  const moved = withInclude(`Host x\n  User y\n${line}\n`, "/c");
  expect(moved).toBe(`${line}\nHost x\n  User y\n`);
});
