// Written by protocol/generate.py from protocol/metaModel.json; changes here are lost.

import { NotificationType, NotificationType0, RequestType, RequestType0 } from "vscode-jsonrpc";

/** major.minor; goes into `InitializeParams`. */
export const PROTOCOL_VERSION = "1.0";

/** A whole number in [0, 2^53 - 1]; an integer of LSP's has 32 bits. */
export type LargeInteger = number;

/**
 * Where in its life a progress is.
 *
 * - `begin`: The first message.
 * - `report`: Any number of them.
 * - `end`: The last; the answer comes after it.
 */
export type ProgressKind = "begin" | "report" | "end";

/**
 * How far a sandbox has come.
 *
 * - `stopped`: No virtual machine.
 * - `starting`: On the way to a proven login.
 * - `running`: The agent has reported, the workspace is mounted, a login has succeeded.
 * - `stopping`: Being shut down.
 * - `lost`: The virtual machine ended although nobody asked it to.
 */
export type State = "stopped" | "starting" | "running" | "stopping" | "lost";

/**
 * What a start started from.
 *
 * - `cold`: A kernel.
 * - `warm`: A template.
 */
export type StartKind = "cold" | "warm";

/**
 * How good a finding is.
 *
 * - `ok`: Fine.
 * - `warning`: It works, but worse than it could.
 * - `error`: No sandbox can be started.
 */
export type Verdict = "ok" | "warning" | "error";

/**
 * Where output of a command comes from.
 *
 * - `stdout`: Standard output; all output where the command has a terminal.
 * - `stderr`: Standard error.
 */
export type Stream = "stdout" | "stderr";

/**
 * Why an attachment ended.
 *
 * - `detached`: The client asked for it.
 * - `stopped`: The virtual machine has ended.
 * - `complete`: All there was has been sent, and `follow` was false.
 */
export type ConsoleEnd = "detached" | "stopped" | "complete";

/** `code` of an error; with a small first letter, a name is `data.kind`. */
export const SandboxErrorCode = {
  /** KVM was asked for and cannot run a guest here. */
  KvmUnavailable: 1001,
  /** No usable QEMU was found. */
  QemuMissing: 1002,
  /** A program that is needed is not installed. */
  ToolMissing: 1003,
  /** A file system has no room left. */
  DiskFull: 1004,
  /** The operating system refused access. */
  PermissionDenied: 1005,
  /** A state file was written by a newer version. */
  StateNewer: 1006,
  /** The peer speaks another major version of the protocol. */
  ProtocolMismatch: 1007,
  /** Refused to start a sandbox inside a sandbox. */
  Nested: 1008,
  /** No sandbox has this name. */
  SandboxNotFound: 1101,
  /** The folder cannot be shared, or should not be. */
  WorkspaceRefused: 1102,
  /** The sandbox is not running. */
  SandboxNotRunning: 1103,
  /** QEMU did not start, or ended unexpectedly. */
  QemuFailed: 1104,
  /** The guest did not come up in time. */
  StartTimeout: 1105,
  /** The virtual machine did not end in time. */
  StopTimeout: 1106,
  /** Another operation on this sandbox is under way. */
  SandboxBusy: 1107,
  /** A setting has a value it cannot have. */
  SettingInvalid: 1108,
  /** The folder's file asks for more than a folder may. */
  SettingUntrusted: 1109,
  /** Not a name a sandbox can have. */
  NameInvalid: 1110,
  /** No image has this reference. */
  ImageNotFound: 1201,
  /** A download did not succeed. */
  DownloadFailed: 1202,
  /** Content does not have the digest it should have. */
  DigestMismatch: 1203,
  /** The image is damaged or not an image. */
  ImageInvalid: 1204,
  /** A running sandbox needs the image. */
  ImageInUse: 1205,
  /** The image could not be built. */
  BuildFailed: 1206,
  /** The template cannot be used. */
  TemplateInvalid: 1207,
  /** There is no such template. */
  TemplateNotFound: 1208,
  /** The key that the settings name has not signed the image. */
  ImageUnsigned: 1209,
  /** No login with the pinned key succeeded. */
  SshUnreachable: 1301,
  /** The command could not be run in the guest. */
  ExecFailed: 1302,
  /** The agent in the guest reported an error. */
  GuestFailed: 1303,
  /** The console has ended. */
  ConsoleGone: 1401,
  /** Another program listens on the port. */
  PortTaken: 1501,
  /** No such port forward. */
  ForwardNotFound: 1502,
  /** Not a rule an allowlist can have. */
  RuleInvalid: 1503,
  /** The network process failed. */
  NetworkFailed: 1504,
} as const;
/** `code` of an error; with a small first letter, a name is `data.kind`. */
export type SandboxErrorCode = (typeof SandboxErrorCode)[keyof typeof SandboxErrorCode];

/** `data` of an error; further fields belong to that error. */
export interface ErrorData {
  /** Stable name of the error: `imageNotFound`, `invalidParams`, `internal`. */
  kind: string;
  /** What to do about it. */
  hint?: string;
}

/** What a client says of itself. */
export interface ClientSandbox {
  /** The version it was written for, major.minor; the server refuses another major one. */
  protocolVersion?: string;
}

