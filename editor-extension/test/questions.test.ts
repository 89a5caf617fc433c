import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";

import { Refusals } from "../src/blocked";
import type { Context } from "../src/context";
import { Ports } from "../src/ports";
import { Questions, STOP } from "../src/questions";
import { until } from "./temporary";

const none = async () => undefined;

/** A user who answers when the test says so. */
class Answers {
  readonly shown: string[] = [];
  private waiting: ((answer: string | undefined) => void)[] = [];
  readonly put = (text: string): Promise<string | undefined> => {
    this.shown.push(text);
    return new Promise((resolve) => this.waiting.push(resolve));
  };

  async answer(choice?: string): Promise<void> {
    this.waiting.shift()?.(choice);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

let user: Answers;
beforeEach(() => {
  user = new Answers();
  vi.mocked(vscode.window.showInformationMessage).mockImplementation(user.put as never);
});
afterEach(() => {
  vi.resetAllMocks();
});

test("one at a time, and few wait", async () => {
  const questions = new Questions(user.put, none);
  const taken = Array.from({ length: 1000 }, (_, number) => questions.add(`${number}`));
  expect(user.shown).toEqual(["0"]);
  expect(taken.filter(Boolean).length).toBeLessThan(30);
  await user.answer();
  expect(user.shown).toEqual(["0", "1"]);
});

test("Stop Asking holds for this life, also where one that waited before is answered later", async () => {
  const questions = new Questions(user.put, none);
  for (const one of ["a", "b"]) questions.add(one);
  await user.answer(STOP);
  expect(questions.add("c")).toBe(false);
  expect(user.shown).toEqual(["a"]);
  questions.reset();
  questions.add("d");
  questions.reset();
  questions.add("e");
  expect(user.shown).toEqual(["a", "d", "e"]);
  await user.answer(STOP);
  questions.add("f");
  await user.answer();
  expect(user.shown).toEqual(["a", "d", "e", "f"]);
});

test("a question that fails is told, and the next one is asked", async () => {
  const failed: unknown[] = [];
  const put = async (one: string) => {
    user.shown.push(one);
    if (one === "a") throw new Error("no");
    return undefined;
  };
  const questions = new Questions(put, async (error) => void failed.push(error));
  for (const one of ["a", "b"]) questions.add(one);
  await until(() => user.shown.length === 2, "the next one");
  expect(failed.length).toBe(1);
});

function context(): { heard: (params: unknown) => void; context: Context } {
  let heard: (params: unknown) => void = () => undefined;
  const made = {
    extension: { subscriptions: [] },
    onChange: () => undefined,
    sandbox: { name: "s", forwards: [{ guestPort: 7000 }] },
    log: { info: () => undefined },
    server: { listen: (_: unknown, listener: typeof heard) => (heard = listener) },
  };
  return { context: made as unknown as Context, heard: (params) => heard(params) };
}

test("a guest that listens on everything asks once, and can be told to stop", async () => {
  const ports = new Ports(context().context);
  ports.heard("s", [3000], true);
  const flood = Array.from({ length: 20_000 }, (_, number) => 3000 + number);
  ports.heard("s", flood, false);
  expect(user.shown.length).toBe(1);
  expect(user.shown[0]).toContain("port 3001");
  await user.answer(STOP);
  ports.heard("s", flood, false);
  expect(user.shown.length).toBe(1);
});

test("a port that is forwarded, or is gone by the time, is not offered", async () => {
  const ports = new Ports(context().context);
  ports.heard("s", [], true);
  ports.heard("s", [5000, 6000, 7000, 8000], false);
  ports.heard("s", [5000, 7000, 8000], false);
  await user.answer();
  expect(user.shown.map((text) => /port (\d+)/.exec(text)?.[1])).toEqual(["5000", "8000"]);
  await user.answer();
  ports.heard("s", [6000], false);
  expect(user.shown.at(-1)).toContain("port 6000");
});

test("a guest that tries every host asks once", async () => {
  const { heard, context: made } = context();
  new Refusals(made);
  for (let number = 0; number < 1000; number++) {
    heard({ name: "s", host: `h${number}.example`, port: 443, reason: "unlisted" });
  }
  expect(user.shown.length).toBe(1);
  await user.answer(STOP);
  heard({ name: "s", host: "other.example", port: 443, reason: "unlisted" });
  expect(user.shown.length).toBe(1);
});
