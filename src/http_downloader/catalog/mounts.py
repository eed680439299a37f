"""Whether a folder lies on a network share, where SQLite's locks and its shared memory cannot be relied on."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_SHARES = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncp", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "smb", "smb2", "smb3", "smbfs",
}  # fmt: skip
_FUSE_SHARES = {
    "sshfs", "glusterfs", "ceph", "ceph-fuse", "s3fs", "goofys", "gcsfuse", "rclone", "davfs", "davfs2", "curlftpfs", "juicefs",
    "seaweedfs", "mfs", "moosefs", "lizardfs", "beegfs", "smbnetfs", "nfs", "grpcfuse", "osxfs", "blobfuse", "blobfuse2",
}  # fmt: skip
"""After `fuse.`: the programs that speak to another machine."""

MOUNTINFO = Path("/proc/self/mountinfo")


def network_share(folder: Path) -> str | None:
    """The type of the network file system that a folder lies on; None for a local one, and where nobody can tell."""
    try:
        text = MOUNTINFO.read_text(errors="replace")
    except OSError:  # not Linux
        return None
    kind = filesystem_of(text, str(folder.resolve()))
    return kind if kind is not None and is_network(kind) else None


def filesystem_of(mountinfo: str, path: str) -> str | None:
    """The type of the file system that holds an absolute path: of the mount that covers most of it, the last such.

    `mountinfo`: as in proc_pid_mountinfo(5).
    """
    best, depth = None, -1
    wanted = PurePosixPath(path)
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        place, kind = fields.split(" ")[4:5], rest.split(" ")[:1]
        if not place or not kind:
            continue
        point = PurePosixPath(_unescaped(place[0]))
        if len(point.parts) >= depth and wanted.is_relative_to(point):
            best, depth = kind[0], len(point.parts)  # a later mount at the same place hides the earlier one
    return best


def is_network(kind: str) -> bool:
    family, _, program = kind.lower().partition(".")
    return family in _SHARES or (family in ("fuse", "fuseblk") and program in _FUSE_SHARES)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
