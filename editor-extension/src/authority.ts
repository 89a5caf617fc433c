/** The authority of a Remote-SSH window: `ssh-remote+ALIAS`, or with JSON in hexadecimal. */
const SCHEME = "ssh-remote+";

/** The host that an authority names; undefined where it is none of SSH. */
export function hostOf(authority: string): string | undefined {
  if (!authority.startsWith(SCHEME)) return undefined;
  const rest = decodeURIComponent(authority.slice(SCHEME.length));
  if (/^(?:[0-9a-f]{2})+$/.test(rest)) {
    try {
      const value: unknown = JSON.parse(Buffer.from(rest, "hex").toString("utf8"));
      const host = (value as { hostName?: unknown } | null)?.hostName;
      if (typeof host === "string") return host;
    } catch {
      // A host name that looks like hexadecimal.
    }
  }
  return rest;
}

/** The authority for a host. Editors write authorities in small letters, so capitals are wrapped. */
export function authorityOf(host: string): string {
  const plain = /^[a-z0-9._-]+$/.test(host) && !/^(?:[0-9a-f]{2})+$/.test(host);
  const rest = plain ? host : Buffer.from(JSON.stringify({ hostName: host })).toString("hex");
  return SCHEME + rest;
}
