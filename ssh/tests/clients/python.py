"""paramiko, asyncssh or libssh as a client: `python.py LIBRARY`.

Says its version, then does one job for each line that it reads and answers with one: `ok`, or `error`
and why. A line is `PORT KEY BYTES REKEY CIPHERS`: the relay's port on the loopback, the user's key,
how much goes through the channel and comes back, after how many bytes the client changes keys (0: as
the library likes), and the ciphers that it offers (-: all that the library has).

A job logs in, has a forward granted and echoes on the channel that comes of it, sends BYTES to a terminal
and compares what comes back, and runs a command that ends once both are done.
"""

import asyncio
import ctypes
import hashlib
import queue
import random
import sys
import threading
import warnings

PATIENCE = 15

# Old releases with the cryptography of today.
warnings.simplefilter("ignore")


class Job:
    def __init__(self, line):
        port, self.key, size, rekey, ciphers = line.split()
        self.port, self.size, self.rekey = int(port), int(size), int(rekey)
        self.ciphers = None if ciphers == "-" else ciphers
        self.data = random.randbytes(self.size)

    def came_back(self, data):
        if hashlib.sha256(data).digest() != hashlib.sha256(self.data).digest():
            raise ValueError(f"{len(data)} of {self.size} bytes came back, or others")

    @staticmethod
    def ran(status, out, err):
        if (status, out, err) != (3, b"after pty=false\r\n", b"this is stderr\r\n"):
            raise ValueError(f"the command ended as {status} with {out!r} and {err!r}")


def paramiko_client():
    import logging

    import paramiko

    # Tracebacks of what the answer says.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)

    def read(channel):
        parts = []
        while part := channel.recv(65536):
            parts.append(part)
        return b"".join(parts)

    def run(job):
        transport = paramiko.Transport(("127.0.0.1", job.port))
        try:
            # Every cipher that the library has, not only those that it likes.
            every = tuple(transport._cipher_info)
            transport.get_security_options().ciphers = job.ciphers.split(",") if job.ciphers else every
            transport.start_client(timeout=PATIENCE)
            transport.auth_publickey("alice", paramiko.PKey.from_path(job.key))
            forwarded = queue.Queue()
            transport.request_port_forward("localhost", 0, lambda channel, *_: forwarded.put(channel))
            terminal = transport.open_channel("direct-tcpip", ("kiosk-17", 22), ("127.0.0.1", 0))
            terminal.settimeout(PATIENCE)
            failed = []

            def send():
                try:
                    terminal.sendall(job.data)
                    terminal.shutdown_write()
                except Exception as error:
                    failed.append(error)

            sender = threading.Thread(target=send)
            sender.start()
            data = read(terminal)
            sender.join()
            if failed:
                raise failed[0]
            job.came_back(data)

            channel = forwarded.get(timeout=PATIENCE)
            channel.sendall(read(channel))
            channel.shutdown_write()

            command = transport.open_session(timeout=PATIENCE)
            command.settimeout(PATIENCE)
            command.exec_command("after")
            out, err = read(command), command.makefile_stderr("rb").read()
            job.ran(command.recv_exit_status(), out, err)
        finally:
            transport.close()

    return paramiko.__version__, run


def asyncssh_client():
    import asyncssh
    from asyncssh.encryption import get_encryption_algs

    async def echo(reader, writer):
        writer.write(await reader.read())
        await writer.drain()
        writer.close()

    async def everything(job):
        options = {"rekey_bytes": job.rekey} if job.rekey else {}
        every = [name.decode() for name in get_encryption_algs()]
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, asyncssh.connect(
            "127.0.0.1",
            job.port,
            username="alice",
            client_keys=[job.key],
            known_hosts=None,
            config=[],
            agent_path=None,
            encryption_algs=job.ciphers.split(",") if job.ciphers else every,
            **options,
        ) as connection:
            port = server.sockets[0].getsockname()[1]
            await connection.forward_remote_port("localhost", 0, "127.0.0.1", port)
            reader, writer = await connection.open_connection("kiosk-17", 22)

            async def send():
                for at in range(0, job.size, 65536):
                    writer.write(job.data[at : at + 65536])
                    await writer.drain()
                writer.write_eof()

            _, data = await asyncio.gather(send(), reader.read())
            job.came_back(data)
            done = await connection.run("after", encoding=None)
            job.ran(done.exit_status, done.stdout, done.stderr)

    def run(job):
        asyncio.run(asyncio.wait_for(everything(job), PATIENCE))

    return asyncssh.__version__, run


