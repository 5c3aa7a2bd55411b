import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import type { AddressInfo } from "node:net";
import { rm } from "node:fs/promises";
import { after, before, beforeEach, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { ROUTES, StorageError } from "@libstorage/model";
import type { Task } from "@libstorage/model";
import { listen, makeFolder, startServer } from "./fixture.js";
import type { TestServer } from "./fixture.js";

const VM = { id: "vm", driver: "vfs", service: "" } as const;

function headerLines(raw: readonly string[], name: string): string[] {
  return raw.filter((_value, index) => index % 2 === 1 && raw[index - 1]?.toLowerCase() === name);
}

describe("the client over a Unix socket", () => {
  let server: TestServer;
  let client: Client;
  before(async () => {
    server = await startServer();
    client = openClient({ host: server.host });
  });
  after(async () => {
    client.close();
    await server.close();
  });
  beforeEach(() => {
    server.requests.length = 0;
    server.intercept = undefined;
  });

  it("has a method for every operation of the route table", () => {
    for (const operation of Object.keys(ROUTES))
      assert.equal(typeof client[operation as keyof Client], "function", operation);
  });

  it("takes a volume through its life", async () => {
    const volume = await client.volumeCreate({ service: "vfs" }, { name: "life", size: 2 }, {});
    const params = { service: "vfs", volumeID: volume.id };
    assert.equal(volume.name, "life");
    assert.equal(volume.size, 2);
    const context = { instanceIDs: [VM] };
    const attached = await client.volumeAttach(params, {}, context);
    assert.equal(
      attached.volume.attachments?.[0]?.deviceName,
      `${server.vfsRoot}/vol/${volume.id}`,
    );
    // A 205 whose body must not be lost.
    const detached = await client.volumeDetach(params, {}, context);
    assert.equal(detached?.id, volume.id);
    const snapshot = await client.volumeSnapshot(params, { snapshotName: "s" }, {});
    assert.equal(
      await client.snapshotRemove({ service: "vfs", snapshotID: snapshot.id }, undefined, {}),
      null,
    );
    assert.equal((await client.volumeExpand(params, { size: 3 }, {})).size, 3);
    assert.equal(await client.volumeRemove(params, undefined, {}), null);
    await assert.rejects(client.volumeInspect(params, undefined, {}), { code: "not-found" });
  });

  it("names ids and names in URLs whatever is in them", async () => {
    const name = "a b?c#d%e & ünï";
    const { id } = await client.volumeCreate({ service: "vfs" }, { name }, {});
    const found = await client.volumeInspect(
      { service: "vfs", volumeID: name, byName: true },
      undefined,
      {},
    );
    assert.equal(found.id, id);
    await client.volumeRemove({ service: "vfs", volumeID: id }, undefined, {});
    for (const volumeID of ["", ".", ".."])
      await assert.rejects(client.volumeInspect({ service: "vfs", volumeID }, undefined, {}), {
        code: "invalid-argument",
      });
  });

  it("sends ids and devices a line each, a transaction, and a key with writes only", async () => {
    const context = {
      instanceIDs: [VM, { id: "ü", driver: "mock", service: "mock" }],
      localDevices: [
        { driver: "vfs", deviceMap: { "/dev/xvda": "" } },
        { driver: "mock", deviceMap: {} },
      ],
    };
    await client.volumes({ attachments: 1 }, undefined, context);
    const raw = server.requests[0]?.rawHeaders ?? [];
    const utf8 = (text: string): string => Buffer.from(text, "latin1").toString("utf8");
    assert.deepEqual(headerLines(raw, "libstorage-instanceid").map(utf8), [
      "vfs=vm",
      "mock:mock=ü",
    ]);
    assert.deepEqual(headerLines(raw, "libstorage-localdevices"), ["vfs=/dev/xvda::", "mock="]);
    assert.match(headerLines(raw, "libstorage-tx")[0] ?? "", /^txID=[0-9a-f-]{36}, txCR=\d+$/);
    assert.deepEqual(headerLines(raw, "idempotency-key"), []);
    assert.deepEqual(headerLines(raw, "host"), ["libstorage-server"]);
    await client.volumeCreate({ service: "mock" }, { name: "k" }, {});
    assert.match(
      headerLines(server.requests[1]?.rawHeaders ?? [], "idempotency-key")[0] ?? "",
      /^[0-9a-f-]{36}$/,
    );
  });

  it("keeps what would begin another header out of headers", async () => {
    const evil = { id: "x\r\nAuthorization: y", driver: "vfs", service: "" };
    await assert.rejects(client.volumes({}, undefined, { instanceIDs: [evil] }), {
      code: "invalid-argument",
    });
    assert.equal(server.requests.length, 0);
  });

  it("leaves flags that are off out of the query", async () => {
    await assert.rejects(
      client.volumeInspect({ service: "vfs", volumeID: "x", byName: false }, undefined, {}),
    );
    assert.equal(server.requests[0]?.line, "GET /volumes/vfs/x");
  });

  it("gives errors as they were thrown: exact code, message, data", async () => {
    const { id } = await client.volumeCreate({ service: "vfs" }, { name: "held" }, {});
    const params = { service: "vfs", volumeID: id };
    await client.volumeAttach(params, {}, { instanceIDs: [VM] });
    const other = { instanceIDs: [{ ...VM, id: "other" }] };
    await assert.rejects(client.volumeAttach(params, {}, other), (error) => {
      assert.ok(error instanceof StorageError);
      assert.equal(error.code, "failed-precondition");
      assert.match(error.message, /attached to vm/);
      assert.equal(error.data["holder"], "vm");
      return true;
    });
    await client.volumeRemove({ ...params, force: true }, undefined, {});
  });

  it("says what the next step is when nobody is there", async () => {
    const gone = openClient({ host: `unix://${server.folder}/none.sock` });
    await assert.rejects(gone.services({}, undefined, {}), (error) => {
      assert.ok(error instanceof StorageError);
      assert.equal(error.code, "unavailable");
      assert.match(error.message, /none\.sock.*Is libstorage-server running\?/);
      return true;
    });
    const probe = createTcpServer();
    await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
    const { port } = probe.address() as AddressInfo;
    await new Promise((resolve) => probe.close(resolve));
    const refused = openClient({ host: `tcp://127.0.0.1:${port}` });
    await assert.rejects(refused.services({}, undefined, {}), {
      code: "unavailable",
      message: new RegExp(`tcp://127\\.0\\.0\\.1:${port}: nobody listens`),
    });
  });

  it("ends the waiting when its signal aborts", async () => {
    server.intercept = () => true;
    const ending = new AbortController();
    setTimeout(() => ending.abort(), 50);
    await assert.rejects(client.services({}, undefined, { signal: ending.signal }), {
      code: "cancelled",
    });
  });

  it("gives up when there is no answer in time", async () => {
    server.intercept = () => true;
    const hasty = openClient({ host: server.host, responseTimeoutMs: 100 });
    await assert.rejects(hasty.services({}, undefined, {}), { code: "deadline-exceeded" });
    hasty.close();
  });

  it("takes no more bytes than it was told to", async () => {
    const small = openClient({ host: server.host, maxResponseBytes: 200 });
    await assert.rejects(small.volumes({}, undefined, {}), { code: "resource-exhausted" });
    small.close();
  });

  it("refuses answers that are not the API's", async () => {
    const answers = ['{"vfs":{"v":{"id":5}}}', "<html>", "[]"];
    for (const answer of answers) {
      server.intercept = (_req, res) => {
        res.end(answer);
        return true;
      };
      await assert.rejects(client.volumes({}, undefined, {}), { code: "internal" }, answer);
    }
  });

  it("keeps members that it does not know", async () => {
    server.intercept = (_req, res) => {
      res.end('{"id":"v","name":"n","type":"","later":1}');
      return true;
    };
    const volume = await client.volumeInspect({ service: "vfs", volumeID: "v" }, undefined, {});
    assert.equal((volume as { later?: unknown }).later, 1);
  });

  it("names a route that the server does not know", async () => {
    server.intercept = (_req, res) => {
      res.writeHead(404, { "Content-Type": "text/plain" }).end("404 page not found\n");
      return true;
    };
    await assert.rejects(client.health({}, undefined, {}), { code: "unimplemented" });
  });

  it("follows no redirect", async () => {
    server.intercept = (_req, res) => {
      res.writeHead(301, { Location: "http://127.0.0.1:1/" }).end();
      return true;
    };
    await assert.rejects(client.services({}, undefined, {}), /status 301/);
  });

  it("downloads an executor", async () => {
    const { "lsx-linux": info } = await client.executors({}, undefined, {});
    const bytes = await client.executorGet({ executor: "lsx-linux" }, {});
    assert.equal(bytes.length, info?.size);
    await assert.rejects(client.executorGet({ executor: "lsx-beos" }, {}), { code: "not-found" });
  });
});

describe("tasks that outlast their request", () => {
  let server: TestServer;
  let client: Client;
  before(async () => {
    server = await startServer({
      mockDelayMs: 600,
      config: "    tasks:\n      exeTimeout: 100ms\n",
    });
    client = openClient({ host: server.host });
  });
  after(async () => {
    client.close();
    await server.close();
  });

  it("waits on after a 408 and tells of the progress", async () => {
    const seen: Task[] = [];
    const volume = await client.volumeCopy(
      { service: "mock", volumeID: "vol-000" },
      { volumeName: "slow" },
      { onTask: (task) => seen.push(task) },
    );
    assert.equal(volume.name, "slow");
    assert.ok(seen.length >= 2, `${seen.length} tellings`);
    assert.equal(seen.at(-1)?.state, "success");
    assert.equal(seen.at(-1)?.operation, "volumeCopy");
  });

  it("resolves an asynchronous call to what the synchronous one answers", async () => {
    const seen: Task[] = [];
    const context = { async: true, onTask: (task: Task) => seen.push(task) };
    const body = { volumeName: "later" };
    const copy = await client.volumeCopy({ service: "mock", volumeID: "vol-001" }, body, context);
    assert.equal(copy.name, "later");
    assert.notEqual(seen[0]?.state, "success");
    const params = { service: "mock", volumeID: copy.id };
    assert.equal(await client.volumeRemove(params, undefined, context), null);
  });

  it("gives the exact error of a task", async () => {
    const params = { service: "mock", volumeID: "vol-000" };
    const ids = (id: string) => ({ instanceIDs: [{ id, driver: "mock", service: "" }] });
    await client.volumeAttach(params, { nextDeviceName: "/dev/xvde" }, ids("one"));
    await assert.rejects(client.volumeRemove(params, undefined, { async: true }), {
      code: "failed-precondition",
    });
  });

  it("names the task that goes on when the waiting is ended, which can be cancelled", async () => {
    const ending = new AbortController();
    let id = -1;
    const call = client.volumeCopy(
      { service: "mock", volumeID: "vol-002" },
      { volumeName: "never" },
      {
        async: true,
        signal: ending.signal,
        onTask: (task) => {
          id = task.id;
          ending.abort();
        },
      },
    );
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof StorageError);
      assert.equal(error.code, "cancelled");
      assert.equal(error.data["task"], id);
      return true;
    });
    await client.taskCancel({ taskID: String(id) }, undefined, {});
    const names = Object.values(
      await client.volumesByService({ service: "mock" }, undefined, {}),
    ).map(({ name }) => name);
    assert.ok(!names.includes("never"));
  });
});

