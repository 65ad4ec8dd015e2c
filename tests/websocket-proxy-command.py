"""A ProxyCommand by a stock WebSocket library (Debian's python3-websockets), since Debian 12 has no
websocat: standard input and output are the bytes inside binary frames.

    ssh -o ProxyCommand='python3 websocket-proxy-command.py wss://RELAY:PORT/tidegate' alice@RELAY
"""

import asyncio
import os
import ssl
import sys

import websockets


async def main(url):
    # The relay's identity is its SSH host key, never its certificate.
    context = ssl._create_unverified_context() if url.startswith("wss:") else None
    async with websockets.connect(
        url, subprotocols=["ssh.tidegate.dev"], ssl=context, compression=None, max_size=None
    ) as socket:
        loop = asyncio.get_running_loop()

        async def up():
            while data := await loop.run_in_executor(None, os.read, 0, 65536):
                await socket.send(data)
            await socket.close()

        async def down():
            async for data in socket:
                while data:
                    data = data[os.write(1, data) :]

        going = asyncio.ensure_future(up())
        await down()
        going.cancel()
        # The thread in read() ends with the process alone.
        os._exit(0)


asyncio.run(main(sys.argv[1]))