def libssh_client():
    lib = ctypes.CDLL("libssh.so.4")
    # enum ssh_options_e of libssh.h
    HOST, PORT, USER, TIMEOUT, TO_US, FROM_US, PROCESS_CONFIG, REKEY = 0, 1, 4, 9, 16, 15, 38, 39
    AGAIN, AUTH_SUCCESS = -2, 0
    pointer = ctypes.c_void_p
    for name in ("ssh_new", "ssh_channel_new", "ssh_channel_accept_forward"):
        getattr(lib, name).restype = pointer
    for name in ("ssh_get_error", "ssh_version"):
        getattr(lib, name).restype = ctypes.c_char_p

    def run(job):
        session = pointer(lib.ssh_new())

        def check(good, what):
            if not good:
                raise ValueError(f"{what}: {lib.ssh_get_error(session).decode(errors='replace')}")

        def number(option, value, kind=ctypes.c_int):
            check(lib.ssh_options_set(session, option, ctypes.byref(kind(value))) == 0, "option")

        def text(option, value):
            check(lib.ssh_options_set(session, option, value.encode()) == 0, "option")

        def some(channel, timeout, of_stderr=0):
            buffer = ctypes.create_string_buffer(65536)
            count = lib.ssh_channel_read_timeout(channel, buffer, 65536, of_stderr, timeout)
            check(count >= 0 or count == AGAIN, "read")
            return buffer.raw[: max(count, 0)]

        def rest(channel):
            # It is at its end once both streams are read.
            parts = [], []
            while not lib.ssh_channel_is_eof(channel):
                parts[0].append(some(channel, 100))
                parts[1].append(some(channel, 0, 1))
            return b"".join(parts[0]), b"".join(parts[1])

        def write(channel, data):
            while data:
                count = lib.ssh_channel_write(channel, data, len(data))
                check(count > 0, "write")
                data = data[count:]

        try:
            number(PROCESS_CONFIG, 0, ctypes.c_bool)
            text(HOST, "127.0.0.1")
            number(PORT, job.port, ctypes.c_uint)
            text(USER, "alice")
            number(TIMEOUT, PATIENCE, ctypes.c_long)
            if job.rekey:
                number(REKEY, job.rekey, ctypes.c_uint64)
            if job.ciphers:
                text(TO_US, job.ciphers)
                text(FROM_US, job.ciphers)
            check(lib.ssh_connect(session) == 0, "connect")
            key = pointer()
            read = lib.ssh_pki_import_privkey_file(job.key.encode(), None, None, None, ctypes.byref(key))
            check(read == 0, "key")
            check(lib.ssh_userauth_publickey(session, None, key) == AUTH_SUCCESS, "login")
            lib.ssh_key_free(key)

            port = ctypes.c_int()
            check(lib.ssh_channel_listen_forward(session, b"localhost", 0, ctypes.byref(port)) == 0, "forward")

            terminal = pointer(lib.ssh_channel_new(session))
            opened = lib.ssh_channel_open_forward(terminal, b"kiosk-17", 22, b"127.0.0.1", 0)
            check(opened == 0, "open")
            parts = []
            for at in range(0, job.size, 16384):
                write(terminal, job.data[at : at + 16384])
                while lib.ssh_channel_poll(terminal, 0) > 0:
                    parts.append(some(terminal, 0))
            lib.ssh_channel_send_eof(terminal)
            job.came_back(b"".join(parts) + rest(terminal)[0])

            channel = pointer(lib.ssh_channel_accept_forward(session, PATIENCE * 1000, None))
            check(channel, "accept")
            write(channel, rest(channel)[0])
            lib.ssh_channel_send_eof(channel)

            command = pointer(lib.ssh_channel_new(session))
            check(lib.ssh_channel_open_session(command) == 0, "open")
            check(lib.ssh_channel_request_exec(command, b"after") == 0, "exec")
            out, err = rest(command)
            job.ran(lib.ssh_channel_get_exit_status(command), out, err)
        finally:
            lib.ssh_disconnect(session)
            lib.ssh_free(session)

    return lib.ssh_version(0).decode().split("/")[0], run


def main():
    version, run = {
        "paramiko": paramiko_client,
        "asyncssh": asyncssh_client,
        "libssh": libssh_client,
    }[sys.argv[1]]()
    print(version, flush=True)
    for line in sys.stdin:
        try:
            run(Job(line))
            print("ok", flush=True)
        except Exception as error:
            print("error", type(error).__name__, " ".join(str(error).split()), flush=True)


main()