describe("connections that break", () => {
  let server: TestServer;
  let client: Client;
  before(async () => {
    server = await startServer();
    client = openClient({ host: server.host });
  });
  after(async () => {
    client.close();
    await server.close();
  });

  it("repeats a write whose answer was lost, and the work is done once", async () => {
    let lost = 0;
    server.intercept = (req, res) => {
      if (req.method !== "POST" || lost > 1) return false;
      lost += 1;
      // The work is done; its answer never arrives.
      const end = res.end.bind(res);
      res.writeHead = () => res;
      res.end = () => {
        req.socket.destroy();
        void end;
        return res;
      };
      return false;
    };
    const volume = await client.volumeCreate({ service: "vfs" }, { name: "once" }, {});
    server.intercept = undefined;
    assert.equal(lost, 2);
    const all = await client.volumesByService({ service: "vfs" }, undefined, {});
    const named = Object.values(all).filter(({ name }) => name === "once");
    assert.deepEqual(
      named.map(({ id }) => id),
      [volume.id],
    );
  });

  it("repeats nothing at a server that does not know keys", async () => {
    let posts = 0;
    const old = createServer((req, res) => {
      if (req.method === "POST") {
        posts += 1;
        req.socket.destroy();
      } else res.writeHead(404).end("404 page not found\n");
    });
    const host = await listen(old);
    const other = openClient({ host });
    await assert.rejects(other.volumeCreate({ service: "vfs" }, { name: "x" }, {}), {
      code: "unavailable",
    });
    assert.equal(posts, 1);
    other.close();
    old.close();
  });

  it("repeats a read at once", async () => {
    let cut = 0;
    server.intercept = (req) => {
      if (cut === 3) return false;
      cut += 1;
      req.socket.destroy();
      return true;
    };
    assert.ok("vfs" in (await client.services({}, undefined, {})));
    server.intercept = undefined;
    assert.equal(cut, 3);
  });

  it("takes up with a server that comes back", async () => {
    const folder = await makeFolder();
    const answer = createServer((_req, res) => res.end('{"vfs":{}}'));
    const first = createServer((req) => {
      req.socket.destroy();
      first.close(() => {
        setTimeout(() => void listen(answer, `${folder}/s.sock`), 300);
      });
    });
    const host = await listen(first, `${folder}/s.sock`);
    const patient = openClient({ host });
    assert.deepEqual(await patient.volumes({}, undefined, {}), { vfs: {} });
    patient.close();
    answer.close();
    await rm(folder, { recursive: true });
  });

  it("explains a server that does not speak HTTP", async () => {
    const strange = createTcpServer((socket) => socket.end("SSH-2.0-x\r\n"));
    await new Promise<void>((resolve) => strange.listen(0, "127.0.0.1", resolve));
    const { port } = strange.address() as AddressInfo;
    const other = openClient({ host: `tcp://127.0.0.1:${port}`, repeatMs: 0 });
    await assert.rejects(other.services({}, undefined, {}), { code: "unavailable" });
    strange.close();
  });
});

describe("events", () => {
  it("come as they happen, and those that were missed while the connection was away", async () => {
    const server = await startServer();
    const client = openClient({ host: server.host });
    const ending = new AbortController();
    const breaks: string[] = [];
    const events = client.events({
      service: "vfs",
      lastEventID: 0,
      signal: ending.signal,
      onBreak: ({ code }) => breaks.push(code),
    });
    const names = ["e1", "e2", "e3"];
    const seen: (string | undefined)[] = [];
    for (const name of names) {
      const { id } = await client.volumeCreate({ service: "vfs" }, { name }, {});
      const { value } = await events.next();
      assert.ok(value);
      assert.equal(value.operation, "volumeCreate");
      seen.push(value.volumeID);
      assert.equal(value.volumeID, id);
      // Every connection of the stream is cut; it comes back by itself.
      if (name === "e1") server.cut();
    }
    assert.equal(new Set(seen).size, 3);
    ending.abort();
    assert.equal((await events.next()).done, true);
    client.close();
    await server.close();
  });
});
