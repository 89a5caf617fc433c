/** Which ports a guest listens on, from its own /proc/net/tcp. */

/** SSH is how we came in; the rest are of Debian's own services. */
const OWN = new Set([22, 53, 5355]);
/** Ports that the kernel gives to whoever asks for none: editors' servers and debuggers. */
const EPHEMERAL = 32768;

/**
 * A program for the guest: prints its listening ports, and again whenever they change. perl-base is
 * in every Debian; one process and no forks.
 */
export const WATCHER = [
  "$| = 1; my $last = '';",
  "while (1) { my %port;",
  "for my $name (qw(/proc/net/tcp /proc/net/tcp6)) { open my $file, '<', $name or next;",
  "while (<$file>) { my @word = split; next if ($word[3] // '') ne '0A' || $word[7] < 1000;",
  "$port{hex((split /:/, $word[1])[-1])} = 1 } }",
  "my $now = join ' ', sort { $a <=> $b } keys %port;",
  'print "ports $now\\n" if $now ne $last; $last = $now; sleep 2 }',
].join(" ");

/** The ports of one line of the watcher's, those that a user may want to open. */
export function offered(line: string): number[] | undefined {
  const found = /^ports((?: \d{1,5})*)\s*$/.exec(line);
  if (!found) return undefined;
  const numbers = (found[1] ?? "").trim().split(" ").filter(Boolean).map(Number);
  return numbers.filter((port) => port > 0 && port < EPHEMERAL && !OWN.has(port));
}
