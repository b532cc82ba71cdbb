#!/usr/bin/env bash
# Install what the project needs: Debian packages, and .venv from requirements/dev.lock and
# requirements/guests.lock, whose one package is built here, since it comes as source alone.
#
# Idempotent: when nothing is missing it only looks, and starts no Python. Any number may run
# at once; the first works, the others wait. A virtual environment whose setup was killed has
# no stamp and is made anew. What apt and pip said is kept in .cache/setup.log.
set -euo pipefail
shopt -s extglob

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

readonly lock_file=requirements/dev.lock
readonly source_lock=requirements/guests.lock
readonly venv=.venv
readonly stamp=$venv/.setup-stamp
readonly log=.cache/setup.log

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# -- Debian packages -----------------------------------------------------------------------

# what shows that it is there (a program, a path pattern, or a program that needs no library),
# and the package that brings it
readonly needed='
tgtd                            tgt
tgtadm                          tgt
qemu-img                        qemu-utils
qemu-io                         qemu-utils
/usr/lib*/*/qemu/block-iscsi.so|/usr/lib*/qemu/block-iscsi.so|/usr/lib*/qemu-kvm/block-iscsi.so qemu-block-extra
iscsi-inq                       libiscsi-bin
mkfs.xfs                        xfsprogs
mkfs.btrfs                      btrfs-progs
nft                             nftables
ip                              iproute2
qemu-system-x86_64              qemu-system-x86
/lib/modules/*/kernel/drivers/target/iscsi/iscsi_target_mod.ko* linux-image-amd64
/boot/vmlinuz-*                 linux-image-amd64
static:busybox                  busybox-static
iscsid                          open-iscsi
iscsiadm                        open-iscsi
multipathd                      multipath-tools
lvm                             lvm2
thin_check                      thin-provisioning-tools
/lib/systemd/systemd-udevd|/usr/lib/systemd/systemd-udevd udev
udevadm                         udev
modprobe                        kmod
losetup                         mount
unshare                         util-linux
nsenter                         util-linux
flock                           util-linux
libvirtd                        libvirt-daemon
/usr/lib*/*/libvirt/connection-driver/libvirt_driver_qemu.so|/usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so libvirt-daemon-driver-qemu
/usr/include/libvirt/libvirt.h  libvirt-dev
pkg-config                      pkg-config
gcc                             gcc
/usr/include/stdio.h|/usr/include/*/stdio.h libc6-dev
/usr/include/python3*/Python.h  python3-dev
python3                         python3
'

