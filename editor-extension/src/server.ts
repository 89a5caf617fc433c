/** The service as a child process: started when it is needed, restarted with back-off. */
import { type ChildProcess, spawn } from "node:child_process";
import * as rpc from "vscode-jsonrpc/node";

import { Backoff, MOST } from "./backoff";
import type { Program } from "./interpreter";
import * as protocol from "./protocol";

/** For `shutdown` and `exit`, before the process is ended. */
const FAREWELL_MS = 3000;
/** For the first answer; importing takes a second, a busy machine a few. */
const HANDSHAKE_MS = 60_000;

/** Where the server's words go. */
export interface Log {
  trace(message: string): void;
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** The server is gone and will not come back by itself. */
export class ServerDown extends Error {}

/** The connection broke while a request was under way; sandboxes are not affected. */
export class Interrupted extends Error {}

const none = rpc.CancellationToken.None;

/** A request, with params or without. */
type Asked<P, R, E> = rpc.RequestType<P, R, E> | rpc.RequestType0<R, E>;

/** What a request may bring along. */
export interface Options {
  readonly token?: rpc.CancellationToken;
  readonly progress?: (value: protocol.ProgressValue) => void;
}

type Listener = (params: unknown) => void;

/** LSP's answer to a request whose work was undone. */
export const CANCELLED = -32800;

interface Life {
  readonly child: ChildProcess;
  readonly connection: rpc.MessageConnection;
  initialized: boolean;
  /** It was told to end. */
  leaving: boolean;
  ended: boolean;
}

export class Server {
  private life: Life | undefined;
  private starting: Promise<Life> | undefined;
  private retry: NodeJS.Timeout | undefined;
  private tokens = 0;
  /** By method. */
  private readonly listeners = new Map<string, Set<Listener>>();
  /** Who needs it to be there: an open console, say. Without any it is started again on demand. */
  private readonly needs = new Set<() => void>();
  /** One has ended, and those who need it have not heard of a new one yet. */
  private lost = false;

  constructor(
    private readonly find: () => Promise<Program>,
    private readonly log: Log,
    private readonly gaveUp: (reason: string) => void,
    private readonly traced: () => rpc.Trace = () => rpc.Trace.Off,
    private readonly backoff = new Backoff(),
  ) {}

  /** Whether a process runs. */
  get running(): boolean {
    return this.life !== undefined;
  }

  /** The server's process, for tests and for people. */
  get pid(): number | undefined {
    return this.life?.child.pid;
  }

  /** Hear notifications of this and every later connection. */
  listen<P>(type: rpc.NotificationType<P>, heard: (params: P) => void): rpc.Disposable {
    const { method } = type;
    let listeners = this.listeners.get(method);
    if (!listeners) {
      listeners = new Set();
      this.listeners.set(method, listeners);
    }
    // An object of its own: the same function may listen twice.
    const listener: Listener = (params) => heard(params as P);
    const all = listeners.add(listener);
    return { dispose: () => all.delete(listener) };
  }

  /** Keep a server running while this lasts; `back` is called when a new one has taken over. */
  need(back: () => void): rpc.Disposable {
    this.needs.add(back);
    return { dispose: () => this.needs.delete(back) };
  }

  /** Ask; starts a server where none runs. */
  async request<P extends object, R, E>(
    type: Asked<P, R, E>,
    params: P,
    options: Options = {},
  ): Promise<R> {
    const life = await this.connect();
    const { progress, token } = options;
    let sent = params;
    let reports: rpc.Disposable | undefined;
    if (progress) {
      const workDoneToken = `${process.pid}-${++this.tokens}`;
      sent = { ...params, workDoneToken };
      reports = life.connection.onProgress(
        new rpc.ProgressType<protocol.ProgressValue>(),
        workDoneToken,
        progress,
      );
    }
    try {
      // By name: the typed overloads want to know whether P is an array.
      return await life.connection.sendRequest<R>(type.method, sent, token ?? none);
    } catch (error) {
      // One that is told to end cancels what it is at.
      const unasked =
        error instanceof rpc.ResponseError &&
        error.code === CANCELLED &&
        !token?.isCancellationRequested;
      if (life.ended || isBroken(error) || unasked) {
        throw new Interrupted("The sandbox service ended while it was at work.");
      }
      throw error;
    } finally {
      reports?.dispose();
    }
  }

