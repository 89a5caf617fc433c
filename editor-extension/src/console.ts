/** A terminal on the serial console; closing it detaches, and the machine does not notice. */
import * as vscode from "vscode";
import type { Disposable } from "vscode-jsonrpc/node";

import type { Context } from "./context";
import { Filter } from "./filter";
import {
  ConsoleAttachRequest,
  ConsoleClosedNotification,
  ConsoleDetachRequest,
  ConsoleOutputNotification,
  ConsoleResizeRequest,
  ConsoleWriteRequest,
} from "./protocol";

/** Bytes from before the terminal was opened. */
const HISTORY = 256 * 1024;
/** The editor draws so often; what comes in between is one piece. */
const FRAME_MS = 16;

let streams = 0;

export function openConsole(context: Context, name: string): vscode.Terminal {
  const pty = new Console(context, name);
  const terminal = vscode.window.createTerminal({
    name: `Console: ${name}`,
    pty,
    iconPath: new vscode.ThemeIcon("vm"),
    isTransient: true,
  });
  terminal.show();
  return terminal;
}

class Console implements vscode.Pseudoterminal {
  private readonly writes = new vscode.EventEmitter<string>();
  readonly onDidWrite = this.writes.event;
  private readonly disposables: Disposable[] = [];
  private stream = "";
  /** The byte that comes next; undefined until the first attachment. */
  private next: number | undefined;
  private filter = new Filter();
  private decoder = new TextDecoder();
  private pending: Uint8Array[] = [];
  private drawing: NodeJS.Timeout | undefined;
  private keys: string[] = [];
  private sending = false;
  private attached = false;
  private closed = false;
  private size: vscode.TerminalDimensions | undefined;

  constructor(
    private readonly context: Context,
    private readonly name: string,
  ) {}

  open(size: vscode.TerminalDimensions | undefined): void {
    this.size = size;
    const { server } = this.context;
    this.disposables.push(
      server.listen(ConsoleOutputNotification, ({ stream, offset, data }) => {
        if (stream !== this.stream) return;
        const bytes = Buffer.from(data, "base64");
        this.next = offset + bytes.length;
        this.print(bytes);
      }),
      server.listen(ConsoleClosedNotification, ({ stream, reason }) => {
        if (stream === this.stream && reason !== "detached") this.machineEnded();
      }),
      server.need(() => void this.attach()),
      this.context.onChange(({ sandbox }) => {
        if (sandbox?.name === this.name && sandbox.state === "running" && !this.attached) {
          void this.attach();
        }
      }),
    );
    void this.attach();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.drawing);
    for (const one of this.disposables) one.dispose();
    if (this.attached) this.detach(this.stream);
  }

  handleInput(data: string): void {
    if (!this.attached) return;
    this.keys.push(data);
    void this.send();
  }

  setDimensions(size: vscode.TerminalDimensions): void {
    this.size = size;
    if (this.attached) void this.resize();
  }

  private async attach(): Promise<void> {
    if (this.closed) return;
    this.attached = false;
    const stream = `editor-${process.pid}-${++streams}`;
    this.stream = stream;
    const from = this.next === undefined ? { tail: HISTORY } : { offset: this.next };
    try {
      await this.context.server.request(ConsoleAttachRequest, {
        name: this.name,
        stream,
        ...from,
      });
      if (this.closed || this.stream !== stream) {
        // Closed meanwhile, or attached anew: this very request may have started a new service.
        this.detach(stream);
        return;
      }
      this.attached = true;
      await this.resize();
    } catch (error) {
      if (this.stream === stream) this.say(error instanceof Error ? error.message : String(error));
    }
  }

  private detach(stream: string): void {
    this.context.server.request(ConsoleDetachRequest, { stream }).catch(() => undefined);
  }

  private machineEnded(): void {
    this.attached = false;
    this.next = 0;
    this.filter = new Filter();
    this.decoder = new TextDecoder();
    this.say(`${this.name} has stopped; its next start shows here`);
  }

  private print(bytes: Uint8Array): void {
    this.pending.push(bytes);
    this.drawing ??= setTimeout(() => {
      this.drawing = undefined;
      const shown = this.filter.feed(Buffer.concat(this.pending.splice(0)));
      this.writes.fire(this.decoder.decode(shown, { stream: true }));
    }, FRAME_MS);
  }

  /** A line of ours, told apart from the guest's. */
  private say(text: string): void {
    this.writes.fire(`\r\n\x1b[2m[${text}]\x1b[0m\r\n`);
  }

  /** One piece at a time: requests may overtake each other, keys may not. */
  private async send(): Promise<void> {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.keys.length > 0) {
        const data = Buffer.from(this.keys.splice(0).join(""), "utf8").toString("base64");
        await this.context.server.request(ConsoleWriteRequest, { stream: this.stream, data });
      }
    } catch (error) {
      this.keys = [];
      this.context.log.warn(`console of ${this.name}: ${error}`);
    } finally {
      this.sending = false;
    }
  }

  private async resize(): Promise<void> {
    if (!this.size) return;
    const { columns, rows } = this.size;
    try {
      await this.context.server.request(ConsoleResizeRequest, {
        stream: this.stream,
        columns,
        rows,
      });
    } catch (error) {
      this.context.log.debug(`console of ${this.name}: ${error}`);
    }
  }
}
