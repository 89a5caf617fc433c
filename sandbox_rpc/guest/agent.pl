#!/usr/bin/perl
# The agent of a sandbox: gives the guest its identity, mounts the workspace, serves the supervisor.
#
# Protocol sandbox-agent/1, ASCII lines on the virtio-serial port sandbox.agent:
#
#   host to guest   ID VERB [BASE64]             ID: up to 64 of A-Z a-z 0-9 . _ -
#   guest to host   ID ok [BASE64]               exactly one answer to each line, in order
#                   ID error BASE64              a message; ID is ? where the line had none
#                   * hello BASE64               at the start of the agent; fields as in status
#                   * reachable                  somebody may log in; not all is done yet
#                   * ready                      the identity of a cold boot is applied
#                   * failed BASE64              it is not: which step, and why
#
#   status          "version=1\nstate=waiting|ready|failed\nmessage=TEXT\nuptime=SECONDS\n"
#   identity DOC    apply the document below; the answer comes when all of it is done, and says in
#                   "STEP=SECONDS\n" lines what took how long
#   time T          set the clock; T is "seconds.nanoseconds" since 1970, and, after a blank, how
#                   many seconds it must be off by for that
#   rest            answers when the system has come to rest, and holds in memory what a login needs:
#                   to be asked of a guest that becomes a template, before it has an identity
#   unmount         workspace away: answers clean, detached (it was busy) or absent
#   winsize SIZE    the console's terminal is "COLUMNS ROWS" large; what runs on it is told
#   poweroff        answers ok, then an orderly power-off
#   proceed         somebody has logged in, so what waits for the agent may begin; else it does so
#                   after SANDBOX_AGENT_PATIENCE seconds
#   ping            answers ok
#
# A line is at most 1 MiB; a longer one is dropped with an error. An answer nobody reads is dropped:
# who takes over asks for the status.
#
# The identity document has one "KEY BASE64" for each line; unknown keys are ignored:
#   entropy time hostname machine_id ssh_host_ed25519_key authorized_keys uid gid
#   ssh_host_key_file  a second place for the host key, where another sshd looks for it
#   boot_id         of a restored guest, so that it counts as a boot of its own
#   product_uuid    of the machine, where the firmware's tables are a template's
#   environment     KEY=VALUE lines, for sessions and services
#   router, dns     IPv4 addresses; empty: none; absent: 10.0.2.2 and 10.0.2.3
#   workspace       9p mount options; absent: nothing is mounted
#   persist         9p mount options, then a line for each folder of dev's home that outlives a stop
#   certificates    authorities to trust beside Debian's: X.509 certificates, DER, one after another
#   hosts           "ADDRESS NAME" lines, for /etc/hosts
#   apt_mirrors     "debian URL" and "debian-security URL" lines, where to get these archives
#   file:/PATH      a file; one that is there and does not say that it is ours is left as it is
# At a cold boot it is the systemd credential sandbox.identity, after a restore it comes by the port.
#
# perl-base only and no forks on the way to ready: both cost more than all of the work. rest does
# fork; it is on nobody's way.
#
# For tests: SANDBOX_AGENT_PORT names the port; SANDBOX_AGENT_ROOT prefixes every path, and what
# would change the running system is written to the file `actions` below it instead of being done.

use strict;
use warnings;
use Errno qw(EAGAIN EBUSY EINTR EINVAL ENOENT);
use Fcntl
    qw(O_RDONLY O_RDWR O_WRONLY O_CREAT O_TRUNC O_EXCL O_NOCTTY O_NONBLOCK O_ASYNC F_SETFL F_SETOWN);
use MIME::Base64 qw(decode_base64 encode_base64);

my $VERSION   = 1;
my $LINE_MAX  = 1 << 20;
my $HOME      = '/home/dev';
my $WORKSPACE = "$HOME/workspace";
my $PERSIST   = '/var/lib/sandbox/persist';
my $root      = $ENV{SANDBOX_AGENT_ROOT} // '';

# By `uname -m`, as syscall(2) wants them.
my %NUMBERS = (
    x86_64 => {
        mount => 165, umount => 166, sethostname => 170, clock_settime => 227,
        clock_gettime => 228, sync => 162, syncfs => 306,
    },
    aarch64 => {
        mount => 40, umount => 39, sethostname => 161, clock_settime => 112,
        clock_gettime => 113, sync => 81, syncfs => 267,
    },
);
my ($MS_NOSUID, $MS_NODEV, $MS_BIND, $MNT_DETACH) = (2, 4, 4096, 2);
my ($RNDADDENTROPY, $RNDRESEEDCRNG) = (0x40085203, 0x5207);
my ($SIOCADDRT, $SIOCGIFFLAGS, $SIOCSIFFLAGS, $SIOCSIFADDR, $SIOCSIFNETMASK) =
    (0x890B, 0x8913, 0x8914, 0x8916, 0x891C);
