import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

import { authorityOf, hostOf } from "../src/authority";
import { Backoff, MOST } from "../src/backoff";
import { quoted } from "../src/bundle";
import { report } from "../src/commands/doctor";
import { offered, WATCHER } from "../src/listeners";
import { installCommand } from "../src/problem";
import { isAlive, UsageReader } from "../src/usage";
import { details, losses, size, status, uptime } from "../src/words";
import { temporary } from "./temporary";

test("authorities go there and back, capitals wrapped", () => {
  expect(authorityOf("sandbox-app")).toBe("ssh-remote+sandbox-app");
  for (const host of ["sandbox-app", "sandbox-MyApp", "sandbox-a_b.c", "cafe"]) {
    expect(hostOf(authorityOf(host))).toBe(host);
    expect(authorityOf(host)).toBe(authorityOf(host).toLowerCase());
  }
  expect(hostOf("ssh-remote%2Bx")).toBeUndefined();
  expect(hostOf("wsl+Debian")).toBeUndefined();
  expect(hostOf("ssh-remote+abcd")).toBe("abcd");
});

test("back-off grows, gives up, and begins anew when it has been quiet or is asked", () => {
  let now = 0;
  const backoff = new Backoff(() => now);
  const delays = Array.from({ length: MOST + 1 }, () => backoff.died());
  expect(delays.at(-1)).toBeUndefined();
  expect(delays.slice(0, -1)).toEqual(
    [...delays.slice(0, -1)].sort((a, b) => Number(a) - Number(b)),
  );
  backoff.forget();
  expect(backoff.died()).toBe(delays[0]);
  now += 4 * 60_000;
  expect(backoff.died()).toBe(delays[0]);
});

test("quoted words reach the program as they are", () => {
  const odd = 'it\'s $HOME `x` "y" \\ \n z';
  expect(execFileSync("sh", ["-c", `printf %s ${quoted(odd)}`]).toString()).toBe(odd);
});

test("listening ports: those a user may want", () => {
  expect(offered("ports 22 53 3000 8080 40001")).toEqual([3000, 8080]);
  expect(offered("ports")).toEqual([]);
  expect(offered("ports 99999999")).toBeUndefined();
  expect(offered("Linux sandbox 6.12")).toBeUndefined();
});

test("the program for the guest is one that perl takes", () => {
  execFileSync("perl", ["-c", "-e", WATCHER], { stdio: "pipe" });
  expect(WATCHER).not.toContain("'{");
});

test("what is shown of each state", () => {
  expect(status(undefined, true).text).toContain("off");
  const sandbox = { name: "s", workspace: "/w" };
  const starting = status({ ...sandbox, state: "starting", phase: "Making keys" }, true);
  expect(starting.text).toContain("Making keys");
  expect(status({ ...sandbox, state: "running", accelerator: "tcg" }, true).text).toContain(
    "emulated",
  );
  expect(status({ ...sandbox, state: "running" }, false).severity).toBe("error");
  expect(status({ ...sandbox, state: "lost" }, true).severity).toBe("error");
});

test("details name what is known and nothing else", () => {
  const sandbox = {
    name: "s",
    workspace: "/w",
    state: "running" as const,
    accelerator: "kvm",
    network: "offline",
    memoryMib: 2048,
    cpus: 2,
    startedAt: new Date(0).toISOString(),
  };
  const rows = details(sandbox, 65 * 60_000, { residentMib: 300, cpuPercent: 7 });
  const found = Object.fromEntries(rows.map(({ name, value }) => [name, value]));
  expect(found).toEqual({
    Folder: "/w",
    Accelerator: "KVM",
    Network: "offline",
    Memory: "2 GiB, 300 MiB of the host in use",
    Processors: "2, 7 % busy",
    Up: "1 h 5 min",
  });
});

test("sizes and ages in words", () => {
  expect([size(512), size(1536), size(2048)]).toEqual(["512 MiB", "1.5 GiB", "2 GiB"]);
  expect(uptime(0, 10_000)).toBe("less than a minute");
  expect(uptime(0, 26 * 3_600_000)).toBe("1 d 2 h");
  expect(uptime(Number.NaN, 0)).toBeUndefined();
});

test("what a stop takes, and what it leaves", () => {
  const text = losses({ workspace: "/w", persist: ["a", "b", "c", "d", "e", "f"] });
  expect(text).toContain("~/a, ~/b, ~/c, ~/d, 2 more");
  expect(text).toContain("/w");
  expect(losses({ workspace: "/w" })).not.toContain("~/");
});

test("usage of a process, from its files", () => {
  const proc = temporary();
  fs.mkdirSync(path.join(proc, "7"));
  const stat = (ticks: number) =>
    fs.writeFileSync(
      path.join(proc, "7", "stat"),
      `7 (a) b) c) S ${[...Array(10).keys()].join(" ")} ${ticks} 0 0 0 0 0 0 0 0 25600 0`,
    );
  let now = 0;
  const reader = new UsageReader(proc, () => now);
  expect(reader.read(8)).toBeUndefined();
  stat(100);
  expect(reader.read(7)?.cpuPercent).toBeUndefined();
  now += 2000;
  stat(200);
  expect(reader.read(7)?.cpuPercent).toBe(50);
  const me = new UsageReader().read(process.pid);
  expect(me?.residentMib).toBeGreaterThan(10);
  expect([isAlive(process.pid), isAlive(2 ** 22 + 1), isAlive(undefined)]).toEqual([
    true,
    false,
    true,
  ]);
});

test("a doctor's report", () => {
  const checks = [
    { id: "kvm", status: "warning" as const, message: "No KVM.", hint: "Load kvm." },
    { id: "qemu", status: "ok" as const, message: "QEMU 10." },
  ];
  expect(report({ ok: true, checks })).toBe(
    "Sandboxes can be started here.\n\n! No KVM.\n    Load kvm.\n✓ QEMU 10.\n",
  );
});

test("the command that installs, by distribution", () => {
  expect(installCommand("debian", "d", "f", "a")).toBe("sudo apt-get install d");
  expect(installCommand("ubuntu debian", "d", "f", "a")).toBe("sudo apt-get install d");
  expect(installCommand("fedora", "d", "f", "a")).toBe("sudo dnf install f");
  expect(installCommand("arch", "d", "f", "a")).toBe("sudo pacman -S a");
});