  /** The same for what may be asked twice: a start that goes on is joined. */
  async insist<P extends object, R, E>(
    type: Asked<P, R, E>,
    params: P,
    options: Options = {},
  ): Promise<R> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.request(type, params, options);
      } catch (error) {
        if (!(error instanceof Interrupted) || attempt >= MOST) throw error;
        if (options.token?.isCancellationRequested) throw error;
        this.log.warn(`${type.method}: the service has ended meanwhile, asking the next one`);
      }
    }
  }

  /** End this server and begin anew when it is needed; for a user who asks. */
  async restart(): Promise<void> {
    this.backoff.forget();
    await this.end();
    if (this.needs.size > 0) await this.revive();
  }

  /** End the server; sandboxes go on. */
  async end(): Promise<void> {
    clearTimeout(this.retry);
    if (this.starting) await this.starting.catch(() => undefined);
    const life = this.life;
    if (!life) return;
    // Who asks from now on asks the next one.
    this.life = undefined;
    life.leaving = true;
    this.lost = true;
    const gone = new Promise<void>((resolve) => life.child.once("exit", () => resolve()));
    const limit = setTimeout(() => life.child.kill("SIGKILL"), FAREWELL_MS);
    try {
      await life.connection.sendRequest(protocol.ShutdownRequest);
      await life.connection.sendNotification(protocol.ExitNotification);
    } catch {
      life.child.kill("SIGTERM");
    }
    await gone;
    clearTimeout(limit);
  }

  private connect(): Promise<Life> {
    if (this.life) return Promise.resolve(this.life);
    this.starting ??= this.start().finally(() => {
      this.starting = undefined;
    });
    return this.starting;
  }

  private async start(): Promise<Life> {
    clearTimeout(this.retry);
    const program = await this.find();
    const words = [...program.args];
    this.log.info(`starting ${program.command} ${words.join(" ")} (${program.origin})`);
    const child = spawn(program.command, words, {
      stdio: ["pipe", "pipe", "pipe"],
      // Not the folder that is open: what lies in it decides nothing here.
      cwd: "/",
      env: { ...process.env, ...program.env },
    });
    const failed = new Promise<never>((_, reject) => {
      child.once("error", (error) =>
        reject(new ServerDown(`${program.command}: ${error.message}`)),
      );
      child.once("exit", (code, signal) =>
        reject(new ServerDown(`The service ended at once (${signal ?? `exit status ${code}`}).`)),
      );
    });
    failed.catch(() => undefined);
    let said: string[] = [];
    lines(child.stderr, (line) => {
      said = [...said.slice(-4), line];
      this.note(line);
    });
    const connection = rpc.createMessageConnection(
      new rpc.StreamMessageReader(child.stdout),
      new rpc.StreamMessageWriter(child.stdin),
    );
    child.stdin.on("error", () => undefined);
    connection.onError(([error]) => this.log.warn(`connection: ${error.message}`));
    const life: Life = { child, connection, initialized: false, leaving: false, ended: false };
    child.once("exit", (code, signal) => this.ended(life, signal ?? `exit status ${code}`));
    void connection.trace(this.traced(), {
      log: (message: string | object, data?: string) =>
        this.log.trace(
          typeof message === "string" ? message + (data ?? "") : JSON.stringify(message),
        ),
    });
    // One handler for all: a connection keeps only the last one of a method.
    connection.onNotification((method, params) => {
      for (const listener of [...(this.listeners.get(method) ?? [])]) listener(params);
    });
    connection.listen();
    let limit: NodeJS.Timeout | undefined;
    try {
      const answer = await Promise.race([
        connection.sendRequest(protocol.InitializeRequest, {
          capabilities: {
            experimental: { sandbox: { protocolVersion: protocol.PROTOCOL_VERSION } },
          },
        }),
        failed,
        new Promise<never>((_, reject) => {
          limit = setTimeout(
            () => reject(new ServerDown("The service does not answer.")),
            HANDSHAKE_MS,
          );
        }),
      ]);
      await connection.sendNotification(protocol.InitializedNotification);
      const { name, version } = answer.serverInfo;
      this.log.info(`${name} ${version}, process ${child.pid}`);
    } catch (error) {
      child.kill("SIGKILL");
      const last = said.length > 0 ? ` It said: ${said.join(" / ")}` : "";
      throw error instanceof ServerDown ? new ServerDown(error.message + last) : error;
    } finally {
      clearTimeout(limit);
    }
    life.initialized = true;
    this.life = life;
    if (this.lost) {
      // Whoever asked for the new one: those of the old one wait.
      this.lost = false;
      for (const back of this.needs) back();
    }
    return life;
  }

  private ended(life: Life, how: string): void {
    life.ended = true;
    life.connection.dispose();
    if (this.life === life) this.life = undefined;
    // One that dies before it has said a word will not do better the next time.
    if (!life.initialized || life.leaving) return;
    this.lost = true;
    this.log.warn(`the service has ended (${how}); sandboxes go on`);
    const delay = this.backoff.died();
    if (delay === undefined) {
      this.gaveUp(`The sandbox service ended ${MOST + 1} times in a short time (${how}).`);
      return;
    }
    if (this.needs.size === 0) return;
    this.log.info(`starting it again in ${delay} ms`);
    this.retry = setTimeout(() => void this.revive(), delay);
  }

  private async revive(): Promise<void> {
    try {
      await this.connect();
    } catch (error) {
      this.gaveUp(error instanceof Error ? error.message : String(error));
    }
  }

  private note(line: string): void {
    const level = /^\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) /.exec(line)?.[1];
    if (level === "ERROR" || level === "CRITICAL") this.log.error(line);
    else if (level === "WARNING") this.log.warn(line);
    else if (level === "DEBUG") this.log.debug(line);
    else this.log.info(line);
  }
}

function isBroken(error: unknown): boolean {
  if (error instanceof rpc.ConnectionError) return true;
  return (
    error instanceof rpc.ResponseError && error.code === rpc.ErrorCodes.PendingResponseRejected
  );
}

function lines(stream: NodeJS.ReadableStream, heard: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop()?.slice(-65536) ?? "";
    for (const part of parts) if (part.trim()) heard(part);
  });
}
