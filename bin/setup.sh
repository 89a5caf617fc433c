# shellcheck shell=sh disable=SC2154 # root
# Functions of bin/sandbox and bin/test: Debian packages, a virtual environment. POSIX sh.
#
# Expects `root`, the checkout. Says what it does on stderr, so that stdout belongs to the command.
# May be interrupted anywhere and run again; two at once wait for each other.

UNFIT=10 # as `sandbox` itself exits where the host lacks something

say() { printf 'sandbox: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit "$UNFIT"
}

# No address of a mirror or a registry appears on the screen or in a CI log.
anonymous() { sed 's,[a-z+]*://[^[:space:]]*,(address),g'; }

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

any_exists() {
    for path; do
        [ ! -e "$path" ] || return 0
    done
    return 1
}

# --- home ---------------------------------------------------------------------------------------

# A folder of this user's own where HOME is unset, empty or not there.
find_home() {
    [ -z "${HOME:-}" ] || [ ! -d "$HOME" ] || return 0
    user=$(id -u)
    HOME=$(getent passwd "$user" | cut -d: -f6)
    if [ -z "$HOME" ] || [ ! -d "$HOME" ] || [ ! -w "$HOME" ]; then
        HOME=/var/tmp/sandbox-$user
        mkdir -m 700 "$HOME" 2>/dev/null || :
        # /var/tmp is everybody's: somebody else may have made it first.
        if [ -L "$HOME" ] || [ "$(stat -c %u:%a "$HOME")" != "$user:700" ]; then
            die "there is no home folder, and $HOME is not safe to use; set HOME"
        fi
        say "there is no home folder; using $HOME"
    fi
    export HOME
}

# --- packages -----------------------------------------------------------------------------------

