import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { Qmp } from "./qmp.js";

/** As the daemon of QEMU 7.2 sends it. */
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}\r\n';

interface Request {
  readonly execute: string;
  readonly id: number;
}

/** Something that speaks QMP. @param answer says what to send for a request */
async function withServer(
  greeting: string,
  answer: (request: Request, socket: Socket) => void,
  act: (path: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "qmp-"));
  const path = join(folder, "s");
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.write(greeting);
    let text = "";
    socket.on("data", (data) => {
      text += String(data);
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) answer(JSON.parse(line) as Request, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await act(path);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  }
}

const reply = (socket: Socket, id: number, value: unknown = {}): unknown =>
  socket.write(`${JSON.stringify({ return: value, id })}\r\n`);

it("agrees on the protocol, and gives each request its own answer", () =>
  withServer(
    GREETING,
    ({ execute, id }, socket) => {
      if (execute === "b")
        socket.write(
          `{"id": ${id}, "error": {"class": "GenericError", "desc": "Node q0 is in use"}}\r\n`,
        );
      else reply(socket, id, execute);
    },
    async (path) => {
      const qmp = await Qmp.connect(path);
      const failed = assert.rejects(qmp.execute("b"), { desc: "Node q0 is in use" });
      assert.deepEqual(await Promise.all([qmp.execute("a"), qmp.execute("c")]), ["a", "c"]);
      await failed;
      qmp.close();
    },
  ));

it("reads messages that come in pieces, several at once, and events before their reply", () =>
  withServer(
    GREETING,
    ({ execute, id }, socket) => {
      if (execute === "qmp_capabilities") reply(socket, id);
      else {
        const text = `{"event": "X", "data": {"id": "e1"}, "timestamp": {}}\r\n{"return": "dünn", "id": ${id}}\r\n`;
        const bytes = Buffer.from(text);
        // In the middle of a letter.
        const cut = text.indexOf("ü") + 1;
        socket.write(bytes.subarray(0, cut));
        setTimeout(() => socket.write(bytes.subarray(cut)), 10);
      }
    },
    async (path) => {
      const qmp = await Qmp.connect(path);
      const event = qmp.awaits(({ data }) => data["id"] === "e1", 1000);
      assert.equal(await qmp.execute("a"), "dünn");
      assert.equal(await event, true);
      assert.equal(await qmp.awaits(() => true, 10), false);
      qmp.close();
    },
  ));

it("does not wait for a greeting that never comes: one monitor serves one client", () =>
  withServer(
    "",
    () => {},
    async (path) => {
      await assert.rejects(Qmp.connect(path, 50), { code: "unavailable", message: /no greeting/ });
    },
  ));

it("says that nothing answers where nothing is", async () => {
  await assert.rejects(Qmp.connect("/nonexistent/s"), { code: "unavailable", message: /ENOENT/ });
});

it("a daemon that ends, hangs or stops to speak QMP leaves nobody waiting", () =>
  withServer(
    GREETING,
    ({ execute, id }, socket) => {
      if (execute === "qmp_capabilities") reply(socket, id);
      if (execute === "end") socket.destroy();
      if (execute === "babble") socket.write("{ no JSON\r\n");
    },
    async (path) => {
      for (const command of ["end", "babble"]) {
        const qmp = await Qmp.connect(path);
        await assert.rejects(qmp.execute(command), { code: "unavailable" });
        await qmp.closed;
        await assert.rejects(qmp.execute("later"), { code: "unavailable" });
        assert.equal(await qmp.awaits(() => true, 1000), false);
      }
      const qmp = await Qmp.connect(path);
      await assert.rejects(qmp.execute("hang", {}, 20), { code: "deadline-exceeded" });
      qmp.close();
    },
  ));
