/** What is shown of a sandbox; pure. */
import type { Sandbox } from "./protocol";

/** Folders named where something is lost; the rest is counted. */
const NAMED = 4;

export interface Shown {
  /** With a codicon. */
  readonly text: string;
  readonly severity: "none" | "warning" | "error";
  readonly label: string;
}

export function status(sandbox: Sandbox | undefined, alive: boolean): Shown {
  switch (sandbox?.state) {
    case "starting": {
      const phase = sandbox.phase ? `: ${sandbox.phase}` : "";
      return shown("loading~spin", `Sandbox starting${phase}`);
    }
    case "running":
      if (!alive) return shown("error", "Sandbox lost", "error");
      return shown("vm-running", `Sandbox${sandbox.accelerator === "tcg" ? " (emulated)" : ""}`);
    case "stopping":
      return shown("loading~spin", "Sandbox stopping");
    case "lost":
      return shown("error", "Sandbox lost", "error");
    default:
      return shown("vm-outline", "Sandbox: off");
  }
}

function shown(icon: string, label: string, severity: Shown["severity"] = "none"): Shown {
  return { text: `$(${icon}) ${label}`, severity, label };
}

/** How much a machine uses now. */
export interface Usage {
  readonly residentMib: number;
  /** Of one processor, since the last reading. */
  readonly cpuPercent: number | undefined;
}

/** Markdown lines for the tooltip. */
export function details(
  sandbox: Sandbox,
  now: number,
  usage: Usage | undefined,
): { name: string; value: string }[] {
  const rows: { name: string; value: string | undefined }[] = [
    { name: "Folder", value: sandbox.workspace },
    { name: "Accelerator", value: accelerator(sandbox.accelerator) },
    { name: "Network", value: network(sandbox.network) },
    { name: "Memory", value: memory(sandbox.memoryMib, usage) },
    { name: "Processors", value: processors(sandbox.cpus, usage) },
    { name: "Image", value: sandbox.image },
    { name: "Up", value: sandbox.startedAt && uptime(Date.parse(sandbox.startedAt), now) },
    { name: "SSH", value: sandbox.ssh && `ssh ${sandbox.ssh.alias} (port ${sandbox.ssh.port})` },
    {
      name: "Ports",
      value: sandbox.forwards?.length
        ? sandbox.forwards.map((one) => `${one.hostPort} → ${one.guestPort}`).join(", ")
        : undefined,
    },
  ];
  return rows.flatMap(({ name, value }) => (value ? [{ name, value }] : []));
}

function accelerator(name: string | undefined): string | undefined {
  return name === "tcg" ? "none: emulated (tcg), slow" : name === "kvm" ? "KVM" : name;
}

export function network(mode: string | undefined): string | undefined {
  switch (mode) {
    case "open":
      return "open: the internet, not this host";
    case "proxy":
      return "proxy: what the allowlist names";
    case "offline":
      return "offline";
    default:
      return mode;
  }
}

function memory(mib: number | undefined, usage: Usage | undefined): string | undefined {
  if (mib === undefined) return undefined;
  return usage ? `${size(mib)}, ${size(usage.residentMib)} of the host in use` : size(mib);
}

function processors(count: number | undefined, usage: Usage | undefined): string | undefined {
  if (count === undefined) return undefined;
  return usage?.cpuPercent === undefined ? `${count}` : `${count}, ${usage.cpuPercent} % busy`;
}

export function size(mib: number): string {
  return mib >= 1024 ? `${Number((mib / 1024).toFixed(1))} GiB` : `${Math.round(mib)} MiB`;
}

export function uptime(began: number, now: number): string | undefined {
  if (Number.isNaN(began)) return undefined;
  const minutes = Math.max(0, Math.floor((now - began) / 60_000));
  if (minutes < 1) return "less than a minute";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24
    ? `${hours} h ${minutes % 60} min`
    : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** What a stop takes with it. */
export function losses(sandbox: Pick<Sandbox, "persist" | "workspace">): string {
  const kept = sandbox.persist ?? [];
  const named = kept.slice(0, NAMED).map((folder) => `~/${folder}`);
  if (kept.length > NAMED) named.push(`${kept.length - NAMED} more`);
  const also = named.length > 0 ? ` and ${named.join(", ")}` : "";
  return (
    "Running programs end, and what is in the virtual machine is gone: installed packages, and all " +
    `files outside the workspace${also}. The workspace, ${sandbox.workspace}, is a folder of this ` +
    "host and stays as it is."
  );
}
