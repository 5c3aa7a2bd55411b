import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MountRecord } from "../executor/executor.js";
import { serverOf, whileThere } from "./nfs-server.js";

const RECORD: MountRecord = {
  id: 1,
  parent: 0,
  major: 0,
  minor: 50,
  root: "/",
  mountPoint: "/mnt",
  opts: "rw,relatime",
  optional: "",
  fsType: "nfs4",
  source: "storage:/vol",
  vfsOpts: "rw,vers=4.2,hard,proto=tcp,clientaddr=10.99.0.2,local_lock=none,addr=10.99.0.1",
};
const free = new AbortController().signal;

async function listening(): Promise<{ port: number; close: () => void }> {
  const server = createServer((socket) => socket.on("error", () => {}).resume());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}

describe("the server of an NFS mount", () => {
  it("is what the kernel says, or what the mount names", () => {
    assert.deepEqual(serverOf(RECORD), { host: "10.99.0.1", port: 2049 });
    const other = { ...RECORD, vfsOpts: "rw,port=20490,addr=fd00::1" };
    assert.deepEqual(serverOf(other), { host: "fd00::1", port: 20490 });
    assert.deepEqual(serverOf({ ...RECORD, vfsOpts: "rw" }), { host: "storage", port: 2049 });
    const bracketed = { ...RECORD, source: "[fd00::2]:/vol", vfsOpts: "rw" };
    assert.deepEqual(serverOf(bracketed), { host: "fd00::2", port: 2049 });
  });

  it("is waited for as long as it is there", async () => {
    const { port, close } = await listening();
    try {
      const server = { host: "127.0.0.1", port };
      const slow = async (signal: AbortSignal): Promise<string> => {
        await sleep(2_500, undefined, { signal });
        return "done";
      };
      // Longer than it may be away.
      assert.equal(await whileThere(server, 1_000, free, slow), "done");
    } finally {
      close();
    }
  });

  it("is given up when it has been away for so long, and not before", async () => {
    const { port, close } = await listening();
    close();
    const began = performance.now();
    const forever = (signal: AbortSignal): Promise<unknown> => sleep(60_000, "done", { signal });
    const server = { host: "127.0.0.1", port };
    assert.equal(await whileThere(server, 1_500, free, forever), undefined);
    assert.ok(performance.now() - began >= 1_500);
  });

  it("is no reason to hide a failure, nor the end of the request", async () => {
    const { port, close } = await listening();
    try {
      const server = { host: "127.0.0.1", port };
      const fails = (): Promise<never> => Promise.reject(new Error("it failed"));
      await assert.rejects(whileThere(server, 60_000, free, fails), /it failed/);
      const over = new AbortController();
      const waits = whileThere(server, 60_000, over.signal, (signal) =>
        sleep(60_000, undefined, { signal }),
      );
      over.abort(new Error("enough"));
      await assert.rejects(waits, { name: "AbortError" });
    } finally {
      close();
    }
  });
});
