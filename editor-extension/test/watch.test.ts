import * as fs from "node:fs";
import * as path from "node:path";
import { afterEach, expect, test } from "vitest";

import { Layout } from "../src/place";
import { type Seen, Watch, type Whose } from "../src/watch";
import { remember, write } from "./state";
import { temporary, until } from "./temporary";

const open: Watch[] = [];

afterEach(() => {
  for (const watch of open.splice(0)) watch.close();
});

function follow(layout: Layout, whose: Whose): { seen: Seen[]; state: () => string | undefined } {
  const seen: Seen[] = [];
  const watch = new Watch(layout, whose, (one) => seen.push(one));
  open.push(watch);
  watch.start();
  return { seen, state: () => seen.at(-1)?.sandbox?.state };
}

test("from nothing at all to running and back", async () => {
  const layout = new Layout(path.join(temporary(), "cache", "sandbox"));
  const { seen, state } = follow(layout, { workspace: "/w" });
  expect(seen).toEqual([{ name: undefined, sandbox: undefined }]);
  remember(layout, "sandbox-w", "/w");
  await until(() => seen.at(-1)?.name === "sandbox-w", "the name");
  for (const next of ["starting", "running", "stopping"]) {
    write(layout, "sandbox-w", { state: next });
    await until(() => state() === next, next);
  }
  fs.rmSync(layout.room("sandbox-w"), { recursive: true });
  await until(() => state() === undefined, "the end");
  // A second life is a new folder of the same name.
  write(layout, "sandbox-w", { state: "running" });
  await until(() => state() === "running", "the second life");
  write(layout, "sandbox-w", { state: "stopping" });
  await until(() => state() === "stopping", "its change");
});

test("each change once, and none after the end", async () => {
  const layout = new Layout(temporary());
  remember(layout, "sandbox-w", "/w");
  write(layout, "sandbox-w", { state: "starting" });
  const { seen, state } = follow(layout, { name: "sandbox-w" });
  expect(state()).toBe("starting");
  fs.writeFileSync(path.join(layout.room("sandbox-w"), "events.jsonl"), "x");
  write(layout, "sandbox-w", { state: "running" });
  await until(() => state() === "running", "the change");
  expect(seen.length).toBe(2);
  open.pop()?.close();
  write(layout, "sandbox-w", { state: "stopping" });
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(seen.length).toBe(2);
});

test("a cache that is removed and made anew", async () => {
  const layout = new Layout(path.join(temporary(), "cache"));
  remember(layout, "sandbox-w", "/w");
  write(layout, "sandbox-w", { state: "running" });
  const { state } = follow(layout, { workspace: "/w" });
  expect(state()).toBe("running");
  fs.rmSync(layout.base, { recursive: true });
  await until(() => state() === undefined, "the end");
  remember(layout, "sandbox-w", "/w");
  write(layout, "sandbox-w", { state: "running" });
  await until(() => state() === "running", "the new one");
});
