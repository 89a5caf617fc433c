import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

import { cacheBase, Layout } from "../src/place";
import { remember, write } from "./state";
import { temporary } from "./temporary";

test("the base is where the service has it", () => {
  expect(cacheBase({}, "/home/me")).toBe("/home/me/.cache/sandbox");
  expect(cacheBase({ XDG_CACHE_HOME: "/x" }, "/home/me")).toBe("/x/sandbox");
  expect(cacheBase({ XDG_CACHE_HOME: "/x", SANDBOX_CACHE_BASE: "/b" }, "/h")).toBe("/b");
});

test("a folder's sandbox, by its path", () => {
  const layout = new Layout(temporary());
  expect(layout.nameOf("/w")).toBeUndefined();
  remember(layout, "sandbox-w", "/w");
  expect(layout.nameOf("/w")).toBe("sandbox-w");
  expect(layout.record("sandbox-w")).toEqual({
    name: "sandbox-w",
    workspace: "/w",
    overrides: {},
  });
  expect(layout.read("sandbox-w")).toBeUndefined();
  write(layout, "sandbox-w", { state: "running", workspace: "/w" });
  expect(layout.read("sandbox-w")?.state).toBe("running");
});

test("a folder below one that is shared means the running sandbox", () => {
  const layout = new Layout(temporary());
  remember(layout, "sandbox-w", "/w");
  expect(layout.meaning("/w/a/b")).toBeUndefined();
  write(layout, "sandbox-w", { state: "running", workspace: "/w" });
  expect(layout.meaning("/w/a/b")).toBe("sandbox-w");
  remember(layout, "sandbox-b", "/w/a/b");
  expect(layout.meaning("/w/a/b")).toBe("sandbox-b");
});

test("what is damaged, newer, or no plain file is nothing", () => {
  const layout = new Layout(temporary());
  remember(layout, "sandbox-w", "/w");
  write(layout, "sandbox-w", { state: "running", schema: 2 });
  expect(layout.read("sandbox-w")).toBeUndefined();
  fs.writeFileSync(layout.state("sandbox-w"), '{"name": "sandbox-w", "sta');
  expect(layout.read("sandbox-w")).toBeUndefined();
  fs.rmSync(layout.state("sandbox-w"));
  fs.symlinkSync("/etc/passwd", layout.state("sandbox-w"));
  expect(layout.read("sandbox-w")).toBeUndefined();
  expect(layout.record("../../etc")).toBeUndefined();
  const digest = createHash("sha256").update("/evil").digest("hex");
  fs.writeFileSync(path.join(layout.byPath, digest), "../evil");
  expect(layout.nameOf("/evil")).toBeUndefined();
});
