/** `?revert` and `?update`: a volume that goes back, and a record that changes. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

interface Volume {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly iops?: number;
  readonly fields?: Readonly<Record<string, string>>;
}

const HOST = { "Libstorage-Instanceid": "mock=host-a" };

describe("volumes that go back, and records that change, over REST", () => {
  let server: RestServer;
  let id: string;
  let snapshotID: string;

  const make = async (name: string): Promise<string> =>
    (await server.ask("POST", "/volumes/one", { body: { name, size: 2 } })).json<Volume>().id;
  const snap = async (volumeID: string): Promise<string> => {
    const path = `/volumes/one/${volumeID}?snapshot`;
    return (await server.ask("POST", path, { body: { snapshotName: "s" } })).json<Volume>().id;
  };
  const post = (action: string, body: object, headers = {}) =>
    server.ask("POST", `/volumes/one/${id}?${action}`, { body, headers });

  before(async () => {
    server = await startRest(mocks());
    id = await make("web");
    snapshotID = await snap(id);
  });
  after(() => server.close());

  it("a revert answers the volume, and all snapshots stay", async () => {
    const answer = await post("revert", { snapshotID });
    assert.equal(answer.status, 200);
    assert.equal(answer.json<Volume>().name, "web");
    assert.equal((await server.ask("GET", `/snapshots/one/${snapshotID}`)).status, 200);
  });

  it("a revert is told to those who follow the events, and is a task", async () => {
    const answer = await server.ask("POST", `/volumes/one/${id}?revert&async`, {
      body: { snapshotID },
    });
    assert.equal(answer.status, 202);
    assert.equal(answer.json<{ operation: string }>().operation, "volumeRevert");
  });

  it("a repeated key answers the first answer", async () => {
    const headers = { "Idempotency-Key": "k1" };
    const first = await post("revert", { snapshotID }, headers);
    const again = await post("revert", { snapshotID }, headers);
    assert.equal(again.text, first.text);
    const other = await post("revert", { snapshotID: "snap-999" }, headers);
    assert.equal(other.status, 400);
  });

  it("a revert to another volume's snapshot, to none or without one is refused", async () => {
    const other = await snap(await make("other"));
    const wrong = await post("revert", { snapshotID: other });
    assert.equal(wrong.status, 400);
    assert.match(wrong.json<{ message: string }>().message, /which is one of volume vol-/);
    assert.equal((await post("revert", { snapshotID: "snap-999" })).status, 404);
    assert.equal((await post("revert", {})).status, 400);
    assert.equal((await post("revert", { snapshot: snapshotID })).status, 400);
  });

  it("a revert of what is attached is refused, with the holder's name", async () => {
    await post("attach", {}, HOST);
    const answer = await post("revert", { snapshotID });
    assert.equal(answer.status, 412);
    assert.match(answer.json<{ message: string }>().message, /attached to host-a/);
    await post("detach", {}, HOST);
  });

  it("an update changes what is named, and leaves the rest, while the volume is in use", async () => {
    await post("attach", {}, HOST);
    const first = await post("update", { fields: { Owner: "me", ticket: "1" }, iops: 7 });
    assert.equal(first.status, 200);
    assert.deepEqual(first.json<Volume>().fields, { owner: "me", ticket: "1" });
    const second = await post("update", { name: "web2", fields: { ticket: null } });
    const { name, fields, iops } = second.json<Volume>();
    assert.deepEqual({ name, fields, iops }, { name: "web2", fields: { owner: "me" }, iops: 7 });
    const masked = await server.ask("GET", `/volumes/one/${id}?attachments=1`);
    assert.equal(masked.json<{ attachments: unknown[] }>().attachments.length, 1);
    await post("detach", {}, HOST);
  });

  it("an update that changes nothing is fine, and one of what cannot be is refused", async () => {
    assert.equal((await post("update", {})).status, 200);
    assert.equal((await post("update", { size: 9 })).status, 400);
    assert.equal((await post("update", { name: "a/../b" })).status, 400);
    assert.equal((await post("update", { fields: { a: 1 } })).status, 400);
    assert.equal((await post("update", { fields: { a: "x".repeat(4097) } })).status, 400);
  });

  it("a service says what it can", async () => {
    const info = (await server.ask("GET", "/services/one?abilities")).json<{
      abilities: string[];
      mutable: string[];
    }>();
    assert.ok(info.abilities.includes("revert"));
    assert.deepEqual(info.mutable, ["name", "type", "iops", "fields"]);
  });
});
