// vscode-jsonrpc, which VS Code itself is made of, as a client of the service.
//
// node vscode.mjs SERVICE WORKSPACE GO: starts the workspace's sandbox, goes through everything,
// waits for the file GO and stops it. One JSON line for each step; exit status 0 when all went well.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import rpc from "vscode-jsonrpc/node";

const [service, workspace, go] = process.argv.slice(2);
const server = spawn(service, ["--stdio"], { stdio: ["pipe", "pipe", "inherit"] });
const ended = new Promise((resolve) => server.on("exit", resolve));
const connection = rpc.createMessageConnection(server.stdout, server.stdin);
const say = (step, fields) => console.log(JSON.stringify({ step, ...fields }));
const bytes = (data) => Buffer.from(data, "base64").toString();

const progress = new rpc.ProgressType();
const heard = { console: "", output: "", closed: null, states: [] };
connection.onNotification("console/output", ({ data }) => (heard.console += bytes(data)));
connection.onNotification("console/closed", ({ reason }) => (heard.closed = reason));
connection.onNotification("sandbox/execOutput", ({ data }) => (heard.output += bytes(data)));
connection.onNotification("sandbox/didChange", ({ state }) => heard.states.push(state));
connection.onError((error) => say("error", { error: String(error) }));
connection.listen();

/** Ask, and collect what is reported meanwhile. */
async function withProgress(method, params) {
  const values = [];
  const token = `${method}-1`;
  const listener = connection.onProgress(progress, token, (value) => values.push(value));
  const result = await connection.sendRequest(method, { ...params, workDoneToken: token });
  listener.dispose();
  return { result, kinds: values.map((value) => value.kind), phases: values.map((v) => v.phase) };
}

async function until(question, what) {
  for (let i = 0; i < 6000; i++) {
    if (question()) return;
    await sleep(20);
  }
  throw new Error(`${what} did not come: ${JSON.stringify(heard).slice(-2000)}`);
}

const { serverInfo } = await connection.sendRequest("initialize", {
  processId: process.pid,
  capabilities: {},
});
connection.sendNotification("initialized", {});
say("initialized", { server: serverInfo.name });

const started = await withProgress("sandbox/start", { workspace });
const { name, state } = started.result;
say("started", { name, state, kinds: started.kinds, phases: started.phases });

const stream = "vscode";
await connection.sendRequest("console/attach", { name, stream, offset: 0 });
// What is typed before the shell has its prompt may be thrown away.
await until(() => heard.console.includes("dev@sandbox-editors"), "the prompt");
const typed = Buffer.from("echo vscode-$((20 + 3))\r").toString("base64");
await connection.sendRequest("console/write", { stream, data: typed });
await until(() => heard.console.includes("vscode-23"), "the answer on the console");
await connection.sendRequest("console/detach", { stream });
say("console", { closed: heard.closed });

const exec = { name, token: "run", argv: ["sh", "-c", 'cat; echo "$0"; exit 3', "it's"], stdin: true };
const running = connection.sendRequest("sandbox/exec", exec);
const data = Buffer.from("input\n").toString("base64");
connection.sendNotification("sandbox/execInput", { token: "run", data, eof: true });
const { exitCode } = await running;
say("exec", { exitCode, output: heard.output });

const source = new rpc.CancellationTokenSource();
const long = connection.sendRequest(
  "sandbox/exec",
  { name, token: "long", argv: ["sh", "-c", "echo begun; sleep 6543"] },
  source.token,
);
await until(() => heard.output.includes("begun"), "the long command's output");
source.cancel();
const code = await long.then(() => 0, (error) => error.code);
const left = await connection
  .sendRequest("sandbox/exec", { name, token: "look", argv: ["pgrep", "-f", "sleep 654[3]"] });
say("cancelled", { code, left: left.exitCode === 0 });

await until(() => existsSync(go), "leave to stop");
const stopped = await withProgress("sandbox/stop", { name });
await until(() => heard.states.at(-1) === "stopped", "the news of the stop");
say("stopped", { state: stopped.result.state, states: heard.states });

await connection.sendRequest("shutdown");
connection.sendNotification("exit");
say("ended", { status: await ended });
