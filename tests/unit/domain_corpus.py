"""Definitions of guests as people, programs and libvirt write them, for tests of what is changed.

Each has a disk of serial ``SERIAL`` where ``{disk}`` stands, and round it what a careless change
would touch: disks that are none, in metadata, comments and CDATA; namespaces; odd quoting.
"""

from __future__ import annotations

from pathlib import Path

RECORDED = Path(__file__).parents[1] / "recorded" / "libvirt" / "9.0.0"
SERIAL = "58a84f6d-3f0c-4e19-a0af-eb657b790657"

PLAIN = """<domain type='kvm'>
  <name>plain</name>
  <uuid>d0000000-0000-4000-8000-000000000001</uuid>
  <memory unit='KiB'>262144</memory>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disk}
  </devices>
</domain>
"""

# As a compute service writes it: metadata of its own, several disks, graphics, a console.
CLOUD = """<domain type='kvm' id='7'>
  <name>instance-0000002a</name>
  <uuid>d0000000-0000-4000-8000-00000000002a</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>web &amp; "db" &lt;1&gt;</nova:name>
      <nova:flavor name="m1.small"><nova:disk>0</nova:disk></nova:flavor>
      <disk type='file'><serial>58a84f6d-3f0c-4e19-a0af-eb657b790657</serial></disk>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/>
      <readonly/>
      <address type='drive' controller='0' bus='0' target='0' unit='0'/>
    </disk>
    {disk}
    <graphics type='vnc' port='5900' autoport='yes' listen='10.0.0.1'>
      <listen type='address' address='10.0.0.1'/>
    </graphics>
    <graphics type='spice' port='5901' autoport='yes' listen='10.0.0.1'>
      <listen type='address' address='10.0.0.1'/>
    </graphics>
    <video><model type='virtio' heads='1' primary='yes'/></video>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'/>
</domain>
"""

# As a person writes it: comments, CDATA, both quotes, tabs, a byte beyond ASCII, odd line ends.
HAND = """<?xml version="1.0"?>
<!-- <disk type='block'><serial>58a84f6d-3f0c-4e19-a0af-eb657b790657</serial></disk> -->
<domain   type = "qemu"
   xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0" >
  <name>Grüße\tdaheim</name>
  <description><![CDATA[ <disk><source dev="/dev/x"/></disk> ]]> &#x263A; 大</description>
  <?keep this <as> it is?>
  <devices><!-- left of it -->{disk}<!-- right of it -->
    <disk type='block' device='lun'><source/><target dev='vdz' bus='virtio'/></disk>
    <graphics type='spice'><listen type='socket' socket='/run/spice.sock'/></graphics>
    <graphics type="vnc"/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-drive'/>
    <qemu:arg value="file=/dev/y,serial=58a84f6d-3f0c-4e19-a0af-eb657b790657,if=none"/>
  </qemu:commandline>
</domain>
<!-- the end -->
"""

BLOCK_DISK = """<disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
      <source dev='/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2026-11.lab:a-lun-1' index='1'/>
      <backingStore/>
      <target dev='vdb' bus='virtio'/>
      <serial>58a84f6d-3f0c-4e19-a0af-eb657b790657</serial>
      <alias name='ua-58a84f6d-3f0c-4e19-a0af-eb657b790657'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x04' function='0x0'/>
    </disk>"""

NETWORK_DISK = """<disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='iscsi' name='iqn.2026-11.lab:a/1' index='1'>
        <host name='192.0.2.1' port='3260'/>
        <auth username='user-a'>
          <secret type='iscsi' uuid='5ec00000-0000-4000-8000-00000000000a'/>
        </auth>
        <initiator>
          <iqn name='iqn.2026-11.lab:init-a'/>
        </initiator>
      </source>
      <target dev='vdb' bus='virtio'/>
      <serial>58a84f6d-3f0c-4e19-a0af-eb657b790657</serial>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x04' function='0x0'/>
    </disk>"""

# Credentials beside the source, a driver with parts of the virtual device and a child, no blanks.
ODD_DISK = (
    '<disk device="disk" type="network"><driver queues="4" name=\'qemu\' iothread="2" type="raw">'
    "<iothreads/></driver><auth username='u'><secret type='iscsi' uuid='x'/></auth>"
    "<source protocol='iscsi' name='iqn.2026-11.lab:a/1'>"
    "<host name='fd00::1' port='3261'/></source>"
    "<serial><![CDATA[58a84f6d-3f0c-4e19-a0af-eb657b790657]]></serial>"
    '<target bus="scsi" dev="sdb"/></disk>'
)


def _recorded() -> dict[str, tuple[str, str]]:
    """Read what libvirt wrote: by file, the definition round its one disk, and that disk."""
    found = {}
    for file in sorted(RECORDED.glob("*.xml")):
        text = file.read_text()
        start, end = text.index("<disk "), text.index("</disk>") + len("</disk>")
        found[file.stem] = (f"{text[:start]}{{disk}}{text[end:]}", text[start:end])
    return found


_RECORDED = _recorded()
DOMAINS = {
    "plain": PLAIN,
    "cloud": CLOUD,
    "hand": HAND,
    **{name: domain for name, (domain, _) in _RECORDED.items()},
}
DISKS = {
    "block": BLOCK_DISK,
    "network": NETWORK_DISK,
    "odd": ODD_DISK,
    **{name: disk for name, (_, disk) in _RECORDED.items()},
}


def domain_with(domain: str, disk: str) -> str:
    """Put a disk into a definition."""
    return domain.replace("{disk}", disk)