/** Where LSP puts what is not LSP's. */
export interface ClientExperimental {
  /** Ours. */
  sandbox?: ClientSandbox;
}

/** The part of LSP's client capabilities that is read. */
export interface ClientCapabilities {
  /** What is not LSP's. */
  experimental?: ClientExperimental;
}

/** The part of LSP's params that is read. */
export interface InitializeParams {
  /** What the client can do. */
  capabilities?: ClientCapabilities;
}

/** What this server offers on this host; the version says what the protocol can express. */
export interface Features {
  /** Whether `console/*` is answered. */
  console: boolean;
  /** Whether `sandbox/exec` is answered. */
  exec: boolean;
}

/** What a server says of itself. */
export interface ServerSandbox {
  /** The version it speaks, major.minor. */
  protocolVersion: string;
  /** What it offers. */
  features: Features;
}

/** Where LSP puts what is not LSP's. */
export interface ServerExperimental {
  /** Ours. */
  sandbox: ServerSandbox;
}

/** LSP's server capabilities; none of LSP's own is offered. */
export interface ServerCapabilities {
  /** What is not LSP's. */
  experimental: ServerExperimental;
}

/** Which program answers. */
export interface ServerInfo {
  /** `sandbox-rpc`. */
  name: string;
  /** Version of the program, not of the protocol. */
  version: string;
}

/** Who answers, and what it can do. */
export interface InitializeResult {
  /** What it can do. */
  capabilities: ServerCapabilities;
  /** Who answers. */
  serverInfo: ServerInfo;
}

/** LSP's trace setting. */
export interface TraceParams {
  /** `off`, `messages` or `verbose`. */
  value: string;
}

/** Which request to cancel. */
export interface CancelParams {
  /** Its id. */
  id: number | string;
}

/** Which progress to cancel. */
export interface ProgressCancelParams {
  /** The `workDoneToken` of the request. */
  token: number | string;
}

/** LSP's work-done progress, and the phase. */
export interface ProgressValue {
  /** Where in its life it is. */
  kind: ProgressKind;
  /** What is being done; with `begin`. */
  title?: string;
  /** The present step, for people. */
  message?: string;
  /** The present step, a stable word for programs: `image`, `boot`, `login`. */
  phase?: string;
  /** 0 to 100 within the whole, where it is known. */
  percentage?: number;
  /** Whether a cancel is obeyed now. Default: `false`. */
  cancellable?: boolean;
  /** Of a transfer: what is there. */
  doneBytes?: number;
  /** Of a transfer: all of it. */
  totalBytes?: number;
  /** Of a transfer: lately; absent where too little is known. */
  bytesPerSecond?: number;
  /** Of a transfer: at this rate. */
  secondsLeft?: number;
}

/** One step of a long request. */
export interface ProgressParams {
  /** The `workDoneToken` of the request. */
  token: number | string;
  /** The step. */
  value: ProgressValue;
}

/** One part of a start. */
export interface Phase {
  /** `image`, then `template`, `restore`, `identity`, `login` of a warm start, or `disk`, `identity`, `qemu`, `kernel`, `boot`, `login`, `settle` of a cold one; there may come more. */
  name: string;
  /** How long it took. */
  seconds: number;
}

/** How the present life began. */
export interface Startup {
  /** Cold or warm. */
  kind: StartKind;
  /** In the order they ran. */
  phases: Phase[];
  /** Why it was not warm, where it was not. */
  reason?: string;
}

/** How the guest is reached; everything an SSH client needs. */
export interface Ssh {
  /** Loopback address. */
  host: string;
  /** Port on that address. */
  port: number;
  /** Account in the guest. */
  user: string;
  /** Host name that `config_file` defines: `ssh -F CONFIG_FILE ALIAS`. */
  alias: string;
  /** OpenSSH client configuration that defines the alias. */
  configFile: string;
  /** The pinned host key. */
  knownHostsFile: string;
  /** Private key that may log in. */
  identityFile: string;
  /** The guest's public host key: type and base64. */
  hostKey: string;
}

/** One wall of the box around QEMU. */
export interface Layer {
  /** `namespace`, `filter`, `seccomp`. */
  name: string;
  /** Whether it holds. */
  active: boolean;
  /** What it does, or why it is missing. */
  detail: string;
}

/** A port of this host that leads to one of the guest's, over TCP. */
export interface Forward {
  /** Loopback address of this host: 127.0.0.1. */
  host: string;
  /** Port on that address. */
  hostPort: number;
  /** Port in the guest. */
  guestPort: number;
}

/** Why a sandbox is lost. */
export interface Failure {
  /** Stable error kind. */
  kind: string;
  /** What happened. */
  message: string;
  /** What to do about it. */
  hint?: string;
}

