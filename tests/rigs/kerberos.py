"""A real Kerberos KDC (MIT) on this machine, with a realm of its own; needs Debian's krb5-kdc and krb5-admin-server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.server import Server, is_free, start_on_free_ports, tail

REALM = "PSTT.TEST"
TOOLS = ("krb5kdc", "kdb5_util", "kadmin.local")


def kdc_tools() -> dict[str, str]:
    """Returns name → path of the programs of a KDC.

    Raises:
        RigMissing: One is not installed, or Python's gssapi is not.
    """
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    found = {tool: shutil.which(tool, path=path) for tool in TOOLS}
    if missing := [tool for tool, place in found.items() if place is None]:
        raise RigMissing("kerberos", f"apt-get install krb5-kdc krb5-admin-server: no {', '.join(missing)}")
    if find_spec("gssapi") is None:
        raise RigMissing("kerberos", "pip install -r requirements-kerberos.txt, which needs libkrb5-dev and a compiler")
    return {tool: str(place) for tool, place in found.items()}


class KerberosRig:
    """The KDC, from entering to leaving the block.

    Programs find it by `config`, the path for KRB5_CONFIG.
    """

    def __enter__(self) -> KerberosRig:
        self._tools = kdc_tools()
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-krb5-"))
        self.config = self._folder / "krb5.conf"
        self.config_without_kdc = self._folder / "no-kdc.conf"
        self._environ = {
            **os.environ,
            "KRB5_CONFIG": str(self.config),
            "KRB5_KDC_PROFILE": str(self._folder / "kdc.conf"),
        }
        try:
            start_on_free_ports(1, self._start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_server"):
            self._server.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def keytab(self, *principals: str) -> Path:
        """Makes principals, unless they are there, with new keys; returns the keytab with these keys."""
        file = self._folder / f"{'-'.join(principals).replace('/', '_')}.keytab"
        file.unlink(missing_ok=True)
        for principal in principals:
            self._kadmin(f"addprinc -randkey {principal}")
            self._kadmin(f"ktadd -k {file} {principal}")
        return file

    def _start(self, ports: list[int]) -> None:
        (port,) = ports
        self.config.write_text(self._krb5(port), encoding="utf-8")
        self.config_without_kdc.write_text(self._krb5(1), encoding="utf-8")
        (self._folder / "kdc.conf").write_text(
            f"[realms]\n {REALM} = {{\n  database_name = {self._folder}/principal\n  key_stash_file = {self._folder}/stash\n"
            f"  acl_file = {self._folder}/acl\n  kdc_ports = {port}\n  kdc_tcp_ports = {port}\n  max_life = 10h\n }}\n",
            encoding="utf-8",
        )
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "master-of-a-test")
        log = self._folder / "kdc.log"
        self._server = Server(
            [self._tools["krb5kdc"], "-n", "-r", REALM], folder=self._folder, log=log, environ=self._environ
        )
        end = time.monotonic() + 30
        while is_free(port):
            if not self._server.is_running or time.monotonic() > end:
                raise ServerFailed(f"krb5kdc did not start:\n{tail(log, 20)}")
            time.sleep(0.05)

    def _krb5(self, port: int) -> str:
        return (
            f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n rdns = false\n"
            " dns_canonicalize_hostname = false\n udp_preference_limit = 1\n"
            f"[realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
            f"[domain_realm]\n localhost = {REALM}\n"
        )

    def _kadmin(self, request: str) -> None:
        self._run("kadmin.local", "-r", REALM, "-q", request)

    def _run(self, tool: str, *words: str) -> None:
        done = subprocess.run(
            [self._tools[tool], *words], env=self._environ, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise ServerFailed(f"{tool}: {done.stdout}{done.stderr}")
