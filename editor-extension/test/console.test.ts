import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as vscode from "vscode";

import { openConsole } from "../src/console";
import type { Context } from "../src/context";
import { until } from "./temporary";

interface Asked {
  readonly method: string;
  readonly stream: string;
  readonly answer: () => void;
}

let asked: Asked[];
let heard: Map<string, (params: object) => void>;
let back: () => void;
let shown: string;
let pty: vscode.Pseudoterminal;

beforeEach(() => {
  asked = [];
  heard = new Map();
  shown = "";
  const server = {
    listen: (type: { method: string }, listener: never) => {
      heard.set(type.method, listener);
      return { dispose: () => undefined };
    },
    need: (one: () => void) => {
      back = one;
      return { dispose: () => undefined };
    },
    request: ({ method }: { method: string }, { stream }: { stream: string }) =>
      new Promise<object>((resolve) => asked.push({ method, stream, answer: () => resolve({}) })),
  };
  const onChange = () => ({ dispose: () => undefined });
  const log = { warn: () => undefined, debug: () => undefined };
  vi.mocked(vscode.window.createTerminal).mockImplementation(((options: { pty: typeof pty }) => {
    pty = options.pty;
    return { show: () => undefined };
  }) as never);
  openConsole({ server, onChange, log } as unknown as Context, "sandbox-w");
  pty.onDidWrite((text) => {
    shown += text;
  });
  pty.open(undefined);
});
afterEach(() => {
  vi.resetAllMocks();
});

const of = (method: string) => asked.filter((one) => one.method === method);
const soon = () => new Promise((resolve) => setTimeout(resolve, 0));

test("what the guest prints is filtered on its way to the terminal", async () => {
  const [attach] = of("console/attach");
  attach?.answer();
  await soon();
  const data = Buffer.from("a\x1b\n]52;c;?\x07\u009d52;c;x\x07\u00e9").toString("base64");
  heard.get("console/output")?.({ stream: attach?.stream, offset: 0, data });
  await until(() => shown !== "", "the output");
  expect(shown).toBe("a\n52;c;x\x07\u00e9");
});

test("of two attachments that overlap the newer one stays", async () => {
  back();
  const [first, second] = of("console/attach");
  first?.answer();
  second?.answer();
  await soon();
  expect(of("console/detach").map(({ stream }) => stream)).toEqual([first?.stream]);
  pty.handleInput?.("x");
  expect(of("console/write").map(({ stream }) => stream)).toEqual([second?.stream]);
});

test("one that is closed before it is attached is detached", async () => {
  pty.close();
  const [attach] = of("console/attach");
  attach?.answer();
  await soon();
  expect(of("console/detach").map(({ stream }) => stream)).toEqual([attach?.stream]);
});
