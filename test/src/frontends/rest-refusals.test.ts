/** Requests whose answer would be read wrongly, or not at all, later on. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

describe("the REST front-end refuses", () => {
  let server: RestServer;

  before(async () => {
    server = await startRest(mocks());
  });
  after(() => server.close());

  const create = async (body: unknown): Promise<readonly [status: number, message: string]> => {
    const answer = await server.ask("POST", "/volumes/one", { body });
    return [answer.status, answer.json<{ message?: string }>().message ?? ""];
  };

  it("metadata of an instance ID that could be read but never written", async () => {
    const deep = Buffer.from(`${"[".repeat(5_000)}${"]".repeat(5_000)}`).toString("base64");
    const headers = { "Libstorage-Instanceid": `mock=host-a,,${deep}` };
    const path = "/volumes/one/vol-000?attach";
    const answer = await server.ask("POST", path, { headers, body: { nextDeviceName: "/dev/a" } });
    assert.equal(answer.status, 400);
    assert.match(answer.json<{ message: string }>().message, /nested deeper than 64 levels/);
  });

  it("opts that are a list", async () => {
    assert.deepEqual(await create({ name: "a", opts: [] }), [
      400,
      "invalid request body: /opts must be of type object",
    ]);
  });

  it("a byte order mark before the JSON", async () => {
    const [status, message] = await create('\ufeff{"name":"a"}');
    assert.equal(status, 400);
    assert.match(message, /not JSON/);
  });

  it("names that climb, and no other dots", async () => {
    for (const name of ["..", "../a", "a/../../b", "a/.."])
      assert.deepEqual(await create({ name }), [
        400,
        'invalid request body: /name must not have ".." as a part of it',
      ]);
    for (const name of ["a..b", "...", "a/.b"]) assert.equal((await create({ name }))[0], 201);
  });

  it("fields that are too long in all, also when a copy adds to its source's", async () => {
    const opts = (key: string) => ({ [key]: "x".repeat(40_000) });
    assert.equal((await create({ name: "a", opts: { a: "x".repeat(70_000) } }))[0], 400);
    const made = await server.ask("POST", "/volumes/one", {
      body: { name: "a", opts: opts("owner") },
    });
    assert.equal(made.status, 201);
    const { id } = made.json<{ id: string }>();
    const copy = await server.ask("POST", `/volumes/one/${id}?copy`, {
      body: { volumeName: "b", opts: opts("priority") },
    });
    assert.equal(copy.status, 400);
    assert.match(copy.json<{ message: string }>().message, /bytes in all, and may have 65536/);
  });
});