my $TIOCSWINSZ  = 0x5414;
my $OURS        = qr/\A[^\n]*Written by sandbox/;
my $UUID        = qr/\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\z/;
my $SIGPOWEROFF = 34 + 4;    # SIGRTMIN+4 tells PID 1 to power off: no bus, no ACPI needed

my ($state, $message) = ('waiting', '');
my ($port, $connected, $input, $skipping) = (undef, 0, '', 0);
my ($call, $wake, $begin);

# --- the machine ----------------------------------------------------------------------------------

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', "$root$path" or return undef;
    local $/;
    return readline($file) // '';
}

sub put {
    my ($path, $mode, $content, $uid, $gid) = @_;
    my $new = "$root$path.sandbox-new";
    unlink $new;
    # O_EXCL: in dev's own folder a planted link must not lead root elsewhere.
    sysopen my $file, $new, O_WRONLY | O_CREAT | O_EXCL, $mode or die "$path: $!\n";
    chmod $mode, $file;
    chown $uid, $gid, $file if defined $uid && $> == 0;
    (print {$file} $content) && close $file or die "$path: $!\n";
    rename $new, "$root$path" or die "$path: $!\n";
}

# True where tests only want to see what would be done.
sub pretended {
    return 0 if $root eq '';
    open my $file, '>>', "$root/actions" or die "actions: $!\n";
    print {$file} "@_\n";
    return 1;
}

sub number {
    my ($name) = @_;
    if (!$call) {
        my $machine = slurp('/proc/sys/kernel/arch') // 'x86_64';
        chomp $machine;
        $call = $NUMBERS{$machine} or die "no system call numbers for $machine\n";
    }
    return $call->{$name};
}

sub spawn {
    my (@argv) = @_;
    return if pretended('run', @argv);
    my $pid = fork // return;
    return if $pid;
    exec {$argv[0]} @argv or kill 'KILL', $$;
}

sub finish {
    my (@argv) = @_;
    local $SIG{CHLD} = 'DEFAULT';
    return system {$argv[0]} @argv;
}

