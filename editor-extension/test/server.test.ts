import * as path from "node:path";
import { afterEach, expect, test } from "vitest";
import { CancellationTokenSource, ResponseError } from "vscode-jsonrpc/node";

import { Backoff, MOST } from "../src/backoff";
import {
  SandboxDidChangeNotification,
  SandboxStartRequest,
  SandboxStatusRequest,
} from "../src/protocol";
import { Interrupted, type Log, Server, ServerDown } from "../src/server";
import { until } from "./temporary";

const FAKE = path.resolve("test/fake-server.mjs");
const quiet: Log = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
const made: Server[] = [];

afterEach(async () => {
  for (const server of made.splice(0)) await server.end();
});

function serve(mode = "", gaveUp: (reason: string) => void = () => undefined) {
  let starts = 0;
  const server = new Server(
    async () => {
      starts++;
      return { command: process.execPath, args: [FAKE, mode], env: {}, origin: "test" };
    },
    quiet,
    gaveUp,
    undefined,
    new Backoff(),
  );
  made.push(server);
  return { server, starts: () => starts };
}

const pidOf = async (server: Server) =>
  Number((await server.request(SandboxStatusRequest, { name: "x" })).workspace);

const kill = (server: Server) => process.kill(server.pid ?? 0, "SIGKILL");

test("started by the first request, once for all that come together", async () => {
  const { server, starts } = serve();
  expect(server.running).toBe(false);
  const [one, two] = await Promise.all([pidOf(server), pidOf(server)]);
  expect(one).toBe(two);
  expect(starts()).toBe(1);
  expect(server.pid).toBe(one);
});

test("progress and cancel reach the request", async () => {
  const { server } = serve();
  const steps: (string | undefined)[] = [];
  await server.request(
    SandboxStartRequest,
    { workspace: "/w" },
    { progress: ({ message }) => steps.push(message) },
  );
  expect(steps).toEqual(["one", undefined]);
  const source = new CancellationTokenSource();
  const forever = server.request(
    SandboxStartRequest,
    { workspace: "/w", name: "forever" },
    { token: source.token },
  );
  setTimeout(() => source.cancel(), 50);
  await expect(forever).rejects.toMatchObject({ code: -32800 });
  await expect(forever).rejects.toBeInstanceOf(ResponseError);
});

test("notifications are heard on every connection", async () => {
  const { server } = serve();
  const heard: string[] = [];
  server.listen(SandboxDidChangeNotification, ({ name }) => heard.push(name));
  await server.request(SandboxStatusRequest, { name: "notify" });
  kill(server);
  await until(() => !server.running, "the end");
  await server.request(SandboxStatusRequest, { name: "notify" });
  expect(heard).toEqual(["n", "n"]);
});

test("two listen to one method, and each on its own", async () => {
  const { server } = serve();
  const heard: string[] = [];
  server.listen(SandboxDidChangeNotification, () => heard.push("first"));
  const second = server.listen(SandboxDidChangeNotification, () => heard.push("second"));
  await server.request(SandboxStatusRequest, { name: "notify" });
  expect(heard).toEqual(["first", "second"]);
  second.dispose();
  await server.request(SandboxStatusRequest, { name: "notify" });
  expect(heard).toEqual(["first", "second", "first"]);
});

test("what is cancelled and was not asked to be is interrupted", async () => {
  const { server } = serve();
  const undone = server.request(SandboxStartRequest, { workspace: "/w", name: "undone" });
  await expect(undone).rejects.toBeInstanceOf(Interrupted);
});

test("a death interrupts a request; the next one starts a new server", async () => {
  const { server, starts } = serve();
  await expect(server.request(SandboxStatusRequest, { name: "die" })).rejects.toBeInstanceOf(
    Interrupted,
  );
  expect(starts()).toBe(1);
  await pidOf(server);
  expect(starts()).toBe(2);
});

test("who needs it has it again by itself, and is told", async () => {
  const { server } = serve();
  let back = 0;
  const need = server.need(() => back++);
  const before = await pidOf(server);
  kill(server);
  await until(() => back === 1, "the new server");
  expect(server.pid).not.toBe(before);
  need.dispose();
  kill(server);
  await until(() => !server.running, "the end");
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(server.running).toBe(false);
});

test("who needs it is told of a new one whoever asked for it, and once", async () => {
  const { server, starts } = serve();
  let back = 0;
  server.need(() => back++);
  await pidOf(server);
  kill(server);
  await until(() => !server.running, "the end");
  // Before the back-off is over.
  await pidOf(server);
  expect(back).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect([back, starts()]).toEqual([1, 2]);
  await server.restart();
  expect([back, starts()]).toEqual([2, 3]);
});

test("who asks while one is being ended gets the next one", async () => {
  const { server } = serve("stubborn");
  const before = await pidOf(server);
  const end = server.end();
  const after = await pidOf(server);
  expect(after).not.toBe(before);
  await end;
  expect(await pidOf(server)).toBe(after);
});

test("never in a loop", async () => {
  const reasons: string[] = [];
  const { server, starts } = serve("", (reason) => reasons.push(reason));
  await expect(server.insist(SandboxStatusRequest, { name: "die" })).rejects.toBeInstanceOf(
    Interrupted,
  );
  expect(starts()).toBe(MOST);
  await server.request(SandboxStatusRequest, { name: "die" }).catch(() => undefined);
  await until(() => reasons.length === 1, "the message");
});

test("one that dies before its first word is not tried again, and its words are in the error", async () => {
  const { server, starts } = serve("broken");
  server.need(() => undefined);
  const failed = pidOf(server);
  await expect(failed).rejects.toBeInstanceOf(ServerDown);
  await expect(failed).rejects.toThrow("ModuleNotFoundError");
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(starts()).toBe(1);
});

test("a program that is not there is an error, not a crash", async () => {
  const server = new Server(
    async () => ({ command: "/no/such/program", args: [], env: {}, origin: "test" }),
    quiet,
    () => undefined,
  );
  await expect(pidOf(server)).rejects.toThrow("/no/such/program");
});

test("the end is orderly, and final where the process will not go", async () => {
  for (const mode of ["", "stubborn"]) {
    const { server } = serve(mode);
    const pid = await pidOf(server);
    await server.end();
    expect(() => process.kill(pid, 0)).toThrow();
  }
});