/** One sandbox as every window sees it. */
export interface Sandbox {
  /** Unique for this user; also the guest's SSH alias. */
  name: string;
  /** How far it has come. */
  state: State;
  /** Real path of the shared folder. */
  workspace: string;
  /** Grows with each change, also from one life to the next; 0: never changed. Default: `0`. */
  revision?: LargeInteger;
  /** What a start is doing. */
  phase?: string;
  /** Reference of the image. */
  image?: string;
  /** Digest of the image. */
  imageDigest?: string;
  /** `kvm` or `tcg`. */
  accelerator?: string;
  /** What the guest can reach. */
  network?: string;
  /** Guest memory in MiB. */
  memoryMib?: number;
  /** Virtual processors. */
  cpus?: number;
  /** Size limit of the guest's disk in MiB. */
  diskMib?: number;
  /** How 9p keeps owners and modes: `none` or `mapped-xattr`. */
  workspaceSecurity?: string;
  /** Folders of the guest's home folder that outlive a stop. */
  persist?: string[];
  /** Present while it runs. */
  ssh?: Ssh;
  /** Ports of this host that lead into the guest, beside that of `ssh`; they end with it. Default: `[]`. */
  forwards?: Forward[];
  /** Unix socket of the serial console. */
  consoleSocket?: string;
  /** File with all console output since power-on. */
  consoleLog?: string;
  /** What stands between QEMU and the host. Default: `[]`. */
  box?: Layer[];
  /** QEMU's process. */
  pid?: number;
  /** ISO 8601 time of the start. */
  startedAt?: string;
  /** How the present life began. */
  startup?: Startup;
  /** What the user should know: emulation, a missing layer, ignored settings. Default: `[]`. */
  warnings?: string[];
  /** Why it is lost. */
  failure?: Failure;
  /** Version of this value as a state file. Default: `1`. */
  schema?: number;
}

/** Which sandbox is meant; one of the two. */
export interface Target {
  /** Its name. */
  name?: string;
  /** Its folder, or a folder inside the workspace of a running one. */
  workspace?: string;
}

