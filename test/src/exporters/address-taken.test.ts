/** The address of the NBD exporter is another program's: the start is refused, and nothing is changed. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { makeScratch } from "../faults/folders.js";
import { DoorHost, through } from "./door-host.js";
import { freePort } from "./iscsi-client.js";
import { liveMissing } from "./live-client.js";

/** Every file that a server keeps, with its content, but for disks; sockets by their names. */
function filesIn(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      if (!entry.isFile()) return path;
      const { size, mtimeMs } = statSync(path);
      return `${path} ${size > 1024 ** 2 ? mtimeMs : readFileSync(path).toString("base64")}`;
    })
    .sort();
}

describe("an address that is in use", { skip: liveMissing }, () => {
  it("is named when the server cannot listen there, and what it served stays", async () => {
    const scratch = makeScratch("at");
    const taker = createServer((socket) => socket.end("mine"));
    taker.listen(0, "127.0.0.1");
    await once(taker, "listening");
    const { port } = taker.address() as AddressInfo;
    try {
      const own = { exports: ["nbd"], nbd: { listen: `127.0.0.1:${await freePort()}` } } as const;
      let host = await DoorHost.open(scratch.path, own);
      const volumeID = await host.volume("raw");
      await host.add({ volumeID, type: "nbd", id: "n", writable: true });
      const unix = { volumeID, type: "nbd", transport: "unix" } as const;
      await assert.rejects(host.add(unix), { code: "failed-precondition" });
      await host.close();
      const kept = ["j", "root", "l"].map((name) => join(scratch.path, name));
      const before = kept.flatMap(filesIn);
      const listen = `127.0.0.1:${port}`;
      await assert.rejects(DoorHost.open(scratch.path, { exports: ["nbd"], nbd: { listen } }), {
        code: "failed-precondition",
        message: new RegExp(
          `NBD cannot be served on 127\\.0\\.0\\.1:${port}: .*EADDRINUSE.*; set another "listen"`,
        ),
      });
      assert.deepEqual(kept.flatMap(filesIn), before);
      const [answer] = (await once(connect(port, "127.0.0.1"), "data")) as [Buffer];
      assert.equal(String(answer), "mine", "it is still the other program's");
      host = await DoorHost.open(scratch.path, own);
      const [door] = await host.exports();
      assert.ok(door !== undefined);
      await through(door, "write -P 3 0 4k", "read -P 3 0 4k");
      await host.clear();
      await host.close();
    } finally {
      taker.close();
      await scratch.remove();
    }
  });
});
