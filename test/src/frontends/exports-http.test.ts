/** Exports that are added, changed and removed over HTTP, of real storage daemons. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, afterEach, before, describe, it } from "node:test";
import type { Export } from "@libstorage/model";
import { EXPORTERS } from "@libstorage/server";
import { Client, until } from "../exporters/client.js";
import { opens, through } from "../exporters/door-host.js";
import { liveMissing } from "../exporters/live-client.js";
import { startRest } from "./rest-server.js";
import type { Answer, RestServer } from "./rest-server.js";

const skip = liveMissing || (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

const CONFIG = `
libstorage:
  server:
    services:
      disks:
        driver: image
        image: {root: ROOT/root, format: qcow2}
        exports: [nbd, fuse]
        nbd: {listen: "127.0.0.1:0", daemonFolder: ROOT/q}
        fuse: {daemonFolder: ROOT/q}
      plain: {driver: mock, mock: {seed: false}}
`;

const NONE = "no-such";

describe("exports over HTTP", { skip }, () => {
  let server: RestServer;
  let volumeID: string;

  before(async () => {
    server = await startRest(CONFIG, { exporters: EXPORTERS });
    const made = await server.ask("POST", "/volumes/disks", { body: { name: "v", size: 1 } });
    assert.equal(made.status, 201, made.text);
    volumeID = made.json<{ id: string }>().id;
  });
  afterEach(async () => {
    for (const { id = "" } of await exports()) await remove(id, "hard");
  });
  after(async () => {
    await server.ask("DELETE", `/volumes/disks/${volumeID}?force`);
    await server.close();
  });

  const exports = async (): Promise<readonly Export[]> =>
    (await server.ask("GET", "/exports/disks")).json<Export[]>();
  const add = (body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Answer> =>
    server.ask("POST", "/exports/disks", { body, headers });
  const update = (id: string, body: unknown): Promise<Answer> =>
    server.ask("POST", `/exports/disks/${id}`, { body });
  const remove = (id: string, mode?: string, headers = {}): Promise<Answer> => {
    const query = mode === undefined ? "" : `?mode=${mode}`;
    return server.ask("DELETE", `/exports/disks/${id}${query}`, { headers });
  };
  const added = async (body: object): Promise<Export> => {
    const answer = await add({ volumeID, type: "nbd", writable: true, ...body });
    assert.equal(answer.status, 201, answer.text);
    return answer.json<Export>();
  };
  function refused(answer: Answer, status: number, message: RegExp): void {
    assert.equal(answer.status, status, answer.text);
    const body = answer.json<{ message: string; status: number }>();
    assert.equal(body.status, status);
    assert.match(body.message, message);
  }
  /** A client that is connected, and one that would like to be. */
  async function connected(door: Export): Promise<Client> {
    const client = new Client(door.deviceName);
    await client.says("write -P 5 0 4k", /wrote 4096/);
    return client;
  }

  it("are added, inspected, listed, used, and removed when nobody uses them", async () => {
    const door = await added({ id: "one", description: "for a test" });
    assert.equal(door.id, "one");
    assert.equal(door.volumeID, volumeID);
    assert.equal(door.exporter, "nbd");
    assert.equal(door.writable, true);
    assert.match(door.deviceName, /^nbd:\/\/127\.0\.0\.1:\d+\//);
    await through(door, "write -P 4 0 4k", "read -P 4 0 4k");
    await until("its client is gone", async () => {
      const [listed] = await exports();
      return listed?.sessions.length === 0;
    });
    assert.deepEqual(await exports(), [door]);
    const inspected = await server.ask("GET", "/exports/disks/one");
    assert.equal(inspected.status, 200);
    assert.deepEqual(inspected.json(), door);
    const removed = await remove("one");
    assert.deepEqual([removed.status, removed.json()], [200, null]);
    assert.equal((await server.ask("GET", "/exports/disks/one")).status, 404);
    assert.equal(await opens(door.deviceName), false);
  });

  it("with a bad body are refused in clear words, and nothing changes", async () => {
    const BODIES: readonly (readonly [body: unknown, status: number, message: RegExp])[] = [
      ["{", 400, /JSON/],
      ["[]", 400, /object|body/i],
      [{}, 400, /volumeID/],
      [{ volumeID, type: "iscsi" }, 400, /type/],
      [{ volumeID, type: "nbd", writable: "yes" }, 400, /writable/],
      [{ volumeID, type: "nbd", id: "1st" }, 400, /id.*must begin with a letter/],
      [{ volumeID, type: "nbd", colour: "red" }, 400, /colour/],
      [{ volumeID, type: "nbd", throttle: { bpsTotal: -1 } }, 400, /bpsTotal.*negative/],
      [{ volumeID, type: "nbd", growable: true }, 400, /growable/],
      [{ volumeID, type: "fuse", path: "/etc/passwd" }, 400, /\/etc\/passwd/],
      [{ volumeID: NONE, type: "nbd" }, 404, /volume.*no-such/],
      [
        { volumeID, type: "vhost-user-blk" },
        412,
        /service disks has only nbd and fuse; add vhost-user-blk/,
      ],
      ["x".repeat(20 * 1024 ** 2), 413, /large|more than/],
    ];
    for (const [body, status, message] of BODIES) {
      refused(await add(body), status, message);
      assert.deepEqual(await exports(), []);
    }
    const body = { volumeID, type: "nbd" };
    refused(await server.ask("POST", `/exports/${NONE}`, { body }), 404, /service.*no-such/);
  });

  it("that are in the way of another one are named", async () => {
    const door = await added({ id: "one" });
    refused(await add({ volumeID, type: "nbd", id: "one" }), 409, /one/);
    refused(
      await add({ volumeID, type: "fuse" }),
      412,
      new RegExp(`volume ${volumeID}.*exported as one since.*;`),
    );
    assert.deepEqual(await exports(), [door]);
  });

  it("are changed while in use; what is wrong or unknown changes nothing", async () => {
    const door = await added({ id: "one" });
    const client = await connected(door);
    const changed = await update("one", { throttle: { iopsTotal: 900 }, maxConnections: 1 });
    assert.equal(changed.status, 200, changed.text);
    assert.equal(changed.json<Export>().id, "one");
    assert.equal(await opens(door.deviceName), false, "one is connected already");
    const listed = await exports();
    for (const [body, message] of [
      ["{", /JSON/],
      [{ writable: false }, /writable/],
      [{ maxConnections: 1.5 }, /maxConnections.*whole number/],
      [{ throttle: { bpsTotal: 5, bpsRead: 5 } }, /throttle.*total together/],
    ] as const)
      refused(await update("one", body), 400, message);
    refused(await update(NONE, { maxConnections: 2 }), 404, /export.*no-such/);
    assert.deepEqual(await exports(), listed);
    await client.says("write -P 6 0 4k", /wrote 4096/);
    await client.end();
  });

  it("of an id or a mode that is not known are not removed", async () => {
    const door = await added({ id: "one" });
    for (const mode of ["safe", "hard", "hide", "soft"])
      refused(await remove(NONE, mode), 404, /export.*no-such/);
    refused(await remove("one", "gently"), 400, /gently.*safe.*hard.*hide.*soft/);
    assert.deepEqual(await exports(), [door]);
  });

  it("with mode=safe stay while they are used, with the user's name and what to do", async () => {
    const client = await connected(await added({ id: "one" }));
    for (const mode of [undefined, "safe"])
      refused(await remove("one", mode), 412, /one.*a client at 127\.0\.0\.1.*;.*hard/);
    await client.says("write -P 6 0 4k", /wrote 4096/);
    await client.end();
  });

  it("with mode=hard go whoever uses them", async () => {
    const client = await connected(await added({ id: "one" }));
    const removed = await remove("one", "hard");
    assert.deepEqual([removed.status, removed.json()], [200, null]);
    await client.says("write -P 6 0 4k", /failed/);
    await client.end();
    assert.deepEqual(await exports(), []);
    refused(await remove("one", "hard"), 404, /export.*one/);
  });

  it("with mode=hide are gone for new clients, and for all with the last one", async () => {
    const door = await added({ id: "one" });
    const client = await connected(door);
    const hidden = await remove("one", "hide");
    assert.equal(hidden.status, 200, hidden.text);
    assert.equal(hidden.json<Export>().state, "hidden");
    assert.equal(await opens(door.deviceName), false);
    await client.says("write -P 6 0 4k", /wrote 4096/);
    await client.end();
    await until("it is gone", async () => (await exports()).length === 0);
  });

  it("with mode=soft take no request any more", async () => {
    const door = await added({ id: "one" });
    const client = await connected(door);
    const soft = await remove("one", "soft");
    assert.equal(soft.status, 200, soft.text);
    assert.equal(soft.json<Export>().state, "shutdown");
    assert.equal(await opens(door.deviceName), false);
    await client.says("write -P 6 0 4k", /failed/);
    await client.end();
    await until("it is gone", async () => (await exports()).length === 0);
  });

  it("that are asked for again with the same Idempotency-Key are answered as before", async () => {
    const headers = { "Idempotency-Key": "add-once" };
    const body = { volumeID, type: "nbd", writable: true };
    const [first, again] = [await add(body, headers), await add(body, headers)];
    assert.equal(first.status, 201);
    assert.deepEqual([again.status, again.json()], [201, first.json()]);
    const { id = "" } = first.json<Export>();
    assert.deepEqual(
      (await exports()).map((one) => one.id),
      [id],
    );
    refused(await add({ ...body, id: "other" }, headers), 400, /Idempotency-Key|idempotency/i);
    const client = await connected(first.json<Export>());
    const once = (mode: string) => remove(id, mode, { "Idempotency-Key": `${mode}-once` });
    const hidden = await once("hide");
    assert.equal(hidden.json<Export>().state, "hidden");
    await client.end();
    await until("it is gone", async () => (await exports()).length === 0);
    const repeat = (await once("hide")).json<Export>();
    assert.deepEqual(repeat, { ...hidden.json<Export>(), sessions: [] });
    refused(await once("safe"), 404, /not found/);
    await added({ id: "one" });
    const safely = { "Idempotency-Key": "remove" };
    const changed = { "Idempotency-Key": "update" };
    const change = () =>
      server.ask("POST", "/exports/disks/one", { body: { maxConnections: 3 }, headers: changed });
    const [update1, removed] = [await change(), await remove("one", "safe", safely)];
    assert.deepEqual([removed.status, removed.json()], [200, null]);
    for (const [answer, repeat] of [
      [update1, await change()],
      [removed, await remove("one", "safe", safely)],
    ] as const)
      assert.deepEqual([repeat.status, repeat.text], [200, answer.text]);
    refused(await remove("one", "hard", safely), 400, /idempotency key/);
    assert.equal((await remove("one")).status, 404);
  });
});
