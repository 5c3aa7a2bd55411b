/**
 * A server that answers each request of NBD with as many bytes as a read of 4 KiB gets, and does nothing else:
 * `node serve-echo.js [FOLDER]`, with TLS by the certificates in a folder. Prints its port when ready.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { BLOCK_BYTES, HEAD_BYTES, REPLY_MAGIC, REQUEST_BYTES } from "./nbd-reads.js";

function echo(socket: Socket): void {
  const request = Buffer.alloc(REQUEST_BYTES);
  let came = 0;
  socket.on("error", () => {});
  socket.on("data", (data) => {
    // One request at a time.
    data.copy(request, came);
    came += data.length;
    if (came < REQUEST_BYTES) return;
    came = 0;
    const answer = Buffer.alloc(HEAD_BYTES + BLOCK_BYTES);
    answer.writeUInt32BE(REPLY_MAGIC, 0);
    request.copy(answer, 8, 8, 16);
    socket.write(answer);
  });
}

const [, , folder] = process.argv;
const read = (name: string): Buffer => readFileSync(join(folder ?? "", name));
const server =
  folder === undefined
    ? createServer({ noDelay: true }, echo)
    : createTlsServer(
        {
          noDelay: true,
          cert: read("server.crt"),
          key: read("server.key"),
          ca: read("ca.crt"),
          requestCert: true,
        },
        echo,
      );
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => process.exit());
