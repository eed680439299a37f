"""Whether a folder lies on a network share, from the kernel's list of mounts as real machines show it."""

from __future__ import annotations

import pytest

from http_downloader.catalog.mounts import filesystem_of, is_network

SERVER = """\
22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
31 24 0:26 / /run rw,nosuid,nodev,size=804112k,mode=755 shared:5 - tmpfs tmpfs rw,size=804112k
98 24 0:45 / /srv/media rw,relatime shared:51 - nfs4 nas.local:/volume1/media rw,vers=4.2,rsize=1048576,proto=tcp
99 98 8:17 / /srv/media/local rw,relatime shared:53 - xfs /dev/sdb1 rw,attr2,inode64
101 24 0:47 / /mnt/win\\040share rw,relatime shared:57 - cifs //server/share rw,vers=3.1.1,cache=strict
102 24 0:48 / /home/me/far rw,nosuid,nodev,relatime shared:58 - fuse.sshfs me@host:/data rw,user_id=1000
103 24 0:49 / /mnt/old rw,relatime shared:59 - nfs nas.local:/old rw,vers=3
"""
CONTAINER = """\
703 609 0:62 / / rw,relatime master:310 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B
704 703 0:65 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
717 703 8:1 /var/lib/docker/volumes/data/_data /data rw,relatime master:1 - ext4 /dev/sda1 rw
718 703 0:99 /pictures /data/content rw,relatime - nfs4 10.0.0.2:/pictures rw,vers=4.1
"""
WSL = """\
70 61 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard
92 70 0:52 / /mnt/c rw,noatime - 9p C:\\134 rw,dirsync,aname=drvfs;path=C:\\;uid=1000;gid=1000;symlinkroot=/mnt/
"""
HIDDEN = """\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 24 8:17 / /data rw,relatime shared:2 - ext4 /dev/sdb1 rw
41 24 0:45 / /data rw,relatime shared:3 - nfs4 nas:/data rw
"""


@pytest.mark.parametrize(
    ("mounts", "path", "kind"),
    [
        (SERVER, "/var/lib/http-downloader", "ext4"),
        (SERVER, "/srv/media", "nfs4"),
        (SERVER, "/srv/media/downloads/deep", "nfs4"),
        (SERVER, "/srv/media/local/db", "xfs"),
        (SERVER, "/srv/mediation", "ext4"),  # not below it, only named alike
        (SERVER, "/mnt/win share/db", "cifs"),
        (SERVER, "/home/me/far", "fuse.sshfs"),
        (SERVER, "/mnt/old/x", "nfs"),
        (CONTAINER, "/data/runtime", "ext4"),
        (CONTAINER, "/data/content/x", "nfs4"),
        (CONTAINER, "/app", "overlay"),
        (WSL, "/mnt/c/Users/me", "9p"),
        (WSL, "/home/me", "ext4"),
        (HIDDEN, "/data/db", "nfs4"),  # the later mount at one place hides the earlier
        ("", "/data", None),
        ("nonsense\n\n1 2 3\n- - -", "/data", None),
    ],
)
def test_the_file_system_of_a_path(mounts: str, path: str, kind: str | None) -> None:
    """The mount that covers most of the path counts."""
    assert filesystem_of(mounts, path) == kind


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "ceph", "afs"]
)
def test_network_shares(kind: str) -> None:
    """These ask another machine."""
    assert is_network(kind)


@pytest.mark.parametrize(
    "kind",
    ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.ntfs-3g", "fuse.mergerfs", "virtiofs", ""],
)
def test_local_disks(kind: str) -> None:
    """These do not, nor may be what nobody knows."""
    assert not is_network(kind)