# Prints the Debian packages that running sandboxes lacks on this machine.
missing_packages() {
    case $(uname -m) in
        aarch64 | arm64) arch=aarch64 qemu=qemu-system-arm ;;
        *) arch=x86_64 qemu=qemu-system-x86 ;;
    esac
    has "qemu-system-$arch" || has qemu-kvm || [ -x /usr/libexec/qemu-kvm ] || echo "$qemu"
    has qemu-img || echo qemu-utils
    has bwrap || echo bubblewrap
    has mmdebstrap || echo mmdebstrap
    has mke2fs || echo e2fsprogs
    { has ssh && has ssh-keygen; } || echo openssh-client
    has newuidmap || echo uidmap
    { has unshare && has setpriv && has flock; } || echo util-linux
    any_exists /usr/lib*/libseccomp.so.2 /usr/lib/*/libseccomp.so.2 || echo libseccomp2
    any_exists /usr/lib*/libslirp.so.0 /usr/lib/*/libslirp.so.0 || echo libslirp0
    any_exists /usr/share/keyrings/debian-archive-keyring.* || echo debian-archive-keyring
    find_python
    case $python in
        '') echo python3 python3-venv ;;
        *:no-venv) echo python3-venv ;;
    esac
}

# Sets `python` to one of 3.11 or newer that can make virtual environments; where there is only one
# without that, to its path and ":no-venv"; else to nothing.
find_python() {
    python=
    for candidate in python3 /usr/bin/python3 python3.11 python3.12 python3.13 python3.14; do
        found=$("$candidate" -c '
import sys
assert sys.version_info >= (3, 11)
try:
    import ensurepip, venv
except ImportError:
    print(sys.executable + ":no-venv")
else:
    print(sys.executable)' 2>/dev/null) || continue
        case $found in
            # Only the system Python gets it from python3-venv.
            /usr/bin/python3*:no-venv) python=$found ;;
            *:no-venv) ;;
            *)
                python=$found
                return
                ;;
        esac
    done
}

# Installs Debian packages, named by the arguments.
install_packages() {
    [ $# -gt 0 ] || return 0
    if ! has apt-get; then
        say "these programs are missing; Debian calls their packages:"
        say "    $*"
        say "Fedora: qemu-system-x86-core qemu-img bubblewrap mmdebstrap debian-keyring e2fsprogs"
        say "    openssh-clients shadow-utils util-linux libseccomp libslirp python3"
        say "Arch: qemu-system-x86 qemu-img bubblewrap mmdebstrap debian-archive-keyring e2fsprogs"
        say "    openssh shadow util-linux libseccomp libslirp python"
        die "install them with this system's package manager and run this again"
    fi
    as_root=
    command="apt-get install --no-install-recommends $*"
    if [ "$(id -u)" != 0 ]; then
        has sudo || die "to be installed by root: $command"
        as_root=sudo
        if [ -n "${CI:-}" ] || [ ! -t 0 ] || [ ! -t 2 ]; then
            as_root='sudo -n'
            sudo -n true 2>/dev/null ||
                die "sudo wants a password and nobody is there to type it; run: sudo $command"
        else
            say "sudo may ask for your password"
            sudo -v || die "to be installed by root: $command"
        fi
    fi
    say "installing Debian packages: $*"
    log=$(mktemp)
    known=1
    for package; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || known=
    done
    [ -n "$known" ] || apt_update
    if ! apt_get -y --no-install-recommends install "$@"; then
        # Old indexes, or a dpkg that was interrupted: both are set right and it is tried once more.
        say "once more, with fresh package lists"
        # shellcheck disable=SC2086
        $as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >>"$log" 2>&1 || :
        apt_update
        if ! apt_get -y --no-install-recommends install "$@"; then
            tail -n 20 "$log" | anonymous >&2
            rm -f "$log"
            die "that failed: $command"
        fi
    fi
    rm -f "$log"
}

apt_update() {
    say "fetching package lists"
    apt_get update || say "not all of them could be fetched"
}

# apt-get with its progress on the screen and its words in "$log".
apt_get() {
    # Progress shares stdout with the words, since sudo closes every other descriptor.
    # shellcheck disable=SC2086
    {
        $as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C \
            ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
            apt-get -qq -o APT::Status-Fd=1 -o DPkg::Lock::Timeout=300 -o DPkg::Use-Pty=0 "$@" \
            </dev/null 2>&1 || echo "exit:$?"
    } | {
        failed=0 step='' shown=''
        while IFS= read -r line; do
            rest=${line#*:*:}
            case $line in
                dlstatus:*) step='downloading packages' ;;
                pmstatus:*) step='unpacking and setting up packages' ;;
                exit:*) failed=1 ;;
                *)
                    printf '%s\n' "$line" >>"$log"
                    continue
                    ;;
            esac
            if [ -t 2 ]; then
                printf '\r\033[K%s' "sandbox: $step, ${rest%%[.:]*}%" >&2
            elif [ "$step" != "$shown" ]; then
                shown=$step
                say "$step"
            fi
        done
        [ ! -t 2 ] || printf '\r\033[K' >&2
        return "$failed"
    }
}

# --- virtual environment ------------------------------------------------------------------------

# What `bin/sandbox` needs.
set_up_run() { set_up stamp .; }

# What the tests need besides: programs, and the extra [test].
set_up_test() {
    # shellcheck disable=SC2046
    set_up stamp-test '.[test]' $(
        has chromium || echo chromium
        { has g++ && has make; } || echo g++ make
        has docker-registry || echo docker-registry
        has git || echo git
        has jq || echo jq
        has nvim || echo neovim
        has openssl || echo openssl
        has podman || container_packages
        has ss || echo iproute2
        has shellcheck || echo shellcheck
        has socat || echo socat
    )
}

# Prints what one test of a proxy in a container needs, where this system has all of it.
container_packages() {
    for package in podman runc netavark aardvark-dns iptables; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || return 0
    done
    echo podman runc netavark aardvark-dns iptables
}

# Makes .venv ready and writes the stamp $1; $2 is what pip installs, the rest are packages.
set_up() {
    stamp_name=$1 project=$2
    shift 2
    # shellcheck disable=SC2046
    install_packages $(missing_packages) "$@"
    [ -w "$root" ] || die "cannot write to $root, where the virtual environment belongs"
    # The folder itself is the lock: nothing to leave behind, nothing to clean up.
    exec 9<"$root"
    if ! flock -n 9; then
        say "waiting for another setup of this checkout"
        flock 9
    fi
    if [ ! -e "$root/.venv/$stamp_name" ] ||
        [ "$(cat "$root/.venv/$stamp_name")" != "$(venv_key)" ]; then
        make_venv
    fi
    exec 9<&-
}

# The same as `key` in bin/sandbox.
venv_key() {
    cat "$root/pyproject.toml" "$root/bin/setup.sh" | sha256sum
    readlink -f "$root/.venv/bin/python3" || :
    printf '%s' "$root"
}

make_venv() {
    venv=$root/.venv
    find_python
    case $python in '' | *:no-venv) die "no Python 3.11 or newer with the module venv was found" ;; esac
    # The mark stands from before the first file to after the last one: half a venv has it.
    if [ -e "$venv/unfinished" ] || ! "$venv/bin/python3" -m pip --version >/dev/null 2>&1 ||
        [ "$(cat "$venv/place" 2>/dev/null || echo "$root")" != "$root" ]; then
        say "making a virtual environment in .venv"
        rm -rf "$venv"
        mkdir "$venv"
        : >"$venv/unfinished"
        "$python" -m venv "$venv" >&2 || die "$python cannot make a virtual environment"
    fi
    : >"$venv/unfinished"
    rm -f "$venv/stamp" "$venv/stamp-test"
    printf '%s' "$root" >"$venv/place"
    say "installing Python packages"
    log=$(mktemp)
    # PIP_USER is a setting that some systems have and no virtual environment can obey.
    if ! (cd "$root" && PIP_USER=0 "$venv/bin/python3" -m pip install --quiet \
        --disable-pip-version-check --no-input --editable "$project") </dev/null >"$log" 2>&1; then
        tail -n 30 "$log" | anonymous >&2
        rm -f "$log"
        die "pip could not install what pyproject.toml names"
    fi
    rm -f "$log"
    venv_key >"$venv/stamp.new"
    [ "$stamp_name" = stamp ] || cp "$venv/stamp.new" "$venv/$stamp_name"
    rm -f "$venv/unfinished"
    mv "$venv/stamp.new" "$venv/stamp"
}
