"""An SFTP server on a free port of 127.0.0.1 of a limited speed; prints its port.

Run: python tests/sftp.py FOLDER PASSWORD BYTES_PER_SECOND
"""

import asyncio
import sys
from typing import Any

import asyncssh

USER = "dvc"


class Login(asyncssh.SSHServer):
    """One user, with a password."""

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, sys.argv[2])


class Files(asyncssh.SFTPServer):
    """The files of a folder, read and written slowly."""

    def __init__(self, chan: asyncssh.SSHServerChannel) -> None:
        super().__init__(chan, chroot=sys.argv[1].encode())

    async def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        await asyncio.sleep(len(data) / float(sys.argv[3]))
        return super().write(file_obj, offset, data)

    async def read(self, file_obj: object, offset: int, size: int) -> Any:
        await asyncio.sleep(size / float(sys.argv[3]))
        return super().read(file_obj, offset, size)


async def serve() -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        server_factory=Login,
        sftp_factory=Files,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve())
