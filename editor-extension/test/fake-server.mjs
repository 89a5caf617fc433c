// A service for tests of the client: answers `initialize`, `sandbox/status`, and dies on request.
const mode = process.argv[2] ?? "";
if (mode === "broken") {
  process.stderr.write("ModuleNotFoundError: no module\n");
  process.exit(1);
}
let rest = Buffer.alloc(0);
const send = (message) => {
  const body = JSON.stringify({ jsonrpc: "2.0", ...message });
  process.stdout.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
};
process.stdin.on("data", (chunk) => {
  rest = Buffer.concat([rest, chunk]);
  for (;;) {
    const found = /^Content-Length: (\d+)\r\n\r\n/.exec(rest.toString("latin1"));
    if (!found || rest.length < found[0].length + Number(found[1])) return;
    const end = found[0].length + Number(found[1]);
    const message = JSON.parse(rest.subarray(found[0].length, end).toString());
    rest = rest.subarray(end);
    take(message);
  }
});
process.stdin.on("end", () => process.exit(0));

function take({ id, method, params }) {
  if (method === "initialize") {
    const serverInfo = { name: "fake", version: "1" };
    send({ id, result: { capabilities: {}, serverInfo } });
  } else if (method === "sandbox/status") {
    if (params.name === "die") process.exit(7);
    if (params.name === "notify") {
      send({ method: "sandbox/didChange", params: { name: "n", state: "running", workspace: "/" } });
    }
    send({ id, result: { name: params.name, state: "running", workspace: String(process.pid) } });
  } else if (method === "sandbox/start") {
    const token = params.workDoneToken;
    send({ method: "$/progress", params: { token, value: { kind: "begin", message: "one" } } });
    send({ method: "$/progress", params: { token, value: { kind: "end" } } });
    if (params.name === "forever") waiting.set(id, true);
    else if (params.name === "undone") {
      send({ id, error: { code: -32800, message: "cancelled" } });
    }
    else send({ id, result: { name: "s", state: "running", workspace: params.workspace } });
  } else if (method === "$/cancelRequest") {
    send({ id: params.id, error: { code: -32800, message: "cancelled" } });
  } else if (method === "shutdown") {
    send({ id, result: null });
  } else if (method === "exit") {
    process.exit(mode === "stubborn" ? undefined : 0);
  }
}
const waiting = new Map();
