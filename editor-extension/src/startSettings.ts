// Written by docs/generate.py from sandbox_rpc/config/settings.py; changes here are lost.

interface StartSetting {
  readonly key: string;
  readonly field: string;
}

/** The editor's settings of a start, and what they are called in `StartParams`. */
export const START_SETTINGS: readonly StartSetting[] = [
  {"key": "memory", "field": "memoryMib"},
  {"key": "cpus", "field": "cpus"},
  {"key": "disk", "field": "diskMib"},
  {"key": "accelerator", "field": "accelerator"},
  {"key": "image", "field": "image"},
  {"key": "pull.check", "field": "pullCheck"},
  {"key": "pull.key", "field": "pullKey"},
  {"key": "workspace.security", "field": "workspaceSecurity"},
  {"key": "workspace.read_only", "field": "workspaceReadOnly"},
  {"key": "protect", "field": "protect"},
  {"key": "persist", "field": "persist"},
  {"key": "network", "field": "network"},
  {"key": "allow.addresses", "field": "allowAddresses"},
  {"key": "allow.host_ports", "field": "allowHostPorts"},
  {"key": "proxy.ports", "field": "proxyPorts"},
  {"key": "proxy.backend", "field": "proxyBackend"},
  {"key": "proxy.upstream", "field": "proxyUpstream"},
  {"key": "proxy.upstream_auth", "field": "proxyUpstreamAuth"},
  {"key": "registries", "field": "registries"},
  {"key": "box.namespace", "field": "boxNamespace"},
  {"key": "box.filter", "field": "boxFilter"},
  {"key": "box.seccomp", "field": "boxSeccomp"},
  {"key": "ssh.autostart", "field": "sshAutostart"},
  {"key": "ssh.agent_keys", "field": "sshAgentKeys"},
  {"key": "warm", "field": "warm"},
  {"key": "start.timeout", "field": "startTimeoutS"},
  {"key": "qemu.binary", "field": "qemuBinary"},
  {"key": "build.when", "field": "buildWhen"},
];