is_there() {
    local pattern program
    case $1 in
        static:*) program=$(command -v "${1#static:}") && ! head -c4096 "$program" | grep -qa /ld-linux ;;
        /*) for pattern in ${1//|/ }; do compgen -G "$pattern" >/dev/null && return 0; done; return 1 ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing_packages() {
    local sign package found=' '
    while read -r sign package; do
        [[ -z $sign || $found == *" $package "* ]] && continue
        is_there "$sign" || found+="$package "
    done <<<"$needed"
    # python3 without ensurepip cannot make a virtual environment; asked only when one is due.
    if [[ ! -e $stamp ]] && ! find_python >/dev/null; then
        [[ $found == *' python3 '* ]] || found+='python3 '
        found+='python3-venv '
    fi
    echo $found
}

# Packages that start daemons, and what systemd calls them.
readonly daemons='
tgt             tgt.service
open-iscsi      iscsid.socket iscsid.service open-iscsi.service
multipath-tools multipathd.socket multipathd.service multipath-tools.service multipath-tools-boot.service
libvirt-daemon  libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service virtlogd.socket virtlogd.service virtlockd.socket virtlockd.service
lvm2            lvm2-lvmpolld.socket lvm2-lvmpolld.service lvm2-monitor.service blk-availability.service dm-event.socket dm-event.service
'

# Tell systemd something about the daemons of packages; where there is none, tell nobody.
for_daemons_of() {
    local packages=$1 package units
    shift
    [[ -d /run/systemd/system ]] || return 0
    while read -r package units; do
        [[ -z $package || " $packages " != *" $package "* ]] ||
            systemctl --quiet "$@" $units >>"$log" 2>&1 || true
    done <<<"$daemons"
}

install_packages() {
    local packages=$1 status=0
    local by_hand="apt-get install --no-install-recommends $packages"
    command -v apt-get >/dev/null ||
        fail "missing: $packages (Debian's names); there is no apt-get here, so install them as your system does"
    [[ $(id -u) == 0 ]] ||
        fail "missing: $packages; only root can install them: sudo $by_hand"
    say "installing $packages"
    # Debian starts a daemon as it installs it. Ours are started by those who need them, so keep
    # the new ones down: RUNLEVEL=1 is heeded by invoke-rc.d(8), the mask by systemd.
    for_daemons_of "$packages" mask --runtime
    apt_install "$packages" || status=$?
    for_daemons_of "$packages" unmask --runtime
    for_daemons_of "$packages" disable
    [[ $status == 0 ]] ||
        fail "apt-get could not install $packages: $(first_error); is there a network? (all it said: $log)"
    packages=$(missing_packages)
    [[ -z $packages ]] || fail "installed, and yet missing: $packages (all that apt-get said: $log)"
}

apt_install() {
    local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=600 -o Acquire::Retries=2)
    if compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null &&
        quietly_apt install "${options[@]}" $1; then
        return 0
    fi
    # Lists absent or too old. A third party's list that fails to load is no reason to stop.
    quietly_apt update -q -o Acquire::Retries=2 || true
    quietly_apt install "${options[@]}" $1
}

quietly_apt() {
    # The lab boots the kernel with an initramfs of its own. Where nothing boots from /boot, as in
    # a container, Debian's would be a minute's work for nobody.
    [[ -e /boot/grub || -e /boot/efi ]] || export INITRD=No
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get "$@" </dev/null >>"$log" 2>&1
}

first_error() {
    local line
    line=$(grep -a -m1 -oP "connection broken by '\K.*(?=': /)" "$log" ||
        grep -a -m1 -E '^E: ' "$log" || grep -a -m1 -E '^(ERROR|error): ' "$log" || tail -n1 "$log")
    line=${line##*object at 0x+([0-9a-f])>: }
    line=${line%"')"}
    printf '%s' "${line:0:200}"
}

# -- the virtual environment ---------------------------------------------------------------

find_python() {
    local python
    # Debian's own first: its bindings (libvirt, rtslib) exist for that one only.
    for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            command -v "$python"
            return 0
        fi
    done
    return 1
}

wanted_stamp() {
    # of pyproject.toml only what the installation follows from: build backend, name, scripts
    { cat "$lock_file" "$source_lock" && sed -n '/^\[build-system/,/^\[tool/p' pyproject.toml; } |
        sha256sum | cut -d' ' -f1
    printf '%s\n' "$root"
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" </dev/null >>"$log" 2>&1
}

make_venv() {
    local python began=$SECONDS
    if [[ -e $stamp && $(tail -n1 "$stamp") == "$root" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
        say "bringing $venv up to the lock"
        rm -f "$stamp" # from here until the end the environment is not whole
    else
        python=$(find_python) || fail 'no Python 3.11 or newer with venv (Debian: python3 python3-venv)'
        say "making $venv with $python"
        rm -rf "$venv"
        "$python" -m venv "$venv" >>"$log" 2>&1 || fail "$python -m venv failed: $(first_error) (see $log)"
    fi
    pip install --no-deps --only-binary :all: --require-hashes -r "$lock_file" ||
        fail "pip could not install $lock_file: $(first_error); is there a network? (all it said: $log)"
    drop_unlocked
    pip install --no-deps --no-build-isolation --no-binary :all: --require-hashes -r "$source_lock" ||
        fail "pip could not build $source_lock: $(first_error) (all it said: $log)"
    pip install --no-deps --no-build-isolation --no-index --editable . ||
        fail "pip could not install the project itself: $(first_error) (see $log)"
    wanted_stamp >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "$venv is ready ($((SECONDS - began)) s)"
}

# Uninstall what an older lock brought and this one does not name.
drop_unlocked() {
    local stale
    stale=$(comm -23 \
        <("$venv/bin/python" -m pip --disable-pip-version-check list --format=freeze --exclude-editable 2>/dev/null |
            cut -d= -f1 | tr 'A-Z_.' 'a-z--' | grep -vxE 'pip|setuptools|lunport' | sort -u) \
        <(grep -ohE '^[a-z0-9-]+==' "$lock_file" "$source_lock" | tr -d = | sort -u))
    [[ -z $stale ]] || pip uninstall -y $stale || true
}

is_current() { [[ -e $stamp && $(wanted_stamp) == "$(<"$stamp")" && -x $venv/bin/python ]]; }

# -- both ----------------------------------------------------------------------------------

is_done() { [[ -z $(missing_packages) ]] && is_current; }

if is_done; then
    exit 0
fi
mkdir -p .cache
if command -v flock >/dev/null; then
    exec 9>.cache/setup.lock
    flock --nonblock 9 || { say 'another setup is at work here; waiting'; flock --timeout 1800 9 || fail 'the other setup takes too long'; }
fi
is_done && exit 0
: >"$log"
packages=$(missing_packages)
[[ -z $packages ]] || install_packages "$packages"
is_current || make_venv
