"""A real sshd on the loopback interface, with keys and a configuration of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

NONE = "there is no sshd here (Debian: openssh-server)"


def find_sshd() -> str | None:
    """sshd insists on being called by its absolute path; it is rarely on a user's PATH."""
    return shutil.which("sshd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


class CannotServe(Exception):
    """sshd is here, and this user cannot run it."""


class SshServer:
    """Runs until :meth:`end`. ``ssh`` is the command that reaches it, and asks for nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = f"ssh -F {folder}/ssh_config"
        self.process: subprocess.Popen[bytes] | None = None
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        for _ in range(3):
            self.port = _free_port()
            self._configure()
            if self.start():
                return
        raise CannotServe((folder / "log").read_text())

    def _configure(self) -> None:
        f = self.folder
        (f / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {f}/host\nAuthorizedKeysFile {f}/authorized_keys\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nUseDNS no\nMaxStartups 100\n"
        )
        host_key = " ".join((f / "host.pub").read_text().split()[:2])
        (f / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        (f / "ssh_config").write_text(
            f"Host *\n Port {self.port}\n User {getpass.getuser()}\n IdentityFile {f}/user\n IdentitiesOnly yes\n"
            f" IdentityAgent none\n UserKnownHostsFile {f}/known_hosts\n GlobalKnownHostsFile /dev/null\n"
            " StrictHostKeyChecking yes\n PreferredAuthentications publickey\n"
        )

    def start(self) -> bool:
        """Starts it, once more after :meth:`stop`; whether it answers."""
        sshd = find_sshd()
        assert sshd is not None
        command = [sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
            # The folder that root's sshd wants is made by its service; here for itself alone.
            private = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"'
            command = ["unshare", "-m", "sh", "-c", private, "sh", *command]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    return connection.recv(4) == b"SSH-"
            except OSError:
                time.sleep(0.01)
        return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """No new connections; those that are there go on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(5)

    def url(self, path: Path | str) -> str:
        return f"ssh://127.0.0.1{path}"

    def end(self) -> None:
        """Ends it and the connections that it still has."""
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