/** What to start, and how; a setting that is absent comes from the user's and folder's files. */
export interface StartParams {
  /** Folder to share; inside a running sandbox's workspace it means that sandbox. */
  workspace: string;
  /** Name to give it; by default one from the folder's. */
  name?: string;
  /** Share even what is refused for good reasons (`/`, the home folder), and nest. Default: `false`. */
  force?: boolean;
  /** What the user has set in the client for all sandboxes, by the keys of `config.toml` (`workspace.read_only`). It counts as that file does and goes before it, so a folder's file may still tighten it; what is asked for at this start is in the other fields. */
  userSettings?: Record<string, boolean | number | string>;
  /** Memory of the guest in MiB. */
  memoryMib?: number;
  /** Virtual processors of the guest. */
  cpus?: number;
  /** Size of the guest's disk in MiB. */
  diskMib?: number;
  /** `auto`, `kvm` or `tcg`. */
  accelerator?: string;
  /** Image the sandbox starts from. */
  image?: string;
  /** Ask the registry once a day whether the image's tag has moved. */
  pullCheck?: boolean;
  /** File with the public key that must have signed the image; empty: none. */
  pullKey?: string;
  /** How the workspace keeps owners and modes: `none` or `mapped-xattr`. */
  workspaceSecurity?: string;
  /** A workspace that the guest can only read. */
  workspaceReadOnly?: boolean;
  /** Paths in the workspace that the guest can only read, with commas between. */
  protect?: string;
  /** Folders of the guest's home folder that outlive a stop, with commas between. */
  persist?: string;
  /** What the guest can reach: `open`, `proxy` or `offline`. */
  network?: string;
  /** Private addresses the guest reaches in the open network, with commas between. */
  allowAddresses?: string;
  /** Ports of the host's loopback the guest reaches as 10.0.2.2, with commas between. */
  allowHostPorts?: string;
  /** Ports that the allowlist opens where it names none, with commas between. */
  proxyPorts?: string;
  /** What the proxy is: `builtin` or `container`. */
  proxyBackend?: string;
  /** Another proxy that the sandbox's proxy goes through: `auto`, `none` or http://HOST:PORT. */
  proxyUpstream?: string;
  /** File with `USER:PASSWORD` for it. */
  proxyUpstreamAuth?: string;
  /** Whether the guest gets packages from where this host's own tools get them. */
  registries?: boolean;
  /** QEMU in namespaces of its own: `auto`, `require` or `off`. */
  boxNamespace?: string;
  /** The filter that keeps setuid files out of the workspace: `auto`, `require` or `off`. */
  boxFilter?: string;
  /** QEMU's own system call filter: `auto`, `require` or `off`. */
  boxSeccomp?: string;
  /** SSH to a stopped sandbox's alias starts it. */
  sshAutostart?: boolean;
  /** The keys of the user's SSH agent may log in. */
  sshAgentKeys?: boolean;
  /** Whether the start goes on from a saved machine: `auto` or `never`. */
  warm?: string;
  /** Seconds a start may take; 0: by accelerator. */
  startTimeoutS?: number;
  /** The QEMU to run. */
  qemuBinary?: string;
  /** When the default image is built here: `unreachable`, `always` or `never`. */
  buildWhen?: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** Which sandbox to stop, and how. */
export interface StopParams {
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
  /** Do not ask the guest's programs. Default: `false`. */
  force?: boolean;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** A port of a guest to reach from this host; `name` or `workspace` says which guest. */
export interface PortForwardParams {
  /** Port in the guest; nothing needs to listen there yet. */
  guestPort: number;
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
  /** Port on this host's loopback; 0: the guest's number where that is free, else any. Default: `0`. */
  hostPort?: number;
}

/** A forward to end; `name` or `workspace` says whose. */
export interface PortCloseParams {
  /** Its port on this host. */
  hostPort: number;
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
}

/** What to copy into the part of a guest's home folder that outlives a stop. */
export interface PersistPutParams {
  /** The sandbox; it need not run. */
  name: string;
  /** File or folder on this host. */
  source: string;
  /** Where to, relative to the home folder: below one of `Sandbox.persist`. */
  target: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** What became of it. */
export interface PersistPutResult {
  /** Whether it was copied; else something was there already, and stays as it is. */
  added: boolean;
}

/** Which sandboxes to list. */
export interface ListParams {
  /** Also those that are stopped. Default: `false`. */
  stopped?: boolean;
}

/** One finding about this host. */
export interface Check {
  /** Stable word for programs. */
  id: string;
  /** How good it is. */
  status: Verdict;
  /** What was found. */
  message: string;
  /** What to do about it. */
  hint?: string;
}

/** All findings about this host. */
export interface Doctor {
  /** Whether a sandbox can be started. */
  ok: boolean;
  /** In the order of their weight. */
  checks: Check[];
}

/** A disk with its kernel and initrd. */
export interface Image {
  /** Readable name. */
  ref: string;
  /** `sha256:…` over everything in it. */
  digest: string;
  /** Room it takes on disk. */
  sizeBytes: LargeInteger;
  /** `x86_64`, `aarch64`. */
  arch: string;
  /** ISO 8601 time of the build; empty where it is not known. */
  createdAt: string;
  /** Running sandboxes that need it. Default: `[]`. */
  inUseBy?: string[];
  /** Digest of its manifest in a registry, what `NAME@sha256:…` names; None: it has none. */
  manifest?: string;
  /** Digest of what the registry has under this name now, where it was seen to be another one. */
  newer?: string;
}

/** An image to build from this host's Debian mirror. */
export interface ImageBuildParams {
  /** Name to give it; by default the one that starts use. */
  ref?: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** An image to get from a registry. */
export interface ImagePullParams {
  /** Its reference; by default the one that starts use. */
  ref?: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** An image to put into a registry. */
export interface ImagePushParams {
  /** Its name or digest here. */
  ref: string;
  /** Registry, name and tag there. */
  to: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** An image to take from a file or folder. */
export interface ImageImportParams {
  /** OCI layout (folder or tar), qcow2 file, or one compressed by zstd. */
  path: string;
  /** Name to give it; by default `local/` and what the file is called. */
  ref?: string;
  /** Which one, where a layout has several. */
  name?: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** An image to write out. */
export interface ImageExportParams {
  /** Its name or digest. */
  ref: string;
  /** Where to write an OCI layout: a tar where it ends in `.tar`, else a folder. */
  path: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** Where an image has gone. */
export interface ImagePublished {
  /** Of the image. */
  digest: string;
  /** Digest of its manifest there. */
  manifest: string;
}

/** Which images to remove. */
export interface ImagePruneParams {
  /** Also those that have a name, and those that stopped sandboxes would start from. Default: `false`. */
  all?: boolean;
}

/** What was removed. */
export interface ImagePruned {
  /** Of the images. */
  digests: string[];
  /** Room that is free now, parts of downloads included. */
  freedBytes: LargeInteger;
}

/** An image to remove. */
export interface ImageRemoveParams {
  /** Its name or digest. */
  ref: string;
}

/** A saved machine that sandboxes start from. */
export interface Template {
  /** Names it: what it was made from, hashed. */
  key: string;
  /** Name its image had when it was made. */
  image: string;
  /** Digest of the image. */
  imageDigest: string;
  /** `kvm` or `tcg`. */
  accelerator: string;
  /** Guest memory in MiB. */
  memoryMib: number;
  /** Virtual processors. */
  cpus: number;
  /** Size of the guest's disk in MiB. */
  diskMib: number;
  /** Version of the QEMU it was made with, and is for. */
  qemu: string;
  /** Room it takes on disk. */
  sizeBytes: LargeInteger;
  /** ISO 8601 time of its making. */
  createdAt: string;
  /** ISO 8601 time of the last start from it. */
  usedAt: string;
}

/** The settings of the starts that are to find a template; what is absent is as in a start. */
export interface TemplateBuildParams {
  /** Image to start from. */
  image?: string;
  /** Memory of the guest in MiB. */
  memoryMib?: number;
  /** Virtual processors of the guest. */
  cpus?: number;
  /** Size of the guest's disk in MiB. */
  diskMib?: number;
  /** `auto`, `kvm` or `tcg`. */
  accelerator?: string;
  /** The QEMU to run. */
  qemuBinary?: string;
  /** Token for `$/progress`. */
  workDoneToken?: number | string;
}

/** A template to remove. */
export interface TemplateRemoveParams {
  /** Its key, or the first digits of it. */
  key: string;
}

/** Rules that an allowlist names together. */
export interface NetworkList {
  /** As a line has it: `@git`. */
  name: string;
  /** What it is, a noun phrase. */
  about: string;
  /** Whether the allowlist names it. */
  used: boolean;
  /** Its own lines. */
  rules: string[];
}

/** A line of an allowlist that says nothing. */
export interface RuleProblem {
  /** Which of the two files. */
  file: string;
  /** Its number, from 1. */
  line: number;
  /** What is wrong. */
  message: string;
}

/** A request that was refused: of a program in the guest, by the proxy. */
export interface Blocked {
  /** The sandbox. */
  name: string;
  /** Whom it was for. */
  host: string;
  /** At which port. */
  port: number;
  /** `unlisted`, `blocked`, `port`, `private`, `sni-mismatch` ...; there may come more. */
  reason: string;
  /** Of the request; CONNECT is a tunnel, TLS as a rule. */
  method: string;
  /** ISO 8601; of the last one, where there were several. */
  time: string;
  /** How many of the same there have been. */
  count: number;
  /** Grows with each one that is news. */
  sequence: LargeInteger;
  /** The line that decided; `blocked` ones need not be told to anybody. */
  rule?: string;
}

/** A sandbox's network, as far as it is decided by an allowlist. */
export interface NetworkState {
  /** The sandbox. */
  name: string;
  /** `open`, `proxy` or `offline`; absent where it does not run. */
  mode?: string;
  /** Where programs in the guest find the proxy. */
  proxyUrl?: string;
  /** The lines of the allowlist. Default: `[]`. */
  rules?: string[];
  /** Further ones, until the machine ends. Default: `[]`. */
  once?: string[];
  /** What `@` lines stand for. Default: `[]`. */
  lists?: NetworkList[];
  /** Lines that say nothing. Default: `[]`. */
  problems?: RuleProblem[];
  /** Of the guest to the proxy, now. */
  connections?: number;
  /** Of the guest to the proxy, since it was started. */
  served?: LargeInteger;
  /** Another proxy that it goes through. */
  upstream?: string;
  /** What was refused lately, equal ones together. Default: `[]`. */
  blocked?: Blocked[];
  /** The allowlist; may be edited. Default: `""`. */
  allowlistFile?: string;
  /** The audit: one JSON object for each request. Default: `""`. */
  logFile?: string;
}

/** Rules to allow; `name` or `workspace` says for whom. */
export interface NetworkAllowParams {
  /** Lines of an allowlist: `github.com`, `*.github.com`, `.github.com`, any with `:PORT`. */
  rules: string[];
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
  /** Until its machine ends, instead of for good. Default: `false`. */
  once?: boolean;
}

/** Rules to block, whatever allows them; `name` or `workspace` says for whom. */
export interface NetworkBlockParams {
  /** Lines of an allowlist, without the `!`. */
  rules: string[];
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
  /** Until its machine ends, instead of for good. Default: `false`. */
  once?: boolean;
}

/** What to forget of an allowlist; `name` or `workspace` says whose. */
export interface NetworkResetParams {
  /** Lines to forget, allowed or blocked; none: all, so that it is as at first. Default: `[]`. */
  rules?: string[];
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
}

/** An allowlist after a change. */
export interface NetworkRules {
  /** Its lines. */
  rules: string[];
  /** Further ones, until the machine ends. */
  once: string[];
  /** Open connections that were ended by the change. Default: `0`. */
  cut?: number;
  /** What the user should know: a rule that another one still blocks. Default: `[]`. */
  notes?: string[];
}

/** Which part of the audit; `name` or `workspace` says whose. */
export interface NetworkLogParams {
  /** Its name. */
  name?: string;
  /** Its folder, where there is no name. */
  workspace?: string;
  /** As many of the latest lines, at most 10000. Default: `100`. */
  limit?: number;
  /** Only what was refused. Default: `false`. */
  blocked?: boolean;
}

/** One request that is over. */
export interface NetworkLogEntry {
  /** Its number in the life of the proxy's process. */
  id: number;
  /** ISO 8601; when it was over. */
  time: string;
  /** `CONNECT` is a tunnel, TLS as a rule. */
  method: string;
  /** Whom it was for. */
  host: string;
  /** At which port; 0 where it named none. */
  port: number;
  /** Whether the rules and the checks let it through. */
  allowed: boolean;
  /** The line that decided. */
  rule?: string;
  /** Why it was refused, or did not work. */
  reason?: string;
  /** What was dialled. */
  address?: string;
  /** Whom TLS named. */
  sni?: string;
  /** HTTP status of the answer. */
  status?: number;
  /** Bytes from the guest. Default: `0`. */
  up?: LargeInteger;
  /** Bytes to the guest. Default: `0`. */
  down?: LargeInteger;
  /** How long it took. Default: `0.0`. */
  seconds?: number;
}

/** A file that makes a program of this host run something, or a link out of the folder. */
export interface Change {
  /** Relative to the workspace. */
  path: string;
  /** Who runs it and when, or where it leads. */
  why: string;
  /** Whether that happens without anybody asking for it: an editor that opens the folder does. */
  byItself: boolean;
  /** Whether it is a symbolic link that leads out of the workspace. Default: `false`. */
  link?: boolean;
}

/** What was written since a sandbox started, by the guest or by anybody else. */
export interface Changes {
  /** The sandbox. */
  name: string;
  /** The folder. */
  workspace: string;
  /** The dangerous ones first. */
  changes: Change[];
  /** ISO 8601: the start of the present or last life; absent where there was none. */
  since?: string;
  /** False where the folder is too large to have been looked at in whole. Default: `true`. */
  complete?: boolean;
}

/** Size and kind of a terminal. */
export interface Terminal {
  /** Characters in a line. Default: `80`. */
  columns?: number;
  /** Lines. Default: `24`. */
  rows?: number;
  /** Value of TERM. Default: `"xterm-256color"`. */
  term?: string;
}

/** A command to run in the guest, as dev. */
export interface ExecParams {
  /** The sandbox. */
  name: string;
  /** Names this run in output, input and signals; the client's choice, unique while it runs. */
  token: string;
  /** Program and arguments; they arrive as they are, no shell takes them apart. */
  argv: string[];
  /** Folder in the guest; by default the workspace. */
  cwd?: string;
  /** Variables to set. */
  env?: Record<string, string>;
  /** Whether input will come by `sandbox/execInput`; else it is empty. Default: `false`. */
  stdin?: boolean;
  /** Give it a terminal. */
  tty?: Terminal;
}

/** How a command ended. */
export interface ExecResult {
  /** Its exit status; 128 + the signal's number where a signal ended it. */
  exitCode: number;
  /** From the request to the end. */
  durationMs: LargeInteger;
  /** Name of the signal that ended it, without SIG. */
  signal?: string;
}

/** Output of a command. */
export interface ExecOutput {
  /** The run. */
  token: string;
  /** Where it was written. */
  stream: Stream;
  /** The bytes, base64. */
  data: string;
}

/** Input for a command. */
export interface ExecInput {
  /** The run. */
  token: string;
  /** The bytes, base64. Default: `""`. */
  data?: string;
  /** Whether the input ends with them. Default: `false`. */
  eof?: boolean;
}

/** A signal for a command. */
export interface ExecSignal {
  /** The run. */
  token: string;
  /** Name without SIG: `INT`, `TERM`, `KILL`. */
  signal: string;
}

/** A new size of a command's terminal. */
export interface ExecResize {
  /** The run. */
  token: string;
  /** Characters in a line. */
  columns: number;
  /** Lines. */
  rows: number;
}

/** How to follow a serial console. */
export interface ConsoleAttachParams {
  /** The sandbox. */
  name: string;
  /** Names this attachment; chosen by the client, unique while it lasts. */
  stream: string;
  /** Byte offset since power-on to begin at; absent: only what comes from now on. */
  offset?: LargeInteger;
  /** Begin so many bytes before the present end instead. */
  tail?: LargeInteger;
  /** Go on with what the guest prints later; else only what there is. Default: `true`. */
  follow?: boolean;
}

/** Where an attachment begins. */
export interface ConsoleAttached {
  /** Offset of the first byte that will be sent. */
  offset: LargeInteger;
  /** Bytes since power-on so far. */
  size: LargeInteger;
}

/** A piece of console output. */
export interface ConsoleOutput {
  /** The attachment. */
  stream: string;
  /** Byte offset of `data` since power-on. */
  offset: LargeInteger;
  /** The bytes, base64. */
  data: string;
}

/** The end of an attachment; all its output has been sent before. */
export interface ConsoleClosed {
  /** The attachment. */
  stream: string;
  /** Why. */
  reason: ConsoleEnd;
}

/** Keys for the guest. */
export interface ConsoleWriteParams {
  /** The attachment. */
  stream: string;
  /** The bytes, base64. */
  data: string;
}

/** A new size of the terminal behind an attachment. */
export interface ConsoleResizeParams {
  /** The attachment. */
  stream: string;
  /** Characters in a line. */
  columns: number;
  /** Lines. */
  rows: number;
}

/** Whether the guest knows the new size. */
export interface ConsoleResized {
  /** A serial line has no size; the guest's agent sets the one programs ask for. */
  applied: boolean;
}

/** An attachment to end. */
export interface ConsoleDetachParams {
  /** The attachment. */
  stream: string;
}

/**
 * The first request. Any other one before its answer is refused with -32002.
 *
 * @throws ProtocolMismatch
 */
export const InitializeRequest = new RequestType<InitializeParams, InitializeResult, ErrorData>("initialize");

/** Ends the conversation, not the sandboxes: they outlive every client. Requests after it are refused with -32600. */
export const ShutdownRequest = new RequestType0<null, ErrorData>("shutdown");

/**
 * Start a folder's sandbox, join its start, or return the running one. Answers when the agent has reported, the workspace is mounted and a login has succeeded. Cancelling undoes the start unless others wait for it; a client that is gone leaves it running to its end.
 *
 * @throws KvmUnavailable, QemuMissing, ToolMissing, DiskFull, PermissionDenied, Nested, WorkspaceRefused, QemuFailed, StartTimeout, SandboxBusy, SettingInvalid, NameInvalid, ImageNotFound, DownloadFailed, DigestMismatch, ImageInvalid, ImageUnsigned, BuildFailed, SshUnreachable, GuestFailed, NetworkFailed
 */
export const SandboxStartRequest = new RequestType<StartParams, Sandbox, ErrorData>("sandbox/start");

/**
 * Write the workspace back, shut the guest down, end its machine. What is only in the guest is gone. Stopping a stopped sandbox succeeds.
 *
 * @throws SandboxNotFound, StopTimeout, SandboxBusy
 */
export const SandboxStopRequest = new RequestType<StopParams, Sandbox, ErrorData>("sandbox/stop");

/**
 * How a sandbox is. A folder that never had one is a stopped sandbox.
 *
 * @throws SandboxNotFound, WorkspaceRefused, StateNewer
 */
export const SandboxStatusRequest = new RequestType<Target, Sandbox, ErrorData>("sandbox/status");

/**
 * What was written to the workspace since the start that programs of this host run, and new links that lead out of it. Also after the machine's end, for the last life; to be shown before anybody works in the folder.
 *
 * @throws SandboxNotFound, WorkspaceRefused, PermissionDenied
 */
export const SandboxChangesRequest = new RequestType<Target, Changes, ErrorData>("sandbox/changes");

/** The sandboxes of this user. */
export const SandboxListRequest = new RequestType<ListParams, Sandbox[], ErrorData>("sandbox/list");

/**
 * Run a command in the guest. Output comes as `sandbox/execOutput`, all of it before the result. An exit status other than 0 is a result, not an error. Cancelling ends the command with TERM, then KILL.
 *
 * @throws SandboxNotFound, SandboxNotRunning, SettingInvalid, SshUnreachable, ExecFailed
 */
export const SandboxExecRequest = new RequestType<ExecParams, ExecResult, ErrorData>("sandbox/exec");

/**
 * Follow the serial console. Output comes as `console/output`, after this answer, without loss and without repetition. Any number of clients may attach, and all may write.
 *
 * @throws SandboxNotFound, SandboxNotRunning, ConsoleGone
 */
export const ConsoleAttachRequest = new RequestType<ConsoleAttachParams, ConsoleAttached, ErrorData>("console/attach");

/**
 * Type on the console.
 *
 * @throws ConsoleGone
 */
export const ConsoleWriteRequest = new RequestType<ConsoleWriteParams, null, ErrorData>("console/write");

/**
 * Tell the guest the size of the terminal.
 *
 * @throws ConsoleGone
 */
export const ConsoleResizeRequest = new RequestType<ConsoleResizeParams, ConsoleResized, ErrorData>("console/resize");

/**
 * End an attachment; `console/closed` comes before the answer.
 *
 * @throws ConsoleGone
 */
export const ConsoleDetachRequest = new RequestType<ConsoleDetachParams, null, ErrorData>("console/detach");

/**
 * Let a port of this host's loopback lead to a port of a running guest, until the forward is closed or the guest ends. One that is there already is the answer as it is. `Sandbox.forwards` lists them.
 *
 * @throws SandboxNotFound, WorkspaceRefused, SandboxNotRunning, SandboxBusy, SettingInvalid, PermissionDenied, PortTaken, NetworkFailed
 */
export const PortForwardRequest = new RequestType<PortForwardParams, Forward, ErrorData>("port/forward");

/**
 * End a forward and return it. Its port refuses new connections; those that are open stay.
 *
 * @throws SandboxNotFound, WorkspaceRefused, SandboxNotRunning, SandboxBusy, SettingInvalid, ForwardNotFound, NetworkFailed
 */
export const PortCloseRequest = new RequestType<PortCloseParams, Forward, ErrorData>("port/close");

/**
 * A sandbox's allowlist, and what its proxy is doing where it was started with one.
 *
 * @throws SandboxNotFound, WorkspaceRefused, StateNewer
 */
export const NetworkStatusRequest = new RequestType<Target, NetworkState, ErrorData>("network/status");

/**
 * Add rules to a sandbox's allowlist; they count from the next request on. It need not run.
 *
 * @throws SandboxNotFound, WorkspaceRefused, RuleInvalid, PermissionDenied, DiskFull
 */
export const NetworkAllowRequest = new RequestType<NetworkAllowParams, NetworkRules, ErrorData>("network/allow");

/**
 * Block hosts, whatever else allows them; open connections to them are cut, no others.
 *
 * @throws SandboxNotFound, WorkspaceRefused, RuleInvalid, PermissionDenied, DiskFull
 */
export const NetworkBlockRequest = new RequestType<NetworkBlockParams, NetworkRules, ErrorData>("network/block");

/**
 * Forget what was said of some rules, or make the allowlist what it was at first.
 *
 * @throws SandboxNotFound, WorkspaceRefused, RuleInvalid, PermissionDenied, DiskFull
 */
export const NetworkResetRequest = new RequestType<NetworkResetParams, NetworkRules, ErrorData>("network/reset");

/**
 * What went through a sandbox's proxy and what was refused, the latest last.
 *
 * @throws SandboxNotFound, WorkspaceRefused, SettingInvalid
 */
export const NetworkLogRequest = new RequestType<NetworkLogParams, NetworkLogEntry[], ErrorData>("network/log");

/**
 * Copy a file or folder of this host to where a sandbox keeps what outlives a stop: an editor's server, so that its window downloads nothing. Whole or not at all.
 *
 * @throws SandboxNotFound, SettingInvalid, PermissionDenied, DiskFull
 */
export const PersistPutRequest = new RequestType<PersistPutParams, PersistPutResult, ErrorData>("persist/put");

/** What this host has and lacks. */
export const HostDoctorRequest = new RequestType0<Doctor, ErrorData>("host/doctor");

/** The images of this user. */
export const ImageListRequest = new RequestType0<Image[], ErrorData>("image/list");

/** Ask the registries whether their tags mean other images by now, and list the images. Registries that do not answer are passed over; nothing is downloaded. */
export const ImageCheckRequest = new RequestType0<Image[], ErrorData>("image/check");

/**
 * Get what a reference means in its registry now, and let the name mean that here. What is here already is not fetched again. Cancelling keeps what has come for the next pull.
 *
 * @throws ToolMissing, DiskFull, PermissionDenied, SettingInvalid, ImageNotFound, DownloadFailed, DigestMismatch, ImageInvalid, ImageUnsigned
 */
export const ImagePullRequest = new RequestType<ImagePullParams, Image, ErrorData>("image/pull");

/**
 * Put an image into a registry, with kernel and initrd as layers of their own, and give it that name here too.
 *
 * @throws ToolMissing, DiskFull, PermissionDenied, ImageNotFound, DownloadFailed, ImageInvalid
 */
export const ImagePushRequest = new RequestType<ImagePushParams, ImagePublished, ErrorData>("image/push");

/**
 * Take an image from a file or folder of this machine.
 *
 * @throws ToolMissing, DiskFull, PermissionDenied, ImageNotFound, DigestMismatch, ImageInvalid
 */
export const ImageImportRequest = new RequestType<ImageImportParams, Image, ErrorData>("image/import");

/**
 * Write an image as an OCI layout, which appears whole or not at all.
 *
 * @throws ToolMissing, DiskFull, PermissionDenied, ImageNotFound, ImageInvalid
 */
export const ImageExportRequest = new RequestType<ImageExportParams, ImagePublished, ErrorData>("image/export");

/** Remove images without a name that nothing needs, and parts of downloads that nobody has gone on with for a week. */
export const ImagePruneRequest = new RequestType<ImagePruneParams, ImagePruned, ErrorData>("image/prune");

/**
 * Build a Debian 13 image from this host's mirror. Cancelling leaves nothing behind.
 *
 * @throws ToolMissing, DiskFull, ImageNotFound, BuildFailed
 */
export const ImageBuildRequest = new RequestType<ImageBuildParams, Image, ErrorData>("image/build");

/**
 * Remove an image that no sandbox runs on.
 *
 * @throws ImageNotFound, ImageInUse
 */
export const ImageRemoveRequest = new RequestType<ImageRemoveParams, null, ErrorData>("image/remove");

/** The saved machines that sandboxes of this user start from, the last used one first. */
export const TemplateListRequest = new RequestType0<Template[], ErrorData>("template/list");

/**
 * Make the template that starts with these settings would make, or find it. Cancelling leaves nothing behind.
 *
 * @throws KvmUnavailable, QemuMissing, ToolMissing, DiskFull, PermissionDenied, SettingInvalid, ImageNotFound, DownloadFailed, DigestMismatch, ImageInvalid, ImageUnsigned, BuildFailed, TemplateInvalid
 */
export const TemplateBuildRequest = new RequestType<TemplateBuildParams, Template, ErrorData>("template/build");

/**
 * Remove a template; sandboxes that run keep what they need of it.
 *
 * @throws TemplateNotFound
 */
export const TemplateRemoveRequest = new RequestType<TemplateRemoveParams, null, ErrorData>("template/remove");

/** From now on `sandbox/didChange` is sent. */
export const InitializedNotification = new NotificationType0("initialized");

/** Ends the server: exit status 0 after `shutdown`, else 1. The end of its standard input ends it too. */
export const ExitNotification = new NotificationType0("exit");

/** Accepted and ignored. */
export const SetTraceNotification = new NotificationType<TraceParams>("$/setTrace");

/** Undo a request under way. It is answered all the same: with -32800, or with its result where it was too late. */
export const CancelRequestNotification = new NotificationType<CancelParams>("$/cancelRequest");

/** The same, by the token of the progress. */
export const WindowWorkDoneProgressCancelNotification = new NotificationType<ProgressCancelParams>("window/workDoneProgress/cancel");

/** Progress of a request that took `workDoneToken`. */
export const ProgressNotification = new NotificationType<ProgressParams>("$/progress");

/** A sandbox changed, by whomever: the whole value, `revision` grows within one life. */
export const SandboxDidChangeNotification = new NotificationType<Sandbox>("sandbox/didChange");

/** The proxy of a sandbox refused a request. The same one comes again after a minute at the earliest. */
export const NetworkDidBlockNotification = new NotificationType<Blocked>("network/didBlock");

/** Output of a command. */
export const SandboxExecOutputNotification = new NotificationType<ExecOutput>("sandbox/execOutput");

/** Input for a command. */
export const SandboxExecInputNotification = new NotificationType<ExecInput>("sandbox/execInput");

/** A signal for a command. */
export const SandboxExecSignalNotification = new NotificationType<ExecSignal>("sandbox/execSignal");

/** A new size of a command's terminal. */
export const SandboxExecResizeNotification = new NotificationType<ExecResize>("sandbox/execResize");

/** Output of an attached console. */
export const ConsoleOutputNotification = new NotificationType<ConsoleOutput>("console/output");

/** An attachment ended. */
export const ConsoleClosedNotification = new NotificationType<ConsoleClosed>("console/closed");