sub uptime { return (split ' ', slurp('/proc/uptime') // '0')[0] }

# --- identity -------------------------------------------------------------------------------------

sub apply {
    my ($document) = @_;
    my %key;
    for (split /\n/, $document) {
        my ($name, $value) = split / /, $_, 2;
        next if !defined $name || $name eq '';
        $key{$name} = decode_base64($value // '');
    }
    my $spent = '';
    my $step  = sub {
        my ($name, $does, $value, $may_fail) = @_;
        my $begin = clock();
        eval { $does->($value, \%key); 1 } or $may_fail ? warn "sandbox-agent: $name: $@" : die "$name: $@";
        $spent .= sprintf "%s=%.3f\n", $name, clock() - $begin;
    };
    # Randomness first: all that follows may draw on it. Then what a login needs.
    for (
        [entropy => \&set_entropy], [time => \&set_time], [hostname => \&set_hostname],
        [machine_id => \&set_machine_id], [product_uuid => \&set_product_uuid],
        [ssh_host_ed25519_key => \&set_host_key],
        [uid => \&set_ids], [authorized_keys => \&set_authorized_keys],
        [environment => \&set_environment],
    ) {
        my ($name, $does) = @$_;
        $step->($name, $does, $key{$name}) if defined $key{$name};
    }
    $step->('network', sub { set_network($key{router} // '10.0.2.2', $key{dns} // '10.0.2.3') });
    put_marker();
    $begin = clock() + ($ENV{SANDBOX_AGENT_PATIENCE} // 0);
    proceed() if !$ENV{SANDBOX_AGENT_PATIENCE};
    say_line('*', 'reachable');
    $step->('boot_id', \&set_boot_id, $key{boot_id}) if defined $key{boot_id};
    $step->('managers', \&announce_environment, undef, 1) if defined $key{environment};
    # A guest that gets its packages elsewhere is better than none.
    $step->('supply', \&set_supply, \%key, 1);
    $step->('workspace', \&mount_workspace, $key{workspace}) if defined $key{workspace};
    # What is kept is a comfort, and the guest may have made anything of it.
    $step->('persist', \&mount_persist, $key{persist}, 1) if defined $key{persist};
    return $spent;
}

# sandbox-sshd serves from now on.
sub put_marker {
    mkdir "$root/run/sandbox", 0755;
    put('/run/sandbox/identified', 0444, '');
}

# What is ordered after the agent, such as the getty, begins.
sub proceed {
    $begin = undef;
    notify('READY=1');
}

sub clock {
    my $timespec = "\0" x 16;
    syscall(number('clock_gettime'), 1, $timespec) == 0 or return 0;
    my ($seconds, $nanoseconds) = unpack 'qq', $timespec;
    return $seconds + $nanoseconds / 1e9;
}

sub set_entropy {
    my ($bytes) = @_;
    return if pretended('entropy', length $bytes);
    sysopen my $random, '/dev/urandom', O_WRONLY or die "/dev/urandom: $!\n";
    ioctl $random, $RNDADDENTROPY, pack('ii', 8 * length $bytes, length $bytes) . $bytes or die "$!\n";
    ioctl $random, $RNDRESEEDCRNG, 0 or die "$!\n";
}

sub set_time {
    my ($time) = @_;
    my ($seconds, $nanoseconds, $off) =
        $time =~ /^(\d{1,12})(?:\.(\d{1,9}))?(?: (\d{1,9}))?$/ or die "not a time\n";
    $nanoseconds = substr(($nanoseconds // '') . '000000000', 0, 9);
    # A clock that is nearly right is left alone: each step of it can confuse a make.
    return if defined $off && abs(time - $seconds) <= $off;
    return if pretended('time', $seconds, $nanoseconds);
    my $timespec = pack 'qq', $seconds, $nanoseconds;
    syscall(number('clock_settime'), 0, $timespec) == 0 or die "$!\n";
}

sub set_hostname {
    my ($name) = @_;
    $name =~ /^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$/ or die "not a host name\n";
    put('/etc/hostname', 0644, "$name\n");
    return if pretended('hostname', $name);
    syscall(number('sethostname'), $name, length $name) == 0 or die "$!\n";
}

sub set_machine_id {
    my ($id) = @_;
    $id =~ /^[0-9a-f]{32}$/ or die "not a machine id\n";
    return if (slurp('/etc/machine-id') // '') eq "$id\n";
    # In place: PID 1 may have mounted something over it.
    sysopen my $file, "$root/etc/machine-id", O_WRONLY | O_CREAT | O_TRUNC, 0444 or die "$!\n";
    (print {$file} "$id\n") && close $file or die "$!\n";
}

# What a kernel has made or read once, it keeps; here is shown what it would be after a boot.
sub cover {
    my ($path, $mode, $content) = @_;
    return if pretended('cover', $path, $content) || !-e $path;
    my ($name) = $path =~ m{([^/]+)$};
    mkdir '/run/sandbox', 0755;
    my ($file, $none) = ("/run/sandbox/$name", '');
    put($file, $mode, "$content\n");
    syscall(number('mount'), $file, $path, $none, $MS_BIND, $none) == 0 or die "$path: $!\n";
}

sub set_product_uuid {
    my ($uuid) = @_;
    $uuid =~ $UUID or die "not a UUID\n";
    cover('/sys/devices/virtual/dmi/id/product_uuid', 0400, $uuid);
}

sub set_boot_id {
    my ($uuid) = @_;
    $uuid =~ $UUID or die "not a UUID\n";
    cover('/proc/sys/kernel/random/boot_id', 0444, $uuid);
    renew_journal();
}

# The journal's daemon knows the old ids. PID 1 starts it again, and keeps its sockets meanwhile; the
# new one reads the kernel's messages from the beginning.
sub renew_journal {
    unlink "$root/run/systemd/journal/kernel-seqnum";
    my $processes = slurp('/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs') // return;
    my ($pid) = $processes =~ /^(\d+)$/m or return;
    pretended('kill', $pid) or kill 'TERM', $pid;
}

sub forget_old_journal {
    my $id = slurp('/etc/machine-id') // return;
    chomp $id;
    for my $folder (glob "$root/run/log/journal/*") {
        next if $folder =~ m{/\Q$id\E$};
        unlink glob "$folder/*";
        rmdir $folder;
    }
}

sub set_host_key {
    my ($key, $all) = @_;
    put('/etc/ssh/ssh_host_ed25519_key', 0600, $key);
    my $own = $all->{ssh_host_key_file} // return;
    $own =~ m{^/[\w./-]+$} && $own !~ m{/\.\.?(?:/|$)} or die "not a path: $own\n";
    put($own, 0600, $key, $own =~ m{^/home/dev/} ? ids() : ());
}

sub ids {
    my ($line) = grep { /^dev:/ } split /\n/, slurp('/etc/passwd') // '';
    my (undef, undef, $uid, $gid) = split /:/, $line // 'dev:x:1000:1000';
    return ($uid, $gid);
}

# Only where the host cannot map its user to 1000; costs a walk through the home folder.
sub set_ids {
    my ($uid, $key) = @_;
    my $gid = $key->{gid} // $uid;
    /^[1-9]\d{0,9}$/ or die "not an id: $_\n" for $uid, $gid;
    my ($old_uid, $old_gid) = ids();
    return if $uid == $old_uid && $gid == $old_gid;
    my $passwd = slurp('/etc/passwd');
    my $group  = slurp('/etc/group');
    $passwd =~ s/^(dev:[^:]*):\d+:\d+:/$1:$uid:$gid:/m or die "no user dev\n";
    $group  =~ s/^(dev:[^:]*):\d+:/$1:$gid:/m          or die "no group dev\n";
    put('/etc/passwd', 0644, $passwd);
    put('/etc/group',  0644, $group);
    put('/etc/security/pam_env-ssh.conf', 0644, runtime_directory($uid));
    if (!pretended('chown', $uid, $gid)) {
        finish('/usr/bin/chown', '-hR', "--from=$old_uid:$old_gid", "$uid:$gid", '/home/dev') == 0
            or die "chown failed\n";
    }
    # The old number's service manager, where a template has one, would serve nobody.
    if (-d "$root/run/user/$old_uid") {
        spawn('/bin/sh', '-c', "systemctl stop user\@$old_uid.service; systemctl start user\@$uid.service");
    }
}

sub runtime_directory {
    my ($uid) = @_;
    return "XDG_RUNTIME_DIR DEFAULT=/run/user/$uid\n"
        . "DBUS_SESSION_BUS_ADDRESS DEFAULT=unix:path=/run/user/$uid/bus\n";
}

sub set_authorized_keys {
    my ($keys) = @_;
    my @ids = ids();
    mkdir "$root/home/dev/.ssh", 0700 and chown @ids, "$root/home/dev/.ssh";
    put('/home/dev/.ssh/authorized_keys', 0600, $keys, @ids);
}

sub set_environment {
    my ($lines) = @_;
    my @pairs = grep { /^[A-Za-z_][A-Za-z0-9_]*=[^\0]*$/ } split /\n/, $lines;
    put('/etc/environment', 0644, join('', map { "$_\n" } @pairs));
    my @quoted = map { my $pair = $_; $pair =~ s/([\\"])/\\$1/g; $pair =~ s/%/%%/g; qq("$pair") } @pairs;
    mkdir "$root/etc/systemd/system.conf.d";
    put('/etc/systemd/system.conf.d/50-sandbox.conf', 0644, "[Manager]\nDefaultEnvironment=@quoted\n");
}

# The managers that run have read their configuration long ago.
sub announce_environment {
    my @pairs = grep { /=/ } split /\n/, slurp('/etc/environment') // '';
    return if !@pairs;
    my ($uid) = ids();
    for my $path ('/run/systemd/private', "/run/user/$uid/systemd/private") {
        eval { set_manager_environment("$root$path", @pairs); 1 } or warn "sandbox-agent: $path: $@"
            if -S "$root$path";
    }
}

# What `systemctl set-environment` does, by D-Bus on the manager's own socket: without its fork.
sub set_manager_environment {
    my ($path, @pairs) = @_;
    socket my $bus, 1, 1, 0 or die "socket: $!\n";
    connect $bus, pack('S a108', 1, $path) or die "$!\n";
    my $align = sub { my ($text, $to) = @_; return $text . "\0" x (-length($text) % $to) };
    my $body  = '';
    $body = $align->($body, 4) . pack 'L/a* x', $_ for @pairs;
    my $fields = '';
    for (
        [1, 'o', '/org/freedesktop/systemd1'], [2, 's', 'org.freedesktop.systemd1.Manager'],
        [3, 's', 'SetEnvironment'],
    ) {
        my ($code, $type, $text) = @$_;
        $fields = $align->($fields, 8) . pack 'C C/a* x L/a* x', $code, $type, $text;
    }
    $fields = $align->($fields, 8) . pack 'C C/a* x C/a* x', 8, 'g', 'as';
    my $array = pack 'L/a*', $body;
    my $head = pack 'a C3 L2 L/a*', 'l', 1, 0, 1, length $array, 1, $fields;
    my $hello = "\0AUTH EXTERNAL " . unpack('H*', $>) . "\r\nBEGIN\r\n";
    syswrite $bus, $hello . $align->($head, 8) . $array;
    # It is to hold when we say ready; signals of the manager may come first.
    my ($accepted, $answer) = (0, '');
    while (1) {
        $accepted ||= $answer =~ s/^OK [^\n]*\n//;
        while ($accepted && length $answer >= 16) {
            my ($type, $rest, $more) = unpack 'x C x2 L x4 L', $answer;
            my $length = 16 + $more + -$more % 8 + $rest;
            last if length $answer < $length;
            return                            if $type == 2;
            die substr($answer, 0, $length), "\n" if $type == 3;
            substr $answer, 0, $length, '';
        }
        vec(my $ready = '', fileno $bus, 1) = 1;
        select($ready, undef, undef, 3) > 0 or die "no answer\n";
        sysread $bus, $answer, 4096, length $answer or die "no answer: $answer\n";
    }
}

# --- packages -------------------------------------------------------------------------------------

sub set_supply {
    my ($key) = @_;
    set_certificates($key->{certificates}) if defined $key->{certificates};
    set_hosts($key->{hosts})               if defined $key->{hosts};
    set_mirrors($key->{apt_mirrors})       if defined $key->{apt_mirrors};
    set_file(substr($_, 5), $key->{$_}) for sort grep { /^file:/ } keys %$key;
}

# Without update-ca-certificates, which takes seconds; it finds them where it looks, if it is run.
sub set_certificates {
    my ($der) = @_;
    my ($all, $number) = ('', 0);
    while (length $der > 4) {
        my ($tag, $length) = unpack 'n2', $der;
        $tag == 0x3082 && $length + 4 <= length $der or die "not certificates\n";
        my $pem = "-----BEGIN CERTIFICATE-----\n"
            . encode_base64(substr $der, 0, $length + 4, '')
            . "-----END CERTIFICATE-----\n";
        set_file('/usr/local/share/ca-certificates/sandbox-' . ++$number . '.crt', $pem, 1);
        $all .= $pem;
    }
    set_file('/etc/ssl/sandbox.pem', $all, 1);
    my $bundle = '/etc/ssl/certs/ca-certificates.crt';
    my $known  = slurp($bundle) // return;
    return if index($known, $all) >= 0;
    open my $file, '>>', "$root$bundle" or die "$bundle: $!\n";
    (print {$file} $all) && close $file or die "$bundle: $!\n";
}

sub set_hosts {
    my ($lines) = @_;
    my @kept = grep { !/ # sandbox$/ } split /\n/, slurp('/etc/hosts') // '';
    put('/etc/hosts', 0644, join '', map { "$_\n" } @kept, map { "$_ # sandbox" } split /\n/, $lines);
}

# The list of our image only; whoever brings another one has thought about it.
sub set_mirrors {
    my ($lines) = @_;
    my $path = '/etc/apt/sources.list.d/debian.sources';
    my %url  = map { split / /, $_, 2 } split /\n/, $lines;
    my @list = split /\n\n+/, slurp($path) // return;
    return if $list[0] !~ $OURS;
    for my $archive (@list) {
        my $url = $url{$archive =~ /^Suites:.*-security/m ? 'debian-security' : 'debian'} // next;
        $archive =~ s/^URIs:.*/URIs: $url/m;
    }
    (my $text = join "\n\n", @list) =~ s/\n*\z/\n/;
    put($path, 0644, $text);
}

sub set_file {
    my ($path, $content, $always) = @_;
    $path =~ m{^/[\w./+-]+$} && $path !~ m{/\.\.?(?:/|$)} or die "not a path: $path\n";
    my $present = slurp($path);
    return if !$always && defined $present && $present !~ $OURS;
    my @owner  = $path =~ m{^/home/dev/} ? ids() : ();
    my @parts  = split m{/}, substr $path, 1;
    my $folder = $root;
    for my $part (@parts[0 .. $#parts - 1]) {
        $folder .= "/$part";
        # In dev's own folder a link would lead root elsewhere.
        return if @owner && -l $folder;
        mkdir $folder, 0755 and @owner and chown @owner, $folder;
    }
    put($path, 0644, $content, @owner);
}

# --- network --------------------------------------------------------------------------------------

sub interface {
    for my $name (sort glob '/sys/class/net/*') {
        my $type = slurp("$name/type") // '';
        return substr $name, 15 if $type eq "1\n";
    }
    return undef;
}

sub sockaddr { return pack 'S n a4 x8', 2, 0, join '', map { chr } split /\./, $_[0] }

# Up, which takes its driver a while, and silent: without an address, and without IPv6, which would
# ask for neighbours and routers that are not there. A template's QEMU has nobody to give a frame to.
sub raise_card {
    my $name = interface();
    if (!defined $name) {
        finish('/sbin/modprobe', '-q', 'virtio_net');
        $name = interface() // return;
    }
    if (open my $file, '>', "/proc/sys/net/ipv6/conf/$name/disable_ipv6") {
        print {$file} "1\n";
    }
    socket my $socket, 2, 2, 0 or die "socket: $!\n";
    my $request = sub {
        my ($what, $value) = @_;
        ioctl $socket, $what, my $ifreq = pack 'a16 a24', $name, $value or die "$name: $!\n";
        return $ifreq;
    };
    my (undef, $flags) = unpack 'a16 S', $request->($SIOCGIFFLAGS, '');
    $request->($SIOCSIFFLAGS, pack 'S', $flags | 1) if !($flags & 1);
    return ($request, $socket);
}

# By ioctl: networkd would bring up the same address a second later.
sub set_network {
    my ($router, $dns) = @_;
    /^(?:\d{1,3}(?:\.\d{1,3}){3})?$/ or die "not an address: $_\n" for $router, $dns;
    unlink "$root/etc/resolv.conf" if -l "$root/etc/resolv.conf";
    put('/etc/resolv.conf', 0644, $dns eq '' ? "# no name server\n" : "nameserver $dns\n");
    return if $ENV{SANDBOX_AGENT_NETWORK} && $ENV{SANDBOX_AGENT_NETWORK} eq 'no';
    return if pretended('network', "router=$router");
    my ($request, $socket) = raise_card() or return;
    $request->($SIOCSIFADDR, sockaddr('10.0.2.15'));
    $request->($SIOCSIFNETMASK, sockaddr('255.255.255.0'));
    return if $router eq '';
    my $any = sockaddr('0.0.0.0');
    my $route = pack 'x8 a16 a16 a16 S x6 x16 S x6 x24 S x6', $any, sockaddr($router), $any, 3, 0, 0;
    ioctl $socket, $SIOCADDRT, $route or $!{EEXIST} or die "route: $!\n";
}

# --- template -------------------------------------------------------------------------------------

# Programs, so that a restored guest need not read them from its disk when somebody logs in.
my @LOGIN = (
    '/usr/sbin/sshd', '/usr/lib/openssh/sshd-*', '/usr/lib/openssh/sftp-server', '/bin/bash',
    '/usr/bin/true', '/usr/bin/sudo', '/usr/bin/systemctl', '/usr/lib/systemd/systemd-journald',
    '/usr/lib/*/security/pam_*.so', '/usr/lib/*/libnss_*.so*',
);

# Forks as it likes: no user waits for it.
sub rest {
    return if pretended('rest');
    local $SIG{CHLD} = 'DEFAULT';
    my $limit = time + 120;
    select undef, undef, undef, 0.2 while pending() && time < $limit;
    finish('/usr/bin/udevadm', 'settle', '--timeout=30');
    my @programs = map { glob } @LOGIN;
    my %files    = map { $_ => 1 } @programs, `ldd @programs 2>/dev/null` =~ m{(/\S+) \(0x}g;
    finish('/bin/sh', '-c', 'cat -- "$@" >/dev/null 2>&1', 'sh', sort keys %files);
    finish('/usr/sbin/runuser', '-l', 'dev', '-c', 'true');
    raise_card();
    syscall number('sync');
    select undef, undef, undef, 0.1 while busy() && time < $limit;
}

# Whether PID 1 has work other than waiting for us; what waits does so for us.
sub pending {
    return grep { / running\s*$/ && !/ sandbox-agent\.service / } `systemctl list-jobs --no-legend --plain`;
}

# Whether the processors have much to do, over half a second.
sub busy {
    my $times = sub { my (undef, @times) = split ' ', slurp('/proc/stat'); return @times };
    my @before = $times->();
    select undef, undef, undef, 0.5;
    my @after = $times->();
    my @spent = map { $after[$_] - $before[$_] } 0 .. 7;
    my $all   = 0;
    $all += $_ for @spent;
    return $spent[3] < 0.9 * $all;
}

# --- workspace ------------------------------------------------------------------------------------

sub mounted {
    my ($target) = @_;
    return 0 if $root ne '';
    return index(slurp('/proc/self/mountinfo') // '', " $target ") >= 0;
}

sub mount_share {
    my ($source, $target, $options) = @_;
    my $type = '9p';
    return if pretended('mount', $source, $options) || mounted($target);
    # The device of the share may still be on its way: its driver is loaded by another process.
    for my $attempt (1 .. 100) {
        return if syscall(number('mount'), $source, $target, $type, $MS_NOSUID | $MS_NODEV, $options) == 0;
        die "mount: $!\n" if !$!{ENOENT} || !-d $target || $attempt == 100;
        select undef, undef, undef, 0.02;
    }
}

sub mount_workspace { mount_share('workspace', $WORKSPACE, $_[0]) }

# Bound, not linked: a program that replaces its own folder would replace a link.
sub mount_persist {
    my ($options, @folders) = split /\n/, $_[0];
    my @owner = ids();
    mkdirs($PERSIST);
    mount_share('persist', $PERSIST, $options);
    for my $name (@folders) {
        my ($source, $target) = ("$PERSIST/$name", "$HOME/$name");
        mkdirs($source, @owner);
        mkdirs($target, @owner);
        next if pretended('bind', $name) || mounted($target);
        my ($type, $nothing) = ('', '');
        syscall(number('mount'), $source, $target, $type, $MS_BIND, $nothing) == 0
            or warn "sandbox-agent: persist: $name: $!\n";
    }
}

sub mkdirs {
    my ($path, @owner) = @_;
    my $folder = $root;
    for my $part (split m{/}, substr $path, 1) {
        $folder .= "/$part";
        mkdir $folder, 0755 and @owner and $> == 0 and chown @owner, $folder;
    }
    -d $folder or die "$path: not a folder\n";
}

# Written back and gone, so that nothing is lost when QEMU ends; who has files open keeps them.
sub unmount_persist {
    return if $root ne '' || !mounted($PERSIST);
    if (sysopen my $folder, $PERSIST, O_RDONLY) {
        syscall number('syncfs'), fileno $folder;
    }
    for my $line (reverse split /\n/, slurp('/proc/self/mountinfo') // '') {
        my ($target, $source) = (split / /, $line)[4, -2];
        syscall(number('umount'), $target, $MNT_DETACH) if $source eq 'persist';
    }
}

sub unmount_workspace {
    unmount_persist();
    return 'absent' if pretended('unmount') || !mounted($WORKSPACE);
    my $target = $WORKSPACE;
    syscall number('sync');
    return 'clean' if syscall(number('umount'), $target, 0) == 0;
    return 'absent' if $!{EINVAL};
    die "umount: $!\n" if !$!{EBUSY};
    if (sysopen my $folder, $WORKSPACE, O_RDONLY) {
        syscall number('syncfs'), fileno $folder;
    }
    syscall(number('umount'), $target, $MNT_DETACH) == 0 or die "umount: $!\n";
    return 'detached';
}

# --- console --------------------------------------------------------------------------------------

# A serial line has no size of its own; the kernel keeps one for programs that ask.
sub set_size {
    my ($columns, $rows) = $_[0] =~ /^([1-9]\d{0,4}) ([1-9]\d{0,4})$/ or die "not a size\n";
    $_ < 65536 or die "not a size\n" for $columns, $rows;
    return if pretended('winsize', $columns, $rows);
    my ($name) = (slurp('/sys/class/tty/console/active') // '') =~ /(\w+)\s*$/ or die "no console\n";
    sysopen my $tty, "/dev/$name", O_RDWR | O_NOCTTY | O_NONBLOCK or die "$name: $!\n";
    ioctl $tty, $TIOCSWINSZ, pack 'S4', $rows, $columns, 0, 0 or die "$name: $!\n";
}

# --- the port -------------------------------------------------------------------------------------

sub find_port {
    return $ENV{SANDBOX_AGENT_PORT} if defined $ENV{SANDBOX_AGENT_PORT};
    # Not /dev/virtio-ports: that link is udev's, and udev is slower than we are.
    for my $entry (glob '/sys/class/virtio-ports/*') {
        return '/dev/' . substr $entry, 24 if (slurp("$entry/name") // '') eq "sandbox.agent\n";
    }
    return undef;
}

sub open_port {
    my $path = find_port() // return;
    sysopen $port, $path, O_RDWR | O_NONBLOCK or ($port = undef, return);
    fcntl $port, F_SETOWN, $$ + 0;    # as it is, it would go as a pointer
    fcntl $port, F_SETFL, O_RDWR | O_NONBLOCK | O_ASYNC;
    $connected = 1;
    say_line('*', 'hello', encoded(status()));
}

# Never waits for a host that is not there, and not long for one that does not read.
sub say_line {
    return if !$port;
    my $line = join(' ', @_) . "\n";
    for (1 .. 20) {
        my $written = syswrite $port, $line;
        if (defined $written) {
            $line = substr $line, $written;
            return if $line eq '';
        } elsif (!$!{EAGAIN} && !$!{EINTR}) {
            return;
        }
        return if !$connected;
        vec(my $ready = '', fileno $port, 1) = 1;
        select undef, $ready, undef, 0.05;
    }
}

sub encoded { return encode_base64($_[0], '') }

sub status {
    return "version=$VERSION\nstate=$state\nmessage=$message\nuptime=" . uptime() . "\n";
}

sub notify {
    my ($text) = @_;
    my $path = delete $ENV{NOTIFY_SOCKET} // return;
    $path =~ s/^@/\0/;
    socket my $socket, 1, 2, 0 or return;
    send $socket, $text, 0, pack 'S a*', 1, $path;
}

# A line that would be 3 MB of one message helps nobody.
sub oneline { my ($text) = @_; $text =~ s/\s+/ /g; $text =~ s/ $//; return substr $text, 0, 2000 }

sub identify {
    my ($document) = @_;
    my $spent = eval { apply($document) };
    if (defined $spent) {
        ($state, $message) = ('ready', '');
        return $spent;
    }
    ($state, $message) = ('failed', oneline($@));
    return undef;
}

my %VERBS = (
    ping     => sub { return '' },
    status   => sub { return status() },
    time     => sub { set_time($_[0]); return '' },
    rest     => sub { rest(); return '' },
    proceed  => sub { return '' },
    unmount  => sub { return unmount_workspace() },
    winsize  => sub { set_size($_[0]); return '' },
    poweroff => sub { return '' },
    identity => sub { return identify($_[0]) // die "$message\n" },
);

# What may take its time: done when the answer is out.
my %AFTERWARDS = (
    identity => \&forget_old_journal,
    proceed  => \&proceed,
    poweroff => sub { pretended('poweroff') or kill $SIGPOWEROFF, 1 },
);

sub handle {
    my ($line) = @_;
    my ($id, $verb, $argument, $rest) = split / /, $line, 4;
    if (!defined $id || $id !~ /^[A-Za-z0-9._-]{1,64}$/) {
        return say_line('?', 'error', encoded('not a line of sandbox-agent/1'));
    }
    my $action = defined $verb && !defined $rest ? $VERBS{$verb} : undef;
    if (!$action) {
        return say_line($id, 'error', encoded('unknown verb'));
    }
    $argument //= '';
    if ($argument !~ m{^[A-Za-z0-9+/]*={0,2}$} || length($argument) % 4) {
        return say_line($id, 'error', encoded('the argument is not base64'));
    }
    my $answer = eval { $action->(decode_base64($argument)) };
    if (!defined $answer) {
        return say_line($id, 'error', encoded(oneline($@)));
    }
    say_line($id, 'ok', $answer eq '' ? () : encoded($answer));
    $AFTERWARDS{$verb}->() if $AFTERWARDS{$verb};
}

# Takes what is there; false where no host is connected.
sub receive {
    my $count = sysread $port, my $bytes, 65536;
    if (!defined $count) {
        return 1 if $!{EAGAIN} || $!{EINTR};
        return 0;
    }
    if ($count == 0) {
        ($input, $skipping) = ('', 0);    # half a line of a host that went away
        return 0;
    }
    # What a new host says may come before the news that there is one; it is to get its answer.
    $connected = 1;
    $input .= $bytes;
    while ((my $end = index $input, "\n") >= 0) {
        my $line = substr $input, 0, $end + 1, '';
        chomp $line;
        $line =~ s/\r$//;
        if ($skipping || $end > $LINE_MAX) {
            $skipping = 0;
            say_line('?', 'error', encoded('the line is too long'));
        } elsif ($line ne '') {
            handle($line);
        }
    }
    if (length $input > $LINE_MAX) {
        ($input, $skipping) = ('', 1);
    }
    return 1;
}

sub serve {
    while (1) {
        if (!$port) {
            open_port() or select undef, undef, undef, 1;
            next;
        }
        vec(my $readable = '', fileno $wake, 1) = 1;
        vec($readable, fileno $port, 1) = 1 if $connected;
        my $pause = $connected ? 60 : 1;
        if (defined $begin) {
            my $left = $begin - clock();
            $left > 0 or proceed(), next;
            $pause = $left if $left < $pause;
        }
        my $count = select $readable, undef, undef, $pause;
        sysread $wake, my $drained, 4096 if $count > 0 && vec $readable, fileno $wake, 1;
        $connected = receive();
    }
}

$SIG{PIPE} = 'IGNORE';
$SIG{CHLD} = 'IGNORE';
# The port is readable for ever while no host is connected; SIGIO tells when one comes.
pipe $wake, my $waker or die "pipe: $!\n";
fcntl $waker, F_SETFL, O_WRONLY | O_NONBLOCK;
$SIG{IO} = sub { syswrite $waker, '!' };
open_port();
my $document = slurp('/run/credentials/@system/sandbox.identity');
if (defined $document) {
    if (defined identify($document)) {
        say_line('*', 'ready');
    } else {
        say_line('*', 'failed', encoded($message));
    }
}
serve();
